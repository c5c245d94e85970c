from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.series import REFERENCE, cut, label_series, series
from vistudy.analysis.outcomes.labels import (
    FLAG_TEXT,
    LABEL_TEXT,
    LABELS,
    OUTCOME_VERSION,
    RULES,
    Reference,
    Thresholds,
)
from vistudy.analysis.outcomes.rules import Outcome, deficiency, label


def step_at(when: int, before: float, after: float, until: int = 10**9):
    return lambda t: np.where((t >= when) & (t < until), after, before)


# -- the twelve edge cases of the methodology ------------------------------------------------------------------------


def test_real_against_real_converges() -> None:
    outcome = label_series(series(0.01))
    assert (outcome.label, outcome.t_thr, outcome.flags) == ("converged", 0.0, ())
    assert outcome.q_final == pytest.approx(0.01)


def test_untrained_throughout_is_stalled() -> None:
    outcome = label_series(series(1.0, cov=0.0, prec=0.0))
    assert (outcome.label, outcome.t_thr, outcome.q_final) == ("stalled", None, 1.0)


def test_fast_exponential_converges_at_its_crossing() -> None:
    # exp(-t/5) <= 0.25 from t = 5 ln 4 = 6.93 on
    outcome = label_series(series(lambda t: np.exp(-t / 5)))
    assert (outcome.label, outcome.t_thr) == ("converged", 70.0)


def test_slow_exponential_is_slow() -> None:
    assert label_series(series(lambda t: np.exp(-t / 60))).label == "slow"


def test_collapse_that_stays() -> None:
    outcome = label_series(series(step_at(25, 0.05, 0.9), cov=step_at(25, 1.0, 0.125)))
    assert (outcome.label, outcome.t_coll, outcome.t_thr) == ("mode_collapse_late", 250.0, 0.0)


def test_collapse_and_recovery() -> None:
    outcome = label_series(series(step_at(20, 0.05, 0.9, until=30), cov=step_at(20, 1.0, 0.125, until=30)))
    assert (outcome.label, outcome.t_coll, outcome.flags) == ("converged", None, ("transient_collapse",))


def test_single_mode_from_the_start() -> None:
    assert label_series(series(1.2, cov=0.125, prec=1.0, hq_share=1.0)).label == "mode_collapse_early"


def test_sinusoid_oscillates() -> None:
    assert label_series(series(lambda t: 0.5 + 0.4 * np.sin(t / 2))).label == "oscillating"


def test_non_finite_at_30_diverges_there() -> None:
    run = series(0.1)
    run["finite"][30], run["dist"][30] = 0.0, np.nan
    outcome = label_series(cut(run, 30))
    assert (outcome.label, outcome.t_div, outcome.q_final) == ("diverged", 300.0, None)
    assert outcome.q_best == pytest.approx(0.1)


def test_constant_mediocrity_is_a_plateau() -> None:
    assert label_series(series(0.5)).label == "plateau"


def test_stalled_because_d_won() -> None:
    outcome = label_series(series(0.95, d_acc_real=0.999, d_acc_fake=0.999))
    assert (outcome.label, outcome.flags) == ("stalled_d_won", ("d_won_segment",))
    assert label_series(series(0.95, d_acc_real=0.999, d_acc_fake=0.5)).label == "stalled"


def test_one_bad_evaluation_at_the_end_is_no_collapse() -> None:
    run = series(0.05)
    run["dist"][-1], run["cov"][-1] = 1.0, 0.1
    assert (label_series(run).label, label_series(run).flags) == ("converged", ("late_spike",))


# -- calibration and the composite -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "quality", "expected", "q"),
    [(17.3, 0.948, "plateau", 0.308), (24.1, 0.957, "converged", 0.036), (23.8, 0.917, "converged", 0.0727)],
    ids=["GAN", "ALI", "PacGAN2-like"],
)
def test_published_rows(modes: float, quality: float, expected: str, q: float) -> None:
    reference = dataclasses.replace(REFERENCE, prec_real=0.98889)
    outcome = label(series(0.0, cov=modes / 25, prec=quality), reference, evaluations=50)
    assert outcome.label == expected
    assert outcome.q_final == pytest.approx(q, abs=5e-4)


