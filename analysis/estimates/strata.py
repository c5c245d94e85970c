"""Does the effect depend on where in the box it is measured? Differences by stratum, tested before they are averaged.

The factors of a box are its discrete hyperparameters (batch norm, ratio, ...) and the two halves of log10 lr.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from vistudy.analysis.estimates.pairs import Floats
from vistudy.analysis.estimates.risk_difference import Pairs, holm, mean_interval
from vistudy.analysis.tables.columns import cell_levels

RESAMPLES = 4999
"""Of the permutation test: its smallest p is .0002."""
LR = "lr"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """The difference in one part of the box."""

    level: str
    n_configs: int
    share_treatment: float
    share_baseline: float
    estimate: float
    low: float
    """Of the 1 - alpha interval over the stratum's configurations; NaN with a single one."""
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """The strata of one hyperparameter, and whether the difference is the same in all of them."""

    name: str
    strata: tuple[Stratum, ...]
    p: float
    """Permutation test of equal differences; NaN if a stratum has a single configuration."""
    p_holm: float
    """After Holm's correction over the factors of the block."""


def factors(
    table: pd.DataFrame, pairs: Pairs, box: tuple[float, float] | None, alpha: float, *, draws: int = RESAMPLES
) -> tuple[Factor, ...]:
    """Differences by stratum of every factor that has more than one level among the pairs.

    The test permutes the configurations' differences among the strata; its statistic is the sum of squares between
    them. Strata of equal size, as a Sobol sample has, may differ in their spread.

    Args:
        table: of one block.
        pairs: of treatment and baseline in it.
        box: smallest and largest learning rate; None: those of the pairs.
        draws: permutations.
    """
    strata_of = []
    for name, levels in _levels(table, pairs, box).items():
        names = list(dict.fromkeys(sorted(levels, key=_order)))
        if len(names) < 2:
            continue
        place = np.array([names.index(level) for level in levels])
        strata = tuple(_stratum(name_of, pairs, place == i, alpha) for i, name_of in enumerate(names))
        strata_of.append((name, strata, equal_p(pairs.differences, place, draws)))
    tested = [p for *_, p in strata_of if math.isfinite(p)]
    adjusted = iter(holm(tested, alpha).adjusted)
    return tuple(
        Factor(name=name, strata=strata, p=p, p_holm=next(adjusted) if math.isfinite(p) else math.nan)
        for name, strata, p in strata_of
    )


def dependent(factors_: tuple[Factor, ...], alpha: float, smallest: float) -> tuple[Factor, ...]:
    """Factors on which the effect depends: unequal after Holm, and somewhere at least `smallest`."""
    return tuple(
        factor
        for factor in factors_
        if factor.p_holm <= alpha and max(abs(each.estimate) for each in factor.strata) >= smallest
    )


def opposite(factor: Factor) -> bool:
    """Whether the treatment helps in one stratum and harms in another, each with its whole interval."""
    return any(each.low > 0 for each in factor.strata) and any(each.high < 0 for each in factor.strata)


def _levels(table: pd.DataFrame, pairs: Pairs, box: tuple[float, float] | None) -> dict[str, list[str]]:
    """Factor -> its level in each configuration of the pairs."""
    first = table.assign(config=table["config"].astype(str)).drop_duplicates("config").set_index("config")
    first = first.reindex(list(pairs.configs))
    by_factor: dict[str, list[str]] = {}
    if "stratum" in first:
        each = [cell_levels(str(text or "")) for text in first["stratum"]]
        for name in dict.fromkeys(name for levels in each for name in levels):
            by_factor[name] = [levels.get(name, "-") for levels in each]
    rates: Floats = first["lr"].to_numpy(dtype=float) if "lr" in first else np.empty(0)
    if len(rates) and np.isfinite(rates).all() and (rates > 0).all() and np.ptp(rates) > 0:
        low, high = box or (float(rates.min()), float(rates.max()))
        middle = math.sqrt(low * high)
        by_factor[LR] = [f"below {middle:.2g}" if rate < middle else f"from {middle:.2g}" for rate in rates]
    return by_factor


def _order(level: str) -> tuple[bool, str]:
    return (not level.startswith("below "), level)


def _stratum(level: str, pairs: Pairs, here: np.ndarray, alpha: float) -> Stratum:
    d = pairs.differences[here]
    low, high, _ = mean_interval(d, alpha=alpha, share=True)
    return Stratum(
        level=level, n_configs=len(d), share_treatment=float(np.nanmean(pairs.t[here], axis=1).mean()),
        share_baseline=float(np.nanmean(pairs.b[here], axis=1).mean()), estimate=float(d.mean()), low=low, high=high,
    )  # fmt: skip


def equal_p(d: Floats, place: np.ndarray, draws: int) -> float:
    """p of equal means of d in all strata."""
    counts = np.bincount(place)
    if (counts < 2).any():
        return math.nan
    if not np.ptp(d):
        return 1.0
    member = (place == np.arange(len(counts))[:, None]).astype(float)  # (strata, configs)

    def between(values: np.ndarray, axis: int = -1) -> Any:
        """Sum of squares between strata along the last axis."""
        del axis
        means = values @ member.T / counts
        return (counts * (means - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)

    test = permutation_test(
        (d,), between, permutation_type="pairings", vectorized=True, n_resamples=draws, batch=500,
        alternative="greater", rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def box_of(declared: Mapping[str, Any]) -> tuple[float, float] | None:
    """Range of the learning rate that a block declares."""
    space = (declared.get("sample") or {}).get("space", {}).get("lr") or {}
    return (float(space["low"]), float(space["high"])) if {"low", "high"} <= space.keys() else None
