"""Read picture files (JPEG, PNG, ...) with Pillow, in threads; every error names the path."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vistudy.trainables.data.data_root import DataError

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 256
"""Pictures that are decoded before they are written, and so in memory at once."""

_MODES = {1: "L", 3: "RGB"}
_MODE_WORDS = {"L": "greyscale", "RGB": "colour", "P": "a palette", "RGBA": "colour with transparency", "CMYK": "CMYK"}


def load_picture(path: Path, channels: int) -> Image.Image:
    """Decode one picture of 1 (grey) or 3 (colour) channels.

    Raises:
        DataError: it cannot be decoded, or its pixels have another mode.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded, the picture is damaged ({error}); replace or remove it") from error
    want = _MODES[channels]
    if picture.mode != want:
        raise DataError(
            f"{path}: pixels are {_words(picture.mode)}, where {_words(want)} is expected; convert or remove it"
        )
    return picture


def _words(mode: str) -> str:
    return f"{_MODE_WORDS.get(mode, 'of another kind')} (mode {mode})"


def resized(path: Path, channels: int, crop: int | None, size: int) -> np.ndarray:
    """Crop the central square of a picture and resize it, uint8 (channels, size, size).

    The side of the square is `crop`, or the shorter side of the picture if that is None. Resizing is bicubic with
    antialiasing, clipped.

    Raises:
        DataError: as `load_picture`; the picture is smaller than the square, or than `size`.
    """
    from PIL import Image

    picture = load_picture(path, channels)
    width, height = picture.size
    side = min(width, height) if crop is None else crop
    if min(width, height) < max(side, size if crop is None else side):
        what = f"the crop of {side} x {side}" if crop else f"the {size} x {size} pixels that are learnt"
        raise DataError(f"{path}: {width} x {height} pixels are less than {what}; replace or remove it")
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)  # Pillow antialiases by widening its kernel
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)


def read_all(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
    """Yield `read` of every path, in order, CHUNK stacked at a time. It runs in threads: decoding releases the GIL."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="vistudy-pictures") as pool:
        for start in range(0, len(paths), CHUNK):
            yield np.stack(list(pool.map(read, paths[start : start + CHUNK])))
