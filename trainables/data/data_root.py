"""Where files of data are looked for, and the error that says what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DATA_ROOT_VARIABLE = "VISTUDY_DATA_ROOT"


class DataError(ValueError):
    """Data that cannot be used: which file, what is wrong with it, and how to mend it."""


class MissingData(DataError):
    """Data that are not there at all: another data set may be used instead, where the user has named one."""


class OtherData(DataError):
    """Data that are not those that a trial was planned on."""


def data_root() -> Path:
    """The folder that holds the data sets' folders: environment variable VISTUDY_DATA_ROOT, or `--data-root`.

    Raises:
        MissingData: it is not set.
        DataError: it is no folder.
    """
    given = os.environ.get(DATA_ROOT_VARIABLE)
    if not given:
        raise MissingData(
            f"this data set is read from files, and no one said where they are: give --data-root DIR or set "
            f"{DATA_ROOT_VARIABLE} to the folder that holds the data sets' folders"
        )
    root = Path(given).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {what}; --data-root or {DATA_ROOT_VARIABLE} must name the folder of the data sets")
    return root


def missing(name: str, looked_for: Sequence[Path], *, download: str | None) -> MissingData:
    """The error for a data set whose files are in none of the places where they could be."""
    places = "\n".join(f"  {path}" for path in looked_for)
    mend = "put the files there, or set another --data-root"
    if download:
        mend += f", or download: python -m trainables.data.download {download} --data-root DIR"
    return MissingData(f"data {name!r} is not there. Looked for:\n{places}\n{mend}")
