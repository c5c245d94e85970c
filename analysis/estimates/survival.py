"""Time to events: mean time to the sustained threshold, and incidence of late collapse with divergence competing.

A trial that fails to reach the threshold counts with its whole budget, so the time difference is a mean of paired
differences of min(time, budget), and the incidence difference one of shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.event_times import (
    BUDGET,
    CLOCKS,
    EVENT,
    EVENTS,
    Curves,
    TrialEnds,
    estimate,
    paired_ends,
    resampled,
    trial_ends,
)
from vistudy.analysis.estimates.pairs import Floats
from vistudy.analysis.estimates.risk_difference import mean_interval

__all__ = [
    "CLOCKS", "EVENTS", "IncidenceDifference", "TimeCurve", "TimeDifference", "cumulative_incidence", "incidence_curve",
    "restricted_mean_time", "threshold_curve",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeDifference:
    """Difference in the restricted mean time to the sustained threshold, treatment - baseline."""

    treatment: str
    baseline: str
    clock: str
    unit: str
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    mean_t: float
    """In units of the clock; a trial that does not get there counts with its budget."""
    mean_b: float
    difference: float
    """Negative: the treatment is faster."""
    low: float
    high: float
    reached_t: float
    """Share that reached the threshold and stayed there."""
    reached_b: float
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IncidenceDifference:
    """Difference in the cumulative incidence of an event within the budget, treatment - baseline."""

    treatment: str
    baseline: str
    event: str
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    share_t: float
    share_b: float
    difference: float
    low: float
    high: float
    free_t: float
    """Mean discriminator updates, up to the budget, before a late collapse or divergence."""
    free_b: float
    free_difference: float
    free_low: float
    free_high: float
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeCurve:
    """Share of trials to which the event has happened by each time."""

    arm: str
    event: str
    clock: str
    unit: str
    time: tuple[float, ...]
    """0, every time at which something happens, and the largest budget. The share is constant in between."""
    share: tuple[float, ...]
    low: tuple[float, ...]
    """Pointwise percentile band, by configuration."""
    high: tuple[float, ...]
    at_risk: tuple[float, ...]
    """Trials without any event just before each time."""
    n_configs: int


def restricted_mean_time(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    clock: str = "images",
    *,
    alpha: float = 0.05,
) -> TimeDifference:
    """Estimate the difference in mean time on one of CLOCKS, up to the budget. Configurations weigh the same.

    The interval is the cluster t of the configurations' differences (`mean_interval`).

    Raises:
        ValueError: an arm or column that is not there, an unknown clock, a trial twice, several blocks, no pairs.
    """
    t, b, excluded = paired_ends(table, treatment, baseline, "threshold", clock)
    of_t, of_b = _whole(t), _whole(b)
    low, high, method = mean_interval(t.by_config(t.time - b.time), alpha=alpha)
    return TimeDifference(
        treatment=treatment,
        baseline=baseline,
        clock=clock,
        unit=t.unit,
        n_configs=t.n_configs,
        n_pairs=len(t.time),
        excluded=excluded,
        mean_t=float(of_t.mean_time[0]),
        mean_b=float(of_b.mean_time[0]),
        difference=float(of_t.mean_time[0] - of_b.mean_time[0]),
        low=low,
        high=high,
        reached_t=float(of_t.event[0, -1]),
        reached_b=float(of_b.event[0, -1]),
        method=method,
    )


def cumulative_incidence(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    event: str = "collapse",
    *,
    alpha: float = 0.05,
) -> IncidenceDifference:
    """Estimate the difference in incidence of `collapse` (late) or `divergence` at the budget, the other competing.

    The mean time free of both comes with it: an arm in which trials diverge before they can collapse has a low
    incidence of collapse and a short free time. Intervals as in `restricted_mean_time`.

    Raises:
        ValueError: as `restricted_mean_time`.
    """
    t, b, excluded = paired_ends(table, treatment, baseline, event, "d_updates")
    of_t, of_b = _whole(t), _whole(b)
    had_t, had_b = ((ends.cause == EVENT).astype(float) for ends in (t, b))
    low, high, method = mean_interval(t.by_config(had_t - had_b), alpha=alpha, share=True)
    free_low, free_high, _ = mean_interval(t.by_config(t.time - b.time), alpha=alpha)
    return IncidenceDifference(
        treatment=treatment,
        baseline=baseline,
        event=event,
        n_configs=t.n_configs,
        n_pairs=len(t.time),
        excluded=excluded,
        share_t=float(of_t.event[0, -1]),
        share_b=float(of_b.event[0, -1]),
        difference=float(of_t.event[0, -1] - of_b.event[0, -1]),
        low=low,
        high=high,
        free_t=float(of_t.mean_time[0]),
        free_b=float(of_b.mean_time[0]),
        free_difference=float(of_t.mean_time[0] - of_b.mean_time[0]),
        free_low=free_low,
        free_high=free_high,
        method=method,
    )


def threshold_curve(
    table: pd.DataFrame, arm: str, clock: str = "images", *, alpha: float = 0.05, draws: int = 2000, seed: int = 0
) -> TimeCurve:
    """Share of an arm's trials that have reached the threshold for good, against time. Raises ValueError, too."""
    return _curve(trial_ends(table, arm, "threshold", clock), arm, "threshold", clock, alpha, draws, seed)


def incidence_curve(
    table: pd.DataFrame,
    arm: str,
    event: str = "collapse",
    clock: str = "d_updates",
    *,
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> TimeCurve:
    """Cumulative incidence of `collapse` or `divergence` in one arm, against time. Raises ValueError, too."""
    return _curve(trial_ends(table, arm, event, clock), arm, event, clock, alpha, draws, seed)


# -- inside ------------------------------------------------------------------------------------------------------------


def _whole(ends: TrialEnds) -> Curves:
    return estimate(ends, np.ones((1, ends.n_configs)))


def _curve(ends: TrialEnds, arm: str, event: str, clock: str, alpha: float, draws: int, seed: int) -> TimeCurve:
    curve, resampled_curves = _whole(ends), estimate(ends, resampled(ends.n_configs, draws, seed))
    low, high = np.quantile(resampled_curves.event, [alpha / 2, 1 - alpha / 2], axis=0)
    shown = np.isin(curve.time, ends.time[ends.cause != BUDGET])
    inner = curve.time[shown]
    time = np.concatenate([[0.0], inner[inner < curve.horizon], [curve.horizon]])
    places = np.searchsorted(curve.time, time, side="right") - 1

    def at(values: Floats) -> tuple[float, ...]:
        return tuple(np.where(places < 0, 0.0, values[places]).tolist())

    return TimeCurve(
        arm=arm,
        event=event,
        clock=clock,
        unit=ends.unit,
        time=tuple(time.tolist()),
        share=at(curve.event[0]),
        low=at(low),
        high=at(high),
        at_risk=tuple((ends.time >= time[:, None]).sum(1).astype(float).tolist()),
        n_configs=ends.n_configs,
    )
