"""Stores that were copied, moved, linked or made read-only: their MLflow shows and writes what is theirs alone."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from tests.study.changed_files import changed, look
from tests.study.mlflow_study import STUDY, content, finish
from tests.study.runs import vistudy
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.api.doctor import examine
from vistudy.study.tracking import mirror
from vistudy.study.tracking.locations import (
    detach_links,
    exclusive,
    former_place_of_files,
    former_places,
    rewrite_locations,
)
from vistudy.study.tracking.mirror import TrackingError, default_tracking_uri, sync

# MLflow leaves its SQLite connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
ODD = "a copy #1, 100 %20 ünï 数"


@pytest.fixture
def original(study: tuple[Ledger, Attempt], empty_database: Path) -> Path:
    """A store that is mirrored into its own database."""
    store = Path(study[0].uri)
    shutil.copy(empty_database, store / "mlflow.db")
    write(store)
    return store


def write(store: Path, new: str = "first") -> dict[str, Any]:
    """Sync with a new picture of the study; everything that MLflow then shows."""
    picture = store.parent / f"{new}.png"
    picture.write_bytes(new.encode())
    sync(Ledger(store), STUDY, default_tracking_uri(store), artifacts=[picture])
    return content(default_tracking_uri(store))


def places(store: Path) -> list[Path]:
    """Folders of all runs' files."""
    client = mirror.connect(default_tracking_uri(store), reads=True)
    runs = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])
    return [Path(local_file_uri_to_path(run.info.artifact_uri)) for run in runs]


def examinable(study: tuple[Ledger, Attempt]) -> None:
    """Give its trials a budget, which the doctor asks for."""
    path = Path(study[0].uri, "studies", STUDY, "plan.json")
    plan = json.loads(path.read_text())
    for trial in plan["trials"]:
        trial["config"]["evaluations"] = 3
    path.write_text(json.dumps(plan))


@pytest.mark.parametrize("name", ["copy", ODD])
def test_a_copy_writes_into_itself_and_shows_its_own(original: Path, way: str, name: str) -> None:
    before, copy = look(original), original.parent / name
    shutil.copytree(original, copy)
    found = write(copy, "second")
    assert changed(before, look(original)) == []
    assert "figures/second.png" in found["parent"]["files"]
    assert {place.is_relative_to(copy) for place in places(copy)} == {True}
    assert {place.is_relative_to(original) for place in places(original)} == {True}
    assert [p.name for p in copy.parent.iterdir() if p.is_dir()].count(name) == 1


