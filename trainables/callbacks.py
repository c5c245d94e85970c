"""What a worker does while it trains a pack: checkpoints, heartbeats and stop requests, through an open journal.

The protocols `Journal` and `Attempt` state what training needs of the ledger, so that nothing here imports it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vistudy.trainables.engine import Engine, Evaluation

STOP_POLL_S = 1.0
"""Seconds between two checks for a stop request."""
HEARTBEAT_INTERVAL_S = 5.0
"""Seconds between two heartbeats while a pack trains."""
CHECKPOINT_SHARE = 33.0
"""Least ratio of training time to the duration of a checkpoint: checkpoints cost under 3 %."""

EvaluationCallback = Callable[[Evaluation, Mapping[str, float]], None]
"""Called with an evaluation and the pack's reference values."""


class Attempt(Protocol):
    """The only writer of one attempt at a pack."""

    number: int

    @property
    def crash_file(self) -> Path | None:
        """File for the fault handler; None where the store is no local folder."""

    def append(self, records: Sequence[Mapping[str, Any]], unix_ms: int) -> None:
        """Store the records of one evaluation."""

    def checkpoint(self, evaluation: int, payload: bytes) -> None:
        """Store the state after an evaluation."""

    def samples(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store samples by trial_id."""

    def weights(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store trained parameters by `<trial_id>/<net>/<parameter>`."""

    def write_heartbeat(self, payload: Mapping[str, Any]) -> None:
        """Replace the heartbeat."""


class Journal(Protocol):
    """What the worker needs of the ledger."""

    def read_pack(self, pack_id: str) -> Mapping[str, Any]:
        """The trials and settings of a pack."""

    def open_attempt(self, pack_id: str) -> Attempt:
        """Begin the next attempt at a pack."""

    def latest_checkpoint(self, pack_id: str) -> tuple[int, bytes] | None:
        """(evaluation, payload) of the newest valid checkpoint; None if there is none."""

    def finished_trials(self) -> set[str]:
        """Ids of the trials that have ended."""

    def finish_trial(self, outcome: Mapping[str, Any]) -> None:
        """Store that a trial has ended."""

    def stop_requested(self, run: str) -> bool:
        """Whether the workers of a run have been asked to stop."""


class Stopped(Exception):
    """The run asked its workers to stop; a checkpoint has been written."""


class StoreFailed(Exception):
    """The store failed during training. This is not an error of the training code."""


class PackCallback:
    """Writes checkpoints and heartbeats, and polls for stop requests, between periods and after evaluations."""

    def __init__(self, ledger: Journal, attempt: Attempt, *, every_s: float, run: str, node_id: str) -> None:
        """Prepare for one attempt.

        Args:
            ledger: checked for stop requests.
            attempt: receives checkpoints and heartbeats.
            every_s: least number of seconds between checkpoints; 0: one per evaluation.
            run: whose stop requests apply.
            node_id: the node, written into heartbeats.
        """
        self._ledger, self._attempt, self._every_s, self._run = ledger, attempt, every_s, run
        self._process = {"host": socket.gethostname(), "pid": os.getpid(), "place": node_id}
        self._last_checkpoint = self._last_poll = self._last_heartbeat = time.monotonic()
        self._checkpoint_s, self._saved_updates, self._d_updates = 0.0, 0, 0
        self.engine: Engine | None = None

    def close(self) -> None:
        """Write the last heartbeat: this process no longer trains the pack."""
        with contextlib.suppress(Exception):  # a failing store has raised before, or will on its next use
            self.heartbeat(over=True)

    def start(self, engine: Engine) -> None:
        """Begin with an engine that is at the start of training or at a checkpoint."""
        self.engine, self._saved_updates = engine, engine.pack.d_updates
        self.heartbeat()

    def __call__(self) -> None:
        """Run between two periods. Most calls only read the clock.

        Raises:
            Stopped: a stop was requested.
            StoreFailed: the store failed.
        """
        now = time.monotonic()
        if now - self._last_poll < STOP_POLL_S:
            return
        try:
            self._poll(now)
            if self._every_s and self._checkpoint_due(now):
                self._save()
        except Stopped:
            raise
        except Exception as error:
            raise StoreFailed from error

    def after_evaluation(self) -> None:
        """Run after an evaluation whose records have been stored."""
        now = time.monotonic()
        if now - self._last_poll >= STOP_POLL_S:
            self._poll(now)
        if self._checkpoint_due(now):
            self._save()

    def _checkpoint_due(self, now: float) -> bool:
        interval_s = self._every_s and max(self._every_s, CHECKPOINT_SHARE * self._checkpoint_s)
        return now - self._last_checkpoint >= interval_s

    def _poll(self, now: float) -> None:
        self._last_poll = now
        if self._ledger.stop_requested(self._run):
            self._save()
            raise Stopped
        if now - self._last_heartbeat >= HEARTBEAT_INTERVAL_S:
            self.heartbeat()

    def _save(self) -> None:
        assert self.engine is not None
        began = time.monotonic()
        if not self.engine.next_evaluation:
            return
        self._attempt.checkpoint(self.engine.next_evaluation - 1, self.engine.checkpoint())
        self._last_checkpoint = time.monotonic()
        self._checkpoint_s, self._saved_updates = self._last_checkpoint - began, self.engine.pack.d_updates
        self.heartbeat()

    def heartbeat(self, *, over: bool = False) -> None:
        """Write a heartbeat: the updates of D so far, and how many of them a checkpoint holds. `over`: the last one."""
        self._last_heartbeat = time.monotonic()
        self._d_updates = self.engine.pack.d_updates if self.engine else self._d_updates
        progress = {
            "d_updates": self._d_updates,
            "saved_updates": self._saved_updates,
            "up_s": round(self._last_heartbeat, 3),
        }
        self._attempt.write_heartbeat(self._process | progress | {"unix_ms": time.time_ns() // 1_000_000, "over": over})


@contextlib.contextmanager
def crash_log(path: Path | None) -> Iterator[None]:
    """Write a traceback into `path` if this process crashes (SIGSEGV, SIGBUS, SIGFPE, SIGABRT) inside the block."""
    if path is None:
        yield
        return
    before = faulthandler.is_enabled()
    with path.open("w") as file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()
            if before and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__)
    path.unlink(missing_ok=True)