def test_deficiency_is_the_worst_of_three() -> None:
    reference = dataclasses.replace(REFERENCE, dist_floor=1.0, dist_ceiling=3.0, cov_real=0.8, prec_real=0.5)
    values = {
        "dist": np.array([0.5, 2.0, 1.0, 1.0, 7.0, np.inf, np.nan, -np.inf, 1.0]),
        "cov": np.array([0.9, 0.8, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8, np.inf]),
        "prec": np.array([0.6, 0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5]),
    }
    expected = [0.0, 0.5, 0.75, 0.2, 3.0, np.inf, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(deficiency(values, reference), expected)


def test_running_statistics_have_their_own_deficiency() -> None:
    run = series(0.1, dist_running=0.6, cov_running=1.0, prec_running=1.0)
    assert deficiency(run, REFERENCE, suffix="_running") == pytest.approx(0.6)
    assert label_series(run).flags == ("bn_stats_mismatch",)
    assert label_series(series(0.1, dist_running=0.29)).flags == ()


@pytest.mark.parametrize(
    "change", [{"dist_ceiling": 0.0}, {"dist_ceiling": float("nan")}, {"cov_real": 0.0}, {"max_abs_data": -1.0}]
)
def test_useless_reference_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="reference: "):
        dataclasses.replace(REFERENCE, **change)


def test_reference_from_a_pack() -> None:
    stored = dataclasses.asdict(REFERENCE)
    assert Reference.from_dict(stored | {"n": 3}) == REFERENCE
    del stored["cov_real"]
    with pytest.raises(ValueError, match="cov_real missing"):
        Reference.from_dict(stored)


# -- divergence --------------------------------------------------------------------------------------------------------


def exploding(name: str, height: float, first: int, last: int) -> dict[str, np.ndarray]:
    run = series(0.1)
    run[name][first : last + 1] = height
    return run


@pytest.mark.parametrize(("name", "limit"), [("g_param_norm", 1e3), ("d_param_norm", 1e3), ("max_abs_sample", 100.0)])
def test_explosion_must_last(name: str, limit: float) -> None:
    assert label_series(exploding(name, 1.01 * limit, 20, 24)).label == "diverged"
    assert label_series(exploding(name, 1.01 * limit, 20, 24)).t_div == 200.0
    assert label_series(exploding(name, 1.01 * limit, 20, 23)).label == "converged"
    assert label_series(exploding(name, 1.01 * limit, 50, 50)).t_div == 500.0
    assert label_series(exploding(name, limit, 20, 50)).label == "converged"


def test_divergence_comes_before_every_other_rule() -> None:
    run = series(step_at(25, 0.05, 0.9), cov=step_at(25, 1.0, 0.125))
    run["finite"][40] = 0.0
    outcome = label_series(cut(run, 40))
    assert (outcome.label, outcome.t_thr, outcome.t_coll, outcome.t_div) == ("diverged", 0.0, 250.0, 400.0)


def test_non_finite_before_training() -> None:
    run = cut(series(np.nan, finite=0.0), 0)
    outcome = label_series(run)
    assert (outcome.label, outcome.t_div, outcome.q_best) == ("diverged", 0.0, None)


# -- metric failures, short and incomplete runs ------------------------------------------------------------------------


def test_nan_metric_with_finite_samples_is_not_divergence() -> None:
    run = series(0.1)
    run["dist"][[10, 45, 50]] = np.nan
    outcome = label_series(run)
    assert (outcome.label, outcome.flags, outcome.t_div) == ("converged", ("metric_failure",), None)
    assert outcome.q_final == pytest.approx(0.1)


