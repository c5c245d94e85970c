"""Precision without a net: whether samples look like data by their pixels alone.

A classifier maps images that are nothing onto the features of something: one image of noise, or a blank one, can lie
among real images there. Among pixels it does not, if it does not gain from being faint: a blank image is near every
thin digit. So contrast is made equal first. Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), features replaced.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.coverage.prdc import ROWS, distances, radii
from vistudy.trainables.metrics.views import ImageView

LARGEST_SIDE = 16
"""Images are averaged to at most so many pixels a side: a distance of 64x64 in colour would cost seconds."""
FAINT = 0.1
"""Share of real images' median contrast below which an image is faint, and is not enhanced in full."""


def thumbnails(images: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged over equal squares, as rows (N, C * h * w), h and w at most LARGEST_SIDE, mean 0."""
    factor = -(-max(images.shape[2:]) // LARGEST_SIDE)
    small = F.avg_pool2d(images, factor, ceil_mode=True) if factor > 1 else images
    rows = small.flatten(1)
    return rows - rows.mean(dim=1, keepdim=True)


class PixelPrecision:
    """`prec_pixels`: share of samples within the ball of some real image, by pixels, to its 5th real neighbour."""

    names: ClassVar[tuple[str, ...]] = ("prec_pixels",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        rows = thumbnails(reference.images)
        self._least = FAINT * float(rows.norm(dim=1).median())
        self._real = self._equal_contrast(rows)
        self._radii = radii(self._real)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """The share. Like every precision it says nothing of variety."""
        fake = self._equal_contrast(thumbnails(view.images))
        inside = torch.zeros(len(fake), dtype=torch.bool).numpy()
        for start in range(0, len(self._real), ROWS):
            between = distances(self._real[start : start + ROWS], fake)
            inside |= (between < self._radii[start : start + ROWS, None]).any(axis=0)
        return {"prec_pixels": float(inside.mean())}

    def _equal_contrast(self, rows: Tensor) -> Tensor:
        lengths: Tensor = rows.norm(dim=1, keepdim=True).clamp(min=max(self._least, 1e-12))
        return rows / lengths
