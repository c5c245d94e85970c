"""CIFAR-10 from files of the binary version, or from pickled ones through torchvision, which verifies them first.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. For the
two formats see docs/decisions/014-cifar-is-not-unpickled.md.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vistudy.trainables.data.data_root import DataError, data_root, missing
from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.data.images.prepared_images import Content, Source

BINARY = "cifar-10-batches-bin"
PICKLED = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
RECORD = 1 + 3 * 32 * 32
"""Bytes of one image in the binary version: the label, then red, green and blue, each row by row."""
_MEND = "copy, or unpack the archive, again"

Part = tuple[np.ndarray, np.ndarray]
"""uint8 (N, 3, 32, 32), int64 (N,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar10(ImageData):
    """Colour images of ten classes: 50,000 to learn, and 10,000 test images as reference."""

    classes: ClassVar[int] = 10
    name: str = "cifar10"
    shape: tuple[int, ...] = (3, 32, 32)
    per_file: int = 10_000
    """Images per file, of six files."""

    def source(self) -> Source:
        """The binary files, or otherwise the pickled ones."""
        root = data_root()
        binary = [root / BINARY / f"{name}.bin" for name in (*TRAIN, TEST)]
        pickled = [root / PICKLED / name for name in (*TRAIN, TEST, "batches.meta")]
        for files, read in (
            (binary, functools.partial(self._read_binary, binary)),
            (pickled, functools.partial(self._read_pickled, root)),
        ):
            if any(path.is_file() for path in files):
                missing_files = [path for path in files if not path.is_file()]
                if missing_files:
                    raise DataError(
                        f"{missing_files[0]}: is not there, though others of its kind are; unpack the archive again"
                    )
                return Source(name=self.name, base=root, files=files, recipe={}, read=read)
        raise missing(self.name, [root / BINARY / "*.bin", root / PICKLED], download=self.name)

    def _read_binary(self, files: list[Path]) -> Content:
        return self._content([self._binary(path) for path in files])

    def _binary(self, path: Path) -> Part:
        try:
            raw = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from error
        if len(raw) != self.per_file * RECORD:
            what = "truncated" if len(raw) < self.per_file * RECORD else "too long"
            want = f"{self.per_file} images take {self.per_file * RECORD} bytes"
            raise DataError(f"{path}: {what}: {want}, it has {len(raw)}; {_MEND}")
        records = raw.reshape(-1, RECORD)
        labels = records[:, 0].astype(np.int64)
        if labels.max() >= self.classes:
            raise DataError(f"{path}: has label {labels.max()}, the largest is {self.classes - 1}; {_MEND}")
        return records[:, 1:].reshape(-1, 3, 32, 32), labels

    def _read_pickled(self, root: Path) -> Content:
        """Read through torchvision. Unpickling executes code from the file, so files must have the known MD5."""
        from torchvision.datasets import CIFAR10

        try:
            loaded = [CIFAR10(root, train=train) for train in (True, False)]
        except RuntimeError as error:
            raise DataError(f"{root / PICKLED}: MD5 sums are not those of the published files; {_MEND}") from error
        return self._content(
            [(data.data.transpose(0, 3, 1, 2), np.array(data.targets, dtype=np.int64)) for data in loaded]
        )

    def _content(self, parts: list[Part]) -> Content:
        """Content of the parts, of which the last is the reference."""
        train, reference = sum(len(labels) for _, labels in parts[:-1]), len(parts[-1][1])
        return Content(
            shape=(train + reference, 3, 32, 32),
            train=train,
            split=f"as published: {train} to learn, {reference} test images as reference",
            labels=np.concatenate([labels for _, labels in parts]),
            chunks=_images(parts),
        )


def _images(parts: list[Part]) -> Iterator[np.ndarray]:
    return (images for images, _ in parts)


CIFAR10 = Cifar10()
