"""Summaries of Q over data sets and models: interquartile mean, performance profile, probability of improvement.

As in rliable (Agarwal et al. 2021), with the configuration as unit: resampled within its block, its seeds together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.pairs import REASONS, Floats, Pairs, no_pairs, one_block, reason_codes
from vistudy.analysis.estimates.risk_difference import mean_interval

MEANINGFUL = 0.75
"""Probability of improvement from which a difference is called meaningful (Bouthillier et al. 2021)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Interquartile mean of 1 - Q, clipped to 0..1: 1 is as real data, 0 untrained or worse."""

    arm: str
    estimate: float
    low: float
    """NaN with one configuration in every block."""
    high: float
    n_blocks: int
    n_configs: int
    n_trials: int
    excluded: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Share of trials with Q at most tau: the whole distribution, without a choice of tau_ok."""

    arm: str
    tau: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    """Pointwise percentile band, by configuration."""
    high: tuple[float, ...]
    n_configs: int
    n_trials: int
    excluded: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Improvement:
    """Probability that the treatment's Q is below the baseline's at one configuration and seed; ties count half."""

    treatment: str
    baseline: str
    estimate: float
    low: float
    high: float
    meaningful: bool
    """Estimate above MEANINGFUL and interval above 1/2."""
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    method: str


def iqm(values: Sequence[float] | Floats) -> float:
    """Mean of the middle half: the lowest and highest floor(n/4) of n values left out (`scipy.stats.trim_mean`, 0.25).

    Raises:
        ValueError: no values, or some that are not finite.
    """
    v = np.asarray(values, dtype=float)
    if not len(v) or not np.isfinite(v).all():
        raise ValueError("the interquartile mean needs one or more finite values")
    return float(_weighted_iqm(np.sort(v), np.ones((1, len(v))))[0])


def interquartile_mean(
    table: pd.DataFrame, arm: str, *, alpha: float = 0.05, draws: int = 2000, seed: int = 0
) -> Score:
    """Estimate the interquartile mean of 1 - Q over one or several blocks, with a percentile bootstrap interval.

    Raises:
        ValueError: no such arm or column; a trial twice in a block; no judged trial.
    """
    q, cluster, blocks, excluded = _trials(table, arm)
    order = np.argsort(-q, kind="stable")
    values = np.clip(1 - q[order], 0, 1)
    weights = _resampled(blocks, draws, seed)[:, cluster[order]]
    low, high = _quantiles(_weighted_iqm(values, weights)[:, None], blocks, alpha)
    return Score(
        arm=arm,
        estimate=iqm(values),
        low=float(low[0]),
        high=float(high[0]),
        n_blocks=len(np.unique(blocks)),
        n_configs=len(blocks),
        n_trials=len(q),
        excluded=excluded,
    )


def performance_profile(
    table: pd.DataFrame,
    arm: str,
    taus: Sequence[float] | None = None,
    *,
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> Profile:
    """Estimate P(Q <= tau) for all `taus` (default: 0, 0.01 ... 1). Raises ValueError as `interquartile_mean`."""
    q, cluster, blocks, excluded = _trials(table, arm)
    tau = np.asarray(np.linspace(0, 1, 101) if taus is None else taus, dtype=float)
    below = (q[:, None] <= tau + 1e-12).astype(float)
    weights = _resampled(blocks, draws, seed)
    counts = np.zeros((len(blocks), len(tau)))
    np.add.at(counts, cluster, below)
    drawn = (weights @ counts) / (weights @ np.bincount(cluster))[:, None]
    low, high = _quantiles(drawn, blocks, alpha)
    return Profile(
        arm=arm,
        tau=tuple(tau.tolist()),
        share=tuple(below.mean(0).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        n_configs=len(blocks),
        n_trials=len(q),
        excluded=excluded,
    )


def probability_of_improvement(pairs: Pairs, *, alpha: float = 0.05) -> Improvement:
    """Estimate the probability of improvement of pairs of Q; its interval as that of E1 (`mean_interval`).

    Raises:
        ValueError: no pairs.
    """
    if not pairs.n_pairs:
        raise no_pairs(pairs)
    sign = np.nanmean(np.sign(pairs.b - pairs.t), axis=1)
    low, high, method = mean_interval(sign, alpha=alpha, share=True)
    estimate, low, high = (float((1 + value) / 2) for value in (sign.mean(), low, high))
    return Improvement(
        treatment=pairs.treatment,
        baseline=pairs.baseline,
        estimate=estimate,
        low=low,
        high=high,
        meaningful=estimate > MEANINGFUL and low > 0.5,
        n_configs=pairs.n_configs,
        n_pairs=pairs.n_pairs,
        excluded=dict(pairs.excluded),
        method=method,
    )


# -- inside ------------------------------------------------------------------------------------------------------------


def _trials(table: pd.DataFrame, arm: str) -> tuple[Floats, np.ndarray, np.ndarray, dict[str, int]]:
    """Q and cluster of each judged trial, (trials,); block of each cluster, (clusters,); why others are left out."""
    parts = table.groupby("block", sort=False, dropna=False) if "block" in table else [("", table)]
    for _, part in parts:
        if (part["arm"] == arm).any():
            one_block(part, ["q"], [arm])
    rows = table[table["arm"] == arm]
    if rows.empty:
        one_block(table.drop(columns="block", errors="ignore"), ["q"], [arm])
    codes = reason_codes(rows, "q")
    excluded = Counter(list(REASONS)[int(code)] for code in codes[np.isfinite(codes)])
    rows = rows[np.isnan(codes)]
    if rows.empty:
        raise ValueError(f"arm {arm} has no judged trial")
    rows = rows.assign(block=rows["block"].astype(str) if "block" in rows else "")
    rows = rows.sort_values(["block", "config", "seed"])
    clusters = pd.MultiIndex.from_arrays([rows["block"], rows["config"].astype(str)])
    cluster, levels = pd.factorize(clusters)
    blocks = pd.factorize(levels.get_level_values(0))[0]
    return rows["q"].to_numpy(dtype=float), np.asarray(cluster), np.asarray(blocks), dict(excluded)


def _resampled(blocks: np.ndarray, draws: int, seed: int) -> Floats:
    """How often each cluster is in each resample, drawn within blocks. (draws, clusters)"""
    rng, weights = np.random.default_rng(seed), np.empty((draws, len(blocks)))
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        weights[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    return weights


def _quantiles(drawn: Floats, blocks: np.ndarray, alpha: float) -> tuple[Floats, Floats]:
    if np.bincount(blocks).max() < 2:
        return np.full(drawn.shape[1], np.nan), np.full(drawn.shape[1], np.nan)
    low, high = np.quantile(drawn, [alpha / 2, 1 - alpha / 2], axis=0)
    return low, high


def _weighted_iqm(values: Floats, weights: Floats) -> Floats:
    """Interquartile mean of ascending values, (n,), that count `weights` times each, (rows, n). (rows,)"""
    upper = np.cumsum(weights, axis=1)
    cut = np.floor(upper[:, -1:] / 4 + 1e-9)
    kept = np.clip(upper, cut, upper[:, -1:] - cut) - np.clip(upper - weights, cut, upper[:, -1:] - cut)
    return np.asarray((kept @ values) / kept.sum(axis=1))
