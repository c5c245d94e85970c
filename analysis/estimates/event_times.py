"""When things happen to trials: event times on several clocks, Kaplan-Meier and Aalen-Johansen by weights.

Every trial ends in one of three ways: the event, a competing event, or its budget. All three are known ends, so nothing
is censored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.pairs import Floats, no_pairs, one_block, pair

CLOCKS: dict[str, tuple[str, str]] = {
    "d_updates": ("discriminator updates", "as recorded"),
    "images": ("real images seen by D", "discriminator updates x batch_size"),
    "g_updates": ("generator updates", "discriminator updates x g_steps / d_steps"),
    "seconds": ("seconds of training", "discriminator updates x the trial's own wall_s per update"),
}
"""Clock -> (unit, how it is read from discriminator updates)."""
CLOCK_COLUMNS = {
    "d_updates": (),
    "images": ("batch_size",),
    "g_updates": ("g_steps", "d_steps"),
    "seconds": ("wall_s",),
}
EVENTS: dict[str, tuple[str, str | None]] = {
    "threshold": ("t_thr", None),
    "collapse": ("t_coll", "t_div"),
    "divergence": ("t_div", "t_coll"),
}
"""Event -> (column of its time, column of the competing event's)."""
BUDGET, EVENT, OTHER = 0, 1, 2
"""How a trial ended. A divergence goes before a collapse at the same evaluation."""
_BATCH = 4 * 10**6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrialEnds:
    """How and when the trials of one arm ended. All arrays (trials,)."""

    time: Floats
    """Units of the clock until `cause`."""
    cause: np.ndarray
    """BUDGET, EVENT or OTHER."""
    budget: Floats
    """Time at which the trial would have ended by itself."""
    config: np.ndarray
    """Number of the trial's configuration, 0 ... n_configs - 1."""
    unit: str

    @property
    def n_configs(self) -> int:
        """Configurations with a trial."""
        return int(self.config.max()) + 1

    @property
    def weight(self) -> Floats:
        """1 / trials of its configuration: configurations weigh the same."""
        return np.asarray(1 / np.bincount(self.config)[self.config])

    def by_config(self, values: Floats) -> Floats:
        """Mean of the values of each configuration's trials. (configs,)"""
        return np.asarray(np.bincount(self.config, values) / np.bincount(self.config))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curves:
    """Estimates for each row of weights, right after each of `time`."""

    time: Floats
    """Distinct times at which a trial ends, ascending. (times,)"""
    free: Floats
    """Share to which nothing has happened yet and whose budget has not ended. (rows, times)"""
    event: Floats
    """Cumulative incidence of EVENT. (rows, times)"""
    horizon: float
    """Largest budget."""

    @property
    def mean_time(self) -> Floats:
        """Mean time until anything ends the trial: the area under `free`. (rows,)"""
        steps = np.diff(self.time, prepend=0.0)
        before = np.concatenate([np.ones((len(self.free), 1)), self.free[:, :-1]], axis=1)
        return np.asarray(before @ steps + self.free[:, -1] * (self.horizon - self.time[-1]))


def check_clock(event: str, clock: str) -> None:
    """Raise ValueError unless event and clock exist."""
    for what, name, allowed in (("event", event, EVENTS), ("clock", clock, CLOCKS)):
        if name not in allowed:
            raise ValueError(f"unknown {what} {name!r}; allowed: {', '.join(allowed)}")


def paired_ends(
    table: pd.DataFrame, treatment: str, baseline: str, event: str, clock: str
) -> tuple[TrialEnds, TrialEnds, dict[str, int]]:
    """Ends of the paired trials of two arms, in the same order, and why other pairs are left out.

    Evaluable trials take part.

    Raises:
        ValueError: as `pair`; no pairs; an unknown event or clock; a clock's column that has no value.
    """
    check_clock(event, clock)
    usable = _usable(table, event, clock, [treatment, baseline])
    pairs = pair(usable, treatment, baseline, "usable")
    if not pairs.n_pairs:
        raise no_pairs(pairs)
    row, column = np.nonzero(np.isfinite(pairs.t))
    keys = [(pairs.configs[r], pairs.seeds[c]) for r, c in zip(row, column, strict=True)]
    sides = []
    for arm in (treatment, baseline):
        rows = usable[usable["arm"] == arm]
        index = pd.MultiIndex.from_arrays([rows["config"].astype(str), rows["seed"].astype(str)])
        sides.append(_ends(rows.set_index(index).loc[keys], row, event, clock))
    return sides[0], sides[1], dict(pairs.excluded)


def trial_ends(table: pd.DataFrame, arm: str, event: str, clock: str) -> TrialEnds:
    """Ends of all usable trials of one arm. Raises ValueError as `paired_ends`."""
    check_clock(event, clock)
    rows = _usable(table, event, clock, [arm])
    rows = rows[(rows["arm"] == arm) & rows["usable"].notna()]
    if rows.empty:
        raise ValueError(f"arm {arm} has no evaluable trial")
    return _ends(rows, np.unique(rows["config"].astype(str), return_inverse=True)[1], event, clock)


def estimate(ends: TrialEnds, weights: Floats) -> Curves:
    """Kaplan-Meier and Aalen-Johansen estimates for each row of weights (rows, configs)."""
    order = np.argsort(ends.time, kind="stable")
    times, starts = np.unique(ends.time[order], return_index=True)
    cause, config, own = ends.cause[order], ends.config[order], ends.weight[order]
    free, event = (np.empty((len(weights), len(times))) for _ in range(2))
    size = max(1, _BATCH // len(order))
    for first in range(0, len(weights), size):
        part = slice(first, first + size)
        w = weights[part][:, config] * own
        leaving = np.add.reduceat(w, starts, axis=1)
        at_risk = np.cumsum(leaving[:, ::-1], axis=1)[:, ::-1]
        at_risk = np.where(at_risk > 1e-12, at_risk, np.inf)
        ended = leaving / at_risk
        happened = np.add.reduceat(w * (cause == EVENT), starts, axis=1) / at_risk
        free[part] = np.cumprod(1 - ended, axis=1)
        before = np.concatenate([np.ones((len(w), 1)), free[part][:, :-1]], axis=1)
        event[part] = np.cumsum(before * happened, axis=1)
    return Curves(time=times, free=free, event=event, horizon=float(ends.budget.max()))


@functools.lru_cache(maxsize=4)
def resampled(n_configs: int, draws: int, seed: int) -> Floats:
    """How often each configuration is in each of `draws` resamples; to be read only. (draws, n_configs)"""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_configs, np.full(n_configs, 1 / n_configs), size=draws).astype(float)
    counts.flags.writeable = False  # the next caller gets the same
    return counts


# -- inside ------------------------------------------------------------------------------------------------------------


def _usable(table: pd.DataFrame, event: str, clock: str, arms: list[str]) -> pd.DataFrame:
    """The table with a column `usable`, 1 or NaN."""
    needed = [name for name in EVENTS[event] if name]
    one_block(table, ["stable", "state", "d_updates", *needed, *CLOCK_COLUMNS[clock]], arms)
    return table.assign(usable=np.where(table["stable"].notna(), 1.0, np.nan))


def _ends(rows: pd.DataFrame, config: np.ndarray, event: str, clock: str) -> TrialEnds:
    own, other = EVENTS[event]

    def column(name: str) -> Floats:
        return rows[name].to_numpy(dtype=float, na_value=np.nan)

    budget = column("d_updates")
    at = np.where(np.isnan(column(own)), np.inf, column(own))
    rival = np.full(len(rows), np.inf) if other is None else np.where(np.isnan(column(other)), np.inf, column(other))
    first = (at < rival) if own == "t_coll" else (at <= rival)
    cause = np.where(np.isfinite(np.minimum(at, rival)), np.where(first, EVENT, OTHER), BUDGET)
    time = np.where(cause > 0, np.minimum(at, rival), budget)
    rate = _rate(column, clock, budget)
    if not (np.isfinite(rate) & (rate > 0) & np.isfinite(budget)).all():
        raise ValueError(f"clock {clock}: some trials lack {', '.join((*CLOCK_COLUMNS[clock], 'd_updates'))}")
    return TrialEnds(time=time * rate, cause=cause, budget=budget * rate, config=config, unit=CLOCKS[clock][0])


def _rate(column: Callable[[str], Any], clock: str, d_updates: Floats) -> Floats:
    """Units of the clock in one discriminator update."""
    if clock == "images":
        return np.asarray(column("batch_size"))
    if clock == "g_updates":
        return np.asarray(column("g_steps") / column("d_steps"))
    return np.asarray(column("wall_s") / d_updates) if clock == "seconds" else np.ones_like(d_updates)
