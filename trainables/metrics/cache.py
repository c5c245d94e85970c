"""What metrics compute once and keep in the folder of the cache: frozen classifiers, floors of real data.

A file is its content's SHA-256, a newline, and the content. It is written whole or not at all, and verified when read.
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
    """The content kept as `name` (a path below the cache), made first if it is not there: by one process at a time.

    Raises:
        DataError: the file is damaged, or the folder cannot be written.
    """
    path = cache_root() / name
    found = read(path)
    if found is not None:
        return found
    with _locked(path):
        found = read(path)  # another process may have made it while this one waited
        if found is None:
            found = make()
            write(path, found)
    return found


def read(path: Path) -> bytes | None:
    """The content of a file of the cache, or None if there is none.

    Raises:
        DataError: the content is not what was written.
    """
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = hashlib.sha256(content).hexdigest()
    if found.encode() != digest:
        raise DataError(
            f"{path}: damaged or foreign: SHA-256 {found}, expected {digest[:64].decode('ascii', 'replace')!r}; "
            "delete the file, and it is made again"
        )
    return content


def write(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all.

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
