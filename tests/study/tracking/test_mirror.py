"""The mirror when things go wrong: one run a trial, no metric twice, nothing left RUNNING."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy

from tests.study.mlflow_study import LABELS, STUDY, closed_port, content, finish, new_ledger, records
from vistudy.analysis.ledger.errors import StoreError, StudyBusyError, StudyError
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror as tracking
from vistudy.study.tracking.mirror import SyncReport, TrackingError, sync
from vistudy.study.tracking.sync import Syncer

# MLflow leaves its SQLite connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


# -- never twice ---------------------------------------------------------------------------------------------------


def test_three_syncs_change_nothing(study: tuple[Ledger, Attempt], uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(study[0], STUDY, uri, outcomes=LABELS)
    before = content(uri)
    client = Faulty(tracking.connect(uri), calls_left=10**6)
    monkeypatch.setattr(tracking, "connect", lambda uri: client)
    for _ in range(3):
        report = sync(study[0], STUDY, uri, outcomes=LABELS)
        assert report == SyncReport(runs_created=0, runs_finished=0, metrics_written=0, images_written=0, behind=0)
    assert client.writes == []
    assert content(uri) == before


def test_a_pack_without_records_is_mirrored_as_nothing(tmp_path: Path, uri: str) -> None:
    ledger, _ = new_ledger(tmp_path / "fresh")
    assert set(ledger.progress().values()) == {-1}
    assert sync(ledger, STUDY, uri, final=False).runs_created == 0


def test_wiped_mirror_is_rebuilt_the_same(study: tuple[Ledger, Attempt], new_uri: Callable[[], str]) -> None:
    ledger, attempt = study
    first, second = new_uri(), new_uri()
    sync(ledger, STUDY, first, outcomes=LABELS, final=False)
    attempt.append(records(4, "c"), unix_ms=3000)
    finish(ledger, "c")
    for uri in (first, second):
        sync(ledger, STUDY, uri, outcomes=LABELS)
    assert content(first) == content(second)


def test_deleted_experiment_comes_back(study: tuple[Ledger, Attempt], uri: str) -> None:
    sync(study[0], STUDY, uri)
    before = content(uri)
    client = tracking.connect(uri)
    client.delete_experiment(client.get_experiment_by_name(STUDY).experiment_id)
    sync(study[0], STUDY, uri)
    assert content(uri) == before


class Crash(BaseException):
    """The process dies here."""


class Faulty:
    """An MlflowClient that dies before a call or a statement that writes, or after it was carried out."""

    def __init__(self, client: Any, calls_left: int, *, after: bool = False) -> None:
        self.client, self.calls_left, self.after = client, calls_left, after
        self.writes: list[str] = []
        engine = client._tracking_client.store.engine
        if tracking.writable(client):
            sqlalchemy.event.listen(engine, f"{'after' if after else 'before'}_cursor_execute", self._statement)
            sqlalchemy.event.listen(engine, "commit", lambda connection: self._burn())

    def _statement(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self.writes.append(statement)
            self._burn()

    def _burn(self) -> None:
        if self.calls_left == 0:
            raise Crash
        self.calls_left -= 1

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if name.startswith("_"):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.after:
                self._burn()
            result = method(*args, **kwargs)
            if not name.startswith(("get_", "search_", "list_")):
                self.writes.append(name)
            if self.after:
                self._burn()
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
def test_crash_at_every_call(
    tmp_path: Path, new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    ledger, attempt = new_ledger(tmp_path / "store", ids="ab")
    for evaluation in range(3):
        attempt.append(records(evaluation, "ab"), unix_ms=2000 + evaluation)
    attempt.samples(2, {"t1-a": np.zeros((2, 1, 4, 4), np.float16)})
    finish(ledger, "a")
    connect, undisturbed = tracking.connect, new_uri()
    sync(ledger, STUDY, undisturbed, outcomes=LABELS)
    expected = content(undisturbed)
    for calls in itertools.count():
        uri = new_uri()
        faulty = Faulty(connect(uri), calls_left=calls, after=after)
        syncer = Syncer(ledger, STUDY, lambda uri=uri: tracking.open_experiment(uri, STUDY))
        monkeypatch.setattr(tracking, "connect", lambda uri, faulty=faulty: faulty)
        with contextlib.suppress(Crash):
            syncer.sync(outcomes=LABELS)
            break
        faulty.calls_left = -1
        gc.collect()  # a statement cut short keeps SQLite's lock while the cursor lives: a dead process has none
        monkeypatch.setattr(tracking, "connect", connect)
        syncer.sync(outcomes=LABELS)
        assert content(uri) == expected, f"after a crash at call {calls}"
    assert calls >= 12


def test_metrics_without_their_tag_are_not_doubled(study: tuple[Ledger, Attempt], uri: str) -> None:
    """MLflow commits a call's metrics before its tags; then another attempt redoes the records at other times."""
    ledger, _ = study
    sync(ledger, STUDY, uri, final=False)
    client = tracking.connect(uri)
    (run,) = client.search_runs(
        [client.get_experiment_by_name(STUDY).experiment_id], "tags.vistudy.trial_id = 't1-c'", max_results=5
    )
    client.set_tag(run.info.run_id, "vistudy.synced", "1")
    again = ledger.open_attempt("p1")
    for evaluation in (2, 3, 4):
        again.append(records(evaluation, "c"), unix_ms=7000 + evaluation)
    report = sync(ledger, STUDY, uri, final=False)
    assert report.metrics_written == 2
    assert [m[2] for m in content(uri)["t1-c"]["metrics"]["dist"]] == [2000, 2001, 2002, 2003, 7004]


