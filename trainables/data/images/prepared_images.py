"""Images prepared once: cropped, resized and written as one memory-mapped uint8 file with its checksum.

Layout of the cache (environment variable VISTUDY_CACHE, or ~/.cache/vistudy):

    <data>-<key>/images.npy      uint8 (N, C, H, W), the images to learn first, then those of the reference
    <data>-<key>/labels.npy      int64 (N,), where there are labels
    <data>-<key>/prepared.json   what they were made of, and their checksums
    known/<stamp>                key of files that were read before, so that they are not read again to find it
    locks/<data>-<key>           held by the process that writes

The key is a hash of the content of the files and of the recipe. A folder is put in place atomically, by one rename. If
several processes need the same data, one prepares them and the others wait.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistudy.trainables.data.data_root import DataError

FORMAT = 1
"""Version of the layout and of the preparation. Raise it when the same source gives other files."""

CACHE_VARIABLE = "VISTUDY_CACHE"
SETTLED_S = 2.0
"""Files that changed less than this long ago are read again next time: another change within one tick of the file
system's clock would not change their time."""
_CHECKED_AT_ONCE = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Images as read from a source."""

    shape: tuple[int, int, int, int]
    """(N, C, H, W)."""
    train: int
    """How many of them are there to learn: the first ones. The rest is the reference."""
    split: str
    """Whose division that is, in words. Part of the fingerprint."""
    chunks: Iterable[np.ndarray]
    """The images in order, uint8 (any number, C, H, W) at a time."""
    labels: np.ndarray | None = None
    """int64 (N,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Origin of the images of a data set, and their preparation."""

    name: str
    """The data set's."""
    base: Path | None
    """The folder of `files`. Names below it are part of the content, its own path is not."""
    files: Sequence[Path]
    """All files that are read; none for data that are computed."""
    recipe: Mapping[str, Any]
    """What the images depend on besides the files, as plain JSON values."""
    read: Callable[[], Content]
    """Reads the files, and raises DataError if they are damaged. Called if the images are not in the cache."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """The images of one data set in the cache."""

    images: np.ndarray
    """uint8 (N, C, H, W), mapped from the file copy-on-write."""
    labels: np.ndarray | None
    """int64 (N,)."""
    train: int
    """How many images are there to learn: the first ones. The rest is the reference."""
    split: str
    """Whose division that is, in words."""
    fingerprint: str
    """SHA-256 (hex) of pixels, labels and division, independent of the path and format of the source."""


def cache_root() -> Path:
    """Return the folder of prepared images: VISTUDY_CACHE, or ~/.cache/vistudy. It need not exist."""
    path = os.environ.get(CACHE_VARIABLE)
    return Path(path).expanduser() if path else Path.home() / ".cache" / "vistudy"


def prepare(source: Source) -> Prepared:
    """Return the prepared images of `source` from the cache; on first use, make and cache them.

    Raises:
        DataError: the source is damaged, the cache is not writable, or its content was changed.
    """
    cache = cache_root()
    folder = cache / f"{source.name}-{_key(source, cache)}"
    if not folder.is_dir():
        with _writing(cache, folder):
            if not folder.is_dir():  # another process may have written it in the meantime
                _write(source, folder)
    return _open(folder)


def _times(folder: Path) -> tuple[tuple[int, int] | None, ...]:
    """Time of the last change and size of each file of a finished folder; None for a missing file."""
    times: list[tuple[int, int] | None] = []
    for name in ("images.npy", "labels.npy", "prepared.json"):
        try:
            stat = (folder / name).stat()
        except OSError:
            times.append(None)
        else:
            times.append((stat.st_ctime_ns, stat.st_size))
    return tuple(times)


def _key(source: Source, cache: Path) -> str:
    """Return 16 hex digits that identify the contents and names of the files, and the recipe."""
    recipe = {"format": FORMAT, "name": source.name} | dict(source.recipe)
    stamp, changed_s = _stamp(source, recipe)
    listing = cache / "known" / stamp
    if listing.is_file():
        return listing.read_text()
    names = [[_below(path, source.base), _file_sha256(path)] for path in source.files]
    if _stamp(source, recipe)[0] != stamp:
        raise DataError(f"{source.base}: files of data {source.name!r} changed while they were read; try again")
    key = _digest([recipe, names])[:16]
    if time.time() - changed_s < SETTLED_S:
        return key
    with contextlib.suppress(OSError):  # in a read-only cache the files are read each time
        listing.parent.mkdir(parents=True, exist_ok=True)
        temporary = listing.with_name(f".{stamp}.{os.getpid()}")
        temporary.write_text(key)
        os.replace(temporary, listing)
    return key


def _stamp(source: Source, recipe: Mapping[str, Any]) -> tuple[str, float]:
    """Return a hash of paths, sizes, times and inodes of the files, and the latest change in seconds since 1970.

    As in git, equal stamps are taken to mean equal content. The time of the last status change (ctime) is included,
    since copies and archives may give new content an older modification time, while only the system sets ctime.
    """
    try:
        stats = [(str(path.absolute()), path.stat()) for path in source.files]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    facts = [[path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for path, stat in stats]
    return _digest([dict(recipe), facts]), max((stat.st_ctime for _, stat in stats), default=0.0)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _below(path: Path, base: Path | None) -> str:
    return path.relative_to(base).as_posix() if base else path.name


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk") from error


@contextlib.contextmanager
def _writing(cache: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, and convert errors of writing the cache to DataError."""
    from filelock import FileLock

    try:
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "locks" / folder.name):
            yield
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: prepared images cannot be written there ({error.strerror or error}); "
            f"make room, or set {CACHE_VARIABLE} to a folder that can be written"
        ) from error


