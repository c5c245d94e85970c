"""Width and centroid of the range of stable learning rates, in decades.

W = integral of P(stable | log10 lr) d log10 lr over the box. A smaller effective learning rate moves the range (its
centroid) and leaves its width; only a wider range is less tuning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from vistudy.analysis.estimates.lr_axis import (
    WeightedConfigs,
    edge_shares,
    log_rates,
    make_units,
    span,
    stable_matrix,
    width_and_centroid,
)
from vistudy.analysis.estimates.pairs import no_pairs, pair
from vistudy.analysis.estimates.risk_difference import mean_interval

BATCH = 2 * 10**6
"""Numbers that are resampled at once."""
UNSEEN = 0.05
"""Largest share of resamples without a stable trial at which the shift still has an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """Stable range of one arm."""

    arm: str
    design: str
    """`sample`: learning rates drawn log-uniformly; `grid`: levels, integrated by the trapezoid rule."""
    box: tuple[float, float]
    """Learning rates that the integral spans."""
    width: float
    """Decades."""
    centroid: float
    """Mean log10 lr of the stable range; NaN without a stable trial."""
    edge_low: float
    """Stable share at the low end of the box; well above 0, the range is cut off there. NaN if no trial is there."""
    edge_high: float
    n_configs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthDifference:
    """Difference of stable ranges, treatment - baseline, over pairs, in decades."""

    treatment: str
    baseline: str
    design: str
    box: tuple[float, float]
    n_configs: int
    n_pairs: int
    excluded: dict[str, int]
    width_t: float
    width_b: float
    difference: float
    low: float
    high: float
    centroid_t: float
    centroid_b: float
    shift: float
    """centroid_t - centroid_b; NaN if an arm has no stable trial."""
    shift_low: float
    shift_high: float
    edge_low: float
    """The baseline's stable share at the low end of the box: above 0, its width is truncated."""
    edge_high: float
    treatment_edge_low: float
    treatment_edge_high: float
    method: str

    @property
    def cut(self) -> dict[str, float]:
        """End of the box -> larger stable share of both arms there, where it is not known to be 0."""
        ends = {
            "low": (self.edge_low, self.treatment_edge_low),
            "high": (self.edge_high, self.treatment_edge_high),
        }
        return {name: max(shares) for name, shares in ends.items() if not all(share == 0 for share in shares)}


