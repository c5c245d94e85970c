"""The one Ray Tune trainable: a pack in, records out to its journal. Nothing here talks to a network but the store.

What can be caught is returned, as an `end`: the pack is complete, it was asked to stop, the training code or the memory
failed it, the store did, or this machine lacks what the pack needs. So what Tune sees as a failure is the death of a
process. `vistudy.study.execution.supervisor` decides what follows; the next attempt goes on from the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vistudy.trainables.data import DataError, OtherData
from vistudy.trainables.engine import Engine, Evaluation
from vistudy.trainables.node_checks import NodeFailed, check_data, check_versions, lacking, trial_configs, versions

LOOK_EVERY_S = 1.0
"""How often a pack looks whether it is to stop."""
BEAT_EVERY_S = 5.0
"""How often a pack gives a sign of life while it trains."""
CHECKPOINT_SHARE = 33.0
"""A checkpoint is followed by at least this many times its own duration of training: it costs under 3 %."""
CONTEXT_BYTES = 600 * 2**20
"""Of a GPU's memory, for a process that uses it, before any tensor."""


class Attempt(Protocol):
    """The one writer of one try at a pack."""

    number: int

    @property
    def crash_file(self) -> Path | None:
        """Where the fault handler may write."""

    def append(self, records: Sequence[Mapping[str, Any]], unix_ms: int) -> None:
        """Store one evaluation's records."""

    def checkpoint(self, evaluation: int, payload: bytes) -> None:
        """Store the state after an evaluation."""

    def samples(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store samples by trial_id."""

    def weights(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store trained parameters by `<trial_id>/<net>/<parameter>`."""

    def beat(self, said: Mapping[str, Any]) -> None:
        """Replace the sign of life."""


class Journal(Protocol):
    """What the trainable needs of the ledger."""

    def read_pack(self, pack_id: str) -> dict[str, Any]:
        """The pack's trials and settings."""

    def open_attempt(self, pack_id: str) -> Attempt:
        """Begin the next attempt."""

    def latest_checkpoint(self, pack_id: str) -> tuple[int, bytes] | None:
        """(evaluation, payload) of the newest good checkpoint."""

    def done(self) -> set[str]:
        """Trials that have ended."""

    def finish_trial(self, outcome: dict[str, Any]) -> None:
        """Store that a trial has ended."""

    def stop_asked(self, run: str) -> bool:
        """Whether the workers of a run are to end."""


Evaluated = Callable[[Evaluation, Mapping[str, float]], None]


class Stopped(Exception):
    """The run asked its workers to end; a checkpoint has been written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """An error of the training code, as text: the exception itself would keep the engine's memory."""

    end: str
    text: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return cls(end="memory" if memory else "error", text="".join(traceback.format_exception(error)))


class _StoreFailed(Exception):
    """The store failed in the middle of training. It is no error of the training code."""


def train_pack(
    config: Mapping[str, Any],
    *,
    journal: Callable[[], Journal],
    checkpoint_every_s: float,
    run: str = "",
    place: str = "",
    gpu_share: float = 1.0,
    judges: int = 1,
    expected: Mapping[str, str] | None = None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    evaluated: Evaluated = lambda item, reference: None,
) -> dict[str, Any]:
    """Train the pack `config["pack_id"]` to its end and return how it ended.

    Args:
        config: has the `pack_id`.
        journal: opens the store in this process.
        checkpoint_every_s: seconds of training between checkpoints, or more where they are slow; 0: every evaluation.
        run: asks its workers to stop by this name.
        place: the node, for whoever has to end this process.
        gpu_share: of a GPU that other packs train on, too. Its memory is divided likewise.
        judges: threads that judge samples.
        expected: `versions()` of the run. On a machine that has others, one that joined later, nothing is trained.
        now_ms: the time.
        evaluated: told of each evaluation but the last, when its records are stored, with the pack's reference. It may
            raise SystemExit: that is how Tune ends a trial early.

    Returns:
        `end`, one of complete, stopped, error, memory, store, node, data; `trials`, their number; `failed`, of those
        the failed ones; `text`, a traceback, or what a node lacks and what to do; `errno` of the store's failure or 0.

    Raises:
        torch.AcceleratorError: the device failed. It stays broken for this process, which must not train on.
    """
    trials = 0
    try:
        check_versions(expected or {})
        ledger, pack_id = journal(), str(config["pack_id"])
        if ledger.stop_asked(run):
            return _end("stopped", trials)
        pack = ledger.read_pack(pack_id)
        trials = len(pack["trials"])
        check_data(pack)
        return _train(ledger, pack_id, checkpoint_every_s, run, place, gpu_share, judges, now_ms, evaluated)
    except Stopped:
        return _end("stopped", trials)
    except torch.AcceleratorError:
        raise
    except OtherData as error:
        return _end("data", trials, text=f"{socket.gethostname()}: {error}")
    except (ImportError, DataError) as error:
        return _end("node", trials, text=f"{socket.gethostname()} {lacking(error)}")
    except NodeFailed as error:
        return _end("node", trials, text=f"{socket.gethostname()} {error}")
    except Exception as error:  # outside the training code: the store's
        return _end("store", trials, text=traceback.format_exc(), errno=_errno(error))


def _train(
    ledger: Journal,
    pack_id: str,
    every_s: float,
    run: str,
    place: str,
    gpu_share: float,
    judges: int,
    now_ms: Callable[[], int],
    evaluated: Evaluated,
) -> dict[str, Any]:
    pack = ledger.read_pack(pack_id)
    attempt = ledger.open_attempt(pack_id)
    torch.set_num_threads(1)  # more would wait for each other in small operations, and sum in another order
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limit_memory(device, gpu_share)
    origin = {"pack_id": pack_id, "attempt": attempt.number, "device": device_name(device), "versions": versions()}
    finished: set[str] = set()

    def finish(trial_id: str, state: str, wall_s: float, error: str | None = None) -> None:
        if trial_id not in finished:
            finished.add(trial_id)
            ledger.finish_trial(
                {"trial_id": trial_id, "state": state, "wall_s": wall_s, "error": error, "unix_ms": now_ms(), **origin}
            )

    def failed(error: _Failure, wall_s: float) -> dict[str, Any]:
        """One trial alone is the guilty one; of several the supervisor finds out which."""
        left = wanted - ledger.done()
        if len(left) > 1:
            return _end(error.end, len(wanted), text=error.text)
        for trial_id in left:
            finish(trial_id, "failed", wall_s, error.text)
        return _end("complete", len(wanted), failed=len(left))

    wanted = {config.trial_id() for config in trial_configs(pack["trials"])}
    configs = trial_configs(pack.get("slots", pack["trials"]))  # stand-ins among them
    pace = _Pace(ledger, attempt, every_s=every_s, run=run, place=place)
    with told_crashes(attempt.crash_file), contextlib.closing(pace):
        pace.beat()
        checkpoint = ledger.latest_checkpoint(pack_id)
        try:
            engine = Engine(configs, device=device, keep_samples=pack["samples"], between_periods=pace, judges=judges)
            if checkpoint is not None:
                engine.restore(checkpoint[1])
        except (torch.AcceleratorError, ImportError, DataError):
            raise
        except Exception as error:
            return failed(_Failure.of(error), 0.0)
        pace.begin(engine)
        for item in _caught(engine.evaluations()):
            if isinstance(item, _Failure):
                wall_s = engine.wall_s
                pace.engine = None
                del engine  # frees the memory that the next pack in this process will want
                _release_memory(device)
                return failed(item, wall_s)
            records = [record for record in item.records if record.trial_id in wanted]
            attempt.append([_plain(record) for record in records], now_ms())
            if samples := {trial_id: kept for trial_id, kept in item.samples.items() if trial_id in wanted}:
                attempt.samples(item.index, samples)
            for record in records:
                if record.values["finite"] == 0.0:  # decided: it has no further records
                    finish(record.trial_id, "complete", record.wall_s)
            pace.evaluated()
            if item.index < configs[0].evaluations:
                evaluated(item, pack["reference"])
        if pack["keep_checkpoints"] == "final":
            weights = {name: array for name, array in engine.weights().items() if name.split("/")[0] in wanted}
            attempt.weights(engine.next_evaluation - 1, weights)
        for trial_id in sorted(wanted):
            finish(trial_id, "complete", engine.wall_s)
    return _end("complete", len(wanted))


class _Pace:
    """What is due between two periods and after an evaluation: a checkpoint, a sign of life, a look whether to stop."""

    def __init__(self, ledger: Journal, attempt: Attempt, *, every_s: float, run: str, place: str) -> None:
        self._ledger, self._attempt, self._every_s, self._run = ledger, attempt, every_s, run
        self._said = {"host": socket.gethostname(), "pid": os.getpid(), "place": place}
        self._saved = self._looked = self._beaten = time.monotonic()
        self._cost_s, self._saved_updates, self._at = 0.0, 0, 0
        self.engine: Engine | None = None

    def close(self) -> None:
        """Give the last sign of life: this process trains the pack no more."""
        with contextlib.suppress(Exception):  # a store that fails has said so before, or will the next time
            self.beat(over=True)

    def begin(self, engine: Engine) -> None:
        """Training begins, from the start or from a checkpoint."""
        self.engine, self._saved_updates = engine, engine.pack.d_updates
        self.beat()

    def __call__(self) -> None:
        """Between two periods: little more than a look at the clock."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        try:
            self._look(now)
            if self._every_s and self._due(now):
                self._save()
        except Stopped:
            raise
        except Exception as error:
            raise _StoreFailed from error

    def evaluated(self) -> None:
        """After an evaluation, when its records are stored."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._look(now)
        if self._due(now):
            self._save()

    def _due(self, now: float) -> bool:
        wanted = self._every_s and max(self._every_s, CHECKPOINT_SHARE * self._cost_s)
        return now - self._saved >= wanted

    def _look(self, now: float) -> None:
        self._looked = now
        if self._ledger.stop_asked(self._run):
            self._save()
            raise Stopped
        if now - self._beaten >= BEAT_EVERY_S:
            self.beat()

    def _save(self) -> None:
        assert self.engine is not None
        began = time.monotonic()
        if not self.engine.next_evaluation:
            return
        self._attempt.checkpoint(self.engine.next_evaluation - 1, self.engine.checkpoint())
        self._saved = time.monotonic()
        self._cost_s, self._saved_updates = self._saved - began, self.engine.pack.d_updates
        self.beat()

    def beat(self, *, over: bool = False) -> None:
        """Give a sign of life: updates of D so far, and those that no kill takes away again. `over`: the last one."""
        self._beaten = time.monotonic()
        self._at = self.engine.pack.d_updates if self.engine else self._at
        said = {"d_updates": self._at, "saved_updates": self._saved_updates, "up_s": round(self._beaten, 3)}
        self._attempt.beat(self._said | said | {"unix_ms": time.time_ns() // 1_000_000, "over": over})


def _end(end: str, trials: int, *, failed: int = 0, text: str = "", errno: int = 0) -> dict[str, Any]:
    return {"end": end, "trials": trials, "failed": failed, "text": text, "errno": errno}


def _errno(error: BaseException | None) -> int:
    """That of the first operating system's error in a chain of causes; 0 if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return 0


def _caught(evaluations: Iterator[Evaluation]) -> Iterator[Evaluation | _Failure]:
    """The evaluations; an error of the training code comes last."""
    while True:
        try:
            item = next(evaluations)
        except StopIteration:
            return
        except (Stopped, _StoreFailed, torch.AcceleratorError, ImportError, DataError):
            raise
        except Exception as error:
            last = _Failure.of(error)
            break
        yield item
    yield last


def limit_memory(device: torch.device, gpu_share: float) -> int | None:
    """Let this process take its share of a GPU's memory and no more. Returns its bytes; None on a CPU.

    More is an out-of-memory error of this process, which halves its pack and touches no neighbour.
    """
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    mine = share_of_memory(total, gpu_share)
    torch.cuda.set_per_process_memory_fraction(mine / total, device)
    return mine


def share_of_memory(total: int, gpu_share: float) -> int:
    """Bytes that tensors of a pack may take of a GPU's. What CUDA itself needs for a process is taken off a share."""
    return total if gpu_share == 1.0 else int(max(gpu_share * total - CONTEXT_BYTES, gpu_share * total / 2))


def _release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def told_crashes(path: Path | None) -> Iterator[None]:
    """Let a crash of this process (SIGSEGV, SIGBUS, SIGFPE, SIGABRT) write its traceback into a file."""
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


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("trial_id", "evaluation", "step", "values", "wall_s")}


def device_name(device: torch.device) -> str:
    """The hardware, for the record of a trial."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"
