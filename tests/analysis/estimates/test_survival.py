from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.utils import restricted_mean_survival_time

from tests.analysis.arm_tables import NAN, arm_table, at
from vistudy.analysis.estimates.survival import (
    CLOCKS,
    cumulative_incidence,
    incidence_curve,
    restricted_mean_time,
    threshold_curve,
)

T, B = "A1", "A0"
BUDGET = 100.0


def timed(t_thr: dict[str, Any], *, t_coll: dict[str, Any] | None = None, t_div: dict[str, Any] | None = None,
          **more: Any) -> pd.DataFrame:  # fmt: skip
    """Trials with event times (configs, seeds) of each arm; NaN: none. 64 images a batch, 2 G updates a D update."""
    shape = np.shape(next(iter(t_thr.values())))
    table = arm_table({arm: np.ones(shape) for arm in t_thr}, d_updates=BUDGET, batch_size=64, d_steps=1, g_steps=2,
                      wall_s=50.0, **more)  # fmt: skip
    for name, times in (("t_thr", t_thr), ("t_coll", t_coll), ("t_div", t_div)):
        given = times or dict.fromkeys(t_thr, np.full(shape, NAN))
        table[name] = np.concatenate([np.ravel(np.asarray(given[arm], float)) for arm in t_thr])
    return table


