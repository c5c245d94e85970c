"""Decide what follows the end of an attempt: nothing, a retry, a split, or a failed trial. Knows no Ray.

Infrastructure failures are retried with a growing delay, as long as the pack makes progress. A pack that makes none,
or whose code or memory fails, is split in half repeatedly, until only the trial that causes it becomes `failed`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vistudy.analysis.ledger.documents import PackRecord
from vistudy.analysis.ledger.errors import DISK_FULL_ERRNOS, RunAbortedError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.packing.packs import Pack, pack_id
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.models import config_from_dict

MAX_STALLED_DEATHS = 3
"""Consecutive deaths without progress after which a pack is split."""
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
"""Delay in seconds before the second attempt; doubled for each further one."""
FILLER_SEED_OFFSET = 1_000_003
"""Offset between the seeds of filler trials and of real ones."""
MAX_INFRASTRUCTURE_FAILURES = 5
"""Consecutive failures of the store or of nodes, without a success in between, after which the run stops."""

INFRASTRUCTURE = {
    "store": "the store failed",
    "node": "a node cannot train it",
    "data": "a node has other data",
}
"""Failures of a node rather than of a pack, in words: another node may be able to train it."""

_log = logging.getLogger("vistudy.supervisor")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionResult:
    """How a run's packs ended."""

    wall_s: float
    interrupted: bool
    """Whether unfinished packs remain."""


@dataclass(kw_only=True, slots=True)
class _Job:
    """A queued pack."""

    pack: Pack
    is_half: bool = False
    """Whether it is half of a pack that was split."""
    ready_at: float = 0.0
    deaths: int = 0
    progress: tuple[int, int] = (-1, -1)
    """Last recorded evaluation and D updates in the last checkpoint, at its latest death."""
    tries: int = 0
    """Consecutive failed attempts, for any reason."""


