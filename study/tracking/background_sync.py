"""Thread that copies a running study to MLflow."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.mirror import open_experiment, translate_errors
from vistudy.study.tracking.sync import LabelFn, Syncer, n_new_evaluations
from vistudy.study.tracking.uri import check_tracking_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncStatus:
    """State of the background sync, for a status line."""

    behind: int = 0
    """Evaluations of packs that are in the ledger and not in MLflow."""
    error: str | None = None
    """Message of the last sync, if it failed."""
    failures: int = 0
    """Consecutive syncs that failed."""
    synced_at_s: float | None = None
    """Unix time of the last sync that succeeded."""


class BackgroundSync:
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
        self._status = SyncStatus()

    @property
    def status(self) -> SyncStatus:
        """Current state."""
        return self._status

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, final: bool = True, artifacts: Sequence[Path] = ()) -> SyncStatus:
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
            with translate_errors(self._uri):
                running = final or time.monotonic() - self._running_at >= self._running_every_s
                report = self._syncer.sync(label=self._label, artifacts=artifacts, final=final, running=running)
                self._running_at = time.monotonic() if running else self._running_at
            self._synced_progress = now
            self._status = SyncStatus(behind=report.behind, synced_at_s=time.time())
        except Exception as error:  # the study continues whatever it is: the ledger has every record
            if not isinstance(error, StudyError):
                logging.getLogger("vistudy.tracking").exception("the mirror failed")
            message = str(error) or type(error).__name__
            self._status = replace(self._status, error=message, failures=self._status.failures + 1)
