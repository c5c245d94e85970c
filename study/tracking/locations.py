"""Where MLflow's database says that files are, against where it lies itself: databases that were copied or moved.

MLflow keeps absolute locations. A copy would write into its original, so they are rewritten before anything is written
or served. `docs/decisions/024-locations-in-the-store.md` says why they are not relative.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import sqlite3
import urllib.parse
import urllib.request
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.uri import DATABASE, FILES, TrackingError, database_file

_LOCATION = re.compile(rf"(.+)/{FILES}/([^/]+)")
"""Of an experiment: the folder that the database lay in, and the experiment's own."""
_COLUMNS = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"), ("trace_tags", "value"), ("tags", "value"),
)  # fmt: skip
"""Columns of MLflow that hold locations. Tags: those in _TAGS."""
_TAGS = "('mlflow.artifactLocation')"
_MIRRORED = "('vistudy.files', 'vistudy.samples')"
"""Tags that say that a run's files are there."""

OWNER = "vistudy.store"
"""Tag of an experiment outside the store: the store that it mirrors."""

_log = logging.getLogger("vistudy.tracking")


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are the same folder or file, by whatever links and mounts; False if one is not there."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def is_own(database: Path) -> bool:
    """Whether it is the database that vistudy makes in a store: all its experiments may be mended without asking."""
    return database.name == DATABASE and (database.parent / "ledger.json").is_file()


def place_of(location: str, studies: Collection[str]) -> Path | None:
    """Folder of the database for which vistudy made the location of a study's experiment.

    None: it was not made by vistudy, or not for one of these studies. Users may have others.
    """
    match = _LOCATION.fullmatch(location)
    return Path(_path(match[1])) if match and urllib.parse.unquote(match[2]) in studies else None


def elsewhere(database: Path, study: str | None = None) -> list[Path]:
    """Other folders in which a database's locations say that it lies. Changes nothing.

    `study`: look at that experiment only, as in a database that others use, too.

    Raises:
        TrackingError: it cannot be read.
    """
    if not database.is_file() or not database.stat().st_size:
        return []
    try:
        # Not mode=ro: that cannot read a file whose writer was killed in the middle. It writes no more than any reader.
        with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(database))}?mode=rw", uri=True)) as db:
            return sorted(set(_places(db, database.parent, study).values()))
    except sqlite3.Error as error:
        raise TrackingError(f"{database}: MLflow's database cannot be read ({error}).") from error


def elsewhere_in(location: str, study: str, expected: str | None) -> Path | None:
    """The folder in which an experiment's files are, if vistudy chose it for another place than it would choose now.

    `expected`: location of a new experiment's folder, as of `artifact_location`; None: the server decides.
    """
    place = place_of(location, (study,)) if expected is not None else None
    return place if place and not same_place(place, Path(_path(str(expected))).parent) else None


def elsewhere_text(study: str, place: Path, uri: str) -> str:
    """What to say of that, and what to do."""
    files = f"experiment {study!r} keeps its files in {place / FILES}"
    if database_file(uri):
        mend = f"`vistudy doctor {study} --tracking-uri {uri} --repair` makes them lie beside it"
        return f"{files}, and the database is not in {place}: it has been moved or copied. {mend}."
    return (
        f"{files}, which is not in this store. If the store was moved, make a symbolic link at {place} that leads to "
        "it; if it is a copy, give it another --tracking-uri (the default is a database of its own)."
    )


def other_owner(ledger: Ledger, study: str, uri: str, tag: str | None) -> str | None:
    """Another store, still there with that study, of which an experiment is the mirror; None if there is none.

    A copy and its original in one experiment would end each other's runs. `tag`: the experiment's OWNER.
    """
    path = database_file(uri)
    if path is not None and is_own(path):
        tag = str(path.parent)
    if not tag or tag == ledger.uri or same_place(Path(tag), Path(ledger.uri)):
        return None
    try:
        other = Ledger(tag)
        return tag if other.exists() and study in other.study_names() else None
    except StoreError:
        return None


def owned(store: str, uri: str, tag: str | None) -> bool:
    """Whether it is known whose mirror an experiment is: by its database, or by its tag, whatever the store's path."""
    path = database_file(uri)
    return (
        (path is not None and is_own(path)) or tag == store or (bool(tag) and same_place(Path(tag or ""), Path(store)))
    )


def settle(database: Path) -> None:
    """Mend the locations of a store's own database if they are of another place, and say so.

    Raises:
        TrackingError: they are, and it cannot be written.
    """
    if not is_own(database) or not (places := elsewhere(database)):
        return
    mend(database)
    _log.warning(
        "note: %s was %s Its locations are now of this place; nothing there was changed.", database, was(places)
    )


def was(places: list[Path]) -> str:
    """The sentence that says where a database was."""
    return f"made in {' and '.join(map(str, places))}: its store has been moved or copied."


