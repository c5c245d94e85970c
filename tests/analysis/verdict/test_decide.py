from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.armstore import CLAIM, SPACE, Stable, also, block, declared, share, table
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.labels import OUTCOME_VERSION
from vistudy.analysis.tables.formatting import p_equals
from vistudy.analysis.verdict.decide import decide
from vistudy.analysis.verdict.decision import Decision
from vistudy.analysis.verdict.results import (
    DESCRIPTIVE,
    HARMS,
    INCONCLUSIVE,
    MORE,
    NEGATIVE,
    PLACEBO,
    REFUSED,
    SLOWER,
    SUPPORTED,
    UNINFORMATIVE,
    VERDICTS,
    WITHIN,
    BlockVerdict,
)
from vistudy.analysis.verdict.rule import decide_rule, no_room

HALF = share(0.5)
BETTER = also(HALF, 0.5)
WORSE = lambda c, s: HALF(c, s) and (c * 0.754878) % 1.0 < 0.4  # noqa: E731
NEVER: Stable = lambda c, s: False  # noqa: E731
ALWAYS: Stable = lambda c, s: True  # noqa: E731


def one(arms: Mapping[str, Stable], claim: Mapping[str, Any] | None = None, **options: Any) -> BlockVerdict:
    """The verdict of a study of one block."""
    return run(table(block(arms, **options)), claim).blocks[0]


def run(rows: pd.DataFrame, claim: Mapping[str, Any] | None = None, registrations: Any = ()) -> Decision:
    decision = decide(rows, CLAIM | dict(claim or {}), registrations, draws=2_000)
    text = json.dumps(decision.to_json(), allow_nan=False)
    assert json.loads(text)["verdict"] == decision.verdict
    page = decision.to_markdown()
    assert all(each.block in page for each in decision.blocks)
    assert all(each.sentence for each in (*decision.blocks, *decision.classes, *decision.predictions))
    return decision


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "low", "high", "test", "wider", "equal", "expected"),
    [
        (0.20, 0.10, 0.30, True, True, False, SUPPORTED),
        (0.08, 0.01, 0.15, True, True, False, SUPPORTED),
        (8 / 100 - 1e-15, 0.01, 0.15, True, True, False, SUPPORTED),
        (0.20, 0.10, 0.30, False, True, False, INCONCLUSIVE),
        (0.20, 0.10, 0.30, True, True, True, SLOWER),
        (0.20, 0.10, 0.30, True, False, True, MORE),
        (0.079, 0.01, 0.15, True, True, False, INCONCLUSIVE),
        (0.20, 0.0, 0.40, True, True, False, INCONCLUSIVE),
        (0.04, 0.01, 0.07, True, True, True, WITHIN),
        (-0.04, -0.07, -0.01, True, True, False, WITHIN),
        (0.0, -0.08, 0.05, False, True, False, INCONCLUSIVE),
        (0.0, -0.05, 0.08, False, True, False, INCONCLUSIVE),
        (-0.09, -0.15, -0.01, True, False, False, HARMS),
        (-0.09, -0.15, -0.01, False, False, False, INCONCLUSIVE),
        (-0.09, -0.15, 0.0, True, False, False, INCONCLUSIVE),
        (0.3, float("nan"), float("nan"), True, True, False, INCONCLUSIVE),
    ],
)
def test_rule(estimate: float, low: float, high: float, test: bool, wider: bool, equal: bool, expected: str) -> None:
    found = decide_rule(
        estimate, low, high, significant=test, wider=wider, equals_slower=equal, sesoi=0.08, margin=0.08
    )
    assert found == expected


@pytest.mark.parametrize(
    ("baseline", "treatment", "room"),
    [(0, 0, False), (0.09, 0.099, False), (0.1, 0.05, True), (0.02, 0.14, True), (0.5, 0.5, True), (1, 1, False),
     (0.91, 0.95, False), (0.9, 0.95, True), (0.95, 0.4, True)],
)  # fmt: skip
def test_room_is_between_the_shares(baseline: float, treatment: float, room: bool) -> None:
    assert (no_room(baseline, treatment, 0.1, 0.9) is None) == room


# -- each string from a table ------------------------------------------------------------------------------------------


