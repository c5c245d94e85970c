"""Rows written in bulk are the rows that MLflow's client writes, in every table; and unknown schemas are left to it."""

from __future__ import annotations

import logging
import math
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from sqlalchemy.engine.interfaces import ExecuteStyle

from tests.clusters.postgres import Postgres, available, postgres
from tests.study.mlflow_study import LABELS, STUDY, content, finish, new_ledger, records
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror, sql
from vistudy.study.tracking.mirror import TrackingError, sync

# MLflow leaves its SQLite connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

Scenario = Callable[[Ledger, Attempt, str], None]


@pytest.fixture
def way() -> str:
    """Each test here says itself how rows are written."""
    return "both"


def rows(uri: str) -> dict[str, list[str]]:
    """Every row of every table, without MLflow's ids and the times at which it did something."""
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    text = sqlalchemy.text
    with engine.connect() as connection:
        trials = dict(connection.execute(text("SELECT run_uuid, value FROM tags WHERE key = 'vistudy.trial_id'")).all())
        stages = dict(connection.execute(text("SELECT run_uuid, lifecycle_stage FROM runs")).all())
        names = {run: f"<{trials.get(run, 'parent')} {stage}>" for run, stage in stages.items()}
        data = connection.execute(text("SELECT dataset_uuid, name, digest FROM datasets")).all()
        names |= {uuid: f"<{name} {digest}>" for uuid, name, digest in data}
        found = {}
        for table in sqlalchemy.inspect(connection).get_table_names():
            lines = []
            for row in connection.execute(text(f"SELECT * FROM {table}")).mappings():
                fields = {
                    k: v
                    for k, v in row.items()
                    if k not in ("creation_time", "last_update_time", "deleted_time", "input_uuid")
                }
                line = re.sub(r"/store-\d\b", "/<store>", repr(sorted(fields.items())))
                line = line.replace(os.path.dirname(uri.removeprefix("sqlite://")), "<folder>")
                for id_, name in names.items():
                    line = line.replace(id_, name)
                lines.append(line)
            found[table] = sorted(lines)
    return found


def plain(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri, outcomes=LABELS, label=lambda records, ended: ({}, {"t1-a": {0: 0.9, 2: math.nan}}))


def killed_then_finished(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri, final=False)
    sync(ledger, STUDY, uri)
    attempt.append(records(4, "cd"), unix_ms=3000)
    sync(ledger, STUDY, uri, final=False)
    finish(ledger, "c")
    finish(ledger, "d", "failed")
    sync(ledger, STUDY, uri, outcomes=LABELS)


def relabelled(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri, outcomes=LABELS)
    sync(ledger, STUDY, uri, outcomes={"t1-a": {"outcome": "slow", "outcome_version": 2}, "t1-c": {"outcome": "no"}})


def redone_by_another_attempt(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri, final=False)
    again = ledger.open_attempt("p1")
    for evaluation in (2, 3, 4):
        again.append(records(evaluation, "c"), unix_ms=7000 + evaluation)
    finish(ledger, "c", attempt=2)
    sync(ledger, STUDY, uri)


def run_in_the_bin(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri)
    client = mirror.connect(uri)
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    (run,) = client.search_runs([experiment], "tags.vistudy.trial_id = 't1-a'")
    client.delete_run(run.info.run_id)
    sync(ledger, STUDY, uri)


def tag_behind_metrics(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    sync(ledger, STUDY, uri, final=False)
    client = mirror.connect(uri)
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    (run,) = client.search_runs([experiment], "tags.vistudy.trial_id = 't1-c'")
    client.set_tag(run.info.run_id, "vistudy.synced", "1")
    client.set_tag(run.info.run_id, "mine", "a user's tag")
    client.log_metric(run.info.run_id, "dist", 7.0, timestamp=1, step=999)
    attempt.append(records(4, "c"), unix_ms=3000)
    sync(ledger, STUDY, uri)


def many_points(ledger: Ledger, attempt: Attempt, uri: str) -> None:
    wide = {f"m{i:02d}": float(i) for i in range(60)}
    for evaluation in range(4, 40):
        attempt.append([{**records(evaluation, "c")[0], "values": wide}], unix_ms=4000 + evaluation)
    long = {"t1-a": {"outcome": "x" * 9000}}
    sync(ledger, STUDY, uri, outcomes=long)


SCENARIOS: list[Scenario] = [
    plain, killed_then_finished, relabelled, redone_by_another_attempt, run_in_the_bin, tag_behind_metrics, many_points,
]  # fmt: skip


def rows_of_both_ways(
    scenario: Scenario, folder: Path, new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, list[str]]]:
    found = []
    for number, writable in enumerate((sql.writable, lambda client: False)):
        monkeypatch.setattr(mirror, "writable", writable)
        ledger, attempt = new_ledger(folder / f"store-{number}")
        for evaluation in range(4):
            attempt.append(records(evaluation, "abc" if evaluation < 3 else "ac"), unix_ms=2000 + evaluation)
        finish(ledger, "a")
        finish(ledger, "b", "failed")
        uri = new_uri()
        scenario(ledger, attempt, uri)
        assert sql.writable(mirror.connect(uri))
        found.append(rows(uri))
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_row_of_every_table(
    scenario: Scenario, tmp_path: Path, new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = rows_of_both_ways(scenario, tmp_path, new_uri, monkeypatch)
    assert ours["metrics"]
    assert ours == theirs


@pytest.fixture(scope="module")
def database_server() -> Iterator[Postgres]:
    if not available():
        pytest.skip("needs PostgreSQL and psycopg2")
    with postgres() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [killed_then_finished, relabelled, run_in_the_bin, tag_behind_metrics])
