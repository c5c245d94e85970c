"""Convex polygons, bright on dark: images without files whose form can be checked exactly.

Source: the idea is from Lucic et al. 2018, "Are GANs Created Equal?" (arXiv:1711.10337): one corner in each of
equal sectors of a circle, with a least angle between neighbours, turned at random and centred. The numbers of corners,
angle and scale are theirs (triangles), of images (they: 60,000 and 10,000) and the raster are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.data.images.prepared_images import Content, Source
from vistudy.trainables.random_streams import generator

CHUNK = 256
ROWS = 8
"""Scan lines per pixel on which coverage is measured; along a line it is exact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Polygons(ImageData):
    """Filled polygons of `corners` corners, drawn once from a fixed stream. No labels."""

    name: str = "polygons"
    shape: tuple[int, ...] = (1, 28, 28)
    corners: int = 3
    least_angle: float = 20.0
    """Least angle between neighbouring corners, seen from the centre of the circle, in degrees."""
    scale: float = 0.75
    """Ratio of the diameter of the circle to the side of the image."""
    train: int = 20_000
    """Images to learn."""
    reference: int = 5_000
    """Images of the reference."""
    width: int = 32
    z_dim: int = 64

    @property
    def from_files(self) -> bool:
        """False: the images are drawn."""
        return False

    def source(self) -> Source:
        """A source without files: the fields determine the images."""
        recipe = asdict(self) | {"rows": ROWS, "shape": list(self.shape)}
        return Source(name=self.name, base=None, files=(), recipe=recipe, read=self._read)

    def _read(self) -> Content:
        total = self.train + self.reference
        return Content(
            shape=(total, 1, self.shape[1], self.shape[1]),
            train=self.train,
            split=f"{self.train} to learn, {self.reference} as reference",
            chunks=self._chunks(total),
        )

    def _chunks(self, total: int) -> Iterator[np.ndarray]:
        for chunk, start in enumerate(range(0, total, CHUNK)):
            corners = self.draw(generator(0, f"polygons/{self.name}", chunk), min(CHUNK, total - start))
            yield rasterise(corners, self.shape[1])[:, None]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Corners of n polygons in order, float64 (n, corners, 2), in pixels from the image's top left."""
        size, sector = self.shape[1], 360 / self.corners
        offsets = rng.uniform(self.least_angle / 2, sector - self.least_angle / 2, (n, self.corners))
        angles = np.radians(offsets + sector * np.arange(self.corners) + rng.uniform(0, 360, (n, 1)))
        corners = self.scale * size / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=2)
        corners += size / 2 - corners.mean(axis=1, keepdims=True)
        rounded: np.ndarray = np.rint(corners * 256) / 256  # so that no bit depends on the machine's cosine
        return rounded


def rasterise(corners: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that convex polygons (n, corners, 2) cover, as uint8 (n, size, size), 255 inside."""
    lines = (np.arange(size * ROWS) + 0.5) / ROWS
    left, right = np.full((2, len(corners), len(lines)), np.inf)
    right = -right
    for start, end in zip(np.moveaxis(corners, 1, 0), np.moveaxis(np.roll(corners, -1, axis=1), 1, 0), strict=True):
        (x0, y0), (x1, y1) = start.T[..., None], end.T[..., None]
        crosses = (y0 <= lines) != (y1 <= lines)  # a line through a corner crosses one of its two edges
        run = np.where(y1 == y0, 1, y1 - y0)
        x = x0 + (lines - y0) * (x1 - x0) / run
        left, right = np.where(crosses, np.minimum(left, x), left), np.where(crosses, np.maximum(right, x), right)
    pixels = np.arange(size)
    covered = np.minimum(right[..., None], pixels + 1) - np.maximum(left[..., None], pixels)
    share = covered.clip(0, 1).reshape(len(corners), size, ROWS, size).mean(axis=2)
    image: np.ndarray = np.rint(share * 255).astype(np.uint8)
    return image


POLYGONS = Polygons()
