"""Heartbeats, crash logs and stop requests, exchanged between a run and its workers as files in the store."""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import cast

from vistudy.analysis.ledger.atomic_files import FileStore, Holder
from vistudy.analysis.ledger.attempt import CRASH_LOG, attempt_path, list_files
from vistudy.analysis.ledger.documents import Heartbeat, PackRecord
from vistudy.analysis.ledger.study_files import check_name, to_json_bytes

HEARTBEAT = "heartbeat.json"
HEARTBEAT_TIMEOUT_MS = 60_000
"""A pack of a run without a lock counts as being trained for this long after its last heartbeat."""
CLOCK_SKEW_MS = 2_000
"""Allowed difference between the clocks of nodes."""


class WorkerSignals(ABC):
    """Part of `analysis.ledger.ledger.Ledger`. The store is the only thing that all nodes share."""

    uri: str
    _files: FileStore

    @abstractmethod
    def attempts(self, pack_id: str) -> list[int]:
        """Numbers of a pack's attempts, ascending."""

    @abstractmethod
    def packs(self) -> dict[str, PackRecord]:
        """Every pack: pack_id -> content of its `pack.json`."""

    def runner(self, study: str) -> Holder | None:
        """The process that holds the lock of a study's run; None if there is none, or no locks."""
        return self._files.holder(f"studies/{check_name(study, 'study')}", "run")

    def live(self, study: str, trial_ids: Collection[str]) -> set[str]:
        """Select those of `trial_ids` that are being trained now, by a run of this study or of another one.

        A run that holds the study's lock trains the packs with a heartbeat since it took the lock. Without a lock
        (object stores, workers that outlive a killed driver for a moment, a run of another study) a heartbeat counts
        while it is recent and, if it comes from this machine, its process exists.
        """
        runner, now = self.runner(study), time.time_ns() // 1_000_000
        since = int(runner.since_s * 1000) if runner else None
        alive = set[str]()
        for pack_id, pack in self.packs().items() if trial_ids else ():
            members = set(trial_ids).intersection(pack.get("trial_ids", ()))
            if members and (beat := self.heartbeat(pack_id)) and _is_alive(beat, since, now):
                alive |= members
        return alive

    def mark_stopped(self, pack_id: str) -> None:
        """Write the last heartbeat of a pack whose worker was ended before it could write it."""
        if beat := self.heartbeat(pack_id):
            path = f"{attempt_path(pack_id, beat.pop('attempt'))}/{HEARTBEAT}"
            self._files.write(path, to_json_bytes(beat | {"over": True}))

    def saved_updates(self, pack_id: str) -> int:
        """Updates of D in the newest checkpoint of a pack, according to heartbeats; 0 if there is none."""
        saved = [0]
        for number in self.attempts(pack_id):
            if list_files(self._files, pack_id, number, "checkpoint"):
                saved.append(int((self._beat(pack_id, number) or {}).get("saved_updates", 0)))
        return max(saved)

    def heartbeat(self, pack_id: str) -> Heartbeat | None:
        """Read the last heartbeat of a pack's newest attempt; None if there is none yet.

        Clocks of nodes differ and jump: a worker hangs if its heartbeat stops changing, whatever its timestamp.
        """
        return self._beat(pack_id, max(self.attempts(pack_id), default=0))

    def _beat(self, pack_id: str, number: int) -> Heartbeat | None:
        try:
            beat = self._files.read_json(f"{attempt_path(pack_id, number)}/{HEARTBEAT}")
            return cast("Heartbeat", beat | {"attempt": number})
        except FileNotFoundError:
            return None

    def read_crash_log(self, pack_id: str) -> str:
        """Read the traceback that the fault handler wrote when the newest attempt crashed; empty if there is none."""
        number = max(self.attempts(pack_id), default=0)
        try:
            return self._files.read(f"{attempt_path(pack_id, number)}/{CRASH_LOG}").decode(errors="replace")
        except FileNotFoundError:
            return ""

    def request_stop(self, run: str) -> None:
        """Ask the workers of a run to write a checkpoint and stop."""
        self._files.write(f"stops/{check_name(run, 'run')}.json", to_json_bytes({"run": run}))

    def stop_requested(self, run: str) -> bool:
        """Whether the workers of a run have been asked to stop."""
        return bool(run) and self._files.exists(f"stops/{check_name(run, 'run')}.json")

    def clear_stop_request(self, run: str) -> None:
        """Remove the request once the run has ended."""
        self._files.remove(f"stops/{check_name(run, 'run')}.json")


def _is_alive(beat: Heartbeat, locked_since_ms: int | None, now_ms: int) -> bool:
    """Whether the pack with this heartbeat is being trained."""
    if beat.get("over"):
        return False
    beat_ms = int(beat.get("unix_ms", 0))
    if locked_since_ms is not None and beat_ms >= locked_since_ms - CLOCK_SKEW_MS:
        return True
    process_exists = beat.get("host") != socket.gethostname() or _exists(int(beat["pid"]))
    return process_exists and now_ms - beat_ms < HEARTBEAT_TIMEOUT_MS


def _exists(pid: int) -> bool:
    """Whether a process of this machine runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # another user's; or a system without /proc
        return True
