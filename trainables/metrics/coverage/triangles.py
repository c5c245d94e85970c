"""Whether an image is a filled triangle: the precision of polygons, whose form can be checked without features.

All triangles are affine images of one, so the mean, covariance and third moments of the bright pixels determine the
only triangle that an image can show. That is drawn, and the image is a triangle if it differs little from the drawing.
Source: polygons whose precision is known, Lucic et al. 2018, "Are GANs Created Equal?" (arXiv:1711.10337); this test of
the raster is ours.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import ImageView

TOLERANCE = 0.2
"""Largest sum of |image - drawing| over the drawing's area, for brightness 0 ... 1."""
LEAST_PIXELS = 8
"""Fewest bright pixels that can form a triangle."""
ROWS = 256
"""Images that are drawn at once."""

_ANGLES = 2 * np.pi / 3 * np.arange(3)
_CORNERS = np.sqrt(8) * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""Corners (3, 2) of the triangle with mean 0 and covariance 1."""


def fitted_corners(mask: np.ndarray) -> np.ndarray:
    """Corners (N, 3, 2), in pixels from the top left, of the triangles with the moments of boolean images (N, H, W)."""
    n, height, width = mask.shape
    middle = np.array([width, height]) / 2
    y, x = (axis.ravel() + 0.5 for axis in np.mgrid[0:height, 0:width])
    x, y = x - middle[0], y - middle[1]
    powers = np.stack([x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], axis=1)
    weight = mask.reshape(n, -1).astype(np.float64)
    mx, my, xx, xy, yy, xxx, xxy, xyy, yyy = (weight @ powers / weight.sum(axis=1)[:, None]).T
    # About the mean. A pixel is no point: it has a variance of 1/12 of its own.
    cov = np.stack([xx - mx * mx + 1 / 12, xy - mx * my, xy - mx * my, yy - my * my + 1 / 12], axis=1)
    values, vectors = np.linalg.eigh(cov.reshape(n, 2, 2))
    third = (
        xxx - 3 * mx * xx + 2 * mx**3,
        3 * (xxy - 2 * mx * xy - my * xx + 2 * mx * mx * my),
        3 * (xyy - 2 * my * xy - mx * yy + 2 * my * my * mx),
        yyy - 3 * my * yy + 2 * my**3,
    )
    # Scaled to covariance 1, the triangle is equilateral, and the mean of (u + iv)^3 turns three times as fast as it.
    u, v = np.moveaxis(vectors / np.sqrt(values)[:, None], 1, 0)
    a, b = u[:, 0] + 1j * u[:, 1], v[:, 0] + 1j * v[:, 1]
    skew = a**3 * third[0] + a * a * b * third[1] + a * b * b * third[2] + b**3 * third[3]
    turned = np.exp(1j * np.angle(skew) / 3)[:, None] * (_CORNERS[:, 0] + 1j * _CORNERS[:, 1])
    root = vectors * np.sqrt(values)[:, None]
    offsets = np.einsum("nij,nkj->nki", root, np.stack([turned.real, turned.imag], axis=2))
    corners: np.ndarray = middle + np.stack([mx, my], axis=1)[:, None] + offsets
    return corners


def draw(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Brightness 0 ... 1 (N, H, W) of filled triangles (N, 3, 2).

    A pixel's share is half, more or less by how far inside the nearest edge its middle lies: exact for upright edges,
    off by a few hundredths for others, and ten times as fast as the data set's own raster.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32).reshape(2, -1) + np.float32(0.5)
    edges = np.roll(corners, -1, axis=1) - corners
    turn = np.sign(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    inside = np.full((len(corners), height * width), 0.5, dtype=np.float32)
    for corner, edge in zip(np.moveaxis(corners, 1, 0), np.moveaxis(edges, 1, 0), strict=True):
        normal = turn[:, None] * np.stack([-edge[:, 1], edge[:, 0]], axis=1) / np.linalg.norm(edge, axis=1)[:, None]
        from_origin = (normal * corner).sum(axis=1).astype(np.float32)
        across, down = normal.astype(np.float32).T[..., None]
        np.minimum(inside, across * x + down * y - from_origin[:, None], out=inside)
    return (inside + np.float32(0.5)).clip(0, 1).reshape(-1, height, width)


def triangle_errors(images: np.ndarray) -> np.ndarray:
    """Difference (N,) of grey images (N, 1, H, H) in [-1, 1] from their triangles, over these triangles' areas."""
    brightness = (images[:, 0] + 1) / 2
    mask = brightness > 0.5
    errors = np.full(len(images), np.inf)
    formed = np.flatnonzero(mask.sum(axis=(1, 2)) >= LEAST_PIXELS)
    for start in range(0, len(formed), ROWS):
        part = formed[start : start + ROWS]
        drawing = draw(fitted_corners(mask[part]), *mask.shape[1:])
        difference = np.abs(brightness[part] - drawing).sum(axis=(1, 2), dtype=np.float64)
        errors[part] = difference / drawing.sum(axis=(1, 2)).clip(min=1)
    return errors


class TriangleShare:
    """`triangle_share`, `prec`: share of the images that are filled triangles, within a fifth of their area."""

    names: ClassVar[tuple[str, ...]] = ("prec", "triangle_share")

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        pass

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Return the share. It is insensitive to variety, so read it together with a coverage."""
        share = int((triangle_errors(view.images.numpy()) <= TOLERANCE).sum()) / len(view.images)
        return {"prec": share, "triangle_share": share}