@dataclass(frozen=True, kw_only=True, slots=True)
class StableCurve:
    """Stable share against the learning rate."""

    arm: str
    design: str
    lr: tuple[float, ...]
    share: tuple[float, ...]
    """NaN where no configuration is near."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    n_effective: tuple[float, ...]
    """Configurations that each point rests on; NaN where none is near."""


def stable_width(
    table: pd.DataFrame, arm: str, *, box: tuple[float, float] | None = None, design: str | None = None
) -> Width:
    """Width and centroid of one arm's stable range.

    Args:
        table: arm table of one block (of one stratum: with and without batch norm have widths of their own).
        box: smallest and largest learning rate of the study's box; None: the range of those in the table.
        design: `sample` or `grid`; None: a grid if rates repeat or are evenly spaced.

    Raises:
        ValueError: no such arm; no learning rates; none above 0; rates outside the box; no evaluable trials.
    """
    x, y = stable_matrix(table, arm)
    units = make_units(x, y, y, box or span(table), design)
    width, centroid = (float(value[0]) for value in width_and_centroid(units, units.t, np.arange(len(units.x))[None]))
    low, high = edge_shares(units, units.t)
    return Width(
        arm=arm,
        design=units.design,
        box=(10**units.low, 10**units.high),
        width=width,
        centroid=centroid,
        edge_low=low,
        edge_high=high,
        n_configs=len(x),
    )


def width_difference(
    table: pd.DataFrame,
    treatment: str,
    baseline: str,
    *,
    box: tuple[float, float] | None = None,
    design: str | None = None,
    alpha: float = 0.05,
    draws: int = 10_000,
    seed: int = 0,
) -> WidthDifference:
    """Compare the stable ranges of two arms over their pairs. Arguments and errors as `stable_width`, and of `pair`.

    In a sample the interval of the difference is that of the risk difference times the decades of the box. On a
    grid, which is no sample of the box, it is conditional on the levels: a stratified t interval over each level's
    configurations, or over its seeds where a level has a single configuration. The interval of the shift is the
    percentile bootstrap of the same units: a ratio of means has no simpler one that covers as well.
    """
    pairs = pair(table, treatment, baseline)
    if not pairs.n_pairs:
        raise no_pairs(pairs)
    rates = log_rates(table, baseline).reindex(list(pairs.configs)).to_numpy()
    units = make_units(rates, pairs.t, pairs.b, box or span(table), design)
    everything = np.arange(len(units.x))[None]
    (width_t, centroid_t), (width_b, centroid_b) = (
        [float(value[0]) for value in width_and_centroid(units, side, everything)] for side in (units.t, units.b)
    )
    low, high, method = _difference_interval(units, alpha)
    shift_low, shift_high = _shift_interval(units, alpha, draws, seed)
    edge_low, edge_high = edge_shares(units, units.b)
    treatment_edges = edge_shares(units, units.t)
    return WidthDifference(
        treatment=treatment,
        baseline=baseline,
        design=units.design,
        box=(10**units.low, 10**units.high),
        n_configs=pairs.n_configs,
        n_pairs=pairs.n_pairs,
        excluded=dict(pairs.excluded),
        width_t=width_t,
        width_b=width_b,
        difference=width_t - width_b,
        low=low,
        high=high,
        centroid_t=centroid_t,
        centroid_b=centroid_b,
        shift=centroid_t - centroid_b,
        shift_low=shift_low,
        shift_high=shift_high,
        edge_low=edge_low,
        edge_high=edge_high,
        treatment_edge_low=treatment_edges[0],
        treatment_edge_high=treatment_edges[1],
        method=method,
    )


def stable_curve(
    table: pd.DataFrame,
    arm: str,
    *,
    box: tuple[float, float] | None = None,
    design: str | None = None,
    points: int = 61,
    bandwidth: float = 0.25,
    alpha: float = 0.05,
) -> StableCurve:
    """Stable share against lr: at each level of a grid; else a kernel mean (Gaussian, `bandwidth` decades).

    The band is Wilson's interval with the effective number of configurations, (sum w)^2 / sum w^2: seeds of one
    configuration count as one, so it is on the wide side.
    """
    x, y = stable_matrix(table, arm)
    units = make_units(x, y, y, box or span(table), design)
    if units.design == "grid":
        at = np.unique(x)
        weights = (x == at[:, None]).astype(float)
    else:
        at = np.linspace(units.low, units.high, points)
        weights = np.exp(-0.5 * ((at[:, None] - x) / bandwidth) ** 2)
        weights[weights < math.exp(-0.5 * 2**2)] = 0.0
    weights[weights.sum(1) == 0] = np.nan
    share = weights @ np.nanmean(y, axis=1) / weights.sum(1)
    n = weights.sum(1) ** 2 / (weights**2).sum(1)
    z2 = float(norm.ppf(1 - alpha / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return StableCurve(
        arm=arm,
        design=units.design,
        lr=tuple((10**at).tolist()),
        share=tuple(share.tolist()),
        low=tuple(np.clip(centre - half, 0, 1).tolist()),
        high=tuple(np.clip(centre + half, 0, 1).tolist()),
        n_effective=tuple(n.tolist()),
    )


# -- inside ------------------------------------------------------------------------------------------------------------


def _difference_interval(units: WeightedConfigs, alpha: float) -> tuple[float, float, str]:
    d = units.t - units.b
    if units.design == "sample":
        low, high, method = mean_interval(d, alpha=alpha, share=True)
        return low * (units.high - units.low), high * (units.high - units.low), method
    n = np.bincount(units.level)
    if (n < 2).any():
        return math.nan, math.nan, "none: a level of the grid with a single trial"
    mean = np.bincount(units.level, d) / n
    variance = np.bincount(units.level, (d - mean[units.level]) ** 2) / (n - 1)
    weight = np.bincount(units.level, units.decades)
    parts = weight**2 * variance / n
    total, centre = float(parts.sum()), float((weight * mean).sum())
    if total == 0:
        return math.nan, math.nan, "none: no spread within the levels of the grid"
    df = total**2 / float((parts**2 / (n - 1)).sum())
    half = float(t.ppf(1 - alpha / 2, df)) * math.sqrt(total)
    return centre - half, centre + half, "stratified t, conditional on the grid"


def _shift_interval(units: WeightedConfigs, alpha: float, draws: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap within levels; NaN with too few units or too many resamples without a stable trial."""
    counts = np.bincount(units.level)
    if (counts < 2).any():
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    order = np.argsort(units.level, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    size, start = np.repeat(counts, counts), np.repeat(first, counts)
    parts, size_of_part = [], max(1, BATCH // len(order))  # large studies must not fill the memory
    for done in range(0, draws, size_of_part):
        uniform = rng.random((min(size_of_part, draws - done), len(order)))
        index = order[start + (uniform * size).astype(np.int64)]
        parts.append(width_and_centroid(units, units.t, index)[1] - width_and_centroid(units, units.b, index)[1])
    shifts = np.concatenate(parts)
    if np.isnan(shifts).mean() > UNSEEN:
        return math.nan, math.nan
    low, high = np.nanquantile(shifts, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
