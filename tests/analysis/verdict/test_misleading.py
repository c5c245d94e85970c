"""Verdicts that once misled (a review of 2026-11-30, F1 to F18): each with the answer that is right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.armstore import (
    CLAIM,
    SPACE,
    Stable,
    also,
    block,
    declared,
    entry,
    make_arm_store,
    share,
    table,
    train_all,
)
from tests.analysis.series import series
from tests.analysis.store import train
from tests.study.runs import vistudy, write
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.verdict.decide import decide, decide_study
from vistudy.study.spec.parser import load_study

HALF = share(0.5)
NEVER: Stable = lambda c, s: False  # noqa: E731
PLUS_30: Mapping[str, Stable] = {"A0": share(0.3), "A1": also(share(0.3), 0.45)}


def run(*blocks: pd.DataFrame, claim: Mapping[str, Any] | None = None, **plan: Any) -> Any:
    return decide(table(*blocks, **plan), CLAIM | dict(claim or {}), draws=2_000)


def place(configs: int) -> np.ndarray:
    """Where in the box of `block` its configurations lie: 0 at the lowest learning rate, 1 at the highest."""
    return (0.5 + np.arange(configs) * 0.569840) % 1.0


# -- room --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_f1_ten_updates_of_240_gans_say_nothing(tmp_path: Path) -> None:
    """Through the command line: registered, trained for a few updates, judged."""
    study = {
        "study": "short", "model": "gan", "data": "grid25", "seeds": [0, 1],
        "budget": {"d_updates": 20, "evaluations": 20},
        "sample": {"method": "sobol", "n": 4, "seed": 1, "space": {"lr": SPACE["lr"]}},
        "fixed": {"batch_size": 16, "width": 8, "ratio": "1:2"},
        "arms": {"A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}, "A3": {"reg_weight": 0, "g_steps": {"times": 0.5}}},
        "claim": {"id": "short", "baseline": "A0", "treatment": "A1", "slower": ["A3"],
                  "predictions": [{"id": "H1", "expect": "no effect"}]},
    }  # fmt: skip
    file, store = write(tmp_path / "short.yaml", study), tmp_path / "store"
    vistudy("register", file, "--store", store)
    vistudy("run", file, "--store", store)
    said = " ".join(vistudy("verdict", "short", "--store", store).replace("\\", "").split())
    assert "**uninformative.** All blocks of the claim: uninformative; 0 of 1 blocks had room" in said
    assert "A1 was stable in 0 of 8 runs (0.0 %), A0 in 0 of 8 runs (0.0 %)" in said
    assert "More of nothing is no evidence" in said
    assert "A1 was not compared with A3, a slower generator: no room" in said
    assert "Strong claim not tested: no room" in said
    assert "could not be checked" in said
    assert "no effect" not in said
    assert "before the first record" in said


def test_f4_a_dead_block_takes_nothing_from_three_that_live(tmp_path: Path) -> None:
    """Through the command line, from records."""
    names = ("a", "b", "c", "dead")
    rates = 10 ** (-4 + 3 * place(40))
    plan = {name: declared(["A0", "A1"], sampled=["lr"], family=name, **{"class": "P"},
                           sample={"method": "sobol", "n": 40, "seed": 1, "space": {"lr": SPACE["lr"]}})
            for name in names}  # fmt: skip
    trials, quality = [], {}
    for name in names:
        for arm in ("A0", "A1"):
            for i, lr in enumerate(rates):
                good = 1e-3 < lr < (1e-2 if arm == "A1" else 2e-3) if name != "dead" else (arm, i) == ("A0", 20)
                trials.append(
                    entry(f"{name}-{arm}-{i}", {"arm": arm, "lr": float(lr)}, name, config={"g_lr": float(lr)})
                )
                quality[trials[-1]["trial_id"]] = 0.05 if good else 0.9
    train_all(make_arm_store(tmp_path / "store", trials, plan, CLAIM), quality)
    said = " ".join(vistudy("verdict", "demo", "--store", tmp_path / "store").replace("\\", "").split())
    assert (
        "**supported (reduces sensitivity).** All blocks of the claim: supported (reduces sensitivity); 3 of 4" in said
    )
    assert "Weighted mean of the blocks' differences (random effects): +30.0 points" in said
    assert "not pooled" not in said
    assert "dead uninformative (-2.5 points)" in said
    assert "One seed a configuration (every block)" in said


def test_one_block_with_room_of_six() -> None:
    dead = [block({"A0": NEVER, "A1": NEVER}, f"dead{i}") for i in range(5)]
    decision = run(block(PLUS_30, "live"), *dead)
    assert decision.verdict == "supported (reduces sensitivity)"
    assert "1 of 6 blocks had room" in decision.sentence
    assert decision.overall.with_room == ("live",)
    assert decision.overall.pooled.estimate == decision.blocks[0].difference.estimate > 0.25


@pytest.mark.parametrize("claim", [{}, {"room_low": 0.02}], ids=["default", "its own"])
def test_the_claim_says_what_room_is(claim: dict[str, float]) -> None:
    arms = {"A0": share(0.05), "A1": share(0.09)}
    found = run(block(arms, cut=True), claim=claim).blocks[0]
    assert (found.verdict == "uninformative") == (not claim)


def test_the_study_file_takes_the_limits_of_room(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[3] / "study" / "recipes" / "claim_rings.yaml"
    text = recipe.read_text("utf-8")
    claim = load_study(recipe).claim
    assert claim is not None
    assert (claim.room_low, claim.room_high) == (0.1, 0.9)
    file = tmp_path / "rings.yaml"
    file.write_text(text.replace("  sesoi:", "  room_low: 0.95\n  sesoi:"), "utf-8")
    with pytest.raises(StudyError, match=r"room_low must be below room_high, which is 0\.9"):
        load_study(file)


# -- where in the box --------------------------------------------------------------------------------------------------


def test_f5_opposite_effects_in_two_halves_of_the_box() -> None:
    low = place(600) < 0.5
    up, down = share(0.2), share(0.8)
    by_lr = {"A0": lambda c, s: (up if low[c] else down)(c, s), "A1": lambda c, s: (down if low[c] else up)(c, s)}
    by_norm = {"A0": lambda c, s: (up if c % 2 else down)(c, s), "A1": lambda c, s: (down if c % 2 else up)(c, s)}
    found = run(block(by_lr, configs=600, seeds=(0,), cut=True))
    assert found.verdict == found.blocks[0].verdict == "depends on lr"
    assert abs(found.blocks[0].difference.estimate) < 0.03
    lr = next(each for each in found.blocks[0].factors if each.name == "lr")
    assert [round(stratum.estimate, 1) for stratum in lr.strata] == [0.6, -0.6]
    assert "By lr: +59." in found.sentence or "By lr: +60." in found.sentence
    found = run(block(by_norm, configs=600, seeds=(0,), cut=True))
    assert found.verdict == found.blocks[0].verdict == "depends on batch norm"
    assert "| batch\\_norm true | 300 |" in found.to_markdown()


def test_strata_are_printed_where_the_effect_is_the_same() -> None:
    decision = run(block(PLUS_30))
    assert decision.verdict == "supported (reduces sensitivity)"
    assert [factor.name for factor in decision.blocks[0].factors] == ["batch_norm", "lr"]
    assert min(factor.p_holm for factor in decision.blocks[0].factors) > 0.05
    assert "| batch\\_norm false | 60 |" in decision.to_markdown()


def test_f6_a_range_that_only_moves_into_the_box() -> None:
    at = place(120)
    decision = run(block({"A0": lambda c, s: at[c] < 0.2, "A1": lambda c, s: 0.3 < at[c] < 0.8}, cut=True))
    found = decision.blocks[0]
    assert found.verdict == "supported (more runs are stable)"
    assert found.width is None
    assert "More runs are stable; the range is cut: wider or moved cannot be told" in found.sentence
    assert "decades wider" not in decision.to_markdown()
    claim = {"predictions": [{"id": "H", "expect": "supported"}]}
    again = run(block({"A0": lambda c, s: at[c] < 0.2, "A1": lambda c, s: 0.3 < at[c] < 0.8}, cut=True), claim=claim)
    assert again.predictions[0].holds is None


# -- controls ----------------------------------------------------------------------------------------------------------


def test_f7_a_control_that_harms() -> None:
    arms = {"A0": share(0.4), "A1": share(0.4), "A4": NEVER}
    decision = run(block(arms), claim={"positive_control": "A4"})
    found = decision.blocks[0]
    assert found.verdict == "uninformative"
    assert found.positive.word == "harms"
    assert found.positive.sentence.endswith("the control failed: it harms.")
    assert "no effect" not in decision.to_markdown()
    assert decision.overall.notes[0] == "The positive control A4 harms (ring)"


def test_f8_no_strong_claim_where_nothing_trains() -> None:
    rows = block({"A0": NEVER, "A1": NEVER}, cut=True)
    rows["q"] = rows["q_final"] = np.where(rows["arm"] == "A1", 0.97, 0.99)
    strong = run(rows, claim={"best_of": 10}).blocks[0].strong
    assert strong.holds is None
    assert strong.sentence.startswith("Strong claim not tested: no room")


def test_f8_a_stratum_where_nothing_trains_is_not_tested() -> None:
    rows = block({"A0": lambda c, s: bool(c % 2) and HALF(c, s), "A1": lambda c, s: bool(c % 2)}, cut=True)
    strong = run(rows, claim={"best_of": 5}).blocks[0].strong
    assert strong.holds is None
    assert strong.strata["batch_norm=false"].startswith("not tested: no room")


def test_tuning_is_not_decided_by_the_strong_claim_alone() -> None:
    rows = block({"A0": NEVER, "A1": share(0.6)}, q_stable=0.85, cut=True)
    found = run(rows, claim={"best_of": 3}).blocks[0]
    assert found.strong.holds is True
    assert not found.strong.removes_need
    assert [row.k for row in found.tuning.best] == [1, 2, 5, 10]
    assert found.tuning.treatment[0] == pytest.approx(1 / 0.6)
    all_stable = block({"A0": HALF, "A1": lambda c, s: True}, cut=True)
    assert run(all_stable, claim={"best_of": 5}).blocks[0].tuning.removes_need


def test_f15_negative_controls_that_could_not_have_failed() -> None:
    claim = {"negative_controls": ["em", "vae"], "predictions": [
        {"id": "H5", "blocks": ["em", "vae"], "expect": "no effect"}]}  # fmt: skip
    same = block({"A0": HALF, "A1": HALF}, "em", "control")
    faint = block({"A0": HALF, "A1": lambda c, s: HALF(c, s) if c != 30 else not HALF(c, s)}, "vae", "control")
    decision = run(block(PLUS_30).assign(rho=0.3), same.assign(rho=np.nan), faint.assign(rho=0.002), claim=claim)
    em, vae = decision.blocks[1:]
    assert (em.verdict, vae.verdict) == ("no dose", "no dose")
    assert "it could not have failed, because not one of 240 pairs differs in a bit" in em.sentence
    assert "the gradient of the term is 0.002 of the loss's" in vae.sentence
    assert decision.classes[1].verdict == "no dose"
    assert decision.predictions[0].holds is None
    assert "| A1 | 240 | 0.3 | not recorded |" in decision.to_markdown()
    dosed = run(block(PLUS_30), same.assign(q_best=np.arange(len(same))), claim=claim | {"negative_controls": ["em"]})
    assert dosed.blocks[1].verdict == "within the margin"


def test_slower_arms_show_how_slow_they_are_and_what_they_were_given() -> None:
    rows = block(PLUS_30 | {"A3": NEVER})
    rows = rows.assign(d_updates=800, d_steps=1, g_steps=np.where(rows["arm"] == "A3", 1, 5))
    rows.loc[rows["arm"] == "A3", "outcome"] = "slow"
    slower = run(rows, claim={"slower": ["A3"]}).blocks[0].slower[0]
    assert (slower.share_slow, slower.g_updates) == (1.0, (800.0, 4000.0))
    assert "100.0 % of the trials of A3 are `slow`" in slower.sentence
    assert "Its budget is not equal: 800 generator updates a trial, 4,000 in A1" in slower.sentence
    assert "not known whether it would do as well with as many" in slower.sentence


# -- missing trials, counts, several blocks ----------------------------------------------------------------------------


def test_f9_failed_trials_of_one_arm() -> None:
    """As it was, +1 within the margin; 5 % of the treatment's pairs lost where it was not stable."""
    base = share(0.3)
    t: Stable = lambda c, s: base(c, s) if c not in (31, 36, 44) else True  # noqa: E731
    whole = run(block({"A0": base, "A1": t}))
    assert whole.verdict == "within the margin"
    lost = [c for c in range(120) if not t(c, 0)][10:16]
    decision = run(block({"A0": base, "A1": lambda c, s: "failed" if c in lost else t(c, s)}))
    found = decision.blocks[0]
    assert found.bounds.high.estimate - found.bounds.low.estimate == pytest.approx(0.05)
    assert (found.bounds.missing_treatment, found.bounds.missing_baseline) == (12, 0)
    assert any(
        "A1 12 failed of 240; A0 none of 240 (equal in both arms: sign-flip p = 0.031)" in n for n in found.notes
    )
    assert found.verdict == "refused"
    assert "trials without a result could change the verdict" in found.sentence
    assert decision.verdict == "refused"


