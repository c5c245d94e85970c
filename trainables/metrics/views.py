"""What the metrics of one kind of data look at, computed once for each set of samples and shared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.metrics.digits_classifier import classifier

DIRECTIONS = 64
"""Directions on the half circle. docs/decisions/011-directions-of-sliced-distances.md says why so few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointView:
    """Points of the plane, and their sorted projections."""

    points: Tensor
    """(N, 2), float32."""
    projections: Tensor
    """(directions, N), float32, each row ascending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageView:
    """Images through the eyes of the frozen classifier."""

    features: Tensor
    """(N, 64), float32, after the last ReLU."""
    labels: Tensor
    """(N,), int64: the most likely class."""


def half_circle(count: int) -> Tensor:
    """`count` equally spaced unit vectors on the half circle, float32 (count, 2); v and -v are the same projection."""
    angles = torch.arange(count, dtype=torch.float64) * (torch.pi / count)
    return torch.stack([angles.cos(), angles.sin()], dim=1).float()


def sorted_projections(points: Tensor, directions: Tensor) -> Tensor:
    """Project (N, d) points on (D, d) directions and sort: (D, N) with ascending rows."""
    projected = directions @ points.T
    # numpy's vectorised sort takes .4 ms for 64 rows of 2,500 where torch.sort takes 9.
    return torch.from_numpy(np.sort(projected.numpy(), axis=1))


def view_points(samples: Tensor) -> PointView:
    """Look at (N, 2) points."""
    return PointView(points=samples, projections=sorted_projections(samples, half_circle(DIRECTIONS)))


def view_images(samples: Tensor) -> ImageView:
    """Look at (N, 1, 8, 8) images."""
    features, logits = classifier()(samples)
    return ImageView(features=features, labels=logits.argmax(dim=1))
