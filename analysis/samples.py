"""Samples as pictures: arrays in, uint8 images out, with numpy alone. All trials share a scene, so pictures compare."""

from __future__ import annotations

import functools
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
    if drawable(samples.shape):
        return draw_points(samples, modes=modes, limit=limit) if samples.ndim == 2 else tile_images(samples)
    raise ValueError(f"samples: expected (n, 2) or (n, 1 or 3, height, width), got {samples.shape}")


def drawable(shape: tuple[int, ...]) -> bool:
    """Whether `render` has a picture of samples of that shape: a toy's one sample is its exact numbers."""
    return (len(shape) == 2 and shape[0] > 1 and shape[1] == 2) or (len(shape) == 4 and shape[1] in (1, 3))


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
    canvas = _backdrop(b"" if modes is None else np.asarray(modes, np.float64).tobytes(), limit, size).copy()
    for centres, share, colour, alpha in (
        (finite[~outside], 1 / 190, _INK, 0.45),
        (edge, 1 / 130, _ALARM, 0.8),
    ):
        if len(centres):
            cover = _cover(centres / limit, size=size, radius=share * size, alpha=alpha)
            canvas += cover[..., None] * (np.asarray(colour, np.float32) - canvas)
    image: Image = canvas.round().astype(np.uint8)
    for border in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
        image[border] = _FRAME if len(finite) == len(points) else _ALARM
    return image


@functools.lru_cache(maxsize=8)
def _backdrop(modes: bytes, limit: float, size: int) -> np.ndarray:
    """White with the real modes (float64 bytes) in grey: the same in every picture of a study."""
    canvas = np.full((size, size, 3), 255, np.float32)
    centres = np.frombuffer(modes).reshape(-1, 2)
    if len(centres):
        cover = _cover(centres / limit, size=size, radius=size / 26, alpha=0.55)
        canvas += cover[..., None] * (np.asarray(_MODE, np.float32) - canvas)
    return canvas


def _cover(centres: np.ndarray, *, size: int, radius: float, alpha: float) -> np.ndarray:
    """Share of each pixel (size, size) that discs around centres in [-1, 1]^2 hide; overlapping ones hide more."""
    side, radius = size * _OVER, radius * _OVER
    reach = math.ceil(radius)
    offset = np.arange(-reach, reach + 1)
    inside = offset[:, None] ** 2 + offset**2 <= radius**2
    columns, rows = np.rint((centres + 1) / 2 * (side - 1)).astype(np.intp).T
    width = side + 2 * reach  # a margin, so that no disc needs to be cut
    disc = ((offset[:, None] + reach) * width + offset + reach)[inside]
    pixels = ((side - 1 - rows) * width + columns)[:, None] + disc
    discs = np.bincount(pixels.reshape(-1), minlength=width * width)
    left = ((1 - alpha) ** np.arange(discs.max() + 1, dtype=np.float32))[discs].reshape(width, width)
    inner = left[reach : reach + side, reach : reach + side]
    # Strided sums: numpy's mean over axes of 3 takes longer than all the rest.
    rows_of = functools.reduce(np.add, [inner[i::_OVER] for i in range(_OVER)])
    hidden: np.ndarray = 1 - functools.reduce(np.add, [rows_of[:, i::_OVER] for i in range(_OVER)]) / _OVER**2
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