@pytest.mark.parametrize("state", ["failed", "running", "planned", "complete", "absent"])
def test_f9_every_missing_state_has_bounds(state: str) -> None:
    rows = block(PLUS_30)
    lost = rows["arm"].eq("A1") & rows["config"].isin(rows["config"].unique()[:3])
    rows = rows[~lost] if state == "absent" else rows.assign(
        stable=rows["stable"].mask(lost), q=rows["q"].mask(lost), state=rows["state"].mask(lost, state)
    )  # fmt: skip
    found = run(rows).blocks[0]
    assert found.bounds.high.estimate - found.bounds.low.estimate == pytest.approx(3 / 120)
    assert found.verdict == "supported (reduces sensitivity)"
    assert any(note.startswith("Trials without a result") for note in found.notes)


def test_f10_counts_are_counts_and_blocks_that_share_points_weigh_as_much() -> None:
    shared = [block(PLUS_30, name) for name in ("a", "b")]
    alone = block(PLUS_30, "c")
    alone["config"] = "other " + alone["config"]
    decision = run(*shared, alone)
    k = {arm: int(sum(rows.loc[rows["arm"] == arm, "stable"].sum() for rows in (*shared, alone))) for arm in PLUS_30}
    assert (
        f"A1 was stable in {k['A1']} of 720 runs ({k['A1'] / 7.2:.1f} %), A0 in {k['A0']} of 720 runs"
        in decision.sentence
    )
    assert "Weighted mean of the blocks' differences" in decision.sentence
    pooled = decision.overall.pooled
    assert list(pooled.weights.values()) == pytest.approx([1 / 3] * 3)
    apart = [rows.assign(config=rows["block"] + rows["config"]) for rows in (*shared, alone)]
    independent = run(*apart).overall.pooled
    # two of three blocks go together wholly: their variance is 5/9 of one block's instead of 3/9
    ratio = (pooled.high - pooled.low) / (independent.high - independent.low)
    assert ratio == pytest.approx((5 / 3) ** 0.5, rel=0.01)


