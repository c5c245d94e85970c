"""Sliced Wasserstein-1 distance of image patches on a Laplacian pyramid: what texture looks like at each scale.

Source: Karras et al. 2018, "Progressive growing of GANs" (arXiv:1710.10196), section 5 and its published code: 7x7
patches, each channel standardised with its own set's statistics, random projections, mean absolute difference, x 1000.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import ImageView
from vistudy.trainables.random_streams import generator

PATCH = 7
SMALLEST = 16
"""Smallest height and width of a level of the pyramid."""
PATCHES, DIRECTIONS = 16, 128
"""Patches per image and level, and projections. The paper has 128 and 512, which takes half a minute per level."""
ROWS_AT_ONCE = 16
"""Directions that are projected on and sorted at once."""

IMAGES_AT_ONCE = 64
"""Images per convolution: the library pads a channel to sixteen, so 2,000 images of 64x64 would take 1.7 GB."""

_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def blur(images: Tensor) -> Tensor:
    """Binomial 5x5 filter, each channel by itself, mirrored at the border (the edge itself is not repeated)."""
    kernel = torch.outer(_BINOMIAL, _BINOMIAL)[None, None]
    n, c, h, w = images.shape
    padded = F.pad(images.reshape(n * c, 1, h, w), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, kernel).reshape(n, c, h, w)


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Double height and width by inserting zeros, blur, compensate for the zeros, and crop to `size`."""
    n, c, h, w = images.shape
    wide = images.new_zeros(n, c, 2 * h, 2 * w)
    wide[:, :, ::2, ::2] = images
    return 4 * blur(wide)[:, :, : size[0], : size[1]]


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Levels of images (N, C, H, W), finest first: the detail lost by each halving, and finally the remainder."""
    parts = (_laplacian_pyramid(part) for part in torch.split(images, IMAGES_AT_ONCE))
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def _laplacian_pyramid(images: Tensor) -> list[Tensor]:
    levels = [images]
    while min(levels[-1].shape[2:]) // 2 >= SMALLEST:
        fine = levels.pop()
        coarse = blur(fine)[:, :, ::2, ::2]
        levels += [fine - enlarge(coarse, (fine.shape[2], fine.shape[3])), coarse]
    return levels


def patches(level: Tensor, per_image: int, rng: np.random.Generator) -> Tensor:
    """`per_image` random 7x7 patches of each of (N, C, H, W), standardised by channel: (N * per_image, C * 49)."""
    n, _, h, w = level.shape
    top = torch.from_numpy(rng.integers(0, h - PATCH + 1, size=n * per_image))
    left = torch.from_numpy(rng.integers(0, w - PATCH + 1, size=n * per_image))
    inside = torch.arange(PATCH)
    image = torch.arange(n).repeat_interleave(per_image)
    rows, columns = (top[:, None] + inside)[:, :, None], (left[:, None] + inside)[:, None, :]
    raw = level.permute(0, 2, 3, 1)[image[:, None, None], rows, columns]  # (N * per_image, 7, 7, C)
    mean = raw.mean(dim=(0, 1, 2), dtype=torch.float64)
    sd = (raw.double() - mean).square().mean(dim=(0, 1, 2)).sqrt()
    # A level without any contrast has no texture to standardise: its patches are all zero.
    standard = (raw - mean.float()) / torch.where(sd > 0, sd, 1.0).float()
    return standard.permute(0, 3, 1, 2).flatten(1)


def directions(dim: int, count: int) -> Tensor:
    """`count` fixed random unit vectors, float32 (count, dim)."""
    vectors = torch.from_numpy(generator(0, "pggan_swd/directions").standard_normal((count, dim)))
    return F.normalize(vectors, dim=1).float()


def projections(points: Tensor, onto: Tensor) -> np.ndarray:
    """(N, d) points projected on each of (D, d) directions and sorted: (D, N) with ascending rows."""
    parts = [np.sort((rows @ points.T).numpy(), axis=1) for rows in torch.split(onto, ROWS_AT_ONCE)]
    return np.concatenate(parts)


def sliced_w1(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over directions of the 1-D W1 distance of sorted projections (D, N) of equally many points."""
    if x.shape != y.shape:
        raise ValueError(f"sliced W1 compares sets of equal size: got {x.shape} and {y.shape}")
    return float(np.abs(x - y).mean(dtype=np.float64))


class PgganSwd:
    """`swd`: mean over the levels of 1000 times sliced W1, 16 patches an image and level, 128 directions."""

    names: ClassVar[tuple[str, ...]] = ("swd",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        if min(dataset.shape[1:]) < PATCH:
            size = f"{PATCH}x{PATCH}"
            raise ValueError(f"data {dataset.name!r}: images of {dataset.shape} are smaller than a {size} patch")
        self._directions = directions(PATCH * PATCH * dataset.shape[0], DIRECTIONS)
        self._reference = self._levels(reference, 0)

    def _levels(self, view: ImageView, stream: int) -> list[np.ndarray]:
        rng = generator(0, "pggan_swd/patches", stream)
        levels = laplacian_pyramid(view.images)
        return [projections(patches(level, PATCHES, rng), self._directions) for level in levels]

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Return the distance to the reference, whose patches are at other positions."""
        pairs = zip(self._levels(view, 1), self._reference, strict=True)
        return {"swd": 1000 * float(np.mean([sliced_w1(fake, real) for fake, real in pairs]))}
