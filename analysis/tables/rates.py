"""Rates of stable trials with their intervals. Pure functions of a frame with one row per trial."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from vistudy.analysis.ledger.documents import TrialState
from vistudy.analysis.outcomes.labels import LABELS, STABLE, UNDETERMINED, Label
from vistudy.analysis.tables.validation import check_trials

RATE_COLUMNS: dict[str, str] = {
    "k": "stable trials: outcome converged",
    "n": "trials with an outcome that says something; the denominator of `share`",
    "planned": "all trials of the cell: n + failed + missing + undetermined",
    "failed": "trials that failed for reasons of the machine",
    "missing": "trials that have not finished: planned, running or interrupted",
    "undetermined": "complete trials whose records cannot tell",
    "inert": "True if a swept hyperparameter provably has no effect in every trial of the cell (a placebo)",
    "share": "k / n; NaN without a finished trial",
    "ci_low": "lower end of the 95 % Wilson interval of the share",
    "ci_high": "upper end of it",
    "most_common_failure": "most frequent outcome besides converged (ties: the more severe); None without one",
}
"""Columns of `cell_rates` besides the factors."""


@functools.lru_cache(maxsize=4096)
def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of k in n trials; (nan, nan) for n = 0. Raises ValueError unless 0 <= k <= n."""
    if n == 0 and k == 0:
        return (float("nan"), float("nan"))
    interval = binomtest(k, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


Q_CAP = 1.0
"""Largest deficiency in column `q`: no better than untrained. A diverged trial has it."""


def evaluable(frame: pd.DataFrame) -> pd.Series:
    """Whether each trial has an outcome that says something: neither unfinished, nor failed, nor undetermined. (N,)"""
    return (frame["state"] == "complete") & frame["outcome"].notna() & (frame["outcome"] != UNDETERMINED)


def stability(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """`stable` (1 or 0) and `q`, the final deficiency capped at Q_CAP, per trial; NaN unless evaluable. (N,), (N,)"""
    is_evaluable = evaluable(frame)
    stable = np.where(is_evaluable, (frame["outcome"] == STABLE).astype(float), np.nan)
    q = frame["q_final"].where(frame["outcome"] != Label.DIVERGED, Q_CAP).fillna(Q_CAP).clip(upper=Q_CAP)
    return stable, np.where(is_evaluable, q, np.nan)


def cell_rates(frame: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """Count what became of the trials of each cell: one row a combination of `factors`, in order of appearance.

    Nothing is dropped: unfinished and failed trials have columns of their own. Columns: the factors, RATE_COLUMNS.

    Raises:
        StudyError: a table that cannot be counted (`check_trials`).
    """
    check_trials(frame, ("state", "outcome", "inert", *factors))
    state, outcome = frame["state"], frame["outcome"]
    is_evaluable = evaluable(frame)
    counts = pd.DataFrame(
        {
            "k": is_evaluable & (outcome == STABLE),
            "n": is_evaluable,
            "planned": True,
            "failed": state == TrialState.FAILED,
            "missing": state.isin([TrialState.PLANNED.value, TrialState.RUNNING.value, TrialState.INTERRUPTED.value]),
            "undetermined": (state == "complete") & ~is_evaluable,
        },
        index=frame.index,
    ).astype(int)
    failures = [name for name in LABELS if name not in (STABLE, UNDETERMINED)]
    tally = pd.DataFrame({name: (is_evaluable & (outcome == name)).astype(int) for name in failures}, index=frame.index)
    inert = (~frame["inert"].astype(bool)).astype(int).rename("active")
    keys = [frame[name] for name in factors] or [pd.Series(0, index=frame.index)]
    grouped = pd.concat([counts, tally, inert], axis=1).groupby(keys, sort=False, dropna=False, observed=True).sum()
    out = grouped.reset_index()[[*factors, *counts.columns]]
    sums = grouped[failures].to_numpy()
    out["inert"] = grouped["active"].to_numpy() == 0
    out["share"] = np.divide(out["k"], out["n"], out=np.full(len(out), np.nan), where=out["n"].to_numpy() > 0)
    intervals = [wilson(int(k), int(n)) for k, n in zip(out["k"], out["n"], strict=True)]
    out["ci_low"], out["ci_high"] = [low for low, _ in intervals], [high for _, high in intervals]
    named = [failures[int(row.argmax())] if row.any() else None for row in sums]
    out["most_common_failure"] = pd.Series(named, index=out.index, dtype=object)
    return out
