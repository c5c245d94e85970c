"""The mirror: ledger -> MLflow, by one writer, in batches. The only module of `study` that knows MLflow.

What a run holds: `docs/records.md`. Training never waits for this. An MLflow that is down, slow or wiped costs nothing:
the next `sync` writes what is missing, with the ledger's timestamps, and nothing twice.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import tempfile
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.artifacts import Files, fingerprint
from study.errors import StudyError
from study.ledger import Ledger
from study.replay import Judge, Labels, Point, Run, Syncer, SyncReport, newer
from study.tracking_uri import (
    SEARCHES,
    UI_ENVIRONMENT,
    TrackingError,
    artifact_location,
    check_database,
    check_tracking_uri,
    default_tracking_uri,
    ui_command,
    without_password,
)

__all__ = [
    "SEARCHES", "UI_ENVIRONMENT", "Mirror", "MirrorStatus", "SyncReport", "TrackingError", "check_tracking_uri",
    "default_tracking_uri", "sync", "ui_command",
]  # fmt: skip

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's pages take a study for an application of language models and open on its traces."""

_DEFAULTS = {
    **UI_ENVIRONMENT,
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # MLflow's own policy blocks one call for 247 s when a server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


def sync(
    ledger: Ledger,
    study_name: str,
    tracking_uri: str,
    *,
    outcomes: Labels | None = None,
    judge: Judge | None = None,
    artifacts: Sequence[Path] = (),
    samples: bool = True,
    modes: Mapping[str, Any] | None = None,
    final: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Bring a study's MLflow experiment up to date with the ledger. Calling it again changes nothing.

    Args:
        ledger: the source.
        study_name: a study in it; also the experiment's name.
        tracking_uri: where MLflow is: sqlite:///file, http(s)://host:port, or a database.
        outcomes: tags of trials (see Labels), compared with every run, as after a relabel.
        judge: gives the tags and the metric `q` of the trials whose runs have not ended, from their records.
        artifacts: files for the parent run, such as heatmaps.
        samples: also write pictures of the samples of trials that have ended.
        modes: data set -> (m, 2) centres of its real modes, drawn behind sampled points.
        final: no training goes on: runs of unfinished trials are KILLED, not RUNNING.
        progress: called with (trials done, trials to do).

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
        StudyBusyError: another process is syncing this study.
    """
    check_tracking_uri(tracking_uri)
    syncer = Syncer(ledger, study_name, lambda: Experiment(tracking_uri, study_name), samples=samples, modes=modes)
    with _translated(tracking_uri):
        return syncer.sync(outcomes=outcomes, judge=judge, artifacts=artifacts, final=final, progress=progress)


def open_database(uri: str) -> None:
    """Import MLflow and make or migrate its database: some seconds that may pass while Ray starts.

    A failure is not told here: the mirror meets it again, and tells it.
    """
    with contextlib.suppress(TrackingError), _translated(uri):
        connect(uri).search_experiments(max_results=1)


def experiment_url(uri: str, name: str, served_at: str = "http://127.0.0.1:5000") -> str | None:
    """Page of a study's runs, on its server or where `vistudy ui` serves a database; None if unknown."""
    try:
        with _translated(uri):
            found = connect(uri).get_experiment_by_name(name)
    except TrackingError:
        return None
    base = without_password(uri).rstrip("/") if uri.startswith("http") else served_at
    return f"{base}/#/experiments/{found.experiment_id}/runs" if found else None


class Experiment:
    """The MLflow calls that we make, on one experiment. Each sends what differs from the `Run` given, and notes it."""

    def __init__(self, uri: str, name: str) -> None:
        self._client = connect(uri)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = artifact_location(uri)
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

    def last_step(self, run: Run, metric: str) -> int:
        """Highest step that a metric has; -1 if none."""
        return max((int(point.step) for point in self._client.get_metric_history(run.run_id, metric)), default=-1)

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's bin."""
        self._client.delete_run(run.run_id)


def _prepare() -> None:
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


def connect(uri: str) -> Any:
    """An `MlflowClient` of that URI, not opened yet."""
    _prepare()
    from mlflow import MlflowClient

    check_database(uri)
    return MlflowClient(uri)


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Every failure of MLflow, its database or the network as one TrackingError."""
    _prepare()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        shown = without_password(uri)
        lines = str(error).replace(uri, shown).strip().splitlines() or [type(error).__name__]
        raise TrackingError(
            f"MLflow at {shown} does not answer or refuses: {lines[0][:300]}. Nothing is lost: the ledger has every "
            "record. Start it or mend --tracking-uri, then `vistudy sync` writes what is missing."
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorStatus:
    """How the mirror stands, for a status line."""

    behind: int = 0
    """Evaluations of packs in the ledger that MLflow lacks."""
    error: str | None = None
    """Message of the last try, if it failed."""
    failures: int = 0
    """Tries in a row that failed."""
    synced_at_s: float | None = None
    """Unix time of the last sync that succeeded."""


class Mirror:
    """A thread that syncs a running study every few seconds. Its failures are a status, never an exception."""

    def __init__(
        self,
        ledger: Ledger,
        study: str,
        uri: str,
        judge: Judge | None = None,
        every_s: float = 10.0,
        *,
        running_every_s: float = 0.0,
        modes: Mapping[str, Any] | None = None,
    ) -> None:
        """`running_every_s`: how often trials that have not ended are written, too; each time costs them a call."""
        check_tracking_uri(uri)
        self._ledger, self._uri, self._every_s, self._running_every_s = ledger, uri, every_s, running_every_s
        self._running_at = time.monotonic()
        self._judge = judge
        self._syncer = Syncer(ledger, study, lambda: Experiment(uri, study), modes=modes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vistudy-mirror", daemon=True)
        self._seen: dict[str, int] = {}
        self._status = MirrorStatus()

    @property
    def status(self) -> MirrorStatus:
        """How it stands now."""
        return self._status

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, final: bool = True, artifacts: Sequence[Path] = ()) -> MirrorStatus:
        """End the thread, waiting for a sync under way, and sync once more.

        Args:
            final: training has ended: leave no run RUNNING.
            artifacts: files for the parent run.

        Returns:
            The status after it; `error` says if MLflow still lacks something.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try(final=final, artifacts=artifacts)
        return self._status

    def _work(self) -> None:
        gc.freeze()  # half a million objects of imports are not walked at every collection: a tenth of a pass
        while not self._stop.is_set():
            began = time.monotonic()
            self._try(final=False)
            # A slow server or a long outage gets more rest: at least as long as a try takes, at most a minute.
            rest = max(self._every_s, time.monotonic() - began) * 2 ** min(self._status.failures, 6)
            self._stop.wait(min(rest, max(60.0, self._every_s)))

    def _try(self, *, final: bool, artifacts: Sequence[Path] = ()) -> None:
        try:
            now = self._ledger.progress()
            self._status = replace(self._status, behind=newer(now, self._seen))
            with _translated(self._uri):
                running = final or time.monotonic() - self._running_at >= self._running_every_s
                report = self._syncer.sync(judge=self._judge, artifacts=artifacts, final=final, running=running)
                self._running_at = time.monotonic() if running else self._running_at
            self._seen = now
            self._status = MirrorStatus(behind=report.behind, synced_at_s=time.time())
        except Exception as error:  # whatever it is, the study goes on: the ledger is what counts
            if not isinstance(error, StudyError):
                logging.getLogger("vistudy.tracking").exception("the mirror failed")
            message = str(error) or type(error).__name__
            self._status = replace(self._status, error=message, failures=self._status.failures + 1)
