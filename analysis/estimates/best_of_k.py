"""Value of a budget of k trials: expected best of k, untuned against tuned, regret of the default.

A trial of random search is one configuration with one seed. So k trials are k different configurations, and estimates
are means over seeds of what each seed's trials say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import t

from vistudy.analysis.estimates.pairs import REASONS, Floats, no_pairs, one_block, pair, reason_codes

TINY = 1e-3
"""Below this Q its logarithm says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOfK:
    """Expected best Q of k randomly drawn configurations."""

    arm: str
    alpha: float
    k: tuple[int, ...]
    """1 ... k_max, at most the number of evaluable configurations (the fewest of any seed)."""
    q: tuple[float, ...]
    """Expected smallest Q of k trials."""
    low: tuple[float, ...]
    """NaN where k is the number of configurations, and where no configuration differs from another."""
    high: tuple[float, ...]
    share_stable: tuple[float, ...]
    """Probability that at least one of k trials is stable."""
    early_area: float
    """Mean of q with weights k_max, k_max - 1, ..., 1: small if few trials are enough."""
    n_configs: int
    n_seeds: int
    n_trials: int
    excluded: dict[str, int]
    """Reason -> trials without a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NonInferiority:
    """Test whether one random draw of the treatment is as good as the best of k draws of the baseline."""

    treatment: str
    baseline: str
    k: int
    margin: float
    alpha: float
    q_treatment: float
    """Expected Q of one trial of the treatment."""
    q_baseline: float
    """Expected smallest Q of k trials of the baseline."""
    difference: float
    """q_treatment - q_baseline; positive: the single draw is worse."""
    low: float
    """1 - 2 alpha interval of the difference; NaN if no configuration differs from another."""
    high: float
    p: float
    """One-sided, of: worse by the margin or more."""
    holds: bool
    """p < alpha, which is: high below the margin. False where there is no interval."""
    stable_share_treatment: float
    """Share of the treatment's trials that are stable: the stronger wording needs at least 0.9."""
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Regret:
    """Regret of the default: Q at the default minus Q at the best configuration of the search space."""

    arm: str
    config: str
    """Configuration of the study that is nearest to the default."""
    distance: float
    """From the default: 0 is the default itself; 1 is the width of the box in one hyperparameter."""
    q_default: float
    best_config: str
    """Configuration with the smallest mean Q."""
    q_best: float
    regret: float
    n_configs: int
    n_seeds: int
    selection: str
    """`held-out seeds`: chosen by the other seeds, valued by the held-out one; `same seed`: optimistic for the best."""


def expected_best(values: Sequence[float] | Floats, k_max: int) -> Floats:
    """Expected minimum of k of the n values drawn without replacement, for k = 1 ... k_max. (k_max,)

    The U-statistic sum_i v_(i) C(n-i, k-1) / C(n, k) over sorted values: unbiased for k independent draws, where the
    plug-in (draws with replacement from the values) makes the best look worse than it is.

    Raises:
        ValueError: NaN or infinite values; k_max outside 1..n.

    Source: Tang et al. 2020; Dodge et al. 2019 for the plug-in.
    """
    v = np.asarray(values, dtype=float)
    if not np.isfinite(v).all():
        raise ValueError("expected best of values that are not finite")
    if not 1 <= k_max <= len(v):
        raise ValueError(f"the best of k = {k_max} needs at least as many values, got {len(v)}")
    return np.asarray(_weights(len(v), k_max) @ np.sort(v))