def test_metric_failing_in_most_of_the_final_window_says_nothing() -> None:
    run = series(0.1)
    run["dist"][44:] = np.nan  # 7 of the last 13
    assert label_series(run).label == "undetermined"
    run["dist"][44] = 0.1
    assert label_series(run).label == "converged"


def test_records_that_stop_without_divergence_say_nothing() -> None:
    outcome = label_series(cut(series(0.1), 49))
    assert (outcome.label, outcome.flags, outcome.q_final) == ("undetermined", ("records_incomplete",), None)
    assert label_series({}).label == "undetermined"


@pytest.mark.parametrize(("evaluations", "expected"), [(9, "plateau"), (10, "slow")])
def test_few_evaluations_refuse_a_trend(evaluations: int, expected: str) -> None:
    outcome = label_series(series(lambda t: 0.7 - 0.03 * t, evaluations=evaluations), evaluations)
    assert outcome.label == expected
    assert ("too_few_evaluations" in outcome.flags) == (evaluations < 10)


@pytest.mark.parametrize(("evaluations", "expected"), [(9, "plateau"), (16, "oscillating")])
def test_few_evaluations_refuse_an_oscillation(evaluations: int, expected: str) -> None:
    run = series(lambda t: 0.5 + 0.2 * (-1.0) ** t, evaluations=evaluations)
    assert label_series(run, evaluations).label == expected


def test_windows_follow_the_number_of_evaluations() -> None:
    t = Thresholds()
    assert [t.persistence(e) for e in (1, 30, 31, 50, 51)] == [3, 3, 4, 5, 6]
    assert [t.window(e) for e in (1, 10, 20, 40, 41, 50)] == [10, 10, 10, 10, 11, 13]
    assert [t.end(e) for e in (1, 10, 20, 40, 41, 50)] == [3, 3, 5, 10, 11, 13]
    assert [RULES[1].window(e) for e in (1, 25, 26, 50)] == [5, 5, 6, 10]
    assert [RULES[1].end(e) for e in (1, 25, 26, 50)] == [5, 5, 6, 10]


# -- version 2 ---------------------------------------------------------------------------------------------------------


def by_version(run: dict[str, np.ndarray], evaluations: int = 50) -> tuple[str, str]:
    outcomes = [label(run, REFERENCE, RULES[version], evaluations=evaluations) for version in (1, 2)]
    assert [outcome.version for outcome in outcomes] == [1, 2]
    return outcomes[0].label, outcomes[1].label


@pytest.mark.parametrize("evaluations", [10, 20, 40])
def test_one_curve_has_one_label_however_often_it_is_looked_at(evaluations: int) -> None:
    """Curves over time in [0, 1], with a lapse of a fortieth of the run: what E = 40 sees, half of it misses."""
    curves = {
        "converged": lambda t: np.where(t < 0.65, 0.9, 0.1),  # late, and good from then on
        "slow": lambda t: 1 - 0.5 * t,
        "stalled": lambda t: 0.9 + 0 * t,
        "plateau": lambda t: np.where(t < 0.3, 0.9, 0.5),
        "unsteady": lambda t: np.where((t < 0.7) | (t > 0.95), 0.7, 0.1),  # lost in the last evaluation at any E
    }
    found = {
        name: label_series(
            series(lambda i, curve=curve: curve(i / evaluations), evaluations=evaluations), evaluations
        ).label
        for name, curve in curves.items()
    }
    assert found == {name: name for name in curves}


@pytest.mark.parametrize(("bad", "expected"), [(0, "converged"), (1, "converged"), (2, "unsteady")])
def test_one_bad_evaluation_of_ten_is_forgiven(bad: int, expected: str) -> None:
    run = series(0.1, evaluations=20)
    run["dist"][20 - 2 * np.arange(bad)] = 0.4
    assert label_series(run, 20).label == expected
    if bad == 1:  # of five, 90 % were all of them
        assert by_version(run, 20) == ("plateau", "converged")