def test_supported() -> None:
    found = one({"A0": HALF, "A1": BETTER})
    assert found.verdict == SUPPORTED
    assert found.difference is not None
    d = found.difference
    rows = block({"A0": HALF, "A1": BETTER})
    means = rows.groupby("arm")["stable"].mean()
    assert d.estimate == pytest.approx(means["A1"] - means["A0"])
    k = rows.groupby("arm")["stable"].sum()
    for part in (f"A1 was stable in {k['A1']:.0f} of 240 runs ({100 * means['A1']:.1f} %)",
                 f"{100 * d.estimate:+.1f} points", "120 configurations",
                 "240 pairs", f"{100 * d.low:+.1f} to {100 * d.high:+.1f}", "lr 0.0001 to 0.1 (log-uniform)",
                 "batch_norm in {true, false}", "decades wider"):  # fmt: skip
        assert part in found.sentence


def test_supported_but_equals_a_slower_generator() -> None:
    arms = {"A0": HALF, "A1": BETTER, "A3a": NEVER, "A3b": BETTER}
    found = one(arms, {"slower": ["A3a", "A3b"]})
    assert found.verdict == SLOWER
    assert "It is equivalent to A3b, which only slows the generator down" in found.sentence
    assert one(arms, {"slower": ["A3a"]}).verdict == SUPPORTED


def test_a_slower_arm_that_was_not_trained_proves_nothing() -> None:
    found = one(
        {"A0": HALF, "A1": BETTER, "A3a": lambda c, s: BETTER(c, s) if c > 60 else "failed"}, {"slower": ["A3a"]}
    )
    assert found.verdict == SUPPORTED
    assert "could not be compared with A3a" in found.slower[0].sentence
    assert found.slower[0].equivalence is None


def test_within_the_margin() -> None:
    assert one({"A0": HALF, "A1": lambda c, s: HALF(c, s) if c % 40 else not HALF(c, s)}).verdict == WITHIN


def test_harms() -> None:
    found = one({"A0": HALF, "A1": WORSE})
    assert found.verdict == HARMS
    assert "decades narrower" in found.sentence


def test_inconclusive_says_how_wide_the_interval_is() -> None:
    found = one({"A0": share(0.5), "A1": share(0.55, shift=7)}, configs=30)
    assert found.verdict == INCONCLUSIVE
    assert found.difference is not None
    half = (found.difference.high - found.difference.low) / 2
    assert f"The interval reaches {100 * half:.1f} points to each side, with a margin of 8" in found.sentence


def test_without_learning_rates_no_range_is_wider() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}).assign(lr=np.nan))
    found = run(rows).blocks[0]
    assert found.verdict == MORE
    assert "the stable range of learning rates is not shown to be wider" in found.sentence
    assert found.width is None
    assert "the configurations do not set `lr`" in found.notes[0]
    uniform = {"lr": SPACE["lr"] | {"log": False}}
    rows = table(block({"A0": HALF, "A1": BETTER}), sample={"method": "sobol", "space": uniform})
    assert "not drawn log-uniformly" in run(rows).blocks[0].notes[0]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "word"), [("failed", "machine"), ("planned", "not finished"), ("running", "not fin")]
)
def test_too_many_pairs_without_a_result(state: str, word: str) -> None:
    found = one({"A0": HALF, "A1": lambda c, s: state if c < 7 else BETTER(c, s)})
    assert found.verdict == REFUSED
    assert found.difference is None
    assert (
        f"5.8 % of its pairs lack a result, more than 5.0 %: 14 of 240 pairs (5.8 %): a trial {'was' * 0}"
        in found.sentence
    )
    assert word in found.sentence


def test_few_pairs_without_a_result_are_counted() -> None:
    found = one({"A0": HALF, "A1": lambda c, s: "failed" if c < 6 else BETTER(c, s)})
    assert found.verdict == SUPPORTED
    assert found.notes[0].startswith("Left out: 12 of 240 pairs (5.0 %)")
    assert found.difference is not None
    assert found.difference.n_configs == 114


def test_undetermined_trials_are_no_result() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    rows.loc[rows["arm"].eq("A0") & rows["config"].isin(rows["config"].unique()[:9]), "stable"] = np.nan
    found = run(table(rows)).blocks[0]
    assert found.verdict == REFUSED
    assert "records cannot tell" in found.sentence


def test_trials_that_one_arm_lacks() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    found = run(table(rows[~(rows["arm"].eq("A0") & rows["seed"].eq(1))])).blocks[0]
    assert found.verdict == REFUSED
    assert "the other arm has no trial of this configuration and seed" in found.sentence


