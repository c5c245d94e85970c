"""What stands beside a difference in points: the odds ratio, and the shift of the capped final Q (co-primary)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t, wilcoxon

from vistudy.analysis.estimates.pairs import Floats, Pairs, no_pairs, pair

MOST = 2000
"""Configurations whose Walsh averages are taken; of more, a random sample of so many (seed 0)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OddsRatio:
    """Odds of being stable in the treatment, divided by those in the baseline."""

    estimate: float
    low: float
    """Of the 1 - alpha interval over configurations; NaN with a single configuration."""
    high: float
    haldane: bool
    """Whether half a trial was added to each of the four counts, because one of them was 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QShift:
    """Shift of the final Q, capped at 1, from baseline to treatment; below 0 the treatment is better."""

    estimate: float
    """Hodges-Lehmann: median of all means of two configurations' differences."""
    low: float
    """Of the 1 - alpha interval that belongs to the signed-rank test."""
    high: float
    p: float
    """Wilcoxon's signed-rank test over configurations; those that do not differ share their ranks between the signs."""
    n_configs: int


def odds_ratio(pairs: Pairs, *, alpha: float = 0.05) -> OddsRatio:
    """Odds ratio of two arms over their pairs; its logarithm has a t interval over configurations (delta method).

    Where an arm is stable in no trial or in all, half a trial is added to each of the four counts (Haldane-Anscombe).

    Raises:
        ValueError: no pairs.
    """
    if not pairs.n_pairs:
        raise no_pairs(pairs)
    sides = np.nanmean(pairs.t, axis=1), np.nanmean(pairs.b, axis=1)
    n = pairs.n_pairs
    plain = [float(side.mean()) for side in sides]
    haldane = any(share in (0.0, 1.0) for share in plain)
    shares = [(n * share + 0.5) / (n + 1) if haldane else share for share in plain]
    logs = [math.log(share / (1 - share)) for share in shares]
    parts = [(side - own) / (share * (1 - share)) for side, own, share in zip(sides, plain, shares, strict=True)]
    influence = parts[0] - parts[1]
    estimate, low, high = logs[0] - logs[1], math.nan, math.nan
    if len(influence) > 1:
        # an arm without variation has no influence: its own part of the error is that of Haldane's counts
        still = sum(1 / (n * s * (1 - s)) for s, p in zip(shares, plain, strict=True) if p in (0.0, 1.0))
        error = math.sqrt(float(influence.var(ddof=1)) / len(influence) + still)
        half = float(t.ppf(1 - alpha / 2, len(influence) - 1)) * error
        low, high = math.exp(estimate - half), math.exp(estimate + half)
    return OddsRatio(estimate=math.exp(estimate), low=low, high=high, haldane=haldane)


def q_shift(table: pd.DataFrame, treatment: str, baseline: str, *, alpha: float = 0.05) -> QShift | None:
    """Paired shift of the capped final Q (column `q`); None with fewer than two configurations.

    Source: Hodges & Lehmann 1963; zeros as Wilcoxon's `zsplit`.
    """
    d = pair(table, treatment, baseline, "q").differences
    if len(d) < 2:
        return None
    p = float(wilcoxon(d, zero_method="zsplit", method="auto" if len(d) <= 50 else "approx").pvalue) if d.any() else 1.0
    estimate, low, high = hodges_lehmann(d, alpha=alpha)
    return QShift(estimate=estimate, low=low, high=high, p=p, n_configs=len(d))


def hodges_lehmann(values: Floats, *, alpha: float = 0.05) -> tuple[float, float, float]:
    """(median of Walsh averages, low, high): the interval holds what the signed-rank test does not reject."""
    if len(values) > MOST:
        values = np.random.default_rng(0).choice(values, MOST, replace=False)
    n = len(values)
    i, j = np.triu_indices(n)
    walsh = np.sort((values[i] + values[j]) / 2)
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    out = max(0, math.floor(n * (n + 1) / 4 - float(norm.ppf(1 - alpha / 2)) * spread))
    return float(np.median(walsh)), float(walsh[out]), float(walsh[len(walsh) - 1 - out])