def test_good_but_not_throughout_is_unsteady_however_it_ends() -> None:
    lapses = series(lambda t: np.where(t % 4 == 0, 0.3, 0.1))
    assert by_version(lapses) == ("plateau", "unsteady")
    arriving = series(lambda t: np.maximum(0.9 - t / 50, 0.15), evaluations=50)
    arriving["dist"][39:] = np.where(np.arange(39, 51) % 5 == 0, 0.3, 0.2)
    assert by_version(arriving) == ("slow", "unsteady")
    assert label_series(series(lambda t: np.where(t % 3 == 0, 0.3, 0.2), evaluations=8), 8).label == "unsteady"


def test_slow_is_no_name_for_what_is_as_bad_as_untrained() -> None:
    assert by_version(series(lambda t: 2.4 - 0.02 * t)) == ("slow", "stalled")  # 1.4 at the end
    assert by_version(series(lambda t: 1.4 - 0.01 * t)) == ("slow", "slow")  # .9
    garbage = series(lambda t: 1 - 0.005 * t, prec=1.0, prec_pixels=0.0)
    assert by_version(garbage) == ("slow", "stalled")


def test_early_collapse_is_not_what_is_still_growing() -> None:
    growing = series(0.5, cov=lambda t: 0.004 * t)  # .2 at the end, and Q falls with it
    assert by_version(growing) == ("mode_collapse_early", "slow")
    assert by_version(series(0.5, cov=lambda t: 0.15 + 1e-4 * t)) == ("mode_collapse_early",) * 2
    drifting = series(0.9, cov=lambda t: np.where((t > 37) & (t % 4 > 0), 0.125, 0.0), hq_share=1.0)  # onto one mode
    assert by_version(drifting) == ("mode_collapse_early",) * 2
    few = series(0.5, cov=lambda t: 0.02 * t, evaluations=8)  # too few to see a trend
    assert label_series(few, 8).label == "mode_collapse_early"


def test_early_collapse_is_not_garbage_that_a_classifier_takes_for_data() -> None:
    assert by_version(series(1.2, cov=0.1, fd=9.0)) == ("mode_collapse_early", "stalled")  # as far as untrained
    assert by_version(series(0.9, cov=0.1, fd=9.0)) == ("mode_collapse_early",) * 2
    assert by_version(series(0.9, cov=0.1, fd=9.0, prec_pixels=0.4)) == ("mode_collapse_early", "stalled")
    assert by_version(series(0.9, cov=0.1, fd=9.0, prec_pixels=0.6)) == ("mode_collapse_early",) * 2
    for exact in ({}, {"hq_share": 1.0}, {"triangle_share": 1.0, "fd": 9.0}):  # one mode of eight may be farther away
        assert by_version(series(1.5, cov=0.125, **exact)) == ("mode_collapse_early",) * 2


def test_terms_of_version_2_and_what_lacks_them() -> None:
    values = {
        "dist": np.zeros(5), "class_coverage": np.array([1.0, 0.8, 0.5, 0.1, np.nan]),
        "mode_spread": np.array([1.2, 0.58, 0.5, 0.0, np.nan]), "prec_pixels": np.array([0.9, 0.8, 0.4, 0.0, np.nan]),
    }  # fmt: skip
    reference = dataclasses.replace(REFERENCE, prec_pixels_real=0.8)

    def q(*names: str, version: int = 2) -> list[float]:
        return list(deficiency({name: values[name] for name in ("dist", *names)}, reference, version=version))

    assert q("class_coverage") == pytest.approx([0, 0.36, 0.75, 0.99, 0])
    assert q("mode_spread") == pytest.approx([0, 0.1764, 0.25, 1, 0])
    assert q("prec_pixels") == pytest.approx([0, 0, 0.5, 1, 0])
    assert q("class_coverage", "mode_spread", "prec_pixels", version=1) == [0] * 5
    assert by_version(series(0.05, mode_spread=0.0)) == ("converged", "stalled")
    assert by_version(series(0.05, class_coverage=0.8)) == ("converged", "plateau")