def test_failed_trials_that_could_change_the_verdict() -> None:
    lost = lambda c, s: "failed" if c in (3, 30, 60, 90, 100, 110) else False  # noqa: E731
    dead = one({"A0": NEVER, "A1": lost})
    assert dead.verdict == UNINFORMATIVE  # whatever they would have done
    flat = one({"A0": HALF, "A1": lambda c, s: lost(c, s) or (HALF(c, s) if c % 15 else not HALF(c, s))})
    assert flat.verdict == REFUSED
    assert flat.bounds is not None
    assert flat.bounds.high.estimate - flat.bounds.low.estimate == pytest.approx(6 / 120)
    assert "trials without a result could change the verdict" in flat.sentence
    clear = one({"A0": HALF, "A1": lambda c, s: "failed" if c in (3, 30) else BETTER(c, s)})
    assert clear.verdict == SUPPORTED
    assert any("Whatever they would have done, the difference is +" in note for note in clear.notes)


def test_configurations_placed_by_results_are_no_sample() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}), sample={"method": "optuna", "space": SPACE})
    found = run(rows).blocks[0]
    assert found.verdict == REFUSED
    assert "placed by optuna, which looks at results" in found.sentence


def test_a_grid_is_descriptive() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}), sampled=[], sample=None, factors={"lr": [1e-3, 1e-2]})
    decision = run(rows)
    assert decision.verdict == decision.blocks[0].verdict == DESCRIPTIVE
    assert "interval" not in decision.blocks[0].sentence
    assert decision.blocks[0].p_holm is None


def test_arms_with_no_pair_in_common() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    odd = rows["seed"].eq(1)
    found = run(table(rows[(rows["arm"] == "A0") ^ odd])).blocks[0]
    assert found.verdict == REFUSED
    assert "no pair of A1 and A0 has a result in both arms (240 of 240 pairs" in found.sentence


def test_an_arm_without_trials() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    found = run(table(rows[rows["arm"] == "A0"]).pipe(_declare, ["A0", "A1"])).blocks[0]
    assert found.verdict == REFUSED
    assert "it has no trial of arm A1" in found.sentence