def test_f10_a_mean_of_unequal_configurations_is_called_weighted() -> None:
    rows = block(PLUS_30)
    rows = rows[~(rows["seed"].eq(1) & rows["config"].isin(rows["config"].unique()[:60]))]
    assert "(weighted: every configuration counts the same)" in run(rows).blocks[0].sentence


def test_f17_a_small_difference_is_no_zero() -> None:
    found = run(block({"A0": share(0.5), "A1": lambda c, s: HALF(c, s) or c % 24 == 1}, configs=480)).blocks[0]
    assert found.difference.low > 0
    assert found.verdict == "within the margin"
    assert "The difference is not 0: it differs from 0 by less than 8 points" in found.sentence


def test_f18_a_block_that_does_not_survive_the_correction() -> None:
    some: Stable = lambda c, s: HALF(c, s) or c in (1, 3, 6, 8, 9, 11)  # noqa: E731
    live = block({"A0": HALF, "A1": some}, "live", configs=60, cut=True)
    same = [block({"A0": HALF, "A1": HALF}, f"same{i}") for i in range(8)]
    decision = run(live, *same, claim={"sesoi": 0.01})
    found = decision.blocks[0]
    assert found.difference.p < 0.05 < found.p_holm
    assert found.difference.low > 0
    assert found.verdict == "inconclusive"
    assert "the test does not hold after correction for the number of tests" in found.sentence


