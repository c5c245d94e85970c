from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from tests.analysis.arm_tables import NAN, arm_table, at
from vistudy.analysis.estimates.aggregate import (
    interquartile_mean,
    iqm,
    performance_profile,
    probability_of_improvement,
)
from vistudy.analysis.estimates.risk_difference import pair

T, B = "A1", "A0"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_iqm_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert iqm(values) == pytest.approx(trim_mean(values, 0.25), abs=1e-12)


def test_iqm_by_hand() -> None:
    assert iqm([9, 1, 2, 3, 4, 5, 0, -7]) == 2.5  # 1, 2, 3, 4
    assert iqm([1, 2, 30]) == 11  # nothing to leave out
    for values in ([], [1, NAN]):
        with pytest.raises(ValueError, match="one or more finite values"):
            iqm(values)


def test_interquartile_mean_by_hand() -> None:
    table = arm_table({T: [[0.1, 0.2], [0.3, 1.0], [0.5, 0.6], [0.9, 1.7]]}, "q")
    found = interquartile_mean(table, T)
    # 1 - Q clipped: .9 .8 .7 .5 | .4 .1 0 0; the middle four are .7 .5 .4 .1
    assert found.estimate == pytest.approx(0.425)
    assert found.low < found.estimate < found.high
    assert (found.n_blocks, found.n_configs, found.n_trials, found.excluded) == (1, 4, 8, {})
    assert found == interquartile_mean(table.sample(frac=1, random_state=0), T)


def test_resamples_are_weighted_sets() -> None:
    """The interval of the interquartile mean is that of resampling rows and trimming them one by one."""
    rng = np.random.default_rng(0)
    q = rng.random((12, 3))
    found = interquartile_mean(arm_table({T: q}, "q"), T, draws=4000)
    assert found != interquartile_mean(arm_table({T: q}, "q"), T, draws=4000, seed=1)
    drawn = trim_mean((1 - q)[rng.integers(0, 12, (4000, 12))].reshape(4000, 36), 0.25, axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)


def test_blocks_are_strata() -> None:
    """Two blocks without spread inside: resampling within blocks changes nothing, over blocks it would."""
    easy, hard = (arm_table({T: [[q]] * 6}, "q").assign(block=name) for name, q in (("easy", 0.0), ("hard", 1.0)))
    found = interquartile_mean(pd.concat([easy, hard]), T)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    assert (found.n_blocks, found.n_configs) == (2, 12)
    profile = performance_profile(pd.concat([easy, hard]), T, [0.5])
    assert (profile.share, profile.low, profile.high) == ((0.5,), (0.5,), (0.5,))


def test_profile_by_hand() -> None:
    table = arm_table({T: [[0.1, 0.2], [0.3, 1.0]]}, "q")
    table.loc[at(table, T, 1, 1), ["q", "stable", "state"]] = [NAN, NAN, "failed"]
    found = performance_profile(table, T, [0.05, 0.1, 0.25, 0.3])
    assert found.share == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert (found.n_configs, found.n_trials, found.excluded) == (2, 3, {"failed": 1})
    assert (found.low[2], found.high[2]) == (0, 1)  # resamples of two configurations
    whole = performance_profile(table, T)
    assert (len(whole.tau), whole.tau[0], whole.tau[-1], whole.share[-1]) == (101, 0, 1, 1)
    assert (np.diff(whole.share) >= 0).all()
    assert (np.array(whole.low) <= np.array(whole.high)).all()


def test_probability_of_improvement_by_hand() -> None:
    table = arm_table({T: [[0.1, 0.2], [0.3, 0.4], [0.5, 0.5]], B: [[0.2, 0.3], [0.3, 0.1], [0.9, 0.4]]}, "q")
    found = probability_of_improvement(pair(table, T, B, "q"))
    assert found.estimate == pytest.approx((1 + 0.25 + 0.5) / 3)  # 1, 1 | tie, 0 | 1, 0
    assert not found.meaningful
    mirrored = probability_of_improvement(pair(table, B, T, "q"))
    assert (mirrored.estimate, mirrored.low) == pytest.approx((1 - found.estimate, 1 - found.high))
    sure = probability_of_improvement(pair(arm_table({T: [[0.1]] * 20, B: [[0.2]] * 20}, "q"), T, B, "q"))
    assert (sure.estimate, sure.high, sure.meaningful) == (1, 1, True)
    same = probability_of_improvement(pair(arm_table({T: [[0.1]] * 20, B: [[0.1]] * 20}, "q"), T, B, "q"))
    assert same.estimate == 0.5
    assert same.low == pytest.approx(0.5 - (1 - 0.025 ** (1 / 20)) / 2)


def test_edges_and_refusals() -> None:
    table = arm_table({T: [[0.1, 0.4]]}, "q")
    one = interquartile_mean(table, T)
    assert (one.estimate, math.isnan(one.low), math.isnan(one.high)) == (0.75, True, True)
    assert np.isnan(performance_profile(table, T).low).all()
    for change, message in (
        (table.assign(q=NAN), "no judged trial"),
        (table.assign(arm=B), "no arm 'A1'; the table has A0"),
        (pd.concat([table, table]), "2 trials twice"),
        (table.drop(columns="q"), "no column q"),
    ):
        for function in (interquartile_mean, performance_profile):
            with pytest.raises(ValueError, match=message):
                function(change, T)
    with pytest.raises(ValueError, match="no pairs"):
        probability_of_improvement(pair(arm_table({T: [[NAN]], B: [[0.1]]}, "q"), T, B, "q"))