def _declare(rows: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    rows.attrs = rows.attrs | {"blocks": {"ring": declared(arms)}}
    return rows


def test_nothing_judged() -> None:
    found = one({"A0": lambda c, s: "planned", "A1": lambda c, s: "failed"})
    assert found.verdict == REFUSED
    rows = table(block({"A0": HALF, "A1": BETTER}).assign(stable=np.nan, q=np.nan, q_final=np.nan))
    assert run(rows).verdict == REFUSED


def test_one_configuration() -> None:
    found = one({"A0": NEVER, "A1": ALWAYS}, configs=1, seeds=range(50))
    assert found.verdict == REFUSED
    assert "it has one configuration" in found.sentence


def test_one_seed_is_said() -> None:
    found = one({"A0": HALF, "A1": BETTER}, seeds=(0,))
    assert found.verdict == SUPPORTED
    assert any(note.startswith("One seed a configuration") for note in found.notes)


@pytest.mark.parametrize(
    ("stable", "words"), [(ALWAYS, "stable in more than 90 % of runs"), (NEVER, "stable in less than 10 % of runs")]
)
@pytest.mark.parametrize("configs", [10, 44, 46, 120])
def test_without_room_there_is_no_verdict(stable: Stable, words: str, configs: int) -> None:
    """More of nothing is no evidence: 44 configurations say what 46 and 120 say."""
    decision = run(table(block({"A0": stable, "A1": stable, "A3": stable}, cut=True, configs=configs)),
                   {"slower": ["A3"], "predictions": [{"id": "H1", "expect": "within the margin"}]})  # fmt: skip
    found = decision.blocks[0]
    assert (decision.verdict, found.verdict) == (UNINFORMATIVE, UNINFORMATIVE)
    assert words in found.sentence
    assert "0 of 1 blocks had room" in decision.sentence
    assert found.slower[0].equivalence is None
    assert "no room" in found.slower[0].sentence
    assert found.strong is not None
    assert found.strong.holds is None
    assert found.strong.sentence.startswith("Strong claim not tested: no room")
    assert decision.predictions[0].holds is None
    assert "could not be checked" in decision.predictions[0].sentence


def test_a_trial_twice_or_a_wrong_value_is_refused() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    assert "trials twice" in run(table(rows, rows.iloc[:1])).blocks[0].sentence
    rows.loc[5, "stable"] = 0.5
    found = run(table(rows)).blocks[0]
    assert found.verdict == REFUSED
    assert "is neither 0 nor 1" in found.sentence


def test_unknown_sampling_is_said() -> None:
    rows = block({"A0": HALF, "A1": BETTER})
    found = run(rows).blocks[0]
    assert found.verdict == MORE
    assert any("How the configurations were drawn is not known" in note for note in found.notes)
    assert "(as trained)" in found.sentence


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"treatment": "A7"}, "claim: treatment: no block has an arm 'A7'; there are A0, A1"),
        ({"slower": ["A3"]}, "claim: slower: no block has an arm 'A3'"),
        ({"positive_control": "A4"}, "claim: positive_control"),
        ({"baseline": "A1"}, "cannot be compared with itself"),
        ({"baseline": None}, "`baseline` is not given"),
        ({"negative_controls": ["vae"]}, "negative_controls: no block 'vae'; there are ring"),
    ],
)
def test_a_claim_that_does_not_fit_is_refused(claim: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        run(table(block({"A0": HALF, "A1": BETTER})), claim)


def test_a_table_without_a_column_is_refused() -> None:
    with pytest.raises(StudyError, match="lacks the columns stable, q;"):
        run(table(block({"A0": HALF, "A1": BETTER})).drop(columns=["stable", "q"]))


def test_no_block_with_both_arms_is_refused() -> None:
    rows = table(block({"A0": HALF}, "a"), block({"A1": HALF}, "b"))
    with pytest.raises(StudyError, match="no block has both arms, A0 and A1"):
        run(rows)


# -- classes, Holm, pooling --------------------------------------------------------------------------------------------


def test_holm_corrects_over_families_and_classes() -> None:
    edge: Stable = lambda c, s: HALF(c, s) or c in (1, 3, 6, 8, 9, 11)  # noqa: E731
    claim = {"sesoi": 0.01}
    alone = run(table(block({"A0": HALF, "A1": edge}, configs=60, cut=True)), claim)
    p = alone.blocks[0].difference.p  # type: ignore[union-attr]
    assert 0.025 < p < 0.05
    assert alone.blocks[0].verdict == alone.verdict == MORE
    same = {"A0": HALF, "A1": HALF}
    both = run(table(block({"A0": HALF, "A1": edge}, configs=60, cut=True), block(same, "grid", "G")), claim)
    assert both.blocks[0].p_holm == pytest.approx(2 * p)
    assert both.blocks[0].verdict == both.classes[0].verdict == INCONCLUSIVE
    assert "leaves 0 out, but the test does not hold after correction" in both.blocks[0].sentence
    assert "After Holm's correction over 2 tests" in both.blocks[0].sentence


def test_a_refused_test_still_counts_for_holm() -> None:
    late: Stable = lambda c, s: "planned"  # noqa: E731
    decision = run(table(block({"A0": HALF, "A1": BETTER}), block({"A0": HALF, "A1": late}, "grid")))
    first = decision.blocks[0]
    assert first.difference is not None
    assert first.p_holm == pytest.approx(2 * first.difference.p)
    assert decision.classes[0].verdict == REFUSED
    assert "1 of 2 blocks have no verdict, so nothing is said of all" in decision.classes[0].sentence


def test_pooled_by_random_effects() -> None:
    decision = run(table(block({"A0": HALF, "A1": BETTER}), block({"A0": HALF, "A1": also(HALF, 0.3)}, "grid")))
    assert decision.verdict == decision.classes[0].verdict == SUPPORTED
    pooled = decision.classes[0].pooled
    assert pooled is not None
    estimates = [each.difference.estimate for each in decision.blocks if each.difference]
    assert min(estimates) < pooled.estimate < max(estimates)
    assert pooled.estimate == pytest.approx(np.dot(list(pooled.weights.values()), estimates))
    assert sum(pooled.weights.values()) == pytest.approx(1)
    assert pooled.n_pairs == 480


def test_help_and_harm_are_never_averaged() -> None:
    decision = run(table(block({"A0": HALF, "A1": BETTER}), block({"A0": HALF, "A1": WORSE}, "grid", "G")))
    assert [group.verdict for group in decision.classes] == [SUPPORTED, HARMS]
    assert decision.verdict == "depends on block"
    assert decision.overall is not None
    assert decision.overall.pooled is None
    assert "The treatment helps in some blocks and harms in others" in decision.sentence
    assert "class P: supported (reduces sensitivity); class G: harms" in decision.sentence


def test_signs_of_small_estimates_do_not_matter() -> None:
    up: Stable = lambda c, s: HALF(c, s) or c == 3  # noqa: E731
    decision = run(table(block({"A0": HALF, "A1": up}), block({"A0": up, "A1": HALF}, "grid")))
    assert decision.verdict == WITHIN
    assert decision.classes[0].pooled is not None


def test_pooled_slower_generator() -> None:
    arms = {"A0": HALF, "A1": BETTER, "A3": BETTER}
    decision = run(table(block(arms), block(arms, "grid")), {"slower": ["A3"]})
    assert decision.verdict == SLOWER


def test_a_block_without_the_claims_arms_is_no_part_of_it() -> None:
    decision = run(table(block({"A0": HALF, "A1": BETTER}), block({"A0": HALF}, "grid")))
    assert [each.block for each in decision.blocks] == ["ring"]


# -- controls ----------------------------------------------------------------------------------------------------------


def test_a_positive_control_that_fails_takes_the_benchmark_back() -> None:
    arms = {"A0": HALF, "A1": HALF, "A4": HALF}
    found = one(arms, {"positive_control": "A4"})
    assert found.verdict == UNINFORMATIVE
    assert found.positive is not None
    assert found.positive.word == "does nothing"
    assert "it does nothing here: the control failed" in found.positive.sentence
    assert "the positive control A4 does not beat the baseline, and the treatment does not either" in found.sentence
    works = one(arms | {"A4": BETTER}, {"positive_control": "A4"})
    assert works.verdict == WITHIN
    assert works.positive is not None
    assert works.positive.word == "works"
    assert "positive control" not in works.sentence
    silent = one(arms | {"A4": lambda c, s: "failed"}, {"positive_control": "A4"})
    assert silent.verdict == WITHIN
    assert silent.positive is not None
    assert silent.positive.word is None
    helped = one(arms | {"A1": BETTER}, {"positive_control": "A4"})
    assert helped.verdict == SUPPORTED
    assert "The positive control A4 failed: it does nothing" in helped.sentence
    assert helped.caveats[0].startswith("the positive control A4 does nothing; there is room only because the")


def test_negative_controls_are_no_tests_of_the_claim() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}), block({"A0": HALF, "A1": BETTER}, "vae", "N"))
    decision = run(rows, {"negative_controls": ["vae"]})
    assert decision.blocks[1].role == NEGATIVE
    assert decision.blocks[1].p_holm is None
    assert decision.overall is not None
    assert decision.overall.blocks == ("ring",)
    assert "Negative control vae shows an effect" in decision.warnings[0]
    only = run(rows, {"negative_controls": ["vae", "ring"]})
    assert only.overall is None
    assert only.sentence.startswith("No block tests the claim")


