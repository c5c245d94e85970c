"""Samples as pictures: arrays in, uint8 images out, with numpy alone. All trials share a scene, so pictures compare."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np

Image = np.ndarray
"""(height, width, 3), uint8."""

_FRAME, _MODE, _ALARM = (214, 214, 214), (190, 190, 190), (200, 30, 30)
_INK = (0, 90, 181)
"""A blue that colour-blind readers tell from the grey of the modes."""
_OVER = 3
"""Discs are drawn this many times larger and averaged down: smooth edges without a drawing library."""


def render(samples: np.ndarray, *, modes: np.ndarray | None = None, limit: float | None = None) -> Image:
    """One picture of a trial's samples: points (n, 2) in a scene, or images (n, C, H, W) in a grid.

    Args:
        samples: any float or integer type; pixels are in [-1, 1] (uint8 arrays: in [0, 255]).
        modes: (m, 2) centres of the real modes, for points.
        limit: the scene shows [-limit, limit] in both axes, for points; from `modes` if it is None.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: the shape is neither of points nor of images.
    """
    if samples.ndim == 2 and samples.shape[1] == 2:
        return draw_points(samples, modes=modes, limit=limit)
    if samples.ndim == 4 and samples.shape[1] in (1, 3):
        return tile_images(samples)
    raise ValueError(f"samples: expected (n, 2) or (n, 1 or 3, height, width), got {samples.shape}")


def draw_points(
    points: np.ndarray, *, modes: np.ndarray | None = None, limit: float | None = None, size: int = 320
) -> Image:
    """Points (n, 2) in blue over the real modes (m, 2) in grey, on a square of `size` pixels, y upwards.

    Points outside [-limit, limit] are drawn as red marks on the edge; non-finite ones cannot be drawn at all, and then
    the frame is red.
    """
    if limit is None:
        limit = 1.0 if modes is None else 1.4 * float(np.abs(modes).max())
    points = points.astype(np.float64)
    finite = points[np.isfinite(points).all(1)]
    outside = (np.abs(finite) > limit).any(1)
    edge = np.clip(finite[outside], -0.985 * limit, 0.985 * limit)
    canvas = np.full((size, size, 3), 255, np.float32)
    for centres, share, colour, alpha in (
        (modes, 1 / 26, _MODE, 0.55),
        (finite[~outside], 1 / 190, _INK, 0.45),
        (edge, 1 / 130, _ALARM, 0.8),
    ):
        if centres is not None and len(centres):
            cover = _cover(np.asarray(centres, np.float64) / limit, size=size, radius=share * size, alpha=alpha)
            canvas += cover[..., None] * (np.asarray(colour, np.float32) - canvas)
    image: Image = canvas.round().astype(np.uint8)
    for border in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
        image[border] = _FRAME if len(finite) == len(points) else _ALARM
    return image


def _cover(centres: np.ndarray, *, size: int, radius: float, alpha: float) -> np.ndarray:
    """Share of each pixel (size, size) that discs around centres in [-1, 1]^2 hide; overlapping ones hide more."""
    side, radius = size * _OVER, radius * _OVER
    reach = math.ceil(radius)
    offset = np.arange(-reach, reach + 1)
    disc = 1 - np.float32(alpha) * (offset[:, None] ** 2 + offset**2 <= radius**2)
    left = np.ones((side + 2 * reach, side + 2 * reach), np.float32)  # a margin, so that no disc needs to be cut
    columns, rows = np.rint((centres + 1) / 2 * (side - 1)).astype(int).T
    for row, column in zip(side - 1 - rows, columns, strict=True):
        left[row : row + 2 * reach + 1, column : column + 2 * reach + 1] *= disc
    inner = left[reach : reach + side, reach : reach + side]
    hidden: np.ndarray = 1 - inner.reshape(size, _OVER, size, _OVER).mean((1, 3))
    return hidden


def tile_images(images: np.ndarray, *, size: int = 420, most: int = 64) -> Image:
    """Images (n, C, H, W) in a near-square grid with gaps, enlarged by a whole factor without smoothing.

    Grey or RGB; at most `most` of them; the picture is about `size` pixels wide. Non-finite pixels are magenta.
    """
    images = images[:most]
    n, channels, height, width = images.shape
    if images.dtype == np.uint8:
        pixels = images
        broken: np.ndarray = np.zeros((n, height, width), bool)
    else:
        values = images.astype(np.float32)
        broken = ~np.all(np.isfinite(values), axis=1)
        shown = np.where(np.isfinite(values), values, 0.0)
        pixels = ((np.clip(shown, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    rgb = np.repeat(pixels, 3, 1) if channels == 1 else pixels
    rgb = np.ascontiguousarray(rgb.transpose(0, 2, 3, 1))
    rgb[broken] = (255, 0, 255)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    factor = max(1, round((size / columns - 1) / width))
    gap = max(1, factor // 2)
    rgb = rgb.repeat(factor, 1).repeat(factor, 2)
    cell_h, cell_w = height * factor + gap, width * factor + gap
    grid = np.empty((rows * cell_h + gap, columns * cell_w + gap, 3), np.uint8)
    grid[:] = (96, 110, 130)
    for i, image in enumerate(rgb):
        top, left = gap + i // columns * cell_h, gap + i % columns * cell_w
        grid[top : top + height * factor, left : left + width * factor] = image
    return grid


def encode(image: Image, kind: Literal["png", "webp"] = "png") -> bytes:
    """File content of an image."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    options: dict[str, int | bool] = (
        {"compress_level": 4} if kind == "png" else {"lossless": True, "quality": 20, "method": 1}
    )
    Pillow.fromarray(image).save(buffer, format=kind.upper(), **options)
    return buffer.getvalue()
