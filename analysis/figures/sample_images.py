"""Samples as pictures: arrays in, uint8 images out, with numpy alone. All trials share a scene, so pictures compare."""

from __future__ import annotations

import functools
import io
import math

import numpy as np

Image = np.ndarray
"""(height, width, 3), uint8."""

_FRAME, _MODE, _ALARM = (214, 214, 214), (190, 190, 190), (200, 30, 30)
_INK = (0, 90, 181)
"""A blue that colour-blind readers tell from the grey of the modes."""
_OVER = 3
"""A disc is placed to this part of a pixel, and its edge averaged over as many: smooth without a drawing library."""


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
    image = _backdrop(b"" if modes is None else np.asarray(modes, np.float64).tobytes(), limit, size).copy()
    _draw(image, finite[~outside] / limit, radius=size / 190, colour=_INK, alpha=0.45)
    _draw(image, edge / limit, radius=size / 130, colour=_ALARM, alpha=0.8)
    for border in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
        image[border] = _FRAME if len(finite) == len(points) else _ALARM
    return image


@functools.lru_cache(maxsize=8)
def _backdrop(modes: bytes, limit: float, size: int) -> np.ndarray:
    """White with the real modes (float64 bytes) in grey: the same in every picture of a study."""
    image = np.full((size, size, 3), 255, np.uint8)
    _draw(image, np.frombuffer(modes).reshape(-1, 2) / limit, radius=size / 26, colour=_MODE, alpha=0.55)
    return image


def _draw(image: Image, centres: np.ndarray, *, radius: float, colour: tuple[int, int, int], alpha: float) -> None:
    """Draw discs around centres in [-1, 1]^2; where they overlap, more is hidden. Other pixels stay as they are."""
    size = len(image)
    columns, rows = np.rint((centres + 1) / 2 * (size * _OVER - 1)).astype(np.intp).T
    rows = size * _OVER - 1 - rows
    stamps = _stamps(radius, alpha)
    reach = (stamps.shape[1] - 1) // 2
    width = size + 2 * reach  # a margin, so that no disc needs to be cut
    offset = np.arange(2 * reach + 1)
    stamp = (offset[:, None] * width + offset).reshape(-1)
    corners = rows // _OVER * width + columns // _OVER
    weights = stamps.reshape(_OVER**2, -1)[rows % _OVER * _OVER + columns % _OVER]
    counts = np.bincount((corners[:, None] + stamp).reshape(-1), weights.reshape(-1), width * width)
    pixels_ = np.flatnonzero(counts)
    row, column = np.divmod(pixels_, width)
    inside = (row >= reach) & (row < reach + size) & (column >= reach) & (column < reach + size)
    places = (row[inside] - reach, column[inside] - reach)
    below = image[places].astype(np.float64)
    hidden = -np.expm1(counts[pixels_[inside]])[:, None]
    image[places] = (below + hidden * (np.array(colour) - below) + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _stamps(radius: float, alpha: float) -> np.ndarray:
    """(_OVER^2, k, k): log of what a disc leaves visible of pixels, for each place of its centre in the middle one."""
    reach = math.floor(radius) + 1
    fine = (np.arange((2 * reach + 1) * _OVER) - reach * _OVER).astype(np.float64)
    stamps = []
    for row in range(_OVER):
        for column in range(_OVER):
            inside = (fine[:, None] - row) ** 2 + (fine - column) ** 2 <= (radius * _OVER) ** 2
            share = inside.reshape(2 * reach + 1, _OVER, 2 * reach + 1, _OVER).mean((1, 3))
            stamps.append(np.log1p(-alpha * share))
    return np.stack(stamps)


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


def encode(image: Image) -> bytes:
    """Content of a PNG file. The least compression: it takes half of the time and a tenth more room."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