def test_placebos_must_be_identical() -> None:
    placebo = block({"A0": HALF, "A1": HALF}, "placebo", "0")
    claim = {"predictions": [{"id": "H0", "blocks": ["placebo"], "expect": "identical"}]}
    main = block({"A0": HALF, "A1": BETTER})
    decision = run(table(main, placebo), claim)
    assert (decision.blocks[1].role, decision.blocks[1].verdict) == (PLACEBO, "identical")
    assert (decision.classes[1].name, decision.classes[1].verdict) == ("class 0", "identical")
    assert "placebo: identical: 0 of 240 pairs differ" in decision.blocks[1].sentence
    assert (decision.predictions[0].holds, decision.predictions[0].found) == (True, "identical")
    assert "0 of 240 pairs differ" in decision.predictions[0].sentence
    null = {"predictions": [{"id": "H5", "class": "0", "expect": "no effect"}]}
    assert run(table(main, placebo.assign(inert=True)), null).predictions[0].holds is True
    assert decision.warnings == ()
    placebo.loc[300, "q_final"] += 1e-16 if placebo.loc[300, "q_final"] < 0.5 else 1e-15
    decision = run(table(main, placebo), claim)
    assert decision.predictions[0].holds is False
    assert decision.blocks[1].verdict == decision.classes[1].verdict == "not identical"
    assert "1 of 240 pairs differ" in decision.predictions[0].sentence
    assert "Placebo placebo: 1 of 240 pairs differ" in decision.warnings[0]


