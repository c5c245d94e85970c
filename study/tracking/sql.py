"""The calls of `Experiment` as bulk SQL: rows of many runs in one transaction.

MLflow's client sends a trial's 450 metrics through an object mapper, which takes 0.12 s of processor time. Here few
statements write the same rows into the same tables. Validation uses MLflow's own functions where it has them, and only
known schemas are written; see `docs/decisions/017-mlflow-rows-in-bulk.md`.
"""

from __future__ import annotations

import functools
import logging
import math
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vistudy.study.tracking.artifacts import Files, fingerprint
from vistudy.study.tracking.client import SOURCE_TYPE, Experiment, shared_metric
from vistudy.study.tracking.runs import Point, Run

REVISIONS = frozenset({"dc11669786a5"})
"""Alembic revisions of MLflow for which tests compare our rows with MLflow's own."""
COLUMNS = {
    "experiments": {
        "experiment_id", "name", "workspace", "artifact_location", "lifecycle_stage", "creation_time",
        "last_update_time",
    },
    "runs": {
        "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
        "end_time", "deleted_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
    },
    "tags": {"key", "value", "run_uuid"},
    "params": {"key", "value", "run_uuid"},
    "metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
    "latest_metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
    "datasets": {
        "dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source", "dataset_schema",
        "dataset_profile",
    },
    "inputs": {"input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"},
}  # fmt: skip
"""Table -> columns in REVISIONS."""

_MAX_BUFFERED_METRICS = 40_000
"""Approximate number of buffered metrics at which `flush_if_large` writes them."""
_MAX_IN_VALUES = 500
"""Values in one `IN (...)`."""
_CACHE_KIB = 65_536
"""SQLite page cache: the default of 2 MB is smaller than the indexes of one transaction."""

_log = logging.getLogger("vistudy.tracking")


def writable(client: Any) -> bool:
    """Whether the store behind an `MlflowClient` is a database with a known schema."""
    try:
        store = client._tracking_client.store
        if type(store) is not _mlflow().Store:  # a server, or an unknown kind of database store
            return False
        reason = _unknown(store.engine)
    except (ImportError, AttributeError) as error:
        reason = str(error)
    if reason:
        _log.debug("MLflow's rows are written by its client, which is slower: %s", reason)
    return not reason


def _unknown(engine: Any) -> str:
    """Why a database is not written in bulk; empty if it is."""
    import sqlalchemy as sa

    if engine.dialect.name not in ("sqlite", "postgresql"):
        return f"{engine.dialect.name} databases are not tested"
    with engine.connect() as connection:
        revisions = set(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())
    if len(revisions) != 1 or not revisions <= REVISIONS:
        return f"its schema is {sorted(revisions)}, known are {sorted(REVISIONS)}"
    for name, table in _tables().items():
        if {column.name for column in table.columns} != COLUMNS[name]:
            return f"table {name} has columns {sorted(column.name for column in table.columns)}"
    return ""