class Supervisor:
    """A queue of packs: `next` returns one that is due; `ended` or `died` reports its end."""

    def __init__(
        self,
        packs: Sequence[Pack],
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        one_machine: bool = False,
    ) -> None:
        """`one_machine`: there is no other machine that could train the packs."""
        self._ledger, self._clock, self._now_ms, self._one_machine = ledger, clock, now_ms, one_machine
        self._waiting = [_Job(pack=pack) for pack in packs]
        self._running: dict[str, _Job] = {}
        self._infrastructure_failures = 0
        self.stopping = False
        """Whether no further pack is started."""
        self.abandoned = 0
        """Number of packs that were abandoned."""
        self.fatal_error: RunAbortedError | None = None
        """Failure of the store or of a node that stopped the run."""
        self.splits = self.retries = 0

    @property
    def finished(self) -> bool:
        """Whether the queue is empty and nothing runs; when stopping, whether nothing runs."""
        return self.stopping or not (self._waiting or self._running)

    @property
    def n_unfinished(self) -> int:
        """Number of unfinished packs."""
        return self.abandoned + len(self._waiting) + len(self._running)

    def stop(self) -> None:
        """Start no further packs."""
        self.stopping = True

    def mark_stopped(self) -> None:
        """Record in the store that packs whose workers were killed from outside are not running."""
        for name in self._running:
            with contextlib.suppress(StudyError):  # the watchdog will notice then
                self._ledger.mark_stopped(name)

    def next(self) -> Pack | None:
        """Return the first pack that is due, None if there is none now."""
        if self.stopping:
            return None
        now = self._clock()
        for place, job in enumerate(self._waiting):
            if job.ready_at <= now:
                del self._waiting[place]
                self._running[job.pack.pack_id] = job
                return job.pack
        return None

    def ended(self, name: str, result: dict[str, Any]) -> None:
        """Report that an attempt has returned; `result` is that of `train_pack`."""
        job, end = self._running.pop(name), str(result["status"])
        if end == "complete":
            self._infrastructure_failures = 0
        elif end == "stopped":
            self.abandoned += 1
        elif end in INFRASTRUCTURE:
            self._infrastructure_failed(job, end, str(result["text"]), int(result["errno"]))
        else:
            self._split_or_fail(job, str(result["text"]), memory=end == "memory")

    def died(self, name: str, error: str, *, hung: bool = False) -> None:
        """Report that the process of an attempt has died of `error`. `hung`: the watchdog killed it."""
        job = self._running.pop(name)
        if not self._unfinished(job.pack):
            return
        beat = self._ledger.heartbeat(name) or {}
        progress = max(job.progress, (self._ledger.progress_of(name), int(beat.get("saved_updates", -1))))
        job.deaths = job.deaths + 1 if progress <= job.progress else 1
        job.progress = progress
        crash = self._ledger.read_crash_log(name)
        if job.deaths < MAX_STALLED_DEATHS and not (job.is_half and len(self._unfinished(job.pack)) > 1):
            _log.warning("pack %s: its process died (%s); it resumes from its checkpoint", name, _first_line(error))
            self._retry(job)
            return
        where = f" after update {beat['d_updates']} of D" if beat else ""
        reason = f"the worker process died {job.deaths} times without progress, the last time{where}: {error}"
        # A process without a last message may have been killed for its memory: then only smaller packs help.
        self._split_or_fail(job, f"{reason}\n{crash}" if crash else reason, memory=not (crash or hung))

    def _retry(self, job: _Job) -> None:
        job.ready_at = self._clock() + min(LONGEST_BACKOFF_S, BACKOFF_S * 2**job.tries)
        job.tries += 1
        self.retries += 1
        self._waiting.append(job)

    def _infrastructure_failed(self, job: _Job, kind: str, text: str, number: int) -> None:
        self._infrastructure_failures += 1
        hopeless = number in DISK_FULL_ERRNOS or (kind != "store" and self._one_machine)
        if not hopeless and self._infrastructure_failures < MAX_INFRASTRUCTURE_FAILURES:
            _log.warning(
                "pack %s: %s (%s); it is tried again", job.pack.pack_id, INFRASTRUCTURE[kind], _last_line(text)
            )
            self._retry(job)
            return
        self.abandoned += 1
        why = os.strerror(number) if number in DISK_FULL_ERRNOS else _last_line(text)
        if kind == "data":
            self.fatal_error = RunAbortedError(f"{text}. The run has stopped; recorded data are intact.")
            self.stop()
            return
        what, remedy = (
            (f"store {self._ledger.uri}: {why}", "Fix that (space, permissions)")
            if kind == "store"
            else (f"cluster: {why}", "Fix that")  # the message of a node says how
        )
        self.fatal_error = RunAbortedError(
            f"{what}. The run has stopped; recorded data are intact. {remedy}; the same command resumes from the last "
            "checkpoints."
        )
        self.stop()

    def _unfinished(self, pack: Pack) -> list[TrainConfig]:
        done = self._ledger.finished_trials()
        return [config for config in pack.configs if config.trial_id() not in done]

    def _split_or_fail(self, job: _Job, why: str, *, memory: bool) -> None:
        unfinished = self._unfinished(job.pack)
        if len(unfinished) > 1:
            _log.warning("pack %s is split to find the trial that fails: %s", job.pack.pack_id, _last_line(why))
            middle = (len(unfinished) + 1) // 2
            self._waiting += [
                self._split_off(job.pack, half, memory=memory) for half in (unfinished[:middle], unfinished[middle:])
            ]
            self.splits += 1
        for config in unfinished if len(unfinished) == 1 else ():
            self._fail(job.pack, config.trial_id(), why)

    def _split_off(self, parent: Pack, configs: Sequence[TrainConfig], *, memory: bool) -> _Job:
        """Create and store a new pack. It is newer than its parent, so a later run prefers it.

        Unless it must need less memory, it keeps its parent's size, and each trial keeps its slot: matrix libraries
        choose kernels by size, so only then do records stay bitwise equal. Filler trials occupy the other slots.
        """
        ids = [config.trial_id() for config in configs]
        stored = self._ledger.read_pack(parent.pack_id)
        half = Pack(pack_id=pack_id(ids), configs=tuple(configs), cost=parent.cost)
        record: PackRecord = {
            **stored,
            "pack_id": half.pack_id,
            "trial_ids": ids,
            "trials": [config.to_dict() for config in configs],
            "created_ms": max(self._now_ms(), stored["created_ms"] + 1),
        }
        slots = record.pop("slots", stored["trials"])
        if not memory:
            members = {c.trial_id(): c for c in configs}
            parents = [config_from_dict(slot) for slot in slots]
            filled = [members.get(c.trial_id()) or filler_trial(configs[0], i) for i, c in enumerate(parents)]
            record["slots"] = [c.to_dict() for c in filled]
        self._ledger.write_pack(record)
        return _Job(pack=half, is_half=True)

    def _fail(self, pack: Pack, trial_id: str, why: str) -> None:
        self._finish(pack, trial_id, "failed", 0.0, why)

    def _finish(self, pack: Pack, trial_id: str, state: str, wall_s: float, why: str | None) -> None:
        self._ledger.finish_trial(
            {
                "trial_id": trial_id,
                "state": state,
                "wall_s": wall_s,
                "error": why,
                "unix_ms": self._now_ms(),
                "pack_id": pack.pack_id,
                "attempt": max(self._ledger.attempts(pack.pack_id), default=1),
                "device": "",
                "versions": {},
            }
        )


def filler_trial(like: TrainConfig, place: int) -> TrainConfig:
    """Return a dummy trial that fills a slot and is not recorded."""
    return dataclasses.replace(like, seed=like.seed + FILLER_SEED_OFFSET * (place + 1))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:600]


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
