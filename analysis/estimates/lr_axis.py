"""The learning-rate axis of one block: what each trial stands for in an integral over log10 lr."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vistudy.analysis.estimates.pairs import Floats, one_block

DESIGNS = ("sample", "grid")
GRID = 0.5
"""At most this many distinct learning rates a configuration make the design a grid."""
EDGE = 0.1
"""Share of the box's width at each end that counts as its edge."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WeightedConfigs:
    """What is averaged: configurations, or a grid's trials where each level has a single configuration."""

    x: Floats
    """log10 lr, (units,)."""
    t: Floats
    b: Floats
    level: np.ndarray
    """Stratum of each unit: all 0 in a sample, the level of a grid."""
    decades: Floats
    """Decades that each unit stands for; their sum is the width of the box."""
    design: str
    low: float
    high: float


def log_rates(table: pd.DataFrame, arm: str) -> pd.Series:
    """log10 lr of each configuration of an arm."""
    one_block(table, ["lr", "stable"], [arm])
    rows = table[table["arm"] == arm]
    rates = rows.groupby(rows["config"].astype(str))["lr"].agg(["first", "nunique", "count", "size"])
    if (rates["count"] == 0).any() or not (rates["first"] > 0).all():
        raise ValueError(f"arm {arm}: every configuration needs a learning rate above 0 in column lr")
    if (rates["nunique"] > 1).any() or (rates["count"] < rates["size"]).any():
        raise ValueError(f"arm {arm}: the trials of one configuration differ in lr")
    return rates["first"].astype(float).map(math.log10)


def stable_matrix(table: pd.DataFrame, arm: str) -> tuple[Floats, Floats]:
    """log10 lr (configs,) and stable (configs, seeds) of the evaluable configurations of an arm."""
    rates = log_rates(table, arm)
    rows = table[table["arm"] == arm]
    wide = rows.assign(config=rows["config"].astype(str), stable=rows["stable"].astype(float)).pivot(
        index="config", columns="seed", values="stable"
    )
    wide = wide[wide.notna().any(axis=1)]
    if wide.empty:
        raise ValueError(f"arm {arm} has no evaluable trial")
    return rates.reindex(wide.index).to_numpy(), wide.to_numpy(dtype=float)


def span(table: pd.DataFrame) -> tuple[float, float]:
    """Smallest and largest learning rate of a table."""
    return float(table["lr"].min()), float(table["lr"].max())


def make_units(
    x: Floats,
    t_values: Floats,
    b_values: Floats,
    box: tuple[float, float],
    design: str | None,
) -> WeightedConfigs:
    """Units of configurations at log10 rates `x` (configs,) with values (configs, seeds) of two arms.

    Args:
        box: smallest and largest learning rate.
        design: `sample` or `grid`; None: a grid if rates repeat or are evenly spaced.

    Raises:
        ValueError: fewer than two learning rates; rates outside the box; an unknown design.
    """
    if design not in (None, *DESIGNS):
        raise ValueError(f"unknown design {design!r}; allowed: {', '.join(DESIGNS)}")
    low, high = math.log10(box[0]), math.log10(box[1])
    if not low < high:
        raise ValueError("a width needs at least two learning rates")
    if x.min() < low - 1e-9 or x.max() > high + 1e-9:
        span = f"{10 ** x.min():g} to {10 ** x.max():g}"
        raise ValueError(f"learning rates from {span} leave the box, {box[0]:g} to {box[1]:g}")
    x = np.round(x, 9)
    levels, level = np.unique(x, return_inverse=True)
    if design is None:
        design = "grid" if len(levels) <= max(2, GRID * len(x)) or _evenly_spaced(levels) else "sample"
    if design == "sample":
        t_mean, b_mean = np.nanmean(t_values, axis=1), np.nanmean(b_values, axis=1)
        decades = np.full(len(x), (high - low) / len(x))
        zeros = np.zeros(len(x), dtype=int)
        return WeightedConfigs(
            x=x, t=t_mean, b=b_mean, level=zeros, decades=decades, design="sample", low=low, high=high
        )
    if len(levels) < 2:
        raise ValueError("a width needs at least two learning rates")
    if (np.bincount(level) > 1).all():
        t_unit, b_unit, row = np.nanmean(t_values, axis=1), np.nanmean(b_values, axis=1), np.arange(len(x))
    else:
        row, column = np.nonzero(np.isfinite(t_values) & np.isfinite(b_values))
        t_unit, b_unit = t_values[row, column], b_values[row, column]
    gaps = np.diff(levels)
    weight = (np.append(gaps, 0) + np.insert(gaps, 0, 0)) / 2
    level = level[row]
    return WeightedConfigs(
        x=x[row],
        t=t_unit,
        b=b_unit,
        level=level,
        decades=(weight / np.bincount(level))[level],
        design="grid",
        low=float(levels[0]),
        high=float(levels[-1]),
    )


def _evenly_spaced(levels: Floats) -> bool:
    gaps = np.diff(levels)
    return len(gaps) > 1 and bool(np.ptp(gaps) < 1e-3 * gaps.mean())


def width_and_centroid(units: WeightedConfigs, values: Floats, index: np.ndarray) -> tuple[Floats, Floats]:
    """Width and centroid of each row of `index` (draws, units), which keeps every unit's level."""
    mass = (values * units.decades)[index]
    width = mass.sum(1)
    with np.errstate(invalid="ignore"):
        centroid = np.where(width > 0, (mass * units.x[index]).sum(1), np.nan) / np.where(width > 0, width, 1.0)
    return width, centroid


def edge_shares(units: WeightedConfigs, values: Floats) -> tuple[float, float]:
    """Stable share at both ends: of the outer levels of a grid, of the outer tenths of a sample's box."""
    reach = 0.0 if units.design == "grid" else EDGE * (units.high - units.low)
    ends = (units.x <= units.low + reach + 1e-9, units.x >= units.high - reach - 1e-9)
    low, high = (float(values[end].mean()) if end.any() else math.nan for end in ends)
    return low, high
