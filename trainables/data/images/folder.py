"""Any folder of pictures: the middle square of each, resized."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from vistudy.trainables.data.data_root import DataError, data_root, missing
from vistudy.trainables.data.images.image_dataset import ImageData, keyed_recipe, keyed_split
from vistudy.trainables.data.images.image_files import read_all, resized
from vistudy.trainables.data.images.prepared_images import Content, Source

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Suffixes of pictures, case-insensitive; other files are ignored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder(ImageData):
    """Pictures in a folder and the folders below it, without labels, divided by a keyed shuffle.

    All must have the number of channels of `shape` and be at least as large: nothing is enlarged or recoloured.
    """

    name: str = "image_folder"
    shape: tuple[int, ...] = (3, 64, 64)
    """(1 or 3, size, size)."""
    folder: str = "image_folder"
    """Folder of the pictures below the data root; may be a link."""

    def source(self) -> Source:
        """The pictures in the order of their paths."""
        base = data_root() / self.folder
        if not base.is_dir():
            raise missing(self.name, [base], download=None)
        pictures = sorted(_pictures(base), key=lambda path: path.relative_to(base).as_posix())
        if len(pictures) < 2:
            count = "one picture" if pictures else "no picture"
            raise DataError(
                f"{base}: {count} ({', '.join(SUFFIXES)}) in this folder or below; there must be some to learn and "
                "some to compare with: put pictures there"
            )
        return Source(
            name=self.name,
            base=base,
            files=pictures,
            recipe={
                "crop": "middle square",
                "shape": list(self.shape),
                "resize": "bicubic, antialias, clipped",
            }
            | keyed_recipe(),
            read=functools.partial(self._read, pictures),
        )

    def _read(self, pictures: list[Path]) -> Content:
        channels, size, _ = self.shape
        order, train, split = keyed_split(self.name, len(pictures))
        return Content(
            shape=(len(pictures), channels, size, size),
            train=train,
            split=split,
            chunks=read_all(
                [pictures[i] for i in order], functools.partial(resized, channels=channels, crop=None, size=size)
            ),
        )


def _pictures(base: Path) -> list[Path]:
    """List files with a suffix of pictures, in linked folders, too; hidden files and folders are left out.

    Raises:
        DataError: a link leads to a folder that holds it.
    """
    pictures: list[Path] = []
    ancestors = {os.fspath(base): {os.path.realpath(base)}}
    for folder, folders, files in os.walk(base, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (os.path.join(folder, name) for name in folders):
            if (real := os.path.realpath(path)) in ancestors[folder]:
                raise DataError(f"{path}: this link leads to a folder that holds it: remove the link")
            ancestors[path] = ancestors[folder] | {real}
        names = (name for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES))
        pictures += [Path(folder, name) for name in names]
    return pictures


IMAGE_FOLDER = ImageFolder()