@functools.cache
def _mlflow() -> Any:
    """Internals of MLflow that are used here. Raises ImportError if MLflow no longer has them."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_STATE
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils import validation
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import append_to_uri_path, is_local_uri

    check: Any = validation._validate_metric
    return SimpleNamespace(
        Store=SqlAlchemyStore,
        refusal=functools.partial(MlflowException, error_code=INVALID_STATE),
        local_path=local_file_uri_to_path,
        is_local=is_local_uri,
        below=append_to_uri_path,
        check_metric=functools.cache(lambda name: check(name, 0.0, 0, 0)),
        param=validation._validate_param,
        tag=validation._validate_tag,
    )


@functools.cache
def _tables() -> dict[str, Any]:
    from mlflow.store.tracking.dbmodels import models

    names = ("Experiment", "Run", "Tag", "Param", "Metric", "LatestMetric", "Dataset", "Input")
    models_ = (getattr(models, f"Sql{name}") for name in names)
    return {model.__tablename__: model.__table__ for model in models_}


class BulkExperiment(Experiment):
    """An experiment whose calls are buffered until `flush`, which writes them in one transaction.

    Only `upload` acts at once: it stores files in the folder of a run that exists already.
    """

    def __init__(self, client: Any, name: str, location: str | None = None) -> None:
        super().__init__(client, name, location)
        self._engine = client._tracking_client.store.engine
        self._location = str(client.get_experiment(self.id).artifact_location)
        self._folders: dict[str, str] = {}
        self._statements = _Statements(self._engine.dialect.name)
        self._known_data: dict[tuple[str, str], str] = {}
        self._clear()

    def _clear(self) -> None:
        self._runs: list[dict[str, Any]] = []
        self._datasets: list[dict[str, Any]] = []
        self._inputs: list[dict[str, Any]] = []
        self._params: list[dict[str, str]] = []
        self._metrics: list[dict[str, Any]] = []
        self._tags: dict[tuple[str, str], str] = {}
        self._latest: dict[tuple[str, str], tuple[int, int, float]] = {}
        self._states: dict[str, dict[str, Any]] = {}

    # -- reading -------------------------------------------------------------------------------------------------------

    def runs(self) -> Iterator[Run]:
        """Iterate over all runs of the experiment."""
        import sqlalchemy as sa

        runs, tags, params = (_tables()[name] for name in ("runs", "tags", "params"))
        active = sa.and_(runs.c.experiment_id == int(self.id), runs.c.lifecycle_stage == "active")
        has_params = sa.exists().where(params.c.run_uuid == runs.c.run_uuid)
        with self._engine.connect() as connection:
            run_tags: dict[str, dict[str, str]] = {}
            pairs = sa.select(tags.c.run_uuid, tags.c.key, tags.c.value).join(runs, runs.c.run_uuid == tags.c.run_uuid)
            for run_id, key, value in connection.execute(pairs.where(active)):
                run_tags.setdefault(run_id, {})[key] = value
            heads = sa.select(runs.c.run_uuid, runs.c.status, runs.c.artifact_uri, has_params).where(active)
            rows = connection.execute(heads.order_by(runs.c.start_time.desc(), runs.c.run_uuid)).all()
        for run_id, status, folder, any_params in rows:
            self._folders[run_id] = folder
            yield Run(
                run_id=run_id, status=status, tags=run_tags.get(run_id, {}), has_params=bool(any_params), existed=True
            )

    def last_step(self, run: Run, names: Collection[str]) -> int:
        """Highest step of one of the metrics `names`, which are logged together; -1 if the run has none."""
        import sqlalchemy as sa

        latest = _tables()["latest_metrics"]
        of_run = sa.select(latest.c.key, latest.c.step).where(latest.c.run_uuid == run.run_id)
        with self._engine.connect() as connection:
            steps = {key: int(step) for key, step in connection.execute(of_run)}
        metric = shared_metric(steps.keys(), names)
        return steps[metric] if metric else -1

    # -- writing -------------------------------------------------------------------------------------------------------

    def create(self, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Buffer a run with its tags, with the rows that `MlflowClient.create_run` writes."""
        run = Run(run_id=uuid.uuid4().hex, status="RUNNING", tags=dict(tags))
        self._folders[run.run_id] = _mlflow().below(self._location, run.run_id, "artifacts")
        self._runs.append(
            {
                "run_uuid": run.run_id,
                "name": name,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": "unknown",
                "status": "RUNNING",
                "start_time": start_ms,
                "end_time": None,
                "deleted_time": None,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": self._folders[run.run_id],
                "experiment_id": int(self.id),
            }
        )
        for key, value in ({"mlflow.runName": name} | run.tags).items():
            self._tags[run.run_id, key] = value
        return run

    def log_datasets(self, run: Run, data: Mapping[str, str]) -> None:
        """Buffer the inputs of a new run, with the rows that `MlflowClient.log_inputs` writes."""
        for name, digest in data.items():
            self._inputs.append(
                {
                    "input_uuid": uuid.uuid4().hex,
                    "source_type": "DATASET",
                    "source_id": self._dataset(name, digest),
                    "destination_type": "RUN",
                    "destination_id": run.run_id,
                    "step": 0,
                }
            )

    def _dataset(self, name: str, digest: str) -> str:
        """MLflow's id of a dataset of this experiment; a new dataset is buffered."""
        if (name, digest) not in self._known_data:
            import sqlalchemy as sa

            of = _tables()["datasets"].c
            same = sa.and_(of.experiment_id == int(self.id), of.name == name, of.digest == digest)
            with self._engine.connect() as connection:
                existing = connection.execute(sa.select(of.dataset_uuid).where(same)).scalar()
            self._known_data[name, digest] = str(existing or uuid.uuid4().hex)
            if existing is None:
                self._datasets.append(
                    {
                        "dataset_uuid": self._known_data[name, digest],
                        "experiment_id": int(self.id),
                        "name": name,
                        "digest": digest,
                        "dataset_source_type": SOURCE_TYPE,
                        "dataset_source": "{}",
                    }
                )
        return self._known_data[name, digest]

    def log(self, run: Run, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Buffer metrics, params (once per run) and the tags that differ."""
        mlflow, run_id, latest = _mlflow(), run.run_id, self._latest
        for key, value, timestamp, step in points:
            assert math.isfinite(value), (key, value)
            mlflow.check_metric(key)
            self._metrics.append(
                {"key": key, "value": value, "timestamp": timestamp, "step": step, "is_nan": False,
                 "run_uuid": run_id}
            )  # fmt: skip
            new = (step, timestamp, value)
            if (run_id, key) not in latest or new > latest[run_id, key]:
                latest[run_id, key] = new
        if not run.has_params:
            checked = [mlflow.param(key, value) for key, value in params.items()]
            self._params += [{"key": param.key, "value": param.value, "run_uuid": run_id} for param in checked]
            run.has_params = bool(params)
        for name, text in tags.items():
            if run.tags.get(name) != text:
                assert name != "mlflow.runName", "MLflow stores the name twice"
                self._tags[run_id, name] = mlflow.tag(name, text).value
                run.tags[name] = text

    def set_status(self, run: Run, status: str, end_ms: int | None = None) -> None:
        """Buffer RUNNING, or an end status with its time."""
        if run.status != status:
            before = self._states.get(run.run_id, {"ended": None})
            self._states[run.run_id] = {"run": run.run_id, "now": status, "ended": end_ms or before["ended"]}
            run.status = status

    def upload(self, run: Run, files: Files, stored_digest: str | None) -> tuple[str, int]:
        """Store files, unless their fingerprint is `known`. Returns the fingerprint and the number of files sent."""
        assert all(row["run_uuid"] != run.run_id for row in self._runs), (
            "flush first: otherwise a kill leaves stray files"
        )
        folder = self._folders[run.run_id]
        if not _mlflow().is_local(folder):
            return super().upload(run, files, stored_digest)
        digest = fingerprint(files)
        if not files or digest == stored_digest:
            return digest, 0
        for name, content in files.items():
            path = Path(_mlflow().local_path(folder), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # may be a link to a file of another store
            path.write_bytes(content)
        return digest, len(files)

    def flush_if_large(self) -> None:
        """Write the buffer if it is large."""
        if len(self._metrics) > _MAX_BUFFERED_METRICS:
            self.flush()

    def flush(self) -> None:
        """Write the buffer in one transaction."""
        sql = self._statements
        tags = [{"run_uuid": run, "key": key, "value": value} for (run, key), value in self._tags.items()]
        latest = [
            {"run_uuid": run, "key": key, "step": step, "timestamp": timestamp, "value": value, "is_nan": False}
            for (run, key), (step, timestamp, value) in self._latest.items()
        ]
        steps = (
            (sql.runs, self._runs),
            (sql.datasets, self._datasets),
            (sql.inputs, self._inputs),
            (sql.params, self._params),
            (sql.metrics, self._metrics),
            (sql.latest, latest),
            (sql.tags, tags),
            (sql.states, list(self._states.values())),
        )
        if not any(rows for _, rows in steps):
            return
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":  # as in MLflow's own sessions; a server may read at the same time
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
                connection.exec_driver_sql("PRAGMA busy_timeout = 20000")
                connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._check_active(connection)
            for statement, rows in steps:
                if rows:
                    connection.execute(statement, rows)
        self._clear()

    def _check_active(self, connection: Any) -> None:
        """Refuse, as MLflow does, to write into a deleted experiment or run."""
        import sqlalchemy as sa

        experiments, runs = _tables()["experiments"], _tables()["runs"]
        stage = sa.select(experiments.c.lifecycle_stage).where(experiments.c.experiment_id == int(self.id))
        if connection.execute(stage).scalar() != "active":
            raise _mlflow().refusal(f"The experiment {self.id} must be in the 'active' state.")
        new = {row["run_uuid"] for row in self._runs}
        touched = {run for run, _ in self._tags} | {row["run_uuid"] for row in self._metrics} | self._states.keys()
        touched |= {row["run_uuid"] for row in self._params}
        old = sorted(touched - new)
        for start in range(0, len(old), _MAX_IN_VALUES):
            chunk = old[start : start + _MAX_IN_VALUES]
            active = sa.select(runs.c.run_uuid).where(runs.c.run_uuid.in_(chunk), runs.c.lifecycle_stage == "active")
            inactive = set(chunk) - set(connection.execute(active).scalars())
            if inactive:
                raise _mlflow().refusal(f"The run {min(inactive)} must be in the 'active' state.")


class _Statements:
    """The idempotent statements that `flush` executes, each with many rows."""

    def __init__(self, dialect: str) -> None:
        import sqlalchemy as sa
        from sqlalchemy.dialects import postgresql, sqlite

        insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]
        tables = _tables()
        self.runs = sa.insert(tables["runs"])
        self.datasets = sa.insert(tables["datasets"])
        self.inputs = insert(tables["inputs"]).on_conflict_do_nothing()
        self.params = sa.insert(tables["params"])  # a second value of a param is an error, as in MLflow
        self.metrics = _many(insert(tables["metrics"]).on_conflict_do_nothing(), dialect)
        latest = insert(tables["latest_metrics"])
        old, new = tables["latest_metrics"].c, latest.excluded
        latest = latest.on_conflict_do_update(
            index_elements=["key", "run_uuid"],
            set_={name: new[name] for name in ("value", "timestamp", "step", "is_nan")},
            where=sa.tuple_(new.step, new.timestamp, new.value) > sa.tuple_(old.step, old.timestamp, old.value),
        )
        self.latest = _many(latest, dialect)
        tag = insert(tables["tags"])
        tag = tag.on_conflict_do_update(index_elements=["key", "run_uuid"], set_={"value": tag.excluded.value})
        self.tags = _many(tag, dialect)
        runs = tables["runs"]
        self.states = (
            sa.update(runs)
            .where(runs.c.run_uuid == sa.bindparam("run"))
            .values(status=sa.bindparam("now"), end_time=sa.func.coalesce(sa.bindparam("ended"), runs.c.end_time))
        )


def _many(upsert: Any, dialect: str) -> Any:
    """An upsert of many rows. For PostgreSQL, SQLAlchemy batches it only if it returns something."""
    return upsert.returning(upsert.table.c.key) if dialect == "postgresql" else upsert
