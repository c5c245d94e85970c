from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from tests.analysis.arm_tables import NAN, arm_table, at
from vistudy.analysis.estimates.best_of_k import best_of_k, default_regret, expected_best, non_inferior

T, B = "A1", "A0"


# -- expected best -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_expected_best_is_the_mean_over_all_subsets(values: list[float]) -> None:
    found = expected_best(values, len(values))
    for k in range(1, len(values) + 1):
        every = [min(subset) for subset in itertools.combinations(values, k)]
        assert found[k - 1] == pytest.approx(np.mean(every), abs=1e-9)


def test_expected_best_by_hand() -> None:
    assert expected_best([0.4, 0.1, 0.9], 3) == pytest.approx([1.4 / 3, (0.1 + 0.1 + 0.4) / 3, 0.1])
    assert expected_best(np.arange(2000.0), 200)[[0, -1]] == pytest.approx([999.5, 2001 / 201 - 1])


def test_expected_best_is_unbiased_where_the_plug_in_is_not() -> None:
    """Best of 5 of 20 uniform values: E min = 1/6; the plug-in (with replacement) says more."""
    rng, plug = np.random.default_rng(0), 1 - np.arange(21) / 20
    draws = rng.random((4000, 20))
    ours = np.array([expected_best(values, 5)[4] for values in draws])
    theirs = np.sort(draws, axis=1) @ (plug[:-1] ** 5 - plug[1:] ** 5)
    error = ours.std() / math.sqrt(4000)
    assert abs(ours.mean() - 1 / 6) < 4 * error
    assert theirs.mean() - 1 / 6 > 10 * error


def test_expected_best_refuses() -> None:
    for values, k, message in (([0.1, NAN], 1, "not finite"), ([0.1], 2, "k = 2 needs"), ([0.1], 0, "k = 0 needs")):
        with pytest.raises(ValueError, match=message):
            expected_best(values, k)


# -- E3 ----------------------------------------------------------------------------------------------------------------


def test_best_of_k_by_hand() -> None:
    table = arm_table({T: [[0.1, 0.3], [0.5, 0.2], [0.9, 1.0]]}, "q")
    found = best_of_k(table, T)
    assert found.k == (1, 2, 3)
    means = [(1.5 + 1.5) / 6, ((0.1 + 0.1 + 0.5) + (0.2 + 0.3 + 0.2)) / 6, (0.1 + 0.2) / 2]
    assert found.q == pytest.approx(means)
    assert found.share_stable == pytest.approx((1 / 3, 2 / 3, 1))
    assert found.early_area == pytest.approx(np.average(means, weights=[3, 2, 1]))
    assert (found.n_configs, found.n_seeds, found.n_trials) == (3, 2, 6)


def test_interval_of_one_draw_is_students() -> None:
    q = np.random.default_rng(0).random((30, 2))
    found = best_of_k(arm_table({T: q}, "q"), T, 5)
    theirs = ttest_1samp(q.mean(1), 0).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((theirs.low, theirs.high))


def test_jackknife_leaves_out_whole_configurations() -> None:
    q = np.random.default_rng(1).random((8, 2))
    found = best_of_k(arm_table({T: q}, "q"), T, 8)
    k = 3
    left = [np.mean([expected_best(np.delete(q[:, s], i), k)[k - 1] for s in (0, 1)]) for i in range(8)]
    value, quantile = found.q[k - 1], 2.364624251592785  # of t with 7 degrees of freedom
    half = quantile * math.sqrt(7 / 8 * ((left - np.mean(left)) ** 2).sum())
    logs = np.log(left)
    ratio = math.exp(quantile * math.sqrt(7 / 8 * ((logs - logs.mean()) ** 2).sum()))
    assert found.high[k - 1] == pytest.approx(max(value + half, value * ratio))
    assert found.low[k - 1] == pytest.approx(min(max(value - half, 0), value / ratio))
    assert value * ratio > value + half  # the logarithm does something here
    assert min(found.low[:7]) >= 0
    assert math.isnan(found.low[7])  # no eighth draw without one of the eight
    assert math.isfinite(found.low[6])


def test_trials_that_are_not_evaluable_are_counted_and_left_out() -> None:
    table = arm_table({T: [[0.1, 0.3], [0.5, 0.2], [0.9, 1.0], [0.2, 0.2]]}, "q")
    for config, state in ((0, "failed"), (3, "running")):
        table.loc[at(table, T, config, 0), ["state", "q", "stable"]] = [state, NAN, NAN]
    found = best_of_k(table, T)
    assert found.excluded == {"failed": 1, "missing": 1}
    assert found.k == (1, 2)  # seed 0 has two
    assert found.q[1] == pytest.approx((0.5 + np.mean([0.2, 0.3, 0.2, 0.2, 0.2, 0.2])) / 2)
    assert (found.n_configs, found.n_trials) == (4, 6)
    assert math.isfinite(found.low[0])


def test_q_of_a_trial_that_is_not_evaluable_is_not_used() -> None:
    table = arm_table({T: [[0.1], [0.5], [0.9]]}, "q")
    table.loc[at(table, T, 0, 0), "stable"] = NAN
    found = best_of_k(table, T)
    assert (found.q[-1], found.k, found.share_stable) == (0.5, (1, 2), (0, 0))
    assert found.excluded == {"undetermined": 1}