def test_identical_needs_pairs_of_two_trials() -> None:
    claim = {"predictions": [{"id": "H0", "blocks": ["ring"], "expect": "identical"}]}
    rows = block({"A0": HALF, "A1": HALF})
    shared = rows.assign(trial_id=rows["config"] + rows["seed"].astype(str))
    check = run(table(shared), claim).predictions[0]
    assert check.holds is None
    assert "240 pairs are one trial, trained once, and show nothing" in check.sentence
    part = block({"A0": HALF, "A1": lambda c, s: "failed" if c == 0 else HALF(c, s)})
    check = run(table(part), claim).predictions[0]
    assert check.holds is None
    assert "2 pairs were not compared" in check.sentence


def test_a_placebo_needs_no_sample_of_a_box() -> None:
    rows = table(block({"A0": HALF, "A1": HALF}, configs=1, inert=True), sampled=[], sample=None)
    assert run(rows).blocks[0].verdict == "identical"
    part = block({"A0": HALF, "A1": lambda c, s: "failed" if c < 7 else HALF(c, s)}, inert=True)
    found = run(table(part)).blocks[0]
    assert found.verdict == REFUSED
    assert "5.8 % of its pairs lack a result" in found.sentence


def test_blocks_whose_term_is_inert_are_placebos() -> None:
    decision = run(table(block({"A0": HALF, "A1": HALF}, inert=True), block({"A0": HALF, "A1": BETTER}, "grid")))
    assert [each.role for each in decision.blocks] == [PLACEBO, "primary"]
    identity = decision.blocks[0].identity
    assert identity is not None
    assert identity.holds is True


# -- the strong claim --------------------------------------------------------------------------------------------------


def test_strong_claim_in_every_stratum() -> None:
    found = one({"A0": HALF, "A1": ALWAYS}, {"best_of": 5}, cut=True)
    assert found.strong is not None
    assert (found.strong.holds, found.strong.removes_need) == (True, True)
    assert set(found.strong.strata) == {"batch_norm=true", "batch_norm=false"}
    assert "Strong claim supported" in found.strong.sentence
    part = one({"A0": HALF, "A1": lambda c, s: bool(c % 2) or BETTER(c, s)}, {"best_of": 5}, cut=True)
    assert part.strong is not None
    assert part.strong.holds is False
    assert "in 1 of 2 strata" in part.strong.sentence
    few = one({"A0": HALF, "A1": ALWAYS}, {"best_of": 60})
    assert few.strong is not None
    assert few.strong.holds is None
    assert "Strong claim not tested: 2 of 2 strata" in few.strong.sentence


def test_needed_tuning_when_not_all_are_stable() -> None:
    rows = table(block({"A0": NEVER, "A1": share(0.6)}, q_stable=0.85, cut=True))
    strong = run(rows, {"best_of": 3}).blocks[0].strong
    assert strong is not None
    assert (strong.holds, strong.removes_need) == (True, False)
    tuning = run(rows, {"best_of": 3}).blocks[0].tuning
    assert tuning is not None
    assert tuning.treatment[0] == pytest.approx(1 / 0.6)
    assert "1.7 (1.5 to 2.0) with A1, none was stable (at least 33.0) with A0" in tuning.sentence
    assert "tuning is still needed" in tuning.sentence


# -- predictions and registration --------------------------------------------------------------------------------------


def test_predictions_one_by_one() -> None:
    rows = table(
        block({"A0": HALF, "A1": HALF, "A5": WORSE}),
        block({"A0": HALF, "A1": BETTER}, "grid", "G"),
        block({"A0": HALF, "A1": lambda c, s: "planned"}, "late", "L"),
    )
    predictions = [
        {"id": "H1", "class": "P", "expect": "no effect"},
        {"id": "H2", "class": "G", "expect": "supported"},
        {"id": "H3", "blocks": ["ring", "grid"], "expect": "supported"},
        {"id": "H4", "class": "L", "expect": "supported"},
        {"id": "H5", "blocks": ["ring"], "treatment": "A5", "expect": "harms"},
        {"id": "H6", "expect": "supported"},
    ]
    decision = run(rows, {"predictions": predictions})
    assert {check.id: check.holds for check in decision.predictions} == {
        "H1": True, "H2": True, "H3": False, "H4": None, "H5": True, "H6": None,
    }  # fmt: skip
    assert "H2 (class G: supported): borne out. Found: class G supported (reduces sensitivity) (+" in (
        decision.predictions[1].sentence
    )
    assert "could not be checked" in decision.predictions[3].sentence
    assert "H5 (ring, arm A5: harms): borne out" in decision.predictions[4].sentence


