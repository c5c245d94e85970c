"""CelebA in torchvision's layout, cropped and resized as in the paper's code.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild" (data and partition). The paper's code crops the
middle 108 x 108 of 178 x 218 and resizes to 64 x 64, bicubic. It differs in two
ways: it resizes without antialiasing, so details finer than the new pixels turn into noise, and it does not clip, so
values leave the range [-1, 1] of a tanh.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from vistudy.trainables.data.data_root import DataError, data_root, missing
from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.data.images.image_files import read_all, resized
from vistudy.trainables.data.images.prepared_images import Content, Source

PARTITION = "list_eval_partition.txt"
CROP = 108
"""Side of the central square that is cropped from 178 x 218 pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CelebA(ImageData):
    """Faces: partition 0 to learn, 1 (validation) and 2 (test) as reference. No labels: attributes are not read."""

    name: str = "celeba"
    shape: tuple[int, ...] = (3, 64, 64)

    def source(self) -> Source:
        """The pictures that the partition lists; all must be present."""
        base = data_root() / "celeba"
        folder, partition = base / "img_align_celeba", base / PARTITION
        exists = {folder: folder.is_dir(), partition: partition.is_file()}
        if not any(exists.values()):
            raise missing(self.name, [folder / "*.jpg", partition], download=self.name)
        if not all(exists.values()):
            missing_path, present_path = sorted(exists, key=lambda path: exists[path])
            raise DataError(
                f"{missing_path}: is not there, but {present_path.name} is: data {self.name!r} needs both; add it, or "
                f"download: python -m vistudy.trainables.data.download {self.name} --data-root DIR"
            )
        parts = read_partition(partition)
        present = {path.name for path in folder.iterdir() if path.suffix == ".jpg"}
        if present != parts.keys():
            _refuse(folder, partition, present, set(parts))
        train, reference = ([name for name, part in parts.items() if (part == 0) == learn] for learn in (True, False))
        if not (train and reference):
            raise DataError(f"{partition}: needs images of partition 0 and of 1 or 2; put the published file there")
        pictures = [folder / name for name in (*train, *reference)]
        return Source(
            name=self.name,
            base=base,
            files=(partition, *pictures),
            recipe={"crop": CROP, "size": self.shape[1], "resize": "bicubic, antialias, clipped"},
            read=functools.partial(self._read, pictures, len(train)),
        )

    def _read(self, pictures: list[Path], train: int) -> Content:
        channels, size, _ = self.shape
        return Content(
            shape=(len(pictures), channels, size, size),
            train=train,
            split=f"as published: {train} to learn, {len(pictures) - train} of validation and test as reference",
            chunks=read_all(pictures, functools.partial(resized, channels=channels, crop=CROP, size=size)),
        )


def read_partition(path: Path) -> dict[str, int]:
    """Map the name of each picture to 0 (train), 1 (validation) or 2 (test), in the order of the file.

    Raises:
        DataError: the file cannot be read, or a line is not a name and one of these numbers.
    """
    parts: dict[str, int] = {}
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2") or words[0] in parts:
            raise DataError(
                f"{path}:{number}: expected the name of a picture, once, and 0, 1 or 2; got {line[:80]!r}; "
                "put the published file there"
            )
        parts[words[0]] = int(words[1])
    return parts


def _refuse(folder: Path, partition: Path, present: set[str], listed: set[str]) -> None:
    """Raise DataError with the differences between the listed and the present pictures."""
    some = ", ".join(sorted(present ^ listed)[:3])
    raise DataError(
        f"{partition}: lists {len(listed)} pictures, {folder} has {len(present)}; {len(listed - present)} listed are "
        f"not there and {len(present - listed)} are not listed (such as {some}); unpack img_align_celeba.zip again"
    )


CELEBA = CelebA()
