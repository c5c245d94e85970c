"""Repair problems of a store. Files are moved to `quarantine/<time>/` with their paths; nothing is deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vistudy.analysis.ledger.atomic_files import FileStore

QUARANTINE = "quarantine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A fault, and what repairs it."""

    kind: str
    where: str
    """File, trial or run."""
    what: str
    quarantine: tuple[str, ...] = ()
    """Files to move to quarantine."""
    act: Callable[[], None] | None = None
    """Another repair."""

    @property
    def repairable(self) -> bool:
        """Whether there is a repair."""
        return bool(self.quarantine or self.act)


def repair(problem: Problem, files: FileStore, stamp: str) -> None:
    """Move the files of a problem to `quarantine/<stamp>/`, and do its other repair."""
    for path in problem.quarantine:
        if files.exists(path):
            files.write(f"{QUARANTINE}/{stamp}/{path}", files.read(path), durable=True)
            files.remove(path)
            _remove_empty_folders(files, path)
    if problem.act:
        problem.act()


def _remove_empty_folders(files: FileStore, path: str) -> None:
    """Remove folders of attempts and packs that have become empty: an empty attempt would count as one."""
    for folder in list(Path(path).parents)[:-2] if files.local else ():
        with contextlib.suppress(OSError):  # not empty
            (files.local or Path()).joinpath(folder).rmdir()
