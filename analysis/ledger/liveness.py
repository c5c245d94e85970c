"""Signs between a run and its workers, as files of the store: a worker's sign of life, a run's wish that they stop."""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger import attempt as journal
from vistudy.analysis.ledger.atomic_files import FileStore, Holder
from vistudy.analysis.ledger.study_files import check_name, to_json_bytes

HEARTBEAT = "heartbeat.json"
SILENT_MS = 60_000
"""A pack of a run that holds no lock counts as being trained for so long after its last sign of life."""
SKEW_MS = 2_000
"""Clocks of nodes may differ by that."""


class WorkerSignals(ABC):
    """Part of `analysis.ledger.ledger.Ledger`. Files, because every node sees the store, and nothing else is shared."""

    uri: str
    _disk: FileStore

    @abstractmethod
    def attempts(self, pack_id: str) -> list[int]:
        """Numbers of a pack's attempts, ascending."""

    @abstractmethod
    def packs(self) -> dict[str, dict[str, Any]]:
        """Every pack: pack_id -> content of its `pack.json`."""

    def runner(self, study: str) -> Holder | None:
        """The process that runs a study at this moment, as far as locks tell."""
        return self._disk.holder(f"studies/{check_name(study, 'study')}", "run")

    def live(self, study: str, trial_ids: Collection[str]) -> set[str]:
        """Those of `trial_ids` that are being trained now, by a run of this study or of another that shares them.

        A run that holds the study's lock trains the packs that have given a sign of life since it took it. Without a
        lock (object stores; workers that outlive a killed driver for a moment; another study's run) a sign counts
        while it is fresh and, if it is this machine's, its process is there.
        """
        runner, now = self.runner(study), time.time_ns() // 1_000_000
        since = int(runner.since_s * 1000) if runner else None
        wanted, found = set(trial_ids), set[str]()
        for pack_id, pack in self.packs().items() if wanted else ():
            mine = wanted.intersection(pack.get("trial_ids", ()))
            if mine and (sign := self.heartbeat(pack_id)) and _alive(sign, since, now):
                found |= mine
        return found

    def lay_down(self, pack_id: str) -> None:
        """Say that nobody trains a pack any more, for a worker that was ended before it could."""
        if sign := self.heartbeat(pack_id):
            path = f"{journal.attempt_path(pack_id, sign.pop('attempt'))}/{HEARTBEAT}"
            self._disk.write(path, to_json_bytes(sign | {"over": True}))

    def saved_updates(self, pack_id: str) -> int:
        """Updates of D in the newest checkpoint of a pack, as far as its attempts have said; 0 if there is none."""
        said = 0
        for number in self.attempts(pack_id):
            if journal.list_files(self._disk, pack_id, number, "checkpoint"):
                said = max(said, int((self._beat(pack_id, number) or {}).get("saved_updates", 0)))
        return said

    def heartbeat(self, pack_id: str) -> dict[str, Any] | None:
        """What the newest attempt of a pack last said of itself; None if it has said nothing yet.

        Clocks of nodes differ and jump: whether it hangs shows in that this changes, not in the time it bears.
        """
        return self._beat(pack_id, max(self.attempts(pack_id), default=0))

    def _beat(self, pack_id: str, number: int) -> dict[str, Any] | None:
        try:
            return self._disk.read_json(f"{journal.attempt_path(pack_id, number)}/{HEARTBEAT}") | {"attempt": number}
        except FileNotFoundError:
            return None

    def crash(self, pack_id: str) -> str:
        """Where the newest attempt's process was when it crashed, as Python's fault handler wrote it, or nothing."""
        number = max(self.attempts(pack_id), default=0)
        try:
            return self._disk.read(f"{journal.attempt_path(pack_id, number)}/{journal.CRASH}").decode(errors="replace")
        except FileNotFoundError:
            return ""

    def request_stop(self, run: str) -> None:
        """Ask the workers of a run to write a checkpoint and end."""
        self._disk.write(f"stops/{check_name(run, 'run')}.json", to_json_bytes({"run": run}))

    def stop_requested(self, run: str) -> bool:
        """Whether the workers of a run are to end."""
        return bool(run) and self._disk.exists(f"stops/{check_name(run, 'run')}.json")

    def clear_stop_request(self, run: str) -> None:
        """Take `request_stop` back: the run has ended."""
        self._disk.remove(f"stops/{check_name(run, 'run')}.json")


def _alive(sign: Mapping[str, Any], held_since_ms: int | None, now: int) -> bool:
    """Whether a pack whose last sign of life was `sign` is being trained."""
    if sign.get("over"):
        return False
    said = int(sign.get("unix_ms", 0))
    if held_since_ms is not None and said >= held_since_ms - SKEW_MS:
        return True
    there = sign.get("host") != socket.gethostname() or _exists(int(sign["pid"]))
    return there and now - said < SILENT_MS


def _exists(pid: int) -> bool:
    """Whether a process of this machine is there. One that has ended and waits for its parent is not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # another user's; or a system without /proc
        return True