def mend(database: Path, study: str | None = None) -> None:
    """Rewrite locations that are of another place, in one transaction; a linked file becomes one of its own before.

    Bookkeeping of files that did not come along is dropped: the next sync stores them again.

    Raises:
        TrackingError: it cannot be written.
    """
    try:
        with one_at_a_time(database):
            _unlink(database)
            with contextlib.closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                places = _places(db, database.parent, study)
                for before, after in _replacements(places, database.parent, study).items():
                    _rewrite(db, before, after)
                if places:
                    _forget_files(db, database.parent)
                db.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"{database} was {was(elsewhere(database, study))} Pictures would be read and written there, and its "
            f"locations cannot be rewritten ({error}). Make the store writable, or copy it to a place that is."
        ) from error


@contextlib.contextmanager
def one_at_a_time(database: Path) -> Iterator[None]:
    """Hold the lock of those who make or replace a database, for the time of a `with`; remove what killed ones left."""
    with open(database.with_name(f"{database.name}.making"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in database.parent.glob(f"{database.name}.*.new*"):
            left.unlink()
        yield


def aside_of(database: Path) -> Path:
    """A new name beside a database, for what is to take its place; see `one_at_a_time`."""
    return database.with_name(f"{database.name}.{uuid.uuid4().hex}.new")


def _unlink(database: Path) -> None:
    """Give a database that shares its file with another (a link, hard or symbolic) a file of its own."""
    if not database.is_symlink() and database.stat().st_nlink == 1:
        return
    aside = aside_of(database)
    with (
        contextlib.closing(sqlite3.connect(database, timeout=20)) as shared,
        contextlib.closing(sqlite3.connect(aside)) as own,
    ):
        shared.backup(own)
    shutil.copymode(database, aside)
    aside.replace(database)


def unshare(folder: Path) -> None:
    """Make files of a folder that are links, to those of the store that it was copied from, files of their own."""
    for path in folder.rglob("*"):
        if path.is_file() and (path.is_symlink() or path.stat().st_nlink > 1):
            aside = path.with_name(f".{uuid.uuid4().hex}.tmp")
            shutil.copy2(path, aside)
            aside.replace(path)


def _places(db: sqlite3.Connection, here: Path, study: str | None) -> dict[str, Path]:
    """Location, as it is written -> the folder in which the database then lay, where that is not `here`."""
    names = {str(name) for (name,) in db.execute(_NAMES)} if study is None else {study}
    found: dict[str, Path] = {}
    for (location,) in db.execute(_LOCATIONS):
        place = place_of(str(location), names)
        if place is not None and not same_place(place, here):
            found[str(location)] = place
    return found


_NAMES = "SELECT name FROM experiments UNION SELECT value FROM tags WHERE key = 'vistudy.study'"
_LOCATIONS = """
SELECT artifact_location FROM experiments WHERE artifact_location IS NOT NULL UNION
SELECT substr(artifact_uri, 1, length(artifact_uri) - length(run_uuid) - length('//artifacts')) FROM runs
WHERE artifact_uri IS NOT NULL
"""


def _replacements(places: dict[str, Path], here: Path, study: str | None) -> dict[str, str]:
    """Beginning of locations -> what it should be: of all below an old place, or (`study`) of one experiment's."""
    found: dict[str, str] = {}
    for location, place in places.items():
        root = location.rpartition(f"/{FILES}/")[0]
        new = here.as_uri() if root.startswith("file:") else str(here)
        if study is None:
            found |= {str(place): str(here), place.as_uri(): here.as_uri(), root: new}
        else:
            found[location] = new + location[len(root) :]
    return found


def _rewrite(db: sqlite3.Connection, before: str, after: str) -> None:
    """Replace one beginning of every location in the database."""
    for table, column in _COLUMNS:
        if not any(row[1] == column for row in db.execute(f"PRAGMA table_info({table})")):
            continue
        only = f" AND key IN {_TAGS}" if column == "value" else ""
        db.execute(
            f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) WHERE ({column} = :before "
            f"OR substr({column}, 1, length(:before) + 1) = :before || '/') "
            f"AND substr({column}, 1, length(:after) + 1) <> :after || '/'{only}",  # it may lie below the old place
            {"before": before, "after": after},
        )


def _forget_files(db: sqlite3.Connection, here: Path) -> None:
    """Drop the tags of runs whose files did not come along. A study's own files are few: they are always sent again."""
    query = f"SELECT run_uuid, artifact_uri, key FROM runs JOIN tags USING (run_uuid) WHERE key IN {_MIRRORED}"
    for run, location, key in db.execute(query).fetchall():
        path = Path(_path(location))
        if path.is_relative_to(here) and (key == "vistudy.files" or not path.is_dir()):
            db.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, key))


def _path(location: str) -> str:
    """Path of a local location: a file URI, or a path."""
    if location.startswith("file:"):
        return urllib.request.url2pathname(urllib.parse.urlsplit(location).path)
    return os.path.normpath(location)
