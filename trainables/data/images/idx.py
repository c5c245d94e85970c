"""MNIST and Fashion-MNIST from idx files, plain or gzipped, in the folders of torchvision or in a flat one.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (format and data); Xiao et al. 2017
(Fashion-MNIST, arXiv:1708.07747).
"""

from __future__ import annotations

import functools
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vistudy.trainables.data.data_root import DataError, data_root, missing
from vistudy.trainables.data.images.image_dataset import ImageData, keyed_recipe, keyed_split
from vistudy.trainables.data.images.prepared_images import Content, Source

PARTS = ("train", "t10k")
"""Prefixes of the files of training and test images."""
CHUNK = 4096
_MEND = "copy or download the file again"


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read the unsigned bytes of one idx file, plain or gzipped, with `ndim` dimensions.

    Raises:
        DataError: the file cannot be read, or its magic number or its length is wrong.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except EOFError as error:
        raise DataError(f"{path}: truncated, the gzip stream ends early; {_MEND}") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_MEND}") from error
    magic, header = bytes((0, 0, 8, ndim)), 4 + 4 * ndim
    if raw[:4] != magic:
        got = f"0x{raw[:4].hex()}" if raw else "missing, the file is empty"
        raise DataError(
            f"{path}: the magic number is {got}; that of {ndim}-dimensional bytes in idx format is 0x{magic.hex()}: "
            f"this is another file; {_MEND}"
        )
    if len(raw) < header:
        raise DataError(f"{path}: truncated: it ends in the header, after {len(raw)} bytes; {_MEND}")
    shape = tuple(int(size) for size in np.frombuffer(raw[4:header], dtype=">u4"))
    if len(raw) - header != math.prod(shape):
        what = "truncated" if len(raw) - header < math.prod(shape) else "too long"
        says = " x ".join(map(str, shape))
        raise DataError(f"{path}: {what}: the header says {says} bytes, {len(raw) - header} follow; {_MEND}")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdxFiles:
    """The files of one data set: images and labels of the parts that are present."""

    base: Path
    images: dict[str, Path]
    """Part -> file of images."""
    labels: dict[str, Path]
    """Part -> file of labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdxImages(ImageData):
    """Grey images with labels in idx files. If only one part is present, it is divided by a keyed shuffle."""

    classes: ClassVar[int] = 10
    shape: tuple[int, ...] = (1, 28, 28)
    folders: tuple[str, ...]
    """Candidate folders below the data root; the first one with any of the files is read."""
    width: int = 32
    z_dim: int = 64

    def find(self) -> IdxFiles:
        """Locate the files below the data root.

        Raises:
            DataError: no folder has them, or one has images without labels.
        """
        folders = [data_root() / folder for folder in self.folders]
        for base in folders:
            images = {part: path for part in PARTS if (path := _either(base / f"{part}-images-idx3-ubyte"))}
            labels = {part: path for part in PARTS if (path := _either(base / f"{part}-labels-idx1-ubyte"))}
            for part, path in images.items():
                if part not in labels:
                    raise DataError(f"{path}: its labels, {part}-labels-idx1-ubyte[.gz], are not beside it; add them")
            if images:
                return IdxFiles(base=base, images=images, labels={part: labels[part] for part in images})
        places = [base / f"{part}-images-idx3-ubyte[.gz]" for base in folders for part in PARTS]
        raise missing(self.name, places, download=self.name)

    def source(self) -> Source:
        """The files as a source; pixels are not changed."""
        files = self.find()
        return Source(
            name=self.name,
            base=files.base,
            files=(*files.images.values(), *files.labels.values()),
            recipe={"split": "by part, else keyed"} | keyed_recipe(),
            read=functools.partial(self._read, files),
        )

    def _read(self, files: IdxFiles) -> Content:
        parts = [self._part(files.images[part], files.labels[part]) for part in files.images]
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        if len(parts) == 2:
            order, train = np.arange(len(images)), len(parts[0][0])
            split = f"as published: {train} to learn, {len(images) - train} test images as reference"
        else:
            order, train, split = keyed_split(self.name, len(images))
            split += f" (only the part {next(iter(files.images))} was there)"
        return Content(
            shape=(len(images), *self._image_shape),
            train=train,
            split=split,
            labels=labels[order],
            chunks=_chunks(images, order),
        )

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.shape
        return channels, height, width

    def _part(self, images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 1, H, W) and labels (N,) of one part."""
        images, labels = read_idx(images_path, 3)[:, None], read_idx(labels_path, 1)
        if images.shape[1:] != self.shape or not len(images):
            got, want = (" x ".join(map(str, shape)) for shape in (images.shape, ("N", *self.shape)))
            raise DataError(f"{images_path}: images are {got}, data {self.name!r} wants {want}; {_MEND}")
        if len(labels) != len(images):
            raise DataError(
                f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}: "
                f"they belong to different files; {_MEND}"
            )
        if labels.max() >= self.classes:
            raise DataError(f"{labels_path}: has label {labels.max()}, the largest is {self.classes - 1}; {_MEND}")
        return images, labels.astype(np.int64)


def _either(path: Path) -> Path | None:
    """Return the file, plain or gzipped; None if it is missing."""
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def _chunks(images: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    return (images[order[start : start + CHUNK]] for start in range(0, len(order), CHUNK))


MNIST = IdxImages(name="mnist", folders=("MNIST/raw", "mnist"))
FASHION_MNIST = IdxImages(name="fashion_mnist", folders=("FashionMNIST/raw", "fashion_mnist"))
