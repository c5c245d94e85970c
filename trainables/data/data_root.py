"""The folder of data files, and the errors about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DATA_ROOT_VARIABLE = "VISTUDY_DATA_ROOT"


class DataError(ValueError):
    """Data cannot be used. The message says which file, what is wrong and how to fix it."""


class MissingData(DataError):
    """Data are missing altogether, so a fallback named by the user may be used instead."""


class OtherData(DataError):
    """Data differ from those that a trial was planned on."""


def data_root() -> Path:
    """Return the parent folder of data sets: environment variable VISTUDY_DATA_ROOT, or `--data-root`.

    Raises:
        MissingData: it is not set.
        DataError: it is not a folder.
    """
    value = os.environ.get(DATA_ROOT_VARIABLE)
    if not value:
        raise MissingData(
            f"this data set is read from files, and no one said where they are: give --data-root DIR or set "
            f"{DATA_ROOT_VARIABLE} to the folder that holds the data sets' folders"
        )
    root = Path(value).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {what}; --data-root or {DATA_ROOT_VARIABLE} must name the folder of the data sets")
    return root


def missing(name: str, looked_for: Sequence[Path], *, download: str | None) -> MissingData:
    """Return the error for a data set without files in any of the expected paths."""
    places = "\n".join(f"  {path}" for path in looked_for)
    fix = "put the files there, or set another --data-root"
    if download:
        fix += f", or download: python -m vistudy.trainables.data.download {download} --data-root DIR"
    return MissingData(f"data {name!r} is not there. Looked for:\n{places}\n{fix}")
