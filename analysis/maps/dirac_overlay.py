"""The theoretical boundary of a Dirac-GAN as lines in the cells of a heatmap."""

from __future__ import annotations

from collections.abc import Callable

import contourpy
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vistudy.analysis.maps.dirac_theory import MODEL, TOLERANCE, Floats, game_of, radius
from vistudy.analysis.maps.heatmap_cells import Axis, Facet, HeatmapBlock

NAME = "theory: spectral radius 1 (stable side: no growth)"
PER_CELL = 20
"""Places a cell and axis at which the radius is computed."""


def boundary_lines(block: HeatmapBlock, facet: Facet) -> list[Floats]:
    """Lines (n, 2) on which the spectral radius is 1, in cells from the lower left of a facet's heatmap.

    Levels lie in the middle of their cells, and between them the axes are linear in the level (in its logarithm where
    two neighbours are positive and more than a factor of 3 apart). Empty where there is no line to draw: another model,
    trials of several games, or an axis in bins.
    """
    if block.model != MODEL or not facet.cells:
        return []
    game = game_of(pd.concat([cell.trials for cell in facet.cells]))
    axes = (block.x, block.y)
    if game is None or [axis.column for axis in axes] != ["g_lr", "reg_weight"] or any(map(_binned, axes)):
        return []

    def outside(x: Floats, y: Floats) -> NDArray[np.bool_]:
        rates, weights = (np.maximum(_levels(axis, at), 0) for axis, at in zip(axes, (x, y), strict=True))
        return radius(rates, weights, game) > 1 + TOLERANCE

    x, y = (np.linspace(0, len(axis.levels), PER_CELL * len(axis.levels) + 1) for axis in axes)
    field = outside(*np.meshgrid(x, y)).astype(np.float64)
    return [_exact(np.asarray(line), outside) for line in contourpy.contour_generator(x, y, field).lines(0.5)]


def _exact(line: Floats, outside: Callable[[Floats, Floats], NDArray[np.bool_]]) -> Floats:
    """Move every point, half way between two neighbouring places of which one is outside, to the boundary."""
    halves = line * PER_CELL
    step = np.where(np.abs(halves - np.rint(halves)) > 0.25, 0.5 / PER_CELL, 0.0)
    step = np.where(outside(*(line - step).T)[:, None], -step, step)
    inner, outer = line - step, line + step
    for _ in range(12):
        middle = (inner + outer) / 2
        out = outside(*middle.T)[:, None]
        inner, outer = np.where(out, inner, middle), np.where(out, middle, outer)
    radii: Floats = (inner + outer) / 2
    return radii


def _binned(axis: Axis) -> bool:
    return axis.label.endswith(", in bins") or not all(isinstance(level, int | float) for level in axis.levels)


def _levels(axis: Axis, places: Floats) -> Floats:
    """Values at places along an axis, in cells; beyond the outermost levels it goes on as between the last two."""
    levels = np.array(axis.levels, np.float64)
    if len(levels) == 1:
        return np.full(len(places), levels[0])
    i = np.clip(np.floor(places - 0.5).astype(int), 0, len(levels) - 2)
    low, high, share = levels[i], levels[i + 1], places - 0.5 - i
    far = (low > 0) & (high > 3 * low)
    ratio = np.where(far, high / np.where(low > 0, low, 1), 1.0)
    values: Floats = np.where(far, low * ratio**share, low + share * (high - low))
    return values