def test_one_seed_is_said_of_the_whole() -> None:
    decision = run(block(PLUS_30, "one", seeds=(0,)), block(PLUS_30, "two"))
    assert "One seed a configuration (one)" in decision.overall.notes
    assert "One seed a configuration (one)" in decision.classes[0].notes
    assert "- One seed a configuration (one)" in decision.to_markdown().split("## Blocks")[0]


def test_odds_ratio_and_the_shift_of_q_stand_beside() -> None:
    rows = block(PLUS_30)
    rows["q"] -= np.where(rows["arm"] == "A1", 0.05, 0.0) + 0.01 * (rows.index % 7)
    decision = run(rows)
    found = decision.blocks[0]
    d = found.difference
    t, b = d.share_treatment, d.share_baseline
    assert found.odds.estimate == pytest.approx(t / (1 - t) / (b / (1 - b)))
    assert 1 < found.odds.low < found.odds.estimate < found.odds.high
    assert found.q_shift.low < found.q_shift.estimate < found.q_shift.high < 0
    assert f"Odds ratio {found.odds.estimate:.2f}, interval" in decision.to_markdown()
    assert "Hodges-Lehmann over 120 configurations" in decision.to_markdown()
    empty = run(block({"A0": NEVER, "A1": HALF})).blocks[0].odds
    assert empty.haldane
    assert 1 < empty.low < empty.estimate < empty.high < np.inf


