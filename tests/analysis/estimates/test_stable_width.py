from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.analysis.arm_tables import NAN, arm_table
from vistudy.analysis.estimates.risk_difference import pair, risk_difference
from vistudy.analysis.estimates.stable_width import stable_curve, stable_width, width_difference
from vistudy.analysis.tables.rates import wilson

T, B = "A1", "A0"
PILOT_LR = [1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2]


def pilot(lr: list[float] = PILOT_LR) -> pd.DataFrame:
    """The ring pilot at ratio 1:10: stable shares 0, 0, 0, 1/4, 0 without and 0, 1/4, 1, 1, 1/4 with the term."""
    none = [[0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4]
    term = [[0] * 4, [1, 0, 0, 0], [1] * 4, [1] * 4, [0, 0, 0, 1]]
    return arm_table({B: none, T: term}, lr=lr)


def sample(n: int, seed: int, shift: float = 0.0, wider: float = 0.0) -> pd.DataFrame:
    """Baseline stable for log10 lr in (-3.5, -2.5) of the box (-4, -1), treatment moved and widened; 2 seeds."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-4, -1, n)
    noise = rng.random((2, n, 2)) < 0.9
    base = ((x > -3.5) & (x < -2.5))[:, None] & noise[0]
    term = ((x > -3.5 + shift) & (x < -2.5 + shift + wider))[:, None] & noise[1]
    return arm_table({B: base.astype(float), T: term.astype(float)}, lr=10**x)


def test_width_on_a_grid_is_the_trapezoid_rule() -> None:
    step = math.log10(4)
    width = stable_width(pilot(), T)
    assert width.design == "grid"
    assert width.width == pytest.approx(step * (0 + 0.25 + 1 + 1 + 0.25 / 2))  # 1.43 decades
    assert stable_width(pilot(), B).width == pytest.approx(step * 0.25)  # .15
    assert (width.edge_low, width.edge_high) == (0.0, 0.25)
    assert stable_width(pilot(), B).centroid == pytest.approx(math.log10(6.4e-3))
    mass = np.array([0, 0.25, 1, 1, 0.125])
    assert width.centroid == pytest.approx(mass @ np.log10(PILOT_LR) / mass.sum())


def test_width_of_a_sample_is_the_share_times_the_box() -> None:
    table = arm_table({T: [[1, 1], [1, 0], [0, 0], [0, 0]]}, lr=[1e-3, 1e-2, 1.3e-2, 4e-4])
    width = stable_width(table, T, box=(1e-4, 1e-1))
    assert (width.design, width.n_configs, width.box) == ("sample", 4, pytest.approx((1e-4, 1e-1)))
    assert width.width == pytest.approx(3 * 1.5 / 4)
    assert width.centroid == pytest.approx((2 * -3 + 1 * -2) / 3)
    assert math.isnan(width.edge_low)  # no trial in the lowest tenth of the box
    assert stable_width(table, T).box == pytest.approx((4e-4, 1.3e-2))


def test_difference_on_the_grid_by_hand() -> None:
    found = width_difference(pilot(), T, B)
    step = math.log10(4)
    assert found.difference == pytest.approx(step * (0.25 + 1 + 0.75 + 0.125))
    assert found.difference == pytest.approx(found.width_t - found.width_b)
    assert found.method == "stratified t, conditional on the grid"
    # seeds are the units: variances 0, 1/4, 0, 1/4, 1/4 of 4 each; weights of the levels 1, 1, 1, 1, 1/2 steps
    parts = step**2 * np.array([1, 1, 0.25]) * 0.25 / 4
    df = parts.sum() ** 2 / (parts**2 / 3).sum()
    assert df == pytest.approx(2.25**2 / ((1 + 1 + 0.0625) / 3))
    from scipy.stats import t

    half = t.ppf(0.975, df) * math.sqrt(parts.sum())
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))
    assert (found.edge_low, found.edge_high) == (0, 0)


def test_difference_in_a_sample_is_e1_in_decades() -> None:
    table = sample(80, 0, wider=0.6)
    found, e1 = width_difference(table, T, B, box=(1e-4, 1e-1)), risk_difference(pair(table, T, B))
    assert (found.difference, found.low, found.high) == pytest.approx((3 * e1.estimate, 3 * e1.low, 3 * e1.high))
    assert found.method == e1.interval_method


def test_a_mere_shift_moves_the_centroid_and_not_the_width() -> None:
    found = width_difference(sample(300, 1, shift=0.5), T, B, box=(1e-4, 1e-1), draws=2000)
    assert found.low < 0 < found.high
    assert found.shift_low < 0.5 < found.shift_high
    assert found.shift_low > 0
    wider = width_difference(sample(300, 1, shift=-0.4, wider=0.8), T, B, box=(1e-4, 1e-1), draws=2000)
    assert wider.low > 0
    assert wider.shift_low < 0 < wider.shift_high
    assert wider == width_difference(sample(300, 1, shift=-0.4, wider=0.8), T, B, box=(1e-4, 1e-1), draws=2000)


def test_a_grid_of_several_configurations_a_level_resamples_them() -> None:
    rng = np.random.default_rng(0)
    lr = np.repeat(PILOT_LR, 6)
    table = arm_table({B: (rng.random((30, 2)) < 0.3) * 1.0, T: (rng.random((30, 2)) < 0.7) * 1.0}, lr=lr)
    found = width_difference(table, T, B, draws=500)
    assert found.design == "grid"
    by_level = pair(table, T, B).differences.reshape(5, 6)
    weights = math.log10(4) * np.array([0.5, 1, 1, 1, 0.5])
    assert found.difference == pytest.approx(weights @ by_level.mean(1))
    parts = weights**2 * by_level.var(1, ddof=1) / 6
    assert found.high - found.low == pytest.approx(2 * math.sqrt(parts.sum()) * 2.06, rel=0.03)
    forced = width_difference(table, T, B, draws=500, design="sample")
    assert forced.design == "sample"
    assert forced.difference == pytest.approx(4 * math.log10(4) * by_level.mean())


def test_arms_that_are_never_or_always_stable() -> None:
    box = (1e-4, 1e-1)
    lr = 10 ** np.random.default_rng(0).uniform(-4, -1, 20)
    ones, zeros = np.ones((20, 1)), np.zeros((20, 1))
    for values, width in ((ones, 3.0), (zeros, 0.0)):
        found = width_difference(arm_table({B: values, T: values}, lr=lr), T, B, box=box, draws=100)
        assert (found.width_t, found.difference) == (pytest.approx(width), 0)
        assert found.low == pytest.approx(-3 * (1 - 0.025 ** (1 / 20)))
        assert math.isnan(found.shift) == (width == 0)
        assert math.isnan(found.shift_low) == (width == 0)
    found = width_difference(arm_table({B: zeros, T: ones}, lr=lr), T, B, box=box, draws=100)
    assert found.difference == pytest.approx(3)
    assert math.isnan(found.shift)
    grid = arm_table({B: [[0, 0]] * 5, T: [[0, 0]] * 5}, lr=PILOT_LR)
    assert math.isnan(width_difference(grid, T, B).low)
    assert width_difference(grid, T, B).method == "none: no spread within the levels of the grid"
    alone = arm_table({B: [[0]] * 5, T: [[1]] * 5}, lr=PILOT_LR)
    assert width_difference(alone, T, B).method == "none: a level of the grid with a single trial"


def test_one_seed_of_a_level_missing() -> None:
    table = pilot()
    table.loc[(table["arm"] == B) & (table["config"] == "c0001") & (table["seed"] == 3), "stable"] = NAN
    found = width_difference(table, T, B, draws=200)
    assert (found.n_pairs, found.excluded) == (19, {"undetermined": 1})
    assert found.width_t == pytest.approx(math.log10(4) * (1 / 3 + 1 + 1 + 0.125))  # 1 of the 3 that have a partner


def test_refusals() -> None:
    table = pilot()
    for change, options, message in (
        (table.drop(columns="lr"), {}, "no column lr"),
        (table.assign(lr=NAN), {}, "needs a learning rate above 0"),
        (table.assign(lr=0.0), {}, "needs a learning rate above 0"),
        (table.assign(lr=1e-3), {}, "at least two learning rates"),
        (table.assign(lr=np.linspace(1e-4, 1e-3, len(table))), {}, "trials of one configuration differ in lr"),
        (table, {"box": (1e-3, 1e-1)}, r"from 0\.0001 to 0\.0256 leave the box, 0\.001 to 0\.1"),
        (table, {"design": "random"}, "unknown design 'random'; allowed: sample, grid"),
        (table.assign(stable=NAN), {}, "no evaluable trial"),
    ):
        with pytest.raises(ValueError, match=message):
            stable_width(change, T, **options)
    with pytest.raises(ValueError, match="no pairs"):
        width_difference(table.assign(stable=NAN), T, B)


def test_curve_of_a_grid_has_its_shares() -> None:
    curve = stable_curve(pilot(), T)
    assert curve.lr == pytest.approx(PILOT_LR)
    assert curve.share == (0, 0.25, 1, 1, 0.25)
    assert curve.n_effective == (1, 1, 1, 1, 1)
    assert (curve.low[2], curve.high[2]) == pytest.approx(wilson(1, 1))


def test_curve_of_a_sample_follows_the_range() -> None:
    curve = stable_curve(sample(300, 2), B, box=(1e-4, 1e-1))
    at = np.log10(curve.lr)
    share, low, high = map(np.array, (curve.share, curve.low, curve.high))
    assert (len(at), at[0], at[-1]) == (61, pytest.approx(-4), pytest.approx(-1))
    assert share[np.argmin(abs(at + 3))] > 0.75
    assert share[at > -1.9].max() < 0.05
    assert ((low <= share + 1e-12) & (share <= high)).all()
    assert (high[share == 0] > 0).all()
    two = stable_curve(arm_table({B: [[1], [0], [1]]}, lr=[1e-4, 2e-4, 1e-1]), B, box=(1e-4, 1e-1), bandwidth=0.2)
    assert math.isnan(two.share[30])  # nothing near