def test_redone_records_are_not_doubled(study: tuple[Ledger, Attempt], uri: str) -> None:
    ledger, _ = study
    syncer = Syncer(ledger, STUDY, lambda: tracking.open_experiment(uri, STUDY))
    syncer.sync(final=False)
    again = ledger.open_attempt("p1")
    for evaluation in (2, 3, 4):
        again.append(records(evaluation, "c"), unix_ms=7000 + evaluation)
    assert syncer.sync(final=False).metrics_written == 2
    assert [m[2] for m in content(uri)["t1-c"]["metrics"]["dist"]] == [2000, 2001, 2002, 2003, 7004]


def test_outcomes_that_change_are_mirrored(
    study: tuple[Ledger, Attempt], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed trial that runs again at the next pass, a complete one that another attempt finished at the last."""
    ledger, _ = study
    syncer = Syncer(ledger, STUDY, lambda: tracking.open_experiment(uri, STUDY))
    syncer.sync(final=False)
    ledger.discard_outcomes(["t1-b"])
    finish(ledger, "b", attempt=2)
    finish(ledger, "a", attempt=2)
    read: list[set[str]] = []
    read_outcomes = ledger.read_outcomes
    monkeypatch.setattr(ledger, "read_outcomes", lambda ids=None: read.append(set(ids or ())) or read_outcomes(ids))
    syncer.sync(final=False)
    assert read[0] == {"t1-b"}
    attempts = {name: run["tags"].get("vistudy.attempt") for name, run in content(uri).items()}
    assert (attempts["t1-a"], attempts["t1-b"]) == ("1", "2")
    assert content(uri)["t1-b"]["info"][1] == "FINISHED"
    syncer.sync()
    assert content(uri)["t1-a"]["tags"]["vistudy.attempt"] == "2"


def test_run_that_a_slow_server_made_twice_is_kept_once(study: tuple[Ledger, Attempt], uri: str) -> None:
    sync(study[0], STUDY, uri)
    expected = content(uri)
    client = tracking.connect(uri)
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    client.create_run(experiment, tags={"vistudy.kind": "trial", "vistudy.trial_id": "t1-a"})
    sync(study[0], STUDY, uri)
    assert content(uri) == expected


def test_one_writer(study: tuple[Ledger, Attempt], uri: str) -> None:
    with study[0].lock(STUDY, "sync"), pytest.raises(StudyBusyError, match="sync is being done"):
        sync(study[0], STUDY, uri)


# -- outages -------------------------------------------------------------------------------------------------------


def test_dead_server_is_one_message(study: tuple[Ledger, Attempt], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    uri = f"http://user:secret@127.0.0.1:{closed_port()}"
    with pytest.raises(TrackingError, match=r"does not answer or refuses.*`vistudy sync`") as caught:
        sync(study[0], STUDY, uri)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, StudyError)


def test_unusable_database_is_refused_at_once(study: tuple[Ledger, Attempt], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, but sixteen bytes")
    for path, message in [
        ("", "Is a directory"),
        ("notes.txt/x.db", "Not a directory|File exists"),
        ("notes.txt", "not an SQLite"),
    ]:
        with pytest.raises(TrackingError, match=message):
            sync(study[0], STUDY, f"sqlite:///{tmp_path / path}")


def test_damage_in_the_ledger_is_not_blamed_on_mlflow(study: tuple[Ledger, Attempt], uri: str) -> None:
    path = Path(study[0].uri) / "packs/p1/attempt-001/records-00002.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"records-00002\.jsonl"):
        sync(study[0], STUDY, uri)


@pytest.mark.parametrize("uri", ["./mlruns", "", "file:///tmp/x", "ftp://x"])
def test_uris_that_mlflow_would_misread(study: tuple[Ledger, Attempt], uri: str) -> None:
    with pytest.raises(TrackingError, match="expected one of sqlite://"):
        sync(study[0], STUDY, uri)
