"""Files under one root, on a local disk or any fsspec filesystem, each read and written atomically."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.errors import ReadOnlyError, StoreError, StudyBusyError
from vistudy.analysis.ledger.object_stores import describe_error, open_remote, translate_errors

WAIT_S = 0.2
"""How long to try for a lock: `holder` takes it for a moment."""
CONDITIONAL = {"s3", "s3a", "gs", "gcs"}
"""Schemes with conditional puts: exactly one of many concurrent `exclusive` writers wins."""
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(//)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Process that holds a lock."""

    who: str
    """Process, host and time, for messages."""
    since_s: float
    """Unix time."""


class FileStore:
    """Files of bytes under a root. A reader sees a whole file or none.

    Local writes use a temporary file and `os.replace`; other filesystems one put, which is atomic on object stores.
    Names that begin with a dot are temporary files of a writer, perhaps a killed one, and are never listed.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Parse a path, `file://` or fsspec URI. Touches nothing.

        Raises:
            StoreError: the scheme is unknown, mistyped, or its package is not installed.
        """
        text = os.fspath(uri)
        if not text.strip():
            raise StoreError("store: the value is empty. Give a directory, or a URI such as s3://bucket/folder.")
        match = _SCHEME.match(text)
        if match and not match.group(2):
            raise StoreError(
                f"store {text!r}: a URI has two slashes after its scheme, like {match.group(1)}://bucket/folder. "
                f"If it is a local directory, write ./{text}"
            )
        scheme = match.group(1).lower() if match else "file"
        self._fs: Any = None
        if scheme in ("file", "local"):
            path = text[match.end() :] if match else os.path.expanduser(text)
            self.uri = self._root = os.path.abspath(path)
        else:
            self.uri = text.rstrip("/")
            self._conditional = scheme in CONDITIONAL
            self._fs, self._root = open_remote(self.uri, scheme)

    @property
    def local(self) -> Path | None:
        """The root as a path; None if it is not on a local or mounted disk."""
        return Path(self._root) if self._fs is None else None

    def full_path(self, path: str) -> str:
        """Full path or URI of a file, for messages."""
        return f"{self.uri}/{path}"

    def corruption_error(self, path: str, why: str) -> StoreError:
        """The error for a file whose content is damaged."""
        return StoreError(
            f"damaged file in the store: {self.full_path(path)}: {why}. "
            "Bring it back from a copy, or move it away and run the study again; nothing was changed."
        )

    def parse(self, path: str, data: bytes) -> dict[str, Any]:
        """Parse a JSON object. Raises StoreError, naming the file, if the content is something else."""
        try:
            document = json.loads(data)
        except ValueError as error:
            raise self.corruption_error(path, str(error)) from error
        if not isinstance(document, dict):
            raise self.corruption_error(path, f"a {type(document).__name__} instead of an object")
        return document

    def read_json(self, path: str) -> dict[str, Any]:
        """Read and parse a JSON object."""
        return self.parse(path, self.read(path))

    def read(self, path: str) -> bytes:
        """Read a file. Raises FileNotFoundError if there is none, StoreError if it cannot be read."""
        try:
            if self._fs is None:
                with open(f"{self._root}/{path}", "rb") as file:
                    return file.read()
            with translate_errors(f"read {self.full_path(path)}", self.uri):
                return bytes(self._fs.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot read {self.full_path(path)} on {socket.gethostname()}: {error}") from error

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Read several files, concurrently where the filesystem supports it."""
        if self._fs is None or len(paths) < 2:
            return [self.read(path) for path in paths]
        with translate_errors(f"read files under {self.uri}", self.uri):
            contents = self._fs.cat([f"{self._root}/{path}" for path in paths], on_error="raise")
        return [bytes(contents[self._fs._strip_protocol(f"{self._root}/{path}")]) for path in paths]

    def write(self, path: str, data: bytes, *, durable: bool = False, exclusive: bool = False) -> bool:
        """Write a file atomically. Returns False and writes nothing if `exclusive` and the file exists.

        Args:
            path: relative to the root; folders are created as needed.
            data: content.
            durable: survive a power cut (fsync), on a local disk.
            exclusive: never replace. Exact on local disks and stores with conditional puts (S3, GCS).
        """
        try:
            if self._fs is None:
                return self._write_local(f"{self._root}/{path}", data, durable, exclusive)
            with translate_errors(f"write {self.full_path(path)}", self.uri):
                self._fs.pipe_file(f"{self._root}/{path}", data, mode="create" if exclusive else "overwrite")
            return True
        except FileExistsError:
            return False
        except FileNotFoundError as error:  # a put creates folders, so the bucket is missing
            raise StoreError(f"cannot write {self.full_path(path)}: {describe_error(error, self.uri)}") from error
        except OSError as error:
            raise StoreError(f"cannot write {self.full_path(path)} on {socket.gethostname()}: {error}") from error

    @staticmethod
    def _write_local(target: str, data: bytes, durable: bool, exclusive: bool) -> bool:
        folder = os.path.dirname(target)
        scratch = f"{folder}/.{uuid.uuid4().hex}.tmp"
        try:
            file = open(scratch, "xb")  # noqa: SIM115 (closed below, whichever open succeeds)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            file = open(scratch, "xb")  # noqa: SIM115
        try:
            with file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if exclusive:
                os.link(scratch, target)  # fails if the target exists, in one step
                os.unlink(scratch)
            else:
                os.replace(scratch, target)
        except FileExistsError:
            os.unlink(scratch)
            return False
        except BaseException:
            if os.path.exists(scratch):
                os.unlink(scratch)
            raise
        if durable:
            sync_path(folder)
        return True

    def list(self, folder: str) -> list[str]:
        """List the sorted names in a folder; empty if the folder does not exist."""
        try:
            if self._fs is None:
                names: Iterable[str] = os.listdir(f"{self._root}/{folder}")
            else:
                self._fs.invalidate_cache()  # another process may have written since
                with translate_errors(f"list {self.full_path(folder)}", self.uri):
                    paths = self._fs.ls(f"{self._root}/{folder}", detail=False)
                names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot list {self.full_path(folder)} on {socket.gethostname()}: {error}") from error
        return sorted(name for name in names if not name.startswith("."))

    def list_recursive(self, folder: str) -> Sequence[str]:
        """List the sorted paths of all files below a folder, relative to it, in one pass."""
        try:
            if self._fs is None:
                return sorted(_walk(f"{self._root}/{folder}", ""))
            self._fs.invalidate_cache()
            start = str(self._fs._strip_protocol(f"{self._root}/{folder}")).rstrip("/") + "/"
            paths = [str(path).removeprefix(start) for path in self._fs.find(f"{self._root}/{folder}")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot list {self.full_path(folder)} on {socket.gethostname()}: {error}") from error
        return sorted(path for path in paths if not any(part.startswith(".") for part in path.split("/")))

    def exists(self, path: str) -> bool:
        """Whether a file or folder exists."""
        if self._fs is None:
            return os.path.exists(f"{self._root}/{path}")
        self._fs.invalidate_cache()
        with translate_errors(f"look for {self.full_path(path)}", self.uri):
            return bool(self._fs.exists(f"{self._root}/{path}"))

    def remove(self, path: str) -> None:
        """Delete a file if it exists."""
        try:
            if self._fs is None:
                os.unlink(f"{self._root}/{path}")
            else:
                with translate_errors(f"delete {self.full_path(path)}", self.uri):
                    self._fs.rm_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot delete {self.full_path(path)}: {error}") from error

    def create_exclusive(self, folder: str) -> bool:
        """Create a folder. Returns False if it exists, or another process is creating it at this moment.

        Local disks and NFS use `mkdir`, which is exclusive; S3 and GCS a conditional put. Elsewhere each process puts
        a file of its own and wins if a listing shows no other: at most one wins where listings are consistent, and
        perhaps none of several at the same moment.
        """
        if self._fs is None:
            try:
                os.mkdir(f"{self._root}/{folder}")
            except FileExistsError:
                return False
            except OSError as error:
                raise StoreError(f"cannot make {self.full_path(folder)} on {socket.gethostname()}: {error}") from error
            return True
        if self.list(folder):
            return False
        if self._conditional:
            return self.write(f"{folder}/claim-0", b"", exclusive=True)
        claim = f"claim-{uuid.uuid4().hex}"
        self.write(f"{folder}/{claim}", b"")
        return self.list(folder) == [claim]

    @contextlib.contextmanager
    def lock(self, folder: str, what: str) -> Iterator[None]:
        """Hold the lock `<folder>/<what>.lock` of a local root, almost without waiting; elsewhere do nothing.

        Raises:
            StudyBusyError: another process holds it.
            ReadOnlyError: the store cannot be written to.
        """
        if self.local is None:
            yield
            return
        import filelock

        path = self.local / folder
        holder = path / f".{what}.holder"
        file_lock = filelock.FileLock(path / f"{what}.lock", timeout=WAIT_S, thread_local=False)
        try:
            path.mkdir(parents=True, exist_ok=True)
            file_lock.acquire()
        except filelock.Timeout:
            by = holder.read_text() if holder.exists() else "another process"
            raise StudyBusyError(f"{path} is busy: {what} is being done by {by}. Wait for it, or stop it.") from None
        except OSError as error:
            raise ReadOnlyError(
                f"store {self.uri}: cannot be written to ({error.strerror}: {path}). Make it writable, or copy it to a "
                "place that is and give that with --store."
            ) from error
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}")
            yield
        finally:
            holder.unlink(missing_ok=True)
            file_lock.release()

    def holder(self, folder: str, what: str) -> Holder | None:
        """The holder of the lock that `lock` takes; None if it is free or there are no locks. Writes nothing."""
        if self.local is None:
            return None
        try:
            handle = os.open(self.local / folder / f"{what}.lock", os.O_RDONLY)
        except (FileNotFoundError, PermissionError):  # never held; or another user's, and unreadable
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            note = self.local / folder / f".{what}.holder"
            with contextlib.suppress(FileNotFoundError):  # written just after the lock is taken
                return Holder(who=note.read_text(), since_s=note.stat().st_mtime)
            return Holder(who="another process", since_s=time.time())
        except OSError:  # a network mount without locks: heartbeats have to suffice
            return None
        finally:
            os.close(handle)
        return None


def _walk(folder: str, prefix: str) -> Iterator[str]:
    """Files below a local folder; a folder that has just been deleted counts as empty."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    for entry in visible:
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def sync_path(path: str) -> None:
    """Flush a local file or folder to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network mounts refuse fsync on folders; the rename itself is then synchronous
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
