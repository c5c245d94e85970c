"""Time to events: E6, mean time to the sustained threshold, and E7, late collapse with divergence as a competing event.

A trial that fails to reach the threshold counts with its whole budget, so without early stops E6 is a mean of paired
differences. Trials that were stopped early (censored) are handled by Kaplan-Meier and Aalen-Johansen estimates, which
are right if the stop had nothing to do with how the trial would have gone on; a scheduler's stops are not like that, so
the extremes of what stopped trials may have done are given as well.
"""

from __future__ import annotations

from collections.abc import Callable
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
    bootstrap,
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
    """E6: difference in the restricted mean time to the sustained threshold, treatment - baseline."""

    treatment: str
    baseline: str
    clock: str
    unit: str
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    censored: int
    """Trials of the pairs that were stopped early."""
    mean_t: float
    """In units of the clock; a trial that does not get there counts with its budget."""
    mean_b: float
    difference: float
    """Negative: the treatment is faster."""
    low: float
    high: float
    reached_t: float
    """Share that reached the threshold and stayed there (Kaplan-Meier if trials are censored)."""
    reached_b: float
    worst_low: float
    """The difference if the treatment's censored trials had got there at once and the baseline's never."""
    worst_high: float
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IncidenceDifference:
    """E7: difference in the cumulative incidence of an event within the budget, treatment - baseline."""

    treatment: str
    baseline: str
    event: str
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    censored: int
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
    worst_low: float
    """The difference in incidence if only the baseline's censored trials had had the event."""
    worst_high: float
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
    """Trials without any event and not stopped just before each time."""
    n_configs: int


def restricted_mean_time(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    clock: str = "images",
    *,
    alpha: float = 0.05,
    draws: int = 10_000,
    seed: int = 0,
) -> TimeDifference:
    """Estimate E6 on one of CLOCKS, up to the budget. Configurations weigh the same.

    Without censored trials the interval is the cluster t of the configurations' differences (`mean_interval`); with
    them, the percentile bootstrap by configuration of the difference of two Kaplan-Meier means.

    Raises:
        ValueError: an arm or column that is not there, an unknown clock, a trial twice, several blocks, no pairs.
    """
    t, b, excluded = paired_ends(table, treatment, baseline, "threshold", clock)
    of_t, of_b = _whole(t), _whole(b)
    low, high, method = _interval(t, b, t.time - b.time, _mean_time, alpha, draws, seed, share=False)
    worst = [float(t.by_config(_if_never(t, never == "t") - _if_never(b, never == "b")).mean()) for never in ("b", "t")]
    return TimeDifference(
        treatment=treatment,
        baseline=baseline,
        clock=clock,
        unit=t.unit,
        n_configs=t.n_configs,
        n_pairs=len(t.time),
        excluded=excluded,
        censored=int(t.stopped.sum() + b.stopped.sum()),
        mean_t=float(of_t.mean_time[0]),
        mean_b=float(of_b.mean_time[0]),
        difference=float(of_t.mean_time[0] - of_b.mean_time[0]),
        low=low,
        high=high,
        reached_t=float(of_t.event[0, -1]),
        reached_b=float(of_b.event[0, -1]),
        worst_low=worst[0],
        worst_high=worst[1],
        method=method,
    )


def cumulative_incidence(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    event: str = "collapse",
    *,
    alpha: float = 0.05,
    draws: int = 10_000,
    seed: int = 0,
) -> IncidenceDifference:
    """Estimate E7: the incidence of `collapse` (late collapse) or `divergence` at the budget, the other competing.

    The mean time free of both comes with it: an arm in which trials diverge before they can collapse has a low
    incidence of collapse and a short free time. Intervals as in `restricted_mean_time`.

    Raises:
        ValueError: as `restricted_mean_time`.
    """
    t, b, excluded = paired_ends(table, treatment, baseline, event, "d_updates")
    of_t, of_b = _whole(t), _whole(b)
    had_t, had_b = ((ends.cause == EVENT).astype(float) for ends in (t, b))
    low, high, method = _interval(t, b, had_t - had_b, _incidence, alpha, draws, seed, share=True)
    free_low, free_high, _ = _interval(t, b, t.time - b.time, _mean_time, alpha, draws, seed, share=False)
    worst = [float(t.by_config(had_t - had_b + sign * side.stopped).mean()) for sign, side in ((-1.0, b), (1.0, t))]
    return IncidenceDifference(
        treatment=treatment,
        baseline=baseline,
        event=event,
        n_configs=t.n_configs,
        n_pairs=len(t.time),
        excluded=excluded,
        censored=int(t.stopped.sum() + b.stopped.sum()),
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
        worst_low=worst[0],
        worst_high=worst[1],
        method=method,
    )


def threshold_curve(
    table: pd.DataFrame, arm: str, clock: str = "images", *, alpha: float = 0.05, draws: int = 2000, seed: int = 0
) -> TimeCurve:
    """Share of an arm's trials that have reached the threshold for good, against time. Raises ValueError as E6."""
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
    """Cumulative incidence of `collapse` or `divergence` in one arm, against time. Raises ValueError as E7."""
    return _curve(trial_ends(table, arm, event, clock), arm, event, clock, alpha, draws, seed)


# -- inside ------------------------------------------------------------------------------------------------------------


def _whole(ends: TrialEnds) -> Curves:
    return estimate(ends, np.ones((1, ends.n_configs)))


def _mean_time(t: Curves, b: Curves) -> Floats:
    return t.mean_time - b.mean_time


def _incidence(t: Curves, b: Curves) -> Floats:
    return np.asarray(t.event[:, -1] - b.event[:, -1])


def _if_never(ends: TrialEnds, never: bool) -> Floats:
    """Times if stopped trials had never got there, or had at the moment of their stop."""
    return np.where(ends.stopped & never, ends.budget, ends.time)


def _interval(
    t: TrialEnds,
    b: TrialEnds,
    differences: Floats,
    statistic: Callable[[Curves, Curves], Floats],
    alpha: float,
    draws: int,
    seed: int,
    *,
    share: bool,
) -> tuple[float, float, str]:
    if not (t.stopped.any() or b.stopped.any()):
        return mean_interval(t.by_config(differences), alpha=alpha, share=share)
    if t.n_configs < 2:
        return float("nan"), float("nan"), "none: a single configuration"
    low, high = np.quantile(bootstrap((t, b), statistic, draws, seed), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high), "percentile bootstrap by configuration"


def _curve(ends: TrialEnds, arm: str, event: str, clock: str, alpha: float, draws: int, seed: int) -> TimeCurve:
    found, drawn = _whole(ends), estimate(ends, resampled(ends.n_configs, draws, seed))
    low, high = np.quantile(drawn.event, [alpha / 2, 1 - alpha / 2], axis=0)
    shown = np.isin(found.time, ends.time[ends.cause != BUDGET])
    inner = found.time[shown]
    time = np.concatenate([[0.0], inner[inner < found.horizon], [found.horizon]])
    places = np.searchsorted(found.time, time, side="right") - 1

    def at(values: Floats) -> tuple[float, ...]:
        return tuple(np.where(places < 0, 0.0, values[places]).tolist())

    return TimeCurve(
        arm=arm,
        event=event,
        clock=clock,
        unit=ends.unit,
        time=tuple(time.tolist()),
        share=at(found.event[0]),
        low=at(low),
        high=at(high),
        at_risk=tuple((ends.time >= time[:, None]).sum(1).astype(float).tolist()),
        n_configs=ends.n_configs,
    )