def test_every_row_in_postgresql(
    scenario: Scenario, database_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = rows_of_both_ways(
        scenario, tmp_path, lambda: database_server.create(f"vistudy_{uuid.uuid4().hex}"), monkeypatch
    )
    assert ours["metrics"]
    assert ours == theirs


def test_no_row_travels_to_postgresql_alone(study: tuple[Ledger, Attempt], database_server: Postgres) -> None:
    """Each would wait for its answer: that made the mirror six times slower."""
    alone: list[str] = []

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("INSERT") and context.execute_style is ExecuteStyle.EXECUTEMANY:
            alone.append(statement)

    uri = database_server.create(f"vistudy_{uuid.uuid4().hex}")
    mirror.open_database(uri)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", look)
    try:
        assert sync(study[0], STUDY, uri).metrics_written > 1
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", look)
    assert alone == []


def test_pictures_of_a_database_without_a_server_lie_in_the_store(
    study: tuple[Ledger, Attempt], database_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ledger, attempt = study
    attempt.samples(4, {"t1-a": np.zeros((2, 1, 4, 4), np.float16)})
    assert sync(ledger, STUDY, database_server.create(f"vistudy_{uuid.uuid4().hex}")).images_written
    assert list((Path(ledger.uri) / "mlartifacts").rglob("*.png"))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("bulk_first", [True, False])
def test_one_way_goes_on_where_the_other_stopped(
    study: tuple[Ledger, Attempt], new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch, bulk_first: bool
) -> None:
    ledger, attempt = study
    mixed, whole = new_uri(), new_uri()
    monkeypatch.setattr(mirror, "writable", sql.writable if bulk_first else lambda client: False)
    sync(ledger, STUDY, mixed, outcomes=LABELS, final=False)
    attempt.append(records(4, "c"), unix_ms=3000)
    finish(ledger, "c")
    monkeypatch.setattr(mirror, "writable", (lambda client: False) if bulk_first else sql.writable)
    for uri in (mixed, whole):
        sync(ledger, STUDY, uri, outcomes=LABELS)
    assert rows(mixed) == rows(whole)


def test_a_run_put_into_the_bin_under_a_living_mirror(study: tuple[Ledger, Attempt], uri: str) -> None:
    """As with MLflow's client: this pass is refused, nothing of it is written, and the next one makes a new run."""
    ledger, attempt = study
    experiment = mirror.open_experiment(uri, STUDY)
    assert isinstance(experiment, sql.BulkExperiment)
    syncer = mirror.Syncer(ledger, STUDY, lambda: mirror.open_experiment(uri, STUDY))
    syncer.sync(final=False)
    client = mirror.connect(uri)
    (run,) = client.search_runs([experiment.id], "tags.vistudy.trial_id = 't1-c'")
    client.delete_run(run.info.run_id)
    before = rows(uri)
    attempt.append(records(4, "c"), unix_ms=3000)
    with pytest.raises(Exception, match="must be in the 'active' state"):
        syncer.sync(final=False)
    assert rows(uri) == before
    syncer.sync(final=False)
    assert len(content(uri)["t1-c"]["metrics"]["dist"]) == 5


@pytest.mark.parametrize("name", ["a\tb", "../up", "x" * 251])
def test_names_that_mlflow_refuses(tmp_path: Path, uri: str, name: str) -> None:
    ledger, attempt = new_ledger(tmp_path / "store", ids="a")
    attempt.append([{**records(0, "a")[0], "values": {name: 1.0}}], unix_ms=1)
    with pytest.raises(TrackingError, match="refuses"):
        sync(ledger, STUDY, uri)
    assert rows(uri)["metrics"] == []


def test_unknown_schemas_are_left_to_the_client(
    study: tuple[Ledger, Attempt], new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    known, newer, changed = new_uri(), new_uri(), new_uri()
    assert sql.writable(mirror.connect(known))
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, "vistudy.tracking"):
        patch.setattr(sql, "REVISIONS", frozenset({"another"}))
        assert not sql.writable(mirror.connect(newer))
        assert type(mirror.open_experiment(newer, STUDY)) is mirror.Experiment
        sync(study[0], STUDY, newer)
    assert "known are ['another']" in caplog.text
    with monkeypatch.context() as patch:
        patch.setitem(sql.COLUMNS, "runs", sql.COLUMNS["runs"] | {"new_column"})
        assert not sql.writable(mirror.connect(changed))
    assert not sql.writable(mirror.connect("http://127.0.0.1:9"))
    sync(study[0], STUDY, known)
    assert rows(newer) == rows(known)


def test_memory_holds_few_trials(
    study: tuple[Ledger, Attempt], new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of one trial, flushed after each: the same rows, and no call reads the records of two trials."""
    uri, whole = new_uri(), new_uri()
    sync(study[0], STUDY, whole, outcomes=LABELS)
    asked: list[int] = []

    def judge(found: Any, ended: Any) -> Any:
        asked.append(len(found))
        return {}, {}

    monkeypatch.setattr("vistudy.study.tracking.sync.CHUNK_RECORDS", 1)
    monkeypatch.setattr(sql, "_MAX_BUFFERED_METRICS", 1)
    told: list[tuple[int, int]] = []
    report = sync(study[0], STUDY, uri, outcomes=LABELS, label=judge, progress=lambda *done: told.append(done))
    assert (report.runs_created, report.metrics_written) == (3, 22)
    assert asked == [1, 1, 1]
    assert told[-1] == (4, 4)  # of t1-d there is nothing yet
    assert rows(uri) == rows(whole)
