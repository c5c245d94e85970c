"""Signs between a run and its workers, as files of the store: a worker's sign of life, a run's wish that they stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from study import journal
from study.storage import Storage
from study.studyfiles import dump, safe

HEARTBEAT = "heartbeat.json"


class Signs(ABC):
    """Part of `study.ledger.Ledger`. Files, because every node sees the store, and nothing else is shared."""

    uri: str
    _disk: Storage

    @abstractmethod
    def attempts(self, pack_id: str) -> list[int]:
        """Numbers of a pack's attempts, ascending."""

    def heartbeat(self, pack_id: str) -> dict[str, Any] | None:
        """What the newest attempt of a pack last said of itself; None if it has said nothing yet.

        Clocks of nodes differ and jump: whether it is alive shows in that this changes, not in the time it bears.
        """
        number = max(self.attempts(pack_id), default=0)
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

    def ask_stop(self, run: str) -> None:
        """Ask the workers of a run to write a checkpoint and end."""
        self._disk.write(f"stops/{safe(run, 'run')}.json", dump({"run": run}))

    def stop_asked(self, run: str) -> bool:
        """Whether the workers of a run are to end."""
        return bool(run) and self._disk.exists(f"stops/{safe(run, 'run')}.json")

    def withdraw_stop(self, run: str) -> None:
        """Take `ask_stop` back: the run has ended."""
        self._disk.remove(f"stops/{safe(run, 'run')}.json")
