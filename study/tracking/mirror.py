"""The mirror copies the ledger to MLflow, by one writer, in batches; `docs/records.md` says what a run holds.

Training never waits for it. If MLflow is down, slow or wiped, nothing is lost: the next sync writes what is missing,
with the ledger's timestamps, and nothing twice.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.client import Experiment, connect, import_mlflow
from vistudy.study.tracking.locations import (
    OWNER,
    adopt_database,
    former_place_of_files,
    is_owned,
    moved_message,
    other_owner,
)
from vistudy.study.tracking.sql import BulkExperiment, writable
from vistudy.study.tracking.sync import LabelFn, Labels, Syncer, SyncReport, n_new_evaluations
from vistudy.study.tracking.uri import (
    EXAMPLE_FILTERS,
    UI_ENVIRONMENT,
    TrackingError,
    artifact_location,
    check_tracking_uri,
    database_file,
    default_tracking_uri,
    sqlite_uri,
    ui_command,
    without_password,
)

__all__ = [
    "EXAMPLE_FILTERS", "UI_ENVIRONMENT", "Mirror", "MirrorStatus", "SyncReport", "TrackingError", "check_tracking_uri",
    "default_tracking_uri", "pages", "sync", "ui_command",
]  # fmt: skip


def sync(
    ledger: Ledger,
    study_name: str,
    tracking_uri: str,
    *,
    outcomes: Labels | None = None,
    label: LabelFn | None = None,
    relabel: bool = False,
    artifacts: Sequence[Path] = (),
    samples: bool = True,
    modes: Mapping[str, Any] | None = None,
    final: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Bring a study's MLflow experiment up to date with the ledger. Idempotent.

    Args:
        ledger: the source.
        study_name: a study in it; also the experiment's name.
        tracking_uri: sqlite:///file, http(s)://host:port, or a database.
        outcomes: tags of trials (see Labels), compared with every run, for example after a relabel.
        label: computes tags and the metric `q` of trials whose runs have not ended, from their records.
        relabel: also label trials whose runs have ended, and update their tags.
        artifacts: files for the parent run, such as heatmaps.
        samples: also write pictures of samples of trials that have ended.
        modes: data set -> (m, 2) centres of its real modes, drawn behind sampled points.
        final: no training is going on: runs of unfinished trials become KILLED, not RUNNING.
        progress: called with (trials done, trials to do).

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
        StudyBusyError: another process is syncing this study.
    """
    check_tracking_uri(tracking_uri)
    syncer = Syncer(
        ledger, study_name, lambda: open_experiment(tracking_uri, study_name, ledger.uri), samples=samples, modes=modes
    )
    with _translated(tracking_uri):
        return syncer.sync(
            outcomes=outcomes, label=label, relabel=relabel, artifacts=artifacts, final=final, progress=progress
        )


def open_experiment(uri: str, name: str, store: str | None = None) -> Experiment:
    """Open or create a study's experiment. Known database schemas are written in bulk, others through MLflow's client.

    A server decides where files go; without one they go to `mlartifacts`, next to an SQLite file or in the store.

    Raises:
        TrackingError: the experiment mirrors another store, or its files are in the folder of another store.
    """
    client, location = connect(uri), artifact_location(uri, store)
    existing = client.get_experiment_by_name(name)
    if existing is not None and (place := former_place_of_files(str(existing.artifact_location), name, location)):
        raise TrackingError(f"MLflow at {without_password(uri)}: {moved_message(name, place, uri)}")
    owner = existing.tags.get(OWNER) if existing is not None else None
    if store is not None and (other := other_owner(Ledger(store), name, uri, owner)):
        raise TrackingError(
            f"MLflow at {without_password(uri)}: experiment {name!r} is the mirror of the store {other}, which is "
            f"still there, and not of {store}. Two stores would replace each other's states: give this one another "
            "--tracking-uri (the default is a database of its own)."
        )
    experiment = (BulkExperiment if writable(client) else Experiment)(client, name, location)
    if store is not None and not is_owned(store, uri, owner):
        client.set_experiment_tag(experiment.id, OWNER, store)
    return experiment


def open_database(uri: str) -> None:
    """Import MLflow and create or migrate its database, which takes seconds, while Ray starts.

    A failure is ignored here: the mirror meets it again and reports it.
    """
    with contextlib.suppress(TrackingError), _translated(uri):
        connect(uri).search_experiments(max_results=1)


def experiment_url(uri: str, name: str, served_at: str = "http://127.0.0.1:5000") -> str | None:
    """URL of a study's runs, on its server or where `vistudy ui` serves a database; None if unknown."""
    path = database_file(uri)
    if path is not None and not (path.is_file() and path.stat().st_size):
        return None
    try:
        with _translated(uri):
            experiment = connect(uri, reads=True).get_experiment_by_name(name)
    except TrackingError:
        return None
    base = without_password(uri).rstrip("/") if uri.startswith("http") else served_at
    return f"{base}/#/experiments/{experiment.experiment_id}/runs" if experiment else None