def registration(ms: int, before: int = 0, **claim: Any) -> dict[str, Any]:
    plan = declared(["A0", "A1"])
    return {"claim_hash": "c0ffee", "registered_ms": ms, "records_before": before, "outcome_version": OUTCOME_VERSION,
            "claim": CLAIM | claim, "blocks": {"ring": plan | {"budget": {"d_updates": 1}}}}  # fmt: skip


def test_registered_before_the_first_record() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}))
    filled = run(rows).claim
    found = run(rows, registrations=[registration(900, **filled)]).registered
    assert found.before_first_record
    assert found.differences == ()
    assert found.sentence == "Registered on 1970-01-01 00:00 UTC (claim c0ffee), before the first record."
    changed = run(rows, {"sesoi": 0.05}, [registration(900, **filled)]).registered
    assert changed.differences == ("claim.sesoi: 0.08 -> 0.05",)
    assert "What is decided here differs from that: claim.sesoi: 0.08 -> 0.05" in changed.sentence


def test_a_changed_box_is_shown_and_a_found_scale_is_no_change() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}))
    entry = registration(900, **run(rows).claim)
    entry["blocks"]["ring"]["arms"] = {"A0": {}, "A1": {"g_lr": {"match_drift": "A0"}}}
    rows.attrs["blocks"]["ring"]["arms"] = {"A0": {}, "A1": {"g_lr": {"match_drift": "A0", "scale": 0.3}}}
    rows.attrs["blocks"]["ring"]["sample"] |= {"n": 60}
    rows.attrs["blocks"]["added"] = declared(["A0"])
    found = run(rows, registrations=[entry]).registered.differences
    assert found[0] == "blocks.ring.sample.n: 120 -> 60"
    assert found[1].startswith("blocks.added: nothing -> {")
    assert len(found) == 2


@pytest.mark.parametrize("late", [{"ms": 2_000}, {"ms": 900, "before": 40}], ids=["by the clock", "by the count"])
def test_registered_too_late_is_exploratory(late: dict[str, int]) -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}))
    found = run(rows, registrations=[registration(**late)]).registered
    assert not found.before_first_record
    assert "exploratory" in found.sentence
    assert "It was registered on" in found.sentence
    never = run(rows).registered
    assert never.sentence == "Not registered before the first record: everything here is exploratory."


def test_an_amendment_with_results_in_sight_does_not_count() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}))
    filled = run(rows).claim
    both = [registration(800, **filled), registration(2_000, 40, **filled | {"sesoi": 0.01})]
    found = run(rows, {"sesoi": 0.01}, both).registered
    assert found.before_first_record
    assert found.differences == ("claim.sesoi: 0.08 -> 0.01",)
    assert found.sentence.endswith("1 amendment after the first record does not count.")


# -- text --------------------------------------------------------------------------------------------------------------


def test_html_and_markdown_of_a_study_file_are_text() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}, block_class="<b>|x"))
    page = run(rows, {"question": "Is <script>alert(1)</script> *it*?"}).to_markdown()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\\*it\\*" in page
    assert "&lt;b&gt;\\|x" in page


def test_pilots_are_mentioned() -> None:
    rows = table(block({"A0": HALF, "A1": BETTER}))
    rows.attrs["pilots"] = {"ring": {"A3a~0.1": 8}}
    assert "in no comparison (A3a~0.1 8)" in run(rows).blocks[0].notes[0]


def test_small_p_values_read_well() -> None:
    assert [p_equals(p) for p in (0.5, 0.0123, 1e-9)] == ["p = 0.5", "p = 0.012", "p < 0.0001"]


def test_the_page_names_every_verdict() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert [verdict for verdict in VERDICTS if f"`{verdict}`" not in page] == []
