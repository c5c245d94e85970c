"""Small questions about a sequence of evaluations: stretches, medians, trends, turning points. Pure numpy."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CAP = 1e9
"""Stands for an infinite deficiency where differences are taken."""


def runs(mask: Bools) -> list[tuple[int, int]]:
    """(start, stop) of every run of True in `mask`, (T,), in order."""
    if not mask.any():
        return []
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def first_run_of(mask: Bools, length: int) -> int | None:
    """Start of the first run of at least `length` True; None if there is none."""
    return next((start for start, stop in runs(mask) if stop - start >= length), None)


def tail_length(mask: Bools) -> int:
    """How many of the last elements are True without a gap."""
    gaps = np.flatnonzero(~mask)
    return mask.size - 1 - int(gaps[-1]) if gaps.size else mask.size


def capped(q: Floats) -> Floats:
    """`q` with infinity replaced by a huge number, so that differences and medians of it exist."""
    return np.minimum(q, CAP)


def median(values: Floats) -> float:
    """`np.median`, which takes ten times as long for a handful. (T,); NaN of NaN and of nothing."""
    ordered = np.sort(values).tolist()  # NaN comes last
    if not ordered or math.isnan(ordered[-1]):
        return math.nan
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def centred_medians(values: Floats, length: int) -> Floats:
    """Medians over `length` (rounded up to odd) elements around each; fewer at the ends. (T,) -> (T,)."""
    half, size = length // 2, values.size
    out = np.empty(size)
    if size > 2 * half:
        windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
        ordered = np.sort(windows, axis=-1)  # np.median takes three times as long
        out[half : size - half] = np.where(np.isnan(ordered[:, -1]), np.nan, ordered[:, half])
    for i in (*range(min(half, size)), *range(max(half, size - half), size)):
        out[i] = median(values[max(0, i - half) : i + half + 1])
    return out


def turning_points(values: Floats, swing: float) -> int:
    """Count extremes of a zig-zag with hysteresis: one counts once the sequence has come back from it by `swing`.

    The first extreme counts only if the sequence had moved to it by `swing`.
    """
    count, direction = 0, 0
    low = high = float(values[0]) if values.size else 0.0
    for value in capped(values).tolist():
        low, high = min(low, value), max(high, value)
        if direction >= 0 and value <= high - swing:
            count += direction > 0
            direction, low = -1, value
        elif direction <= 0 and value >= low + swing:
            count += direction < 0
            direction, high = 1, value
    return count


@functools.lru_cache(maxsize=8)
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(n, k=1)


def mann_kendall_z(values: Floats) -> float:
    """Mann-Kendall trend statistic with ties and continuity correction; 0 without variance. (T,) -> z."""
    n = values.size
    if n < 3:
        return 0.0
    first, second = _pairs(n)
    score = float(np.sum(np.sign(capped(values[second]) - capped(values[first]))))
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18.0
    if variance <= 0 or score == 0:
        return 0.0
    return (score - math.copysign(1.0, score)) / math.sqrt(variance)