def pages(store: str, tracking_uri: str | None, host: str, port: int) -> tuple[list[str], Path | None]:
    """Build the command that serves MLflow's pages for a store, and find the folder to start it in, if it matters.

    Raises:
        TrackingError: the URI is a server already, or the database was moved and cannot be rewritten.
        StoreError: there is no such store.
    """
    uri = tracking_uri or default_tracking_uri(store)
    command, path = ui_command(uri, host, port), database_file(uri)
    if tracking_uri is None:
        Ledger(store).study_names()  # raises if there is no store
    if path is None:
        return command, None
    if path.is_file() and path.stat().st_size:
        adopt_database(path)
    else:
        open_database(uri)
    if not {"%", "?"} & set(str(path)):
        return command, None
    # MLflow 3.17 would create a folder named like the encoded path, so it gets a relative path.
    return [sqlite_uri(Path(path.name)) if part == uri else part for part in command], path.parent


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Raise every failure of MLflow, its database or the network as TrackingError."""
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        shown = without_password(uri)
        lines = str(error).replace(uri, shown).strip().splitlines() or [type(error).__name__]
        remedy = "Start it or correct --tracking-uri"
        if getattr(error, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            remedy = (
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it takes"
            )
        raise TrackingError(
            f"MLflow at {shown} does not answer or refuses: {lines[0][:300]}. Nothing is lost: the ledger has every "
            f"record. {remedy}, then `vistudy sync` writes what is missing."
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorStatus:
    """State of the mirror, for a status line."""

    behind: int = 0
    """Evaluations of packs that are in the ledger and not in MLflow."""
    error: str | None = None
    """Message of the last sync, if it failed."""
    failures: int = 0
    """Consecutive syncs that failed."""
    synced_at_s: float | None = None
    """Unix time of the last sync that succeeded."""


class Mirror:
    """Thread that syncs a running study every few seconds. Its failures become a status, never an exception."""

    def __init__(
        self,
        ledger: Ledger,
        study: str,
        uri: str,
        label: LabelFn | None = None,
        every_s: float = 10.0,
        *,
        running_every_s: float = 0.0,
        modes: Mapping[str, Any] | None = None,
    ) -> None:
        """`running_every_s`: how often to sync trials that have not ended as well, which costs one call each."""
        check_tracking_uri(uri)
        self._ledger, self._uri, self._every_s, self._running_every_s = ledger, uri, every_s, running_every_s
        self._running_at = time.monotonic()
        self._label = label
        self._syncer = Syncer(ledger, study, lambda: open_experiment(uri, study, ledger.uri), modes=modes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vistudy-mirror", daemon=True)
        self._synced_progress: dict[str, int] = {}
        self._status = MirrorStatus()

    @property
    def status(self) -> MirrorStatus:
        """Current state."""
        return self._status

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, final: bool = True, artifacts: Sequence[Path] = ()) -> MirrorStatus:
        """Stop the thread, wait for a sync in progress, and sync once more.

        Args:
            final: training has ended: close all runs.
            artifacts: files for the parent run.

        Returns:
            The state after it; `error` is set if MLflow is still incomplete.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sync_once(final=final, artifacts=artifacts)
        return self._status

    def _work(self) -> None:
        gc.freeze()  # keeps half a million imported objects out of every collection: a tenth of a sync
        while not self._stop.is_set():
            began = time.monotonic()
            self._sync_once(final=False)
            # Back off from a slow server or an outage: wait at least as long as a sync takes, at most a minute.
            pause_s = max(self._every_s, time.monotonic() - began) * 2 ** min(self._status.failures, 6)
            self._stop.wait(min(pause_s, max(60.0, self._every_s)))

    def _sync_once(self, *, final: bool, artifacts: Sequence[Path] = ()) -> None:
        try:
            now = self._ledger.progress()
            self._status = replace(self._status, behind=n_new_evaluations(now, self._synced_progress))
            with _translated(self._uri):
                running = final or time.monotonic() - self._running_at >= self._running_every_s
                report = self._syncer.sync(label=self._label, artifacts=artifacts, final=final, running=running)
                self._running_at = time.monotonic() if running else self._running_at
            self._synced_progress = now
            self._status = MirrorStatus(behind=report.behind, synced_at_s=time.time())
        except Exception as error:  # the study continues whatever it is: the ledger has every record
            if not isinstance(error, StudyError):
                logging.getLogger("vistudy.tracking").exception("the mirror failed")
            message = str(error) or type(error).__name__
            self._status = replace(self._status, error=message, failures=self._status.failures + 1)