@pytest.mark.parametrize(("old", "new"), [("hq_share", "mode_spread"), ("prdc_precision", "prec_pixels")])
def test_records_without_the_terms_say_so(old: str, new: str) -> None:
    run = series(0.1, **{old: 1.0})
    assert label_series(run).flags == ("recorded_before_v2",)
    assert label(run, REFERENCE, RULES[1], evaluations=50).flags == ()
    assert label_series(run | {new: np.ones(51)}).flags == ()


# -- single conditions -------------------------------------------------------------------------------------------------


def test_collapse_shorter_than_w_is_none() -> None:
    assert label_series(series(step_at(47, 0.05, 0.9), cov=step_at(47, 1.0, 0.125))).label == "unsteady"
    assert label_series(series(step_at(46, 0.05, 0.9), cov=step_at(46, 1.0, 0.125))).label == "mode_collapse_late"


def test_losing_less_than_half_of_the_coverage_is_no_collapse() -> None:
    assert label_series(series(0.05, cov=step_at(25, 1.0, 0.51))).label == "plateau"
    assert label_series(series(0.05, cov=step_at(25, 1.0, 0.5))).label == "mode_collapse_late"


def test_late_collapse_needs_a_worse_q() -> None:
    assert label_series(series(0.45, cov=step_at(25, 1.0, 0.45))).label == "plateau"  # Q from 0.45 to 0.55
    assert label_series(series(0.30, cov=step_at(25, 1.0, 0.45))).label == "mode_collapse_late"
    assert (
        label_series(series(np.inf, cov=step_at(25, 1.0, 0.125))).label == "stalled"
    )  # infinitely bad before and after


def test_late_collapse_needs_to_have_covered_and_early_never() -> None:
    assert label_series(series(0.1, cov=step_at(25, 0.4, 0.1))).label == "mode_collapse_early"
    assert label_series(series(0.95, cov=step_at(25, 0.6, 0.2))).label == "stalled"


def test_slow_needs_significance_and_a_drop() -> None:
    assert label_series(series(lambda t: 0.5 - 0.0005 * t)).label == "plateau"
    jumps = np.tile([0.56, 0.4, 0.56, 0.4, 0.4, 0.56], 9)[:51]
    jumps[26:38], jumps[38:] = [0.56, 0.4] * 5 + [0.56, 0.56], [0.4, 0.56] * 6 + [0.4]
    assert label_series(series(jumps)).label == "plateau"  # the medians fall by 0.16, without a trend


def test_only_the_second_half_can_oscillate() -> None:
    swinging = lambda t: 0.5 + 0.3 * (-1.0) ** t  # noqa: E731
    assert label_series(series(lambda t: np.where(t <= 25, swinging(t), 0.5))).label == "plateau"
    assert label_series(series(lambda t: np.where(t > 25, swinging(t), 0.5))).label == "oscillating"


def test_a_net_that_begins_at_zero_has_not_exploded() -> None:
    run = series(0.1)
    run["g_param_norm"][0] = 0.0
    assert label_series(run).label == "converged"


def test_an_unfinished_collapse_has_no_time() -> None:
    outcome = label_series(cut(series(step_at(25, 0.05, 0.9), cov=step_at(25, 1.0, 0.125)), 40))
    assert (outcome.label, outcome.t_coll) == ("undetermined", None)


def test_early_collapse_needs_precision() -> None:
    assert label_series(series(1.0, cov=0.125, prec=0.4)).label == "stalled"


def test_saturation_is_a_flag() -> None:
    outcome = label_series(series(0.1, saturated_share=step_at(10, 0.0, 0.99, until=15)))
    assert (outcome.label, outcome.flags) == ("converged", ("saturated",))