def _write(source: Source, folder: Path) -> None:
    """Prepare the images and move the finished folder into place."""
    temporary = folder.with_name(f".{folder.name}.unfinished")
    if temporary.exists():  # its writer was killed, as this process holds the lock
        shutil.rmtree(temporary)
    try:
        temporary.mkdir()
        content = source.read()
        if not 0 < content.train < content.shape[0]:
            raise DataError(
                f"{source.base}: {content.shape[0]} images of data {source.name!r}, {content.train} of them to learn: "
                "there must be some to learn and some to compare with"
            )
        facts: dict[str, Any] = {
            "format": FORMAT,
            "data": source.name,
            "recipe": dict(source.recipe),
            "shape": content.shape,
            "train": content.train,
            "split": content.split,
            "images_sha256": _write_images(temporary / "images.npy", content),
        }
        if content.labels is not None:
            assert content.labels.shape == content.shape[:1]
            np.save(temporary / "labels.npy", content.labels.astype(np.int64))
            facts["labels_sha256"] = _sha256(content.labels.astype(np.int64))
        (temporary / "prepared.json").write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_images(path: Path, content: Content) -> str:
    """Write chunk by chunk, so that one chunk is in memory, and return the SHA-256 of the pixels.

    A memory map is not used, since on a full disk it causes a bus error instead of an exception.
    """
    checksum, done = hashlib.sha256(), 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": content.shape})
        for chunk in content.chunks:
            assert chunk.dtype == np.uint8
            assert chunk.shape[1:] == content.shape[1:]
            pixels = np.ascontiguousarray(chunk).data
            file.write(pixels)
            checksum.update(pixels)
            done += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert done == content.shape[0]
    return checksum.hexdigest()


def _open(folder: Path) -> Prepared:
    """Map a finished folder after verifying its checksums."""
    try:
        facts = json.loads((folder / "prepared.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy") if "labels_sha256" in facts else None
        sums = _sums(folder, *_times(folder))
        wrong = [name for name, value in sums.items() if value != facts[name]]
        if wrong or list(images.shape) != facts["shape"]:
            raise ValueError(f"{', '.join(wrong) or 'shape'} is not what prepared.json says")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder}: the prepared images were changed or damaged ({error}); delete this folder, and they are "
            "prepared anew"
        ) from error
    identity = [sums, facts["shape"], facts["train"], facts["split"]]
    return Prepared(
        images=images, labels=labels, train=facts["train"], split=facts["split"], fingerprint=_digest(identity)
    )


@functools.lru_cache(maxsize=8)
def _sums(folder: Path, *times: object) -> dict[str, str]:
    """Checksums of a finished folder. They take about a second per GiB and are cached while the `times` are equal."""
    names = [name for name in ("images", "labels") if (folder / f"{name}.npy").exists()]
    return {f"{name}_sha256": _sha256(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}


def _sha256(array: np.ndarray) -> str:
    """SHA-256 of the values, read in pieces."""
    flat, checksum = array.reshape(-1), hashlib.sha256()
    step = max(1, _CHECKED_AT_ONCE // array.itemsize)
    for start in range(0, len(flat), step):
        checksum.update(np.ascontiguousarray(flat[start : start + step]).data)
    return checksum.hexdigest()
