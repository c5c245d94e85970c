"""MLflow calls on one experiment, through MLflow's client."""

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
from vistudy.study.tracking.locations import adopt_database, exclusive, temporary_path
from vistudy.study.tracking.runs import Point, Run
from vistudy.study.tracking.uri import FILES, UI_ENVIRONMENT, check_database, database_file, sqlite_uri

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's pages treat a study as a language-model application and open its traces."""

SOURCE_TYPE = "vistudy"
"""Source type of datasets: MLflow gets their content's digest, not their location."""

_DEFAULTS = {
    **UI_ENVIRONMENT,
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # MLflow's own policy blocks one call for 247 s when a server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


def import_mlflow() -> None:
    """Import MLflow (a second or two), configured to be quiet, to send no telemetry and to fail fast."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies; none is ours to fix
        import mlflow  # noqa: F401
    # MLflow 3.17 uses deprecated calls of SQLAlchemy 2.1 in every query.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\..*")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(uri: str, *, reads: bool = False) -> Any:
    """Create an `MlflowClient` for a URI, without connecting yet.

    Unless `reads` (nothing will be written), an SQLite database is created if it does not exist, and the locations in a
    store's own database are rewritten if the store was moved.
    """
    import_mlflow()
    from mlflow import MlflowClient

    path = database_file(uri)
    if path is not None and "%" in uri:
        _patch_mlflow()
    if path is not None and not reads:
        check_database(uri)
        _create_database_atomically(path)
        adopt_database(path)
    client = MlflowClient(uri)
    if path is not None and path.is_file():
        _clear_mlflow_caches(client, uri, path)
    return client


_OPENED: dict[str, tuple[int, int]] = {}
"""URI -> (device, inode) of its file when it was first opened."""


def _clear_mlflow_caches(client: Any, uri: str, path: Path) -> None:
    """Clear what MLflow caches of a store for the life of a process, because the store may have been moved since.

    It caches the folder of each run by run id, which a copy shares, and connections by the file's path.
    """
    from mlflow.tracking._tracking_service import utils

    getattr(utils, "_artifact_repos_cache", {}).clear()
    state = path.stat()
    if _OPENED.setdefault(uri, (state.st_dev, state.st_ino)) != (state.st_dev, state.st_ino):
        client._tracking_client.store.engine.dispose()
        _OPENED[uri] = (state.st_dev, state.st_ino)


def _patch_mlflow() -> None:
    """MLflow 3.17 creates the folder of an SQLite URI without decoding the path: replace that function."""
    from mlflow.store.db import utils

    def make(db_uri: str) -> None:
        if path := database_file(db_uri):
            path.parent.mkdir(parents=True, exist_ok=True)

    if hasattr(utils, "_make_parent_dirs_if_sqlite"):
        utils._make_parent_dirs_if_sqlite = make


def _create_database_atomically(path: Path) -> None:
    """Create a new SQLite database under a temporary name and move it into place when it is complete.

    MLflow creates it by dozens of migrations, and a database whose creation was killed can never be opened again.
    """
    if path.stat().st_size:
        return
    from mlflow import MlflowClient

    with exclusive(path):
        if path.stat().st_size:
            return
        temporary = temporary_path(path)
        client = MlflowClient(sqlite_uri(temporary))
        client.search_experiments(max_results=1)
        engine = client._tracking_client.store.engine
        with engine.begin() as connection:  # MLflow's default experiment would write files into the working directory
            location = (path.parent / FILES / "0").as_uri()
            connection.exec_driver_sql("UPDATE experiments SET artifact_location = ?", (location,))
        engine.dispose()
        temporary.replace(path)


def shared_metric(present: Collection[str], names: Collection[str]) -> str | None:
    """Name of a metric in both collections, preferably `finite`, which users do not log; None without one."""
    shared = sorted(set(present).intersection(names))
    return "finite" if "finite" in shared else next(iter(shared), None)


class Experiment:
    """MLflow calls on one experiment. Each sends only what differs from the given `Run`, and updates it."""

    def __init__(self, client: Any, name: str, location: str | None = None) -> None:
        """`location`: URI of the folder for files of a new experiment; None: MLflow decides."""
        self._client = client
        existing = self._client.get_experiment_by_name(name)
        if existing is None:
            location = f"{location}/{urllib.parse.quote(name)}" if location else None
            self.id = str(self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        else:
            self.id = str(existing.experiment_id)
            if existing.lifecycle_stage == "deleted":
                self._client.restore_experiment(self.id)

    def runs(self) -> Iterator[Run]:
        """Iterate over all runs of the experiment."""
        token = None
        while True:
            page = self._client.search_runs([self.id], max_results=200, page_token=token)
            for run in page:
                yield Run(
                    run_id=run.info.run_id,
                    status=run.info.status,
                    tags=dict(run.data.tags),
                    has_params=bool(run.data.params),
                    metrics=frozenset(run.data.metrics),
                    existed=True,
                )
            token = page.token
            if not token:
                return

    def create(self, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Create a run together with its tags, in one call, so that it is always found again."""
        run = self._client.create_run(self.id, start_time=start_ms, tags=dict(tags), run_name=name)
        return Run(run_id=run.info.run_id, status="RUNNING", tags=dict(tags))

    def log_datasets(self, run: Run, data: Mapping[str, str]) -> None:
        """Log the data sets of a new run as its inputs: name -> fingerprint, which MLflow calls digest."""
        from mlflow.entities import Dataset, DatasetInput

        inputs = [
            DatasetInput(Dataset(name=name, digest=digest, source_type=SOURCE_TYPE, source="{}"))
            for name, digest in data.items()
        ]
        if inputs:
            self._client.log_inputs(run.run_id, datasets=inputs)

    def log(self, run: Run, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Write metrics, params (once per run) and the tags that differ, in at most one call."""
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

    def upload(self, run: Run, files: Files, stored_digest: str | None) -> tuple[str, int]:
        """Store files, unless their fingerprint is `known`. Returns the fingerprint and the number of files sent."""
        digest = fingerprint(files)
        if not files or digest == stored_digest:
            return digest, 0
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run.run_id, folder)
        return digest, len(files)

    def last_step(self, run: Run, names: Collection[str]) -> int:
        """Highest step of one of the metrics `names`, which are logged together; -1 if the run has none."""
        metric = shared_metric(run.metrics, names)
        history = self._client.get_metric_history(run.run_id, metric) if metric else []
        return max((int(point.step) for point in history), default=-1)

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's trash."""
        self._client.delete_run(run.run_id)

    def flush_if_large(self) -> None:
        """Write buffered calls if there are many. No-op: this class buffers nothing."""

    def flush(self) -> None:
        """Write buffered calls. No-op: this class buffers nothing."""
