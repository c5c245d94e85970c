"""File locations in MLflow databases that were copied or moved.

MLflow stores absolute locations, so a copy would write into its original. They are rewritten before anything is written
or served; `docs/decisions/024-locations-in-the-store.md` says why they are not relative.
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
"""Location of an experiment: folder of the database, and the experiment's own folder."""
_COLUMNS = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"), ("trace_tags", "value"), ("tags", "value"),
)  # fmt: skip
"""Columns of MLflow that hold locations; of tags, those in _TAGS."""
_TAGS = "('mlflow.artifactLocation')"
_MIRRORED = "('vistudy.files', 'vistudy.samples')"
"""Tags that record which files of a run are stored."""

OWNER = "vistudy.store"
"""Tag of an experiment in a database outside the store: the store that it mirrors."""

_log = logging.getLogger("vistudy.tracking")


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are the same folder or file, through links and mounts; False if one does not exist."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def is_own(database: Path) -> bool:
    """Whether it is a store's own database, whose experiments may be rewritten without asking."""
    return database.name == DATABASE and (database.parent / "ledger.json").is_file()


def place_of(location: str, studies: Collection[str]) -> Path | None:
    """Folder of the database for which vistudy created the location of a study's experiment.

    None: vistudy did not create it, or not for one of these studies.
    """
    match = _LOCATION.fullmatch(location)
    return Path(_path(match[1])) if match and urllib.parse.unquote(match[2]) in studies else None


def former_places(database: Path, study: str | None = None) -> list[Path]:
    """Folders, other than its own, in which a database lies according to its locations. Changes nothing.

    `study`: check only that experiment, in a database that others use as well.

    Raises:
        TrackingError: it cannot be read.
    """
    if not database.is_file() or not database.stat().st_size:
        return []
    try:
        # Not mode=ro, which cannot read a file whose writer was killed. It writes no more than any reader.
        with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(database))}?mode=rw", uri=True)) as db:
            return sorted(set(_places(db, database.parent, study).values()))
    except sqlite3.Error as error:
        raise TrackingError(f"{database}: MLflow's database cannot be read ({error}).") from error


def former_place_of_files(location: str, study: str, expected: str | None) -> Path | None:
    """Folder of an experiment's files, if it is not the one that a new experiment would get; else None.

    `expected`: location of a new experiment's folder, as of `artifact_location`; None: the server decides.
    """
    place = place_of(location, (study,)) if expected is not None else None
    return place if place and not same_place(place, Path(_path(str(expected))).parent) else None


def moved_message(study: str, place: Path, uri: str) -> str:
    """Message with the remedy for files in a former place."""
    files = f"experiment {study!r} keeps its files in {place / FILES}"
    if database_file(uri):
        remedy = f"`vistudy doctor {study} --tracking-uri {uri} --repair` moves their location next to it"
        return f"{files}, and the database is not in {place}: it has been moved or copied. {remedy}."
    return (
        f"{files}, which is not in this store. If the store was moved, make a symbolic link at {place} that points "
        "to it; if it is a copy, give it another --tracking-uri (the default is a database of its own)."
    )


