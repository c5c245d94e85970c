"""Cache of what metrics compute once: frozen classifiers and real-data baselines.

A file consists of the SHA-256 of its content, a newline, and the content. It is written atomically and verified when
read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.prepared_images import CACHE_VARIABLE, cache_root


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the content cached as `name` (a path below the cache). If it is missing, one process makes and stores it.

    Raises:
        DataError: the file is damaged, or the folder is not writable.
    """
    path = cache_root() / name
    content = read(path)
    if content is not None:
        return content
    with _locked(path):
        content = read(path)  # another process may have made it while this one waited
        if content is None:
            content = make()
            write(path, content)
    return content


def read(path: Path) -> bytes | None:
    """Return the content of a file of the cache; None if there is no such file.

    Raises:
        DataError: the content does not match its checksum.
    """
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    actual = hashlib.sha256(content).hexdigest()
    if actual.encode() != digest:
        raise DataError(
            f"{path}: damaged or foreign: SHA-256 {actual}, expected {digest[:64].decode('ascii', 'replace')!r}; "
            "delete the file, and it is made again"
        )
    return content


def write(path: Path, content: bytes) -> None:
    """Write a file of the cache atomically.

    Raises:
        DataError: it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be kept there ({error.strerror or error}); make room, or set {CACHE_VARIABLE} to a folder "
        "that can be written"
    )
