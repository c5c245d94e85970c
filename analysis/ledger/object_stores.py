"""Object stores and other remote filesystems: opening by URI, timeouts, and translation of their errors."""

from __future__ import annotations

import contextlib
import difflib
import re
import socket
from collections.abc import Iterator
from typing import Any

from vistudy.analysis.ledger.errors import StoreError

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 4, "read_timeout": 30, "retries": {"max_attempts": 2}}}
}
"""fsspec options by scheme. The library also retries some responses itself."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs"}
_SECRET = re.compile(r"(?i)((?:secret|token|signature|password|key)[\w-]*[=:]\s*)[^\s,;&'\"]+")


def open_remote(uri: str, scheme: str) -> tuple[Any, str]:
    """Open the filesystem of a URI. Returns it and the path in it; touches nothing.

    Raises:
        StoreError: the scheme is unknown, mistyped, or its package is not installed.
    """
    import fsspec

    schemes = fsspec.available_protocols()
    if scheme not in schemes:
        near = difflib.get_close_matches(scheme, schemes, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}://?" if near else ""
        raise StoreError(
            f"store {uri!r}: unknown scheme {scheme!r}.{hint} Give a directory, or a URI such as s3://bucket/folder, "
            "gs://bucket/folder or abfs://container/folder."
        )
    try:
        fs, root = fsspec.core.url_to_fs(uri, **OPTIONS.get(scheme, {}))
    except ImportError as error:
        package = PACKAGES.get(scheme, "the package that it names")
        raise StoreError(
            f"store {uri!r}: needs another package: pip install {package}, here and on every node ({error})."
        ) from error
    except (ValueError, OSError) as error:
        raise StoreError(f"store {uri!r} cannot be opened: {error}") from error
    return fs, str(root).rstrip("/")


@contextlib.contextmanager
def translate_errors(what: str, uri: str) -> Iterator[None]:
    """Raise errors of a remote filesystem as StoreError with a remedy; FileNotFoundError and FileExistsError pass.

    `what`: the attempted operation, for the message. These libraries have exceptions without a common base class.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, StoreError):
        raise
    except Exception as error:
        raise StoreError(f"cannot {what} on {socket.gethostname()}: {describe_error(error, uri)}") from error


def describe_error(error: BaseException, uri: str) -> str:
    """Describe an error without secrets, with a remedy."""
    name, text = type(error).__name__, _SECRET.sub(r"\1***", str(error)) or "no reason given"
    scheme = uri.partition("://")[0]
    where = "the environment (AWS_ACCESS_KEY_ID ...), ~/.aws or the machine's role" if scheme.startswith("s3") else (
        "the environment or the machine's service account"
    )  # fmt: skip
    if "Credential" in name or "Auth" in name:
        return f"{text}. No usable credentials were found in {where}."
    if isinstance(error, PermissionError):
        return f"access is denied ({text}). The credentials are wrong or may not do this: look at {where}."
    if isinstance(error, FileNotFoundError):
        bucket = uri.partition("://")[2].partition("/")[0]
        return f"there is no {bucket!r} ({text}). Make the bucket, or correct --store."
    if isinstance(error, TimeoutError) or "Timeout" in name or "Connect" in name or "Endpoint" in name:
        return f"nothing answers ({text}). Check the network, and the endpoint if you set one."
    return f"{name}: {text}"
