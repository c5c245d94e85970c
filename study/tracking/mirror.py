"""The mirror: ledger -> MLflow, by one writer, in batches. With `experiment` and `bulk` all that knows MLflow.

What a run holds: `docs/records.md`. Training never waits for this. An MLflow that is down, slow or wiped costs nothing:
the next `sync` writes what is missing, with the ledger's timestamps, and nothing twice.
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
from vistudy.study.tracking.locations import OWNER, elsewhere_in, elsewhere_text, other_owner, owned, settle
from vistudy.study.tracking.sql import BulkExperiment, writable
from vistudy.study.tracking.sync import Judge, Labels, Syncer, SyncReport, newer
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
    judge: Judge | None = None,
    relabel: bool = False,
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
        relabel: ask the judge about trials whose runs have ended, too, and bring their tags up to its rules.
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
    syncer = Syncer(
        ledger, study_name, lambda: open_experiment(tracking_uri, study_name, ledger.uri), samples=samples, modes=modes
    )
    with _translated(tracking_uri):
        return syncer.sync(
            outcomes=outcomes, judge=judge, relabel=relabel, artifacts=artifacts, final=final, progress=progress
        )


def open_experiment(uri: str, name: str, store: str | None = None) -> Experiment:
    """A study's experiment, made if it is not there: in bulk where that is known to be safe, else call by call.

    Pictures go where the server wants them; without a server into `mlartifacts`, beside an SQLite file or in the store.

    Raises:
        TrackingError: it is the mirror of another store, or its pictures are in the folder of another.
    """
    client, location = connect(uri), artifact_location(uri, store)
    found = client.get_experiment_by_name(name)
    if found is not None and (place := elsewhere_in(str(found.artifact_location), name, location)):
        raise TrackingError(f"MLflow at {without_password(uri)}: {elsewhere_text(name, place, uri)}")
    before = found.tags.get(OWNER) if found is not None else None
    if store is not None and (other := other_owner(Ledger(store), name, uri, before)):
        raise TrackingError(
            f"MLflow at {without_password(uri)}: experiment {name!r} is the mirror of the store {other}, which is "
            f"still there, and not of {store}. Two stores would replace each other's states: give this one another "
            "--tracking-uri (the default is a database of its own)."
        )
    made = (BulkExperiment if writable(client) else Experiment)(client, name, location)
    if store is not None and not owned(store, uri, before):
        client.set_experiment_tag(made.id, OWNER, store)
    return made


def open_database(uri: str) -> None:
    """Import MLflow and make or migrate its database: some seconds that may pass while Ray starts.

    A failure is not told here: the mirror meets it again, and tells it.
    """
    with contextlib.suppress(TrackingError), _translated(uri):
        connect(uri).search_experiments(max_results=1)


def experiment_url(uri: str, name: str, served_at: str = "http://127.0.0.1:5000") -> str | None:
    """Page of a study's runs, on its server or where `vistudy ui` serves a database; None if unknown."""
    path = database_file(uri)
    if path is not None and not (path.is_file() and path.stat().st_size):
        return None
    try:
        with _translated(uri):
            found = connect(uri, reads=True).get_experiment_by_name(name)
    except TrackingError:
        return None
    base = without_password(uri).rstrip("/") if uri.startswith("http") else served_at
    return f"{base}/#/experiments/{found.experiment_id}/runs" if found else None


def pages(store: str, tracking_uri: str | None, host: str, port: int) -> tuple[list[str], Path | None]:
    """Command that serves MLflow's pages for a store, and the folder to start it in, if it matters.

    Raises:
        TrackingError: the URI is a server already, or the database is of another place and cannot be mended.
        StoreError: there is no such store.
    """
    uri = tracking_uri or default_tracking_uri(store)
    command, path = ui_command(uri, host, port), database_file(uri)
    if tracking_uri is None:
        Ledger(store).study_names()  # raises if it is no store
    if path is None:
        return command, None
    if path.is_file() and path.stat().st_size:
        settle(path)
    else:
        open_database(uri)
    if not {"%", "?"} & set(str(path)):
        return command, None
    # MLflow 3.17 would make a folder that is named as the encoded path: it gets a path without one.
    return [sqlite_uri(Path(path.name)) if part == uri else part for part in command], path.parent


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Every failure of MLflow, its database or the network as one TrackingError."""
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        shown = without_password(uri)
        lines = str(error).replace(uri, shown).strip().splitlines() or [type(error).__name__]
        mend = "Start it or mend --tracking-uri"
        if getattr(error, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            mend = (
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it takes"
            )
        raise TrackingError(
            f"MLflow at {shown} does not answer or refuses: {lines[0][:300]}. Nothing is lost: the ledger has every "
            f"record. {mend}, then `vistudy sync` writes what is missing."
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
        self._syncer = Syncer(ledger, study, lambda: open_experiment(uri, study, ledger.uri), modes=modes)
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