def test_a_moved_store_keeps_its_pictures_and_leaves_nothing_behind(
    original: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = original.rename(original.parent / "moved")
    found = write(moved, "second")
    assert not original.exists()
    assert any(name.startswith("images/samples") for name in found["t1-a"]["files"])
    assert [str(original) in message for message in caplog.messages] == [True]
    assert write(moved, "second") == found
    assert len(caplog.messages) == 1


def test_a_renamed_parent(original: Path) -> None:
    parent = original.parent / "parent"
    parent.mkdir()
    below = original.rename(parent / "store")
    write(below)
    renamed = parent.rename(original.parent / "renamed") / "store"
    write(renamed, "second")
    assert not parent.exists()
    assert {place.is_relative_to(renamed) for place in places(renamed)} == {True}


def test_a_copy_below_the_place_where_it_was(original: Path) -> None:
    """What is of the new place already, here one run, begins with the old place, too."""
    copy = Path(shutil.copytree(original, original.parent / "copy")).rename(original / "below")
    with sqlite3.connect(copy / "mlflow.db") as database:
        one = "run_uuid = (SELECT min(run_uuid) FROM runs)"
        change = f"UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?) WHERE {one}"
        database.execute(change, (str(original), str(copy)))
    database.close()
    rewrite_locations(copy / "mlflow.db")
    assert former_places(copy / "mlflow.db") == []


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_copy_by_links_gets_files_of_its_own(original: Path, link: Callable[[str, str], None]) -> None:
    (original / "mlflow.db").chmod(0o640)
    before, copy = look(original), original.parent / "copy"
    shutil.copytree(original, copy, copy_function=link)
    shutil.rmtree(copy / "studies")  # locks are by file: those of links are the original's
    shutil.copytree(original / "studies", copy / "studies")
    killed = copy / f"mlflow.db.{'0' * 32}.new"
    killed.touch()
    write(copy, "second")
    assert changed(before, look(original)) == []
    assert {place.is_relative_to(copy) for place in places(copy)} == {True}
    assert not killed.exists()
    assert not (copy / "mlflow.db").is_symlink()
    assert (copy / "mlflow.db").stat().st_mode & 0o777 == 0o640


def test_one_process_at_a_time_gives_a_database_its_own_file(original: Path) -> None:
    """Else one replaces what another has written since by a copy of what was there before."""
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    mending = threading.Thread(target=rewrite_locations, args=(copy / "mlflow.db",))
    with exclusive(copy / "mlflow.db"):
        mending.start()
        mending.join(0.5)
        assert former_places(copy / "mlflow.db") == [original]
    mending.join()
    assert former_places(copy / "mlflow.db") == []


def test_pictures_drawn_anew_are_not_drawn_through_a_link(tmp_path: Path) -> None:
    old, new, kept = (tmp_path / name for name in ("old.png", "folder/new.png", "folder/kept.txt"))
    kept.parent.mkdir()
    old.write_text("old")
    os.link(old, new)
    kept.symlink_to(old)
    detach_links(new.parent)
    assert (new.read_text(), kept.read_text(), kept.is_symlink()) == ("old", "old", False)
    new.write_text("new")
    assert old.read_text() == "old"
    assert sorted(path.name for path in new.parent.iterdir()) == ["kept.txt", "new.png"]


def test_other_names_of_a_store_are_the_store(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = original.parent / "link"
    link.symlink_to(original)
    database = original / "mlflow.db"
    before = database.read_bytes()
    assert former_places(link / "mlflow.db") == []
    monkeypatch.chdir(original.parent)
    for name in (str(link), "store", "./link/../store"):
        mirror.connect(default_tracking_uri(name))
    assert database.read_bytes() == before
    assert write(link) == content(default_tracking_uri(original))


def test_a_link_that_leads_to_a_copy_now(original: Path) -> None:
    link = original.parent / "link"
    link.symlink_to(original)
    new = Path(shutil.copytree(original, original.parent / "new"))
    write(link)
    rewrite_locations(new / "mlflow.db")
    link.unlink()
    link.symlink_to(new)
    before = look(new)
    write(original, "second")
    assert changed(before, look(new)) == []


def test_two_copies_written_at_once(original: Path) -> None:
    before = look(original)
    copies = [Path(shutil.copytree(original, original.parent / f"copy-{i}")) for i in range(2)]
    threads = [threading.Thread(target=write, args=(copy, f"of-{i}")) for i, copy in enumerate(copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert changed(before, look(original)) == []
    for i, copy in enumerate(copies):
        assert f"figures/of-{i}.png" in content(default_tracking_uri(copy))["parent"]["files"]
        assert {place.is_relative_to(copy) for place in places(copy)} == {True}


def test_pictures_that_did_not_come_along_are_made_again(original: Path) -> None:
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    shutil.rmtree(copy / "mlartifacts")
    assert write(copy) == content(default_tracking_uri(original))


def test_pictures_that_came_along_are_not_made_again(original: Path) -> None:
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    pictures = sorted(copy.glob("mlartifacts/**/images/*.png"))
    for picture in pictures:
        picture.write_bytes(b"came along")
    write(copy)
    assert len(pictures) > 1
    assert {picture.read_bytes() for picture in pictures} == {b"came along"}


def test_what_users_keep_elsewhere_stays_there(original: Path) -> None:
    client = mirror.connect(default_tracking_uri(original))
    mine = (original.parent / "mine" / "mlartifacts" / "x").as_uri()
    client.create_experiment("my own", artifact_location=mine)
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    write(copy)
    found = mirror.connect(default_tracking_uri(copy)).get_experiment_by_name("my own")
    assert found.artifact_location == mine


def test_a_writer_that_was_killed_in_the_middle_does_not_stop_the_next(original: Path) -> None:
    """Its journal is there: whoever reads first takes the half of it back."""
    copy, database = original.parent / "copy", sqlite3.connect(original / "mlflow.db", isolation_level=None)
    database.execute("PRAGMA cache_size = 1")
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE runs SET name = hex(zeroblob(20000))")
    shutil.copytree(original, copy)
    database.execute("ROLLBACK")
    database.close()
    assert (copy / "mlflow.db-journal").stat().st_size
    assert former_places(copy / "mlflow.db") == [original]
    assert write(copy) == content(default_tracking_uri(original))


def test_the_doctor_knows_and_repairs(study: tuple[Ledger, Attempt], original: Path) -> None:
    examinable(study)
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    before, uri, ledger = look(original.parent), default_tracking_uri(copy), Ledger(copy)
    finish(ledger, "c")
    finish(ledger, "d")
    kinds = {one.kind for one in examine(STUDY, ledger, uri, repairing=False, stamp="t")[0]}
    assert "moved database" in kinds
    touched = changed(before, look(original.parent))
    assert not any("mlflow" in path or "mlartifacts" in path or path.startswith("store") for path in touched)
    found = [one for one in examine(STUDY, ledger, uri, repairing=True, stamp="t")[0] if one.kind == "moved database"]
    assert [(one.where, one.repaired, str(original) in one.what) for one in found] == [
        (str(copy / "mlflow.db"), True, True)
    ]
    again, _ = examine(STUDY, ledger, uri, repairing=False, stamp="t")
    assert "moved database" not in {one.kind for one in again}
    assert {place.is_relative_to(copy) for place in places(copy)} == {True}


def test_a_new_store_at_the_place_of_one_that_was_moved(original: Path) -> None:
    """In one process, as in a notebook: MLflow keeps connections and folders by path and by run."""
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    moved = original.rename(original.parent / "moved")
    before = look(moved)
    copy.rename(original)
    found = write(original, "second")
    assert changed(before, look(moved)) == []
    assert "figures/second.png" in found["parent"]["files"]


# -- databases outside the store -----------------------------------------------------------------------------------


def test_a_copy_does_not_write_into_the_mirror_of_its_original(study: tuple[Ledger, Attempt], uri: str) -> None:
    examinable(study)
    original = Path(study[0].uri)
    sync(study[0], STUDY, uri)
    before = content(uri)
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    with pytest.raises(TrackingError, match=rf"is the mirror of the store {original}, which is still there"):
        sync(Ledger(copy), STUDY, uri)
    found, _ = examine(STUDY, Ledger(copy), uri, repairing=True, stamp="t")
    assert "another store's mirror" in {one.kind for one in found}
    assert not any(one.repaired for one in found if "run" in one.kind.lower())
    assert content(uri) == before
    shutil.rmtree(original)  # now it is the store that is left
    sync(Ledger(copy), STUDY, uri)
    assert content(uri) == before


def test_a_copy_does_not_write_into_the_original_by_its_address(original: Path) -> None:
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    before = look(original)
    with pytest.raises(TrackingError, match="is the mirror of the store"):
        sync(Ledger(copy), STUDY, default_tracking_uri(original))
    assert changed(before, look(original)) == []


def test_a_database_beside_which_its_files_no_longer_lie(study: tuple[Ledger, Attempt], uri: str) -> None:
    examinable(study)
    sync(study[0], STUDY, uri)
    folder = Path(uri.removeprefix("sqlite:///")).parent
    moved = folder.rename(folder.with_name("moved"))
    new = f"sqlite:///{moved}/mlflow.db"
    with pytest.raises(TrackingError, match=rf"the database is not in {folder}.*doctor {STUDY} .*--repair"):
        sync(study[0], STUDY, new)
    assert not folder.exists()
    found, _ = examine(STUDY, study[0], new, repairing=True, stamp="t")
    assert ("moved database", True) in {(one.kind, one.repaired) for one in found}
    sync(study[0], STUDY, new)
    assert not folder.exists()
    assert any(name.startswith("images/samples") for name in content(new)["t1-a"]["files"])


def test_files_of_a_server_without_folders_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here, there = ((tmp_path / name / "mlartifacts") for name in ("here", "there"))
    assert former_place_of_files(f"{here.as_uri()}/{STUDY}", STUDY, here.as_uri()) is None
    assert former_place_of_files(f"{there.as_uri()}/{STUDY}", STUDY, here.as_uri()) == tmp_path / "there"
    assert former_place_of_files(f"{there.as_uri()}/{STUDY}", STUDY, None) is None, "an HTTP server decides itself"
    assert former_place_of_files("s3://bucket/7", STUDY, here.as_uri()) is None, "a place that users chose"


# -- without the right to write --------------------------------------------------------------------------------------


def test_a_copy_that_cannot_be_written(original: Path) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:  # which may write everywhere: so as somebody who may read everywhere
        caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        prefix = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", *caps]
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's rights")
    copy = Path(shutil.copytree(original, original.parent / "copy"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = look(original.parent)
    said = vistudy("ui", "--store", copy, code=2, prefix=prefix)
    assert f"made in {original}: its store has been moved or copied" in said
    assert "Make the store writable, or copy it" in said
    assert "Traceback" not in said
    assert changed(before, look(original.parent)) == []
    for path in (copy, *(p for p in copy.rglob("*") if p.is_dir())):
        path.chmod(0o755)