# -- the earlier rule --------------------------------------------------------------------------------------------------


def test_a_claim_of_the_earlier_rule_is_decided_by_both() -> None:
    rows = table(block({"A0": NEVER, "A1": NEVER}, cut=True))
    claim = CLAIM | {"predictions": [{"id": "H1", "expect": "no effect"}]}
    plan = {"ring": declared(["A0", "A1"])}
    old = {"claim_hash": "c0ffee", "registered_ms": 900, "records_before": 0, "outcome_version": 1, "blocks": plan}
    decision = decide(rows, claim, [old | {"claim": claim}], draws=2_000)
    assert "registered under the earlier rule" in decision.registered.sentence
    assert "room_low" not in decision.registered.sentence
    assert (decision.verdict, decision.overall.earlier) == ("uninformative", "no effect")
    assert "| ring | no effect | uninformative | differs |" in decision.to_markdown()
    assert decision.predictions[0].sentence.endswith("By the earlier rule: borne out (no effect).")
    now = decide(rows, claim, [old | {"claim": claim | {"room_low": 0.1, "room_high": 0.9}}], draws=2_000)
    assert "earlier rule" not in now.to_markdown()


def test_doses_are_read_from_the_records(tmp_path: Path) -> None:
    rates = 10 ** (-4 + 3 * place(20))
    sample = {"method": "sobol", "n": 20, "seed": 1, "space": {"lr": SPACE["lr"]}}
    plan = {"vae": declared(["A0", "A1"], sampled=["lr"], family="vae", **{"class": "C"}, sample=sample)}
    trials = [
        entry(f"{arm}-{i}", {"arm": arm, "lr": float(lr)}, "vae") for arm in ("A0", "A1") for i, lr in enumerate(rates)
    ]
    ledger = make_arm_store(tmp_path, trials, plan, CLAIM | {"negative_controls": ["vae"]})
    good = {t["trial_id"]: 0.1 + 0.01 * (t["cell"]["arm"] == "A1") if i % 3 else 0.9 for i, t in enumerate(trials)}
    rho = {"A0": 0.0, "A1": 0.002}
    train(
        ledger, "p1", {t["trial_id"]: series(good[t["trial_id"]], rho=rho[t["cell"]["arm"]], drift=0.5) for t in trials}
    )
    decision = decide_study(ledger, "demo")
    (found,) = decision.blocks
    assert [(dose.arm, dose.n_trials, dose.rho, dose.drift) for dose in found.doses] == [
        ("A0", 20, 0.0, 0.5), ("A1", 20, 0.002, 0.5),
    ]  # fmt: skip
    assert found.verdict == "no dose"
    assert "| A1 | 20 | 0.002 | 0.5 |" in decision.to_markdown()
