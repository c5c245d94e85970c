"""Energy distance of points: 2 E|X-Y| - E|X-X'| - E|Y-Y'|, through projections.

In the plane |v| is pi/2 times the mean of |<v, direction>| over all directions, so the energy distance is pi/2 times
the mean of its 1-D values, and these need only sorted projections: all points are used, in O(N log N).
Source: Szekely, Rizzo 2013, "Energy statistics", J. Stat. Plan. Inference 143(8).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import PointView

STRIDE = 2
"""Every second of the view's directions is used: 32 are enough for a secondary metric (docs/decisions/011)."""


def pair_distances(ascending: Tensor) -> Tensor:
    """Sum over all ordered pairs of |z_i - z_j| for each ascending row of (D, N), float64 (D,)."""
    n = ascending.shape[1]
    ranks = 2 * torch.arange(n, dtype=torch.float64) - (n - 1)
    return 2 * (ascending.double() @ ranks)


def energy_distances(x: Tensor, y: Tensor) -> Tensor:
    """1-D energy distance (V-statistic, not rooted) of each row of ascending x (D, N) and y (D, M), float64 (D,)."""
    n, m = x.shape[1], y.shape[1]
    pooled = torch.from_numpy(np.sort(torch.cat([x, y], dim=1).numpy(), axis=1))
    xx, yy = pair_distances(x), pair_distances(y)
    twice_xy = pair_distances(pooled) - xx - yy
    return twice_xy / (n * m) - xx / n**2 - yy / m**2


class EnergyDistance:
    """`energy_distance` between 2,500 samples and as many fixed real points, 32 directions. Data units, at least 0."""

    names: ClassVar[tuple[str, ...]] = ("energy_distance",)

    def __init__(self, dataset: Dataset, reference: PointView) -> None:
        self._reference = reference.projections[::STRIDE].contiguous()

    def __call__(self, view: PointView) -> dict[str, float]:
        """Distance to the reference."""
        each = energy_distances(view.projections[::STRIDE].contiguous(), self._reference)
        return {"energy_distance": math.pi / 2 * float(each.mean())}
