"""The MLflow calls that the mirror makes, on one experiment, through MLflow's client."""

from __future__ import annotations

import logging
import os
import tempfile
import urllib.parse
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vistudy.study.tracking.artifacts import Files, fingerprint
from vistudy.study.tracking.locations import aside_of, one_at_a_time, settle
from vistudy.study.tracking.sync import Point, Run
from vistudy.study.tracking.uri import FILES, UI_ENVIRONMENT, check_database, database_file, sqlite_uri

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's pages take a study for an application of language models and open on its traces."""

SOURCE_TYPE = "vistudy"
"""Of datasets: MLflow is told what data hold, not where they lie."""

_DEFAULTS = {
    **UI_ENVIRONMENT,
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # MLflow's own policy blocks one call for 247 s when a server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


def import_mlflow() -> None:
    """Import MLflow (a second or two) so that it is quiet, sends no telemetry and fails fast."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies; none is ours to mend
        import mlflow  # noqa: F401
    # MLflow 3.17 calls SQLAlchemy 2.1 in ways that it deprecates, at every query.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\..*")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(uri: str, *, reads: bool = False) -> Any:
    """An `MlflowClient` of that URI, not opened yet.

    `reads`: nothing will be written. Else an SQLite database is made if it is not there, and the locations of a store's
    own are those of the store.
    """
    import_mlflow()
    from mlflow import MlflowClient

    path = database_file(uri)
    if path is not None and "%" in uri:
        _mend_mlflow()
    if path is not None and not reads:
        check_database(uri)
        _create_database_atomically(path)
        settle(path)
    client = MlflowClient(uri)
    if path is not None and path.is_file():
        _forget(client, uri, path)
    return client


_OPENED: dict[str, tuple[int, int]] = {}
"""URI -> the file that was there when it was connected to."""


def _forget(client: Any, uri: str, path: Path) -> None:
    """Make MLflow forget what it keeps of a store for the life of a process: the store may have been moved since.

    It keeps the folder of each run by its id, which a copy shares, and connections to a file by its path.
    """
    from mlflow.tracking._tracking_service import utils

    getattr(utils, "_artifact_repos_cache", {}).clear()
    state = path.stat()
    if _OPENED.setdefault(uri, (state.st_dev, state.st_ino)) != (state.st_dev, state.st_ino):
        client._tracking_client.store.engine.dispose()
        _OPENED[uri] = (state.st_dev, state.st_ino)


def _mend_mlflow() -> None:
    """MLflow 3.17 makes the folder of an SQLite URI as it is written: another one, if a part of the path is encoded."""
    from mlflow.store.db import utils

    def make(db_uri: str) -> None:
        if path := database_file(db_uri):
            path.parent.mkdir(parents=True, exist_ok=True)

    if hasattr(utils, "_make_parent_dirs_if_sqlite"):
        utils._make_parent_dirs_if_sqlite = make


def _create_database_atomically(path: Path) -> None:
    """Make a new SQLite database aside and move it into place when it is complete.

    MLflow makes it by dozens of migrations. One that is killed in the middle can never be opened again.
    """
    if path.stat().st_size:
        return
    from mlflow import MlflowClient

    with one_at_a_time(path):
        if path.stat().st_size:
            return
        aside = aside_of(path)
        client = MlflowClient(sqlite_uri(aside))
        client.search_experiments(max_results=1)
        engine = client._tracking_client.store.engine
        with engine.begin() as connection:  # MLflow's own experiment would put files into the present folder
            location = (path.parent / FILES / "0").as_uri()
            connection.exec_driver_sql("UPDATE experiments SET artifact_location = ?", (location,))
        engine.dispose()
        aside.replace(path)


def shared_metric(there: Collection[str], names: Collection[str]) -> str | None:
    """A metric that a run has, of names that are logged together: `finite` rather than one that users log, too."""
    shared = sorted(set(there).intersection(names))
    return "finite" if "finite" in shared else next(iter(shared), None)


class Experiment:
    """The MLflow calls that we make, on one experiment. Each sends what differs from the `Run` given, and notes it."""

    def __init__(self, client: Any, name: str, location: str | None = None) -> None:
        """`location`: URI of the folder for files, if the experiment is new; None: as MLflow wants it."""
        self._client = client
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = f"{location}/{urllib.parse.quote(name)}" if location else None
            self.id = str(self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        else:
            self.id = str(found.experiment_id)
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(self.id)

    def runs(self) -> Iterator[Run]:
        """All runs of the experiment."""
        token = None
        while True:
            page = self._client.search_runs([self.id], max_results=200, page_token=token)
            for found in page:
                yield Run(
                    run_id=found.info.run_id,
                    status=found.info.status,
                    tags=dict(found.data.tags),
                    has_params=bool(found.data.params),
                    metrics=frozenset(found.data.metrics),
                    found=True,
                )
            token = page.token
            if not token:
                return

    def create(self, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Make a run; its tags come with it in one step, so that it is always found again."""
        made = self._client.create_run(self.id, start_time=start_ms, tags=dict(tags), run_name=name)
        return Run(run_id=made.info.run_id, status="RUNNING", tags=dict(tags))

    def learns(self, run: Run, data: Mapping[str, str]) -> None:
        """Note the data sets of a new run as its inputs: name -> fingerprint, in MLflow's words the digest."""
        from mlflow.entities import Dataset, DatasetInput

        inputs = [
            DatasetInput(Dataset(name=name, digest=digest, source_type=SOURCE_TYPE, source="{}"))
            for name, digest in data.items()
        ]
        if inputs:
            self._client.log_inputs(run.run_id, datasets=inputs)

    def log(self, run: Run, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Write metrics, params (once a run) and those tags that differ, in one call or none."""
        from mlflow.entities import Metric, Param, RunTag

        tags = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        params = {} if run.has_params else params
        if points or params or tags:
            self._client.log_batch(
                run.run_id,
                metrics=[Metric(*point) for point in points],
                params=[Param(*param) for param in params.items()],
                tags=[RunTag(*tag) for tag in tags.items()],
                synchronous=True,
            )
        run.tags.update(tags)
        run.has_params = run.has_params or bool(params)

    def set_status(self, run: Run, status: str, end_ms: int | None = None) -> None:
        """Set RUNNING, or an end status with its time."""
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.run_id, status=status)
        else:
            self._client.set_terminated(run.run_id, status=status, end_time=end_ms)
        run.status = status

    def upload(self, run: Run, files: Files, known: str | None) -> tuple[str, int]:
        """Store files, unless their fingerprint is `known`. Returns the fingerprint and the number of files sent."""
        found = fingerprint(files)
        if not files or found == known:
            return found, 0
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run.run_id, folder)
        return found, len(files)

    def last_step(self, run: Run, names: Collection[str]) -> int:
        """Highest step that a metric of the run has, one of names that are logged together; -1 if none is there."""
        metric = shared_metric(run.metrics, names)
        history = self._client.get_metric_history(run.run_id, metric) if metric else []
        return max((int(point.step) for point in history), default=-1)

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's bin."""
        self._client.delete_run(run.run_id)

    def pause(self) -> None:
        """Between two runs: carry out what was put off if it is much. Nothing here, each call is sent at once."""

    def flush(self) -> None:
        """Carry out what was put off. Nothing here."""