def test_data_without_coverage_and_precision() -> None:
    run = series(0.1)
    del run["cov"], run["prec"]
    assert label_series(run).label == "converged"


def test_ragged_or_unsorted_series_are_refused() -> None:
    with pytest.raises(ValueError, match="every array must be"):
        label_series(series(0.1) | {"cov": np.ones(3)})
    with pytest.raises(ValueError, match="strictly increasing"):
        label_series({name: array[::-1] for name, array in series(0.1).items()})


# -- properties --------------------------------------------------------------------------------------------------------

NAMES = ("dist", "cov", "prec", "finite", "g_param_norm", "d_param_norm", "max_abs_sample", "d_acc_real", "d_acc_fake",
         "saturated_share", "dist_running", "cov_running", "prec_running", "mode_spread", "class_coverage",
         "prec_pixels", "hq_share")  # fmt: skip


@st.composite
def runs(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[dict[str, np.ndarray], int]:
    evaluations = draw(st.integers(1, 40))
    length = draw(st.integers(0, evaluations + 1))
    names = draw(st.sets(st.sampled_from(NAMES)))
    t = np.arange(length, dtype=np.float64)
    columns = {name: np.array(draw(st.lists(numbers, min_size=length, max_size=length)), np.float64) for name in names}
    return {"evaluation": t, "step": 7 * t, **columns}, evaluations


def check(outcome: Outcome, evaluations: int) -> None:
    assert outcome.label in LABELS
    assert set(outcome.flags) <= set(FLAG_TEXT)
    assert (outcome.t_div is not None) == (outcome.label == "diverged")
    times = [t for t in (outcome.t_thr, outcome.t_coll, outcome.t_div) if t is not None]
    assert all(0 <= t <= 7 * evaluations for t in times)
    assert outcome.t_div is None or max(times) == outcome.t_div
    for q in (outcome.q_final, outcome.q_best):
        assert q is None or q >= 0
    if outcome.label == "converged":
        assert outcome.q_final is not None
        assert outcome.q_final <= Thresholds().tau_ok


@settings(deadline=None, max_examples=150)
@given(run=runs(st.floats(allow_nan=True, allow_infinity=True)))
def test_any_series_has_exactly_one_label(run: tuple[dict[str, np.ndarray], int]) -> None:
    check(label_series(*run), run[1])


@settings(deadline=None, max_examples=150)
@given(run=runs(st.integers(0, 64).map(lambda n: n / 32)), threshold=st.integers(1, 8))
def test_plausible_series(run: tuple[dict[str, np.ndarray], int], threshold: int) -> None:
    series_, evaluations = run
    outcome = label_series(series_, evaluations)
    check(outcome, evaluations)
    for dtype in (np.float32, np.float16):  # halves, quarters ... are exact in each
        assert label({k: v.astype(dtype) for k, v in series_.items()}, REFERENCE, evaluations=evaluations) == outcome
    strict = label(series_, REFERENCE, Thresholds(tau_ok=threshold / 32), evaluations=evaluations)
    if strict.t_thr is not None:  # a stricter threshold is never reached earlier
        assert outcome.t_thr is not None
        assert outcome.t_thr <= strict.t_thr


def test_labelling_changes_nothing() -> None:
    run = series(lambda t: np.exp(-t / 5), cov=0.5)
    before = {name: array.copy() for name, array in run.items()}
    label_series(run)
    for name, array in before.items():
        np.testing.assert_array_equal(run[name], array)


def test_the_page_names_every_label_flag_and_the_version() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "outcomes.md").read_text(encoding="utf-8")
    assert f"rules version {OUTCOME_VERSION}" in page
    assert [name for name in (*LABELS, *FLAG_TEXT) if f"`{name}`" not in page] == []
    assert [short for short, _ in LABEL_TEXT.values() if short not in page] == []