def other_owner(ledger: Ledger, study: str, uri: str, tag: str | None) -> str | None:
    """Another existing store with that study, which the experiment mirrors; None if there is none.

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


def is_owned(store: str, uri: str, tag: str | None) -> bool:
    """Whether the store of an experiment is known: from its database, or its tag, through any path to the store."""
    path = database_file(uri)
    return (
        (path is not None and is_own(path)) or tag == store or (bool(tag) and same_place(Path(tag or ""), Path(store)))
    )


def adopt_database(database: Path) -> None:
    """Rewrite the locations in a store's own database if it was moved or copied, and log it.

    Raises:
        TrackingError: it was, and cannot be written.
    """
    if not is_own(database) or not (places := former_places(database)):
        return
    rewrite_locations(database)
    _log.warning(
        "note: %s was %s Its locations now point here; nothing there was changed.",
        database,
        describe_move(places),
    )


def describe_move(places: list[Path]) -> str:
    """Sentence about the place in which a database was created."""
    return f"made in {' and '.join(map(str, places))}: its store has been moved or copied."


def rewrite_locations(database: Path, study: str | None = None) -> None:
    """Rewrite locations of a former place, in one transaction; a linked database file is copied first.

    Records of files that were not copied along are dropped, so that the next sync stores them again.

    Raises:
        TrackingError: it cannot be written.
    """
    try:
        with exclusive(database):
            _detach_link(database)
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
            f"{database} was {describe_move(former_places(database, study))} Pictures would be read and written there, "
            f"and its locations cannot be rewritten ({error}). Make the store writable, or copy it to a place that is."
        ) from error


@contextlib.contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Hold the lock for creating or replacing a database, and remove temporary files of killed processes."""
    with open(database.with_name(f"{database.name}.making"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in database.parent.glob(f"{database.name}.*.new*"):
            path.unlink()
        yield


def temporary_path(database: Path) -> Path:
    """Temporary path next to a database, for its replacement; see `exclusive`."""
    return database.with_name(f"{database.name}.{uuid.uuid4().hex}.new")


def _detach_link(database: Path) -> None:
    """Copy a database that is a hard or symbolic link, so that it has a file of its own."""
    if not database.is_symlink() and database.stat().st_nlink == 1:
        return
    temporary = temporary_path(database)
    with (
        contextlib.closing(sqlite3.connect(database, timeout=20)) as shared,
        contextlib.closing(sqlite3.connect(temporary)) as own,
    ):
        shared.backup(own)
    shutil.copymode(database, temporary)
    temporary.replace(database)


def detach_links(folder: Path) -> None:
    """Replace files of a folder that are links, to files of the store it was copied from, by copies."""
    for path in folder.rglob("*"):
        if path.is_file() and (path.is_symlink() or path.stat().st_nlink > 1):
            temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
            shutil.copy2(path, temporary)
            temporary.replace(path)


def _places(db: sqlite3.Connection, here: Path, study: str | None) -> dict[str, Path]:
    """Stored location -> folder of the database for which it was created, where that is not `here`."""
    names = {str(name) for (name,) in db.execute(_NAMES)} if study is None else {study}
    places: dict[str, Path] = {}
    for (location,) in db.execute(_LOCATIONS):
        place = place_of(str(location), names)
        if place is not None and not same_place(place, here):
            places[str(location)] = place
    return places


_NAMES = "SELECT name FROM experiments UNION SELECT value FROM tags WHERE key = 'vistudy.study'"
_LOCATIONS = """
SELECT artifact_location FROM experiments WHERE artifact_location IS NOT NULL UNION
SELECT substr(artifact_uri, 1, length(artifact_uri) - length(run_uuid) - length('//artifacts')) FROM runs
WHERE artifact_uri IS NOT NULL
"""


def _replacements(places: dict[str, Path], here: Path, study: str | None) -> dict[str, str]:
    """Old prefix of locations -> new prefix: of all locations, or of one experiment's (`study`)."""
    prefixes: dict[str, str] = {}
    for location, place in places.items():
        root = location.rpartition(f"/{FILES}/")[0]
        new = here.as_uri() if root.startswith("file:") else str(here)
        if study is None:
            prefixes |= {str(place): str(here), place.as_uri(): here.as_uri(), root: new}
        else:
            prefixes[location] = new + location[len(root) :]
    return prefixes


def _rewrite(db: sqlite3.Connection, before: str, after: str) -> None:
    """Replace one prefix of all locations in the database."""
    for table, column in _COLUMNS:
        if not any(row[1] == column for row in db.execute(f"PRAGMA table_info({table})")):
            continue
        only = f" AND key IN {_TAGS}" if column == "value" else ""
        db.execute(
            f"UPDATE {table} SET {column} = :after || substr({column}, length(:before) + 1) WHERE ({column} = :before "
            f"OR substr({column}, 1, length(:before) + 1) = :before || '/') "
            f"AND substr({column}, 1, length(:after) + 1) <> :after || '/'{only}",  # it may be inside the old one
            {"before": before, "after": after},
        )


def _forget_files(db: sqlite3.Connection, here: Path) -> None:
    """Remove the tags of runs whose files were not copied along. A study's own few files are always sent again."""
    query = f"SELECT run_uuid, artifact_uri, key FROM runs JOIN tags USING (run_uuid) WHERE key IN {_MIRRORED}"
    for run, location, key in db.execute(query).fetchall():
        path = Path(_path(location))
        if path.is_relative_to(here) and (key == "vistudy.files" or not path.is_dir()):
            db.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, key))


def _path(location: str) -> str:
    """Path of a local location, which is a file URI or a path."""
    if location.startswith("file:"):
        return urllib.request.url2pathname(urllib.parse.urlsplit(location).path)
    return os.path.normpath(location)
