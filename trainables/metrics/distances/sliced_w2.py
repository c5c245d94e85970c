"""Sliced Wasserstein-2 distance: the primary distance of points.

Source: Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing"; Bonneel et al. 2015.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import PointView


def sliced_w2(x: Tensor, y: Tensor) -> float:
    """Root of the mean over directions of the squared 1-D W2 distance, in data units.

    Args:
        x: sorted projections (D, N) of one sample.
        y: sorted projections (D, N) of the other, on the same directions.

    Raises:
        ValueError: the shapes differ (the 1-D distance pairs quantiles of equally many points).
    """
    if x.shape != y.shape:
        raise ValueError(f"sliced W2 compares samples of equal size: got {tuple(x.shape)} and {tuple(y.shape)}")
    return float(torch.linalg.vector_norm(x - y, dtype=torch.float64)) / math.sqrt(x.numel())


class SlicedW2:
    """`dist`: sliced W2 between 2,500 samples and as many fixed real points, 64 directions."""

    names: ClassVar[tuple[str, ...]] = ("dist",)

    def __init__(self, dataset: Dataset, reference: PointView) -> None:
        self._reference = reference.projections

    def __call__(self, view: PointView) -> dict[str, float]:
        """Distance to the reference."""
        return {"dist": sliced_w2(view.projections, self._reference)}