def random_study(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Different times everywhere: collapse and divergence compete, some trials have neither."""
    rng = np.random.default_rng(seed)

    def events(scale: float) -> np.ndarray:
        times = rng.exponential(scale, (n, 1)) + rng.random((n, 1)) * 1e-6
        return np.where(times < BUDGET, times, NAN)

    return timed(
        {T: events(60), B: events(90)}, t_coll={T: events(150), B: events(80)}, t_div={T: events(200), B: events(300)}
    )


def columns(table: pd.DataFrame, arm: str, *names: str) -> list[np.ndarray]:
    rows = table[table["arm"] == arm].sort_values(["config", "seed"])
    return [rows[name].to_numpy(dtype=float) for name in names]


# -- E6 ----------------------------------------------------------------------------------------------------------------


def test_restricted_mean_time_by_hand() -> None:
    table = timed({T: [[20, 40], [NAN, 60]], B: [[80, NAN], [NAN, 60]]})
    found = restricted_mean_time(table, T, B, "d_updates")
    assert (found.mean_t, found.mean_b) == (pytest.approx((20 + 40 + 100 + 60) / 4), pytest.approx(340 / 4))
    assert found.difference == pytest.approx((-60 + 0) / 2)  # configurations: (-60 - 60) / 2 and (0 + 0) / 2
    assert (found.reached_t, found.reached_b) == (0.75, 0.5)
    assert (found.unit, found.n_pairs, found.n_configs) == ("discriminator updates", 4, 2)
    assert found.method == "cluster t"


def test_clocks() -> None:
    table = timed({T: [[20.0], [40.0]], B: [[NAN], [30.0]]})
    table.loc[table["arm"] == T, "wall_s"] = 150.0
    means = {clock: restricted_mean_time(table, T, B, clock) for clock in CLOCKS}
    assert {clock: (found.mean_t, found.mean_b) for clock, found in means.items()} == {
        "d_updates": (30, 65), "images": (30 * 64, 65 * 64), "g_updates": (60, 130),
        "seconds": (pytest.approx(45), pytest.approx(32.5)),
    }  # fmt: skip
    assert means["seconds"].difference > 0 > means["images"].difference
    assert means["images"].unit == "real images seen by D"


def test_budgets_may_differ_on_a_clock() -> None:
    """One configuration makes ten times the G updates of the other: a failure counts with its own budget."""
    table = timed({T: [[NAN], [10.0]], B: [[50.0], [NAN]]}, g_steps_of=[1, 10])
    table["g_steps"] = table["g_steps_of"]
    found = restricted_mean_time(table, T, B, "g_updates")
    assert (found.mean_t, found.mean_b) == (pytest.approx((100 + 100) / 2), pytest.approx((50 + 1000) / 2))
    assert (found.reached_t, found.reached_b) == (0.5, 0.5)


def test_configurations_weigh_the_same_in_times() -> None:
    table = timed({T: [[10, 30], [50, 50]], B: [[20, 20], [50, 50]]})
    table.loc[at(table, B, 1, 1), ["state", "stable"]] = ["failed", NAN]
    found = restricted_mean_time(table, T, B, "d_updates")
    assert (found.mean_t, found.mean_b, found.excluded) == (pytest.approx(35), pytest.approx(35), {"failed": 1})


def test_restricted_mean_is_lifelines() -> None:
    table = random_study(60, 1)
    found = restricted_mean_time(table, T, B, "d_updates")
    for arm, ours, reached in ((T, found.mean_t, found.reached_t), (B, found.mean_b, found.reached_b)):
        (times,) = columns(table, arm, "t_thr")
        last = np.where(np.isnan(times), BUDGET, times)
        fitter = KaplanMeierFitter().fit(last, ~np.isnan(times))
        assert ours == pytest.approx(restricted_mean_survival_time(fitter, t=BUDGET), rel=1e-9)
        assert reached == pytest.approx(1 - fitter.predict(BUDGET), abs=1e-9)
    assert found.low < found.difference < found.high


# -- E7 ----------------------------------------------------------------------------------------------------------------


def test_incidence_by_hand() -> None:
    """Four trials an arm. Treatment: collapse, divergence before a collapse, nothing twice. Baseline: 3 collapses."""
    table = timed(
        {T: [[NAN]] * 4, B: [[NAN]] * 4},
        t_coll={T: [[40], [70], [NAN], [NAN]], B: [[20], [30], [50], [NAN]]},
        t_div={T: [[NAN], [60], [NAN], [NAN]], B: [[NAN], [NAN], [80], [NAN]]},
    )
    found = cumulative_incidence(table, T, B)
    assert (found.share_t, found.share_b, found.difference) == (0.25, 0.75, -0.5)
    assert (found.free_t, found.free_b) == (pytest.approx((40 + 60 + 200) / 4), pytest.approx((20 + 30 + 50 + 100) / 4))
    assert found.free_difference == pytest.approx(25)
    assert found.free_low < 25 < found.free_high
    diverged = cumulative_incidence(table, T, B, "divergence")
    assert (diverged.share_t, diverged.share_b) == (0.25, 0)
    table.loc[at(table, T, 0, 0), "t_div"] = 40  # at the same evaluation: a divergence
    assert cumulative_incidence(table, T, B).share_t == 0
    assert cumulative_incidence(table, T, B, "divergence").share_t == 0.5


def test_incidence_is_lifelines() -> None:
    table = random_study(60, 2)
    found = cumulative_incidence(table, T, B)
    for arm, ours in ((T, found.share_t), (B, found.share_b)):
        collapse, divergence = columns(table, arm, "t_coll", "t_div")
        first = np.fmin(collapse, divergence)
        cause = np.where(np.isnan(first), 0, np.where(collapse == first, 1, 2))
        time = np.where(cause > 0, first, BUDGET)
        theirs = AalenJohansenFitter(calculate_variance=False).fit(time, cause, event_of_interest=1)
        assert ours == pytest.approx(float(theirs.cumulative_density_.iloc[-1, 0]), rel=1e-9)


def test_nothing_ever_happens() -> None:
    table = timed({T: [[NAN]] * 5, B: [[NAN]] * 5})
    found = cumulative_incidence(table, T, B)
    assert (found.share_t, found.difference, found.free_t) == (0, 0, BUDGET)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 5))  # five configurations do not exclude more
    slow = restricted_mean_time(table, T, B, "d_updates")
    assert (slow.mean_t, slow.difference, slow.reached_t) == (BUDGET, 0, 0)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curve_by_hand() -> None:
    table = timed({T: [[20, 40], [NAN, 40]]})
    curve = threshold_curve(table, T, "d_updates", draws=200)
    assert curve.time == (0, 20, 40, 100)
    assert curve.share == pytest.approx((0, 0.25, 0.75, 0.75))
    assert curve.at_risk == (4, 4, 3, 1)
    assert (curve.low[3], curve.high[3]) == (0.5, 1.0)  # resamples of the two configurations: 1, 3/4, 1/2
    assert threshold_curve(table, T, draws=10).time == (0, 20 * 64, 40 * 64, 6400)


@pytest.mark.parametrize("event", ["collapse", "divergence"])
def test_curve_ends_at_the_incidence(event: str) -> None:
    table = random_study(50, 3)
    curve = incidence_curve(table, B, event, draws=100)
    assert curve.share[-1] == pytest.approx(cumulative_incidence(table, T, B, event).share_b)
    assert list(curve.time) == sorted(curve.time)
    assert (curve.time[0], curve.time[-1]) == (0, BUDGET)
    assert (np.diff(curve.share) >= 0).all()
    assert (np.array(curve.low) <= np.array(curve.high)).all()
    assert curve == incidence_curve(table.sample(frac=1, random_state=1), B, event, draws=100)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    table = timed({T: [[10.0]], B: [[20.0]]})
    for change, options, message in (
        (table, {"clock": "days"}, "unknown clock 'days'; allowed: d_updates, images"),
        (table.drop(columns="batch_size"), {}, "no column batch_size"),
        (table.drop(columns="t_thr"), {}, "no column t_thr"),
        (table.assign(wall_s=NAN), {"clock": "seconds"}, "clock seconds: some trials lack wall_s, d_updates"),
        (table.assign(d_updates=NAN), {}, "clock images: some trials lack batch_size, d_updates"),
        (table.assign(stable=NAN, state="failed"), {}, "no pairs of A1 and A0"),
        (pd.concat([table, table]), {}, "trials twice"),
    ):
        with pytest.raises(ValueError, match=message):
            restricted_mean_time(change, T, B, **options)
    with pytest.raises(ValueError, match="unknown event 'death'"):
        cumulative_incidence(table, T, B, "death")
    with pytest.raises(ValueError, match="no evaluable trial"):
        threshold_curve(table.assign(stable=NAN), T)
    alone = restricted_mean_time(table, T, B, "d_updates")
    assert (alone.difference, math.isnan(alone.low)) == (-10, True)
