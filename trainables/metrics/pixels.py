"""Precision without a net: whether samples look like data by their pixels alone.

A classifier maps images that are nothing onto the features of something: one image of noise, repeated, can lie among
real images there. Among their pixels it does not. Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), the features
replaced.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.data.base import Dataset
from trainables.metrics.prdc import ROWS, distances, radii
from trainables.metrics.views import ImageView

LARGEST_SIDE = 16
"""Images are averaged to at most so many pixels a side: a distance of 64x64 in colour would cost seconds."""


def thumbnails(images: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged over equal squares, as rows (N, C * h * w) with h and w at most LARGEST_SIDE."""
    factor = -(-max(images.shape[2:]) // LARGEST_SIDE)
    small = F.avg_pool2d(images, factor, ceil_mode=True) if factor > 1 else images
    return small.flatten(1)


class PixelPrecision:
    """`prec_pixels`: share of samples within the ball of some real image, by pixels, to its 5th real neighbour."""

    names: ClassVar[tuple[str, ...]] = ("prec_pixels",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._real = thumbnails(reference.images)
        self._radii = radii(self._real)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """The share. Like every precision it says nothing of variety."""
        fake = thumbnails(view.images)
        inside = torch.zeros(len(fake), dtype=torch.bool).numpy()
        for start in range(0, len(self._real), ROWS):
            between = distances(self._real[start : start + ROWS], fake)
            inside |= (between < self._radii[start : start + ROWS, None]).any(axis=0)
        return {"prec_pixels": float(inside.mean())}
