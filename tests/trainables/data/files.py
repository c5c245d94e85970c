"""Tiny files in the formats that data sets are read from."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from vistudy.trainables.random_streams import generator


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def digits(n: int, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Random images (n, 28, 28), no two alike, and labels (n,) of all classes in turn."""
    return generator(1, f"test/{part}").integers(256, size=(n, 28, 28)).astype(np.uint8), np.arange(n) % 10


def write_idx(folder: Path, part: str, n: int, *, zipped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write images and labels of one part; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits(n, part)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        raw = idx_bytes(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(raw) if zipped else raw)
    return images, labels


def picture(seed: int, width: int, height: int, channels: int = 3) -> Image.Image:
    """Smooth random colours, which a JPEG keeps nearly as they are."""
    small = generator(seed, "test/picture").integers(256, size=(4, 4, 3)).astype(np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return large if channels == 3 else large.convert("L")


def write_faces(root: Path, parts: list[int], *, width: int = 178, height: int = 218) -> Path:
    """A small CelebA: one picture for each entry of `parts`, which is its partition; returns its folder."""
    base = root / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, len(parts) + 1)]
    for seed, name in enumerate(names):
        picture(seed, width, height).save(base / "img_align_celeba" / name, quality=95)
    lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    (base / "list_eval_partition.txt").write_text("".join(lines))
    return base


def leftovers(cache: Path) -> list[str]:
    """What lies in the cache beside locks and known keys."""
    return (
        sorted(path.name for path in cache.glob("*") if path.name not in ("locks", "known")) if cache.exists() else []
    )