def best_of_k(table: pd.DataFrame, arm: str, k_max: int = 20, *, alpha: float = 0.05) -> BestOfK:
    """Estimate the expected best of k of one arm with a jackknife t interval by configuration.

    The best of several is skewed: from k = 2 on the interval is the wider of those of Q and of log Q at each end. In
    simulated studies of 60 and 100 configurations it covers 94-97 % at every k up to 20 (89-94 % with 30); the
    jackknife of Q alone falls to 90 %, and the percentile bootstrap, whose resamples repeat the best configuration,
    to 85 %.

    Raises:
        ValueError: no such arm, a trial twice, several blocks, no evaluable trial; k_max below 1.
    """
    q, stable, excluded = _matrix(table, arm)
    if k_max < 1:
        raise ValueError(f"k_max must be at least 1, got {k_max}")
    k_max = min(k_max, int(np.isfinite(q).sum(0).min()))
    estimate, left_out = best_left_out(q, k_max)
    low, high = _jackknife(estimate, left_out, alpha)
    weights = np.arange(k_max, 0, -1)
    return BestOfK(
        arm=arm,
        alpha=alpha,
        k=tuple(range(1, k_max + 1)),
        q=tuple(estimate.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        share_stable=tuple((1 - best_left_out(1 - stable, k_max)[0]).tolist()),
        early_area=float(weights @ estimate / weights.sum()),
        n_configs=len(q),
        n_seeds=q.shape[1],
        n_trials=int(np.isfinite(q).sum()),
        excluded=excluded,
    )


def non_inferior(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    k: int = 20,
    margin: float = 0.05,
    *,
    alpha: float = 0.05,
) -> NonInferiority:
    """Test untuned against tuned over the pairs of two arms: EVP_1(treatment) < EVP_k(baseline) + margin.

    The test is one-sided at alpha.

    Raises:
        ValueError: as `pair`; no pairs; not more than k configurations at every seed.
    """
    pairs = pair(table, treatment, baseline, "q")
    if not pairs.n_pairs:
        raise no_pairs(pairs)
    fewest = int(np.isfinite(pairs.t).sum(0).min())
    if not 1 <= k < fewest:
        raise ValueError(f"the best of k = {k} with an interval needs more than k configurations, got {fewest} pairs")
    (one, one_left), (best, best_left) = best_left_out(pairs.t, 1), best_left_out(pairs.b, k)
    difference = float(one[0] - best[-1])
    left = one_left[:, 0] - best_left[:, -1]
    error, df = float(jackknife_error(left[:, None])[0]), len(left) - 1
    half = float(t.ppf(1 - alpha, df)) * error
    p = float(t.cdf((difference - margin) / error, df)) if math.isfinite(error) else 1.0
    stable = _matrix(table, treatment)[1]
    return NonInferiority(
        treatment=treatment,
        baseline=baseline,
        k=k,
        margin=margin,
        alpha=alpha,
        q_treatment=float(one[0]),
        q_baseline=float(best[-1]),
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=p,
        holds=p < alpha,
        stable_share_treatment=float(np.nanmean(stable)),
        n_configs=pairs.n_configs,
        n_pairs=pairs.n_pairs,
        excluded=dict(pairs.excluded),
    )


def default_regret(table: pd.DataFrame, arm: str, default: Mapping[str, Any]) -> Regret:
    """Estimate the regret of the default: Q at the nearest configuration minus Q at the best one.

    The best of noisy values looks better than it is, so it is chosen by the mean of the other seeds and valued by the
    held-out one; with a single seed that is impossible, and `selection` says so. One configuration of a few seeds has
    no useful interval: this is a description.

    Args:
        default: hyperparameter (column of the table) -> value. Numbers above 0 that span a factor of ten or more in
            the table are compared by their logarithm.

    Raises:
        ValueError: no such arm or column; an empty default; no evaluable trial.
    """
    one_block(table, [*default, "q"], [arm])
    if not default:
        raise ValueError("a default needs at least one hyperparameter")
    rows = table[(table["arm"] == arm) & table["q"].notna()]
    if rows.empty:
        raise ValueError(f"arm {arm} has no evaluable trial")
    q = rows.pivot(index="config", columns="seed", values="q").astype(float)
    distances = distance_to(rows.groupby("config")[list(default)].first().reindex(q.index), default)
    at = int(np.argmin(distances))
    values, best = q.to_numpy(), int(np.nanargmin(np.nanmean(q.to_numpy(), axis=1)))
    own = values[at]
    if np.isfinite(own).sum() < 2:
        q_best, selection = float(np.nanmean(values[best])), "same seed"
    else:
        held_out = []
        for column in np.flatnonzero(np.isfinite(own)):
            others = np.delete(values, column, axis=1)
            usable = np.flatnonzero(np.isfinite(values[:, column]) & np.isfinite(others).any(axis=1))
            chosen = usable[np.argmin(np.nanmean(others[usable], axis=1))]
            held_out.append(values[chosen, column])
        q_best, selection = float(np.mean(held_out)), "held-out seeds"
    return Regret(
        arm=arm,
        config=str(q.index[at]),
        distance=float(distances[at]),
        q_default=float(np.nanmean(own)),
        best_config=str(q.index[best]),
        q_best=q_best,
        regret=float(np.nanmean(own)) - q_best,
        n_configs=len(q),
        n_seeds=q.shape[1],
        selection=selection,
    )


def distance_to(configs: pd.DataFrame, point: Mapping[str, Any]) -> Floats:
    """Euclidean distance of configurations from a point: numbers in units of their range, others 0 or 1. (configs,)"""
    total = np.zeros(len(configs))
    for name, level in point.items():
        column = configs[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values, goal = column.to_numpy(dtype=float), float(level)
            if values.min() > 0 and values.max() >= 10 * values.min() and goal > 0:
                values, goal = np.log10(values), math.log10(goal)
            total += ((values - goal) / (np.ptp(values) or 1.0)) ** 2
        else:
            total += (column != level).to_numpy(dtype=float)
    return np.sqrt(total)


# -- inside ------------------------------------------------------------------------------------------------------------


def _weights(n: int, k_max: int) -> Floats:
    """Weights of the sorted values, (k_max, n)."""
    i, k = np.arange(1, n + 1), np.arange(1, k_max + 1)[:, None]
    with np.errstate(invalid="ignore"):
        logs = (gammaln(n - i + 1) - gammaln(n - i - k + 2)) - (gammaln(n + 1) - gammaln(n - k + 1)) + np.log(k)
    return np.where(n - i >= k - 1, np.exp(np.where(n - i >= k - 1, logs, 0.0)), 0.0)


def best_left_out(values: Floats, k_max: int) -> tuple[Floats, Floats]:
    """Mean over seeds of the expected best, (k_max,), and the same without each configuration, (configs, k_max)."""
    estimates, left_out = [], []
    for column in values.T:
        finite = np.flatnonzero(np.isfinite(column))
        order = finite[np.argsort(column[finite], kind="stable")]
        v, n = column[order], len(order)
        estimates.append(_weights(n, k_max) @ v)
        left = np.tile(estimates[-1], (len(values), 1))
        if n > 1:
            weights = np.full((k_max, n - 1), np.nan)
            weights[: n - 1] = _weights(n - 1, min(k_max, n - 1))
            before, after = weights * v[:-1], weights * v[1:]
            zero = np.zeros((k_max, 1))
            lower = np.concatenate([zero, np.cumsum(before, axis=1)], axis=1)
            upper = np.concatenate([np.cumsum(after[:, ::-1], axis=1)[:, ::-1], zero], axis=1)
            left[order] = (lower + upper).T
        else:
            left[order] = np.nan
        left_out.append(left)
    return np.mean(estimates, axis=0), np.mean(left_out, axis=0)


def jackknife_error(left_out: Floats) -> Floats:
    """Jackknife standard error of each column; NaN without spread."""
    n = len(left_out)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    return np.where(error > 1e-9, error, np.nan)


def _jackknife(estimate: Floats, left_out: Floats, alpha: float) -> tuple[Floats, Floats]:
    """t interval of each column; from the second on, widened to that of its logarithm."""
    df = len(left_out) - 1
    if df < 1:
        return np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    factor = float(t.ppf(1 - alpha / 2, df))
    half = factor * jackknife_error(left_out)
    low, high = np.maximum(estimate - half, np.minimum(estimate, 0.0)), estimate + half
    usable = (np.arange(len(estimate)) > 0) & (estimate > TINY)
    ratio = np.exp(factor * jackknife_error(np.log(np.maximum(left_out, TINY))))
    low = np.where(usable, np.minimum(low, estimate / ratio), low)
    return low, np.where(usable, np.maximum(high, estimate * ratio), high)


def _matrix(table: pd.DataFrame, arm: str) -> tuple[Floats, Floats, dict[str, int]]:
    """Q and stable of an arm, (configs, seeds) with a evaluable trial; why the other trials are left out."""
    one_block(table, ["q", "stable"], [arm])
    rows = table[table["arm"] == arm]
    rows = rows.assign(q=rows["q"].where(rows["stable"].notna()))
    codes = reason_codes(rows, "q")
    excluded = Counter(list(REASONS)[int(code)] for code in codes[np.isfinite(codes)])
    evaluable = rows[rows["q"].notna()].astype({"q": float, "stable": float})
    if evaluable.empty:
        raise ValueError(f"arm {arm} has no evaluable trial")
    wide = evaluable.pivot(index="config", columns="seed", values=["q", "stable"])
    return wide["q"].to_numpy(), wide["stable"].to_numpy(), dict(excluded)
