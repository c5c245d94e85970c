"""Precision without a net: whether samples look like data by their pixels alone.

A classifier may map meaningless images, such as noise or a blank image, to features of real ones. In pixel space they
are far from real images, once contrast is equalised: otherwise a blank image is close to every thin digit.
Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), with pixels instead of features.
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
"""Images are averaged to at most this many pixels per side: distances of 64x64 colour images would take seconds."""
FAINT = 0.1
"""Share of the median contrast of real images below which an image is faint and is not fully enhanced."""


def thumbnails(images: Tensor) -> Tensor:
    """Average images (N, C, H, W) over equal squares: rows (N, C * h * w) of mean 0, h and w at most LARGEST_SIDE."""
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
        """Return the share. Like every precision it is insensitive to variety."""
        fake = self._equal_contrast(thumbnails(view.images))
        inside = torch.zeros(len(fake), dtype=torch.bool).numpy()
        for start in range(0, len(self._real), ROWS):
            between = distances(self._real[start : start + ROWS], fake)
            inside |= (between < self._radii[start : start + ROWS, None]).any(axis=0)
        return {"prec_pixels": float(inside.mean())}

    def _equal_contrast(self, rows: Tensor) -> Tensor:
        lengths: Tensor = rows.norm(dim=1, keepdim=True).clamp(min=max(self._least, 1e-12))
        return rows / lengths