def test_best_of_k_at_the_edges() -> None:
    one = best_of_k(arm_table({T: [[0.3, 0.5]]}, "q"), T)
    assert (one.k, one.q, math.isnan(one.low[0])) == ((1,), (0.4,), True)
    for value, share in ((0.0, 1.0), (1.0, 0.0)):
        flat = best_of_k(arm_table({T: [[value]] * 30}, "q"), T, 5)
        assert flat.q == pytest.approx((value,) * 5)
        assert np.isnan(flat.low).all()  # thirty equal values do not say how sure one can be
        assert np.isnan(flat.high).all()
        assert flat.share_stable == pytest.approx((share,) * 5)
    with pytest.raises(ValueError, match="no evaluable trial"):
        best_of_k(arm_table({T: [[NAN]] * 3}, "q"), T)
    with pytest.raises(ValueError, match="k_max must be at least 1"):
        best_of_k(arm_table({T: [[0.3]]}, "q"), T, 0)


# -- E8 ----------------------------------------------------------------------------------------------------------------


def test_one_draw_against_the_best_of_k() -> None:
    rng = np.random.default_rng(0)
    good, mixed = 0.05 + 0.02 * rng.random((60, 2)), 0.05 + 0.9 * rng.random((60, 2))
    table = arm_table({T: good, B: mixed}, "q")
    found = non_inferior(table, T, B, 20)
    assert found.q_treatment == pytest.approx(good.mean())
    assert found.q_baseline == pytest.approx(np.mean([expected_best(mixed[:, s], 20)[19] for s in (0, 1)]))
    assert found.holds
    assert found.high < 0.05
    assert found.stable_share_treatment == 1.0
    other = non_inferior(table, B, T, 20)
    assert not other.holds
    assert other.low > 0.05


@pytest.mark.parametrize("offset", [-0.05, 0.0, 0.02, 0.04, 0.05, 0.1])
def test_holding_is_an_interval_below_the_margin(offset: float) -> None:
    rng = np.random.default_rng(3)
    table = arm_table({T: 0.3 + offset + 0.1 * rng.random((40, 2)), B: 0.3 + 0.1 * rng.random((40, 2))}, "q")
    found = non_inferior(table, T, B, 1)
    assert found.holds == (found.high < found.margin) == (found.p < 0.05)
    d = pd.DataFrame(table.pivot(index="config", columns=["arm", "seed"], values="q"))
    theirs = ttest_1samp((d[T] - d[B]).mean(axis=1), 0.05, alternative="less")
    assert found.p == pytest.approx(theirs.pvalue)


def test_non_inferiority_refuses() -> None:
    table = arm_table({T: [[0.1]] * 20, B: [[0.1]] * 20}, "q")
    with pytest.raises(ValueError, match="k = 20 with an interval needs more than k configurations, got 20"):
        non_inferior(table, T, B, 20)
    same = non_inferior(table, T, B, 10)
    assert (same.difference, same.p, same.holds) == (pytest.approx(0), 1, False)
    assert math.isnan(same.high)
    with pytest.raises(ValueError, match="no pairs"):
        non_inferior(table.assign(q=NAN), T, B)


# -- E4 ----------------------------------------------------------------------------------------------------------------


def test_regret_of_the_default_by_hand() -> None:
    q = [[0.5, 0.6], [0.1, 0.4], [0.2, 0.2]]
    table = arm_table({B: q}, "q", lr=[1e-4, 1e-3, 1e-2], norm=["bn", "bn", "none"])
    found = default_regret(table, B, {"lr": 2e-4, "norm": "bn"})
    assert (found.config, found.n_configs, found.n_seeds) == ("c0000", 3, 2)
    assert found.distance == pytest.approx(math.log10(2) / 2)
    # seed 0 held out: seed 1 chooses c2 (.2); seed 1 held out: seed 0 chooses c1, at which seed 1 has .4
    assert (found.q_best, found.selection) == (pytest.approx((0.2 + 0.4) / 2), "held-out seeds")
    assert found.regret == pytest.approx(0.55 - 0.3)
    assert found.best_config == "c0002"
    assert default_regret(table, B, {"lr": 1e-2}).distance == 0
    assert default_regret(table, B, {"lr": 2e-4, "norm": "none"}).config == "c0002"


def test_choosing_and_valuing_by_the_same_seed_is_optimistic() -> None:
    rng = np.random.default_rng(0)
    q = rng.random((50, 2))  # nothing but noise: the regret is 0
    two = default_regret(arm_table({B: q}, "q", lr=10 ** rng.uniform(-4, -1, 50)), B, {"lr": 1e-3})
    one = default_regret(arm_table({B: q[:, :1]}, "q", lr=10 ** rng.uniform(-4, -1, 50)), B, {"lr": 1e-3})
    assert one.selection == "same seed"
    assert one.q_best == q[:, 0].min() < 0.05
    assert two.q_best > 0.15


def test_regret_refuses() -> None:
    table = arm_table({B: [[0.1]]}, "q", lr=[1e-3])
    for default, message in (({}, "at least one hyperparameter"), ({"depth": 3}, "no column depth")):
        with pytest.raises(ValueError, match=message):
            default_regret(table, B, default)
    with pytest.raises(ValueError, match="no evaluable trial"):
        default_regret(table.assign(q=NAN), B, {"lr": 1e-3})
    assert default_regret(table, B, {"lr": 1e-3}).regret == 0
