"""Train one pack in a worker process and write its records to the journal; the store is the only network access.

Errors that can be caught are returned as a `status`: the pack is complete, it was stopped, the training code or the
memory failed, the store failed, or this machine lacks what the pack needs. So an exception that the scheduler sees is
the death of a process. `vistudy.study.execution.supervisor` decides what follows; the next attempt resumes from the
newest checkpoint.
"""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vistudy.trainables.callbacks import (
    EvaluationCallback,
    Journal,
    PackCallback,
    Stopped,
    StoreFailed,
    crash_log,
)
from vistudy.trainables.data import DataError, OtherData
from vistudy.trainables.device import default_device, device_name, limit_memory, release_memory
from vistudy.trainables.engine import Engine, Evaluation
from vistudy.trainables.node_checks import (
    NodeFailed,
    check_data,
    check_versions,
    describe_missing,
    trial_configs,
    versions,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """An error of the training code, as text: the exception itself would keep the engine's memory."""

    status: str
    text: str

    @classmethod
    def from_exception(cls, error: Exception) -> _Failure:
        memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return cls(status="memory" if memory else "error", text="".join(traceback.format_exception(error)))


def train_pack(
    config: Mapping[str, Any],
    *,
    journal: Callable[[], Journal],
    checkpoint_every_s: float,
    run: str = "",
    node_id: str = "",
    gpu_share: float = 1.0,
    metric_threads: int = 1,
    expected: Mapping[str, str] | None = None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    on_evaluation: EvaluationCallback = lambda item, reference: None,
) -> dict[str, Any]:
    """Train the pack `config["pack_id"]` to its end and return how it ended.

    Args:
        config: has the `pack_id`.
        journal: opens the store in this process.
        checkpoint_every_s: seconds of training between checkpoints, or more where they are slow; 0: one per evaluation.
        run: name by which the run asks its workers to stop.
        node_id: the node, for whoever has to kill this process.
        gpu_share: share of the GPU if other packs train on it too; its memory is divided likewise.
        metric_threads: threads that compute the metrics of an evaluation.
        expected: `versions()` of the run. If this machine has others, nothing is trained.
        now_ms: the clock, in ms since 1970.
        on_evaluation: called after the records of each evaluation but the last are stored. It may raise SystemExit,
            which is how Tune ends a trial early.

    Returns:
        `status`: complete, stopped, error, memory, store, node or data. `trials`: their number; `failed`: how many of
        them failed. `text`: a traceback, or what the node lacks and what to do. `errno`: that of the store's failure,
        or 0.

    Raises:
        torch.AcceleratorError: the device failed. It stays broken for this process, which must not train again.
    """
    trials = 0
    try:
        check_versions(expected or {})
        ledger, pack_id = journal(), str(config["pack_id"])
        if ledger.stop_requested(run):
            return _result("stopped", trials)
        pack = ledger.read_pack(pack_id)
        trials = len(pack["trials"])
        check_data(pack)
        return _train(
            ledger, pack_id, checkpoint_every_s, run, node_id, gpu_share, metric_threads, now_ms, on_evaluation
        )
    except Stopped:
        return _result("stopped", trials)
    except torch.AcceleratorError:
        raise
    except OtherData as error:
        return _result("data", trials, text=f"{socket.gethostname()}: {error}")
    except (ImportError, DataError) as error:
        return _result("node", trials, text=f"{socket.gethostname()} {describe_missing(error)}")
    except NodeFailed as error:
        return _result("node", trials, text=f"{socket.gethostname()} {error}")
    except Exception as error:  # outside the training code: the store's
        return _result("store", trials, text=traceback.format_exc(), errno=_errno(error))


def _train(
    ledger: Journal,
    pack_id: str,
    every_s: float,
    run: str,
    node_id: str,
    gpu_share: float,
    metric_threads: int,
    now_ms: Callable[[], int],
    on_evaluation: EvaluationCallback,
) -> dict[str, Any]:
    pack = ledger.read_pack(pack_id)
    attempt = ledger.open_attempt(pack_id)
    torch.set_num_threads(1)  # more threads would wait for each other in small operations, and sum in another order
    device = default_device()
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
        """Blame a trial that is alone in its pack; among several the supervisor finds the guilty one."""
        unfinished = trial_ids - ledger.finished_trials()
        if len(unfinished) > 1:
            return _result(error.status, len(trial_ids), text=error.text)
        for trial_id in unfinished:
            finish(trial_id, "failed", wall_s, error.text)
        return _result("complete", len(trial_ids), failed=len(unfinished))

    trial_ids = {config.trial_id() for config in trial_configs(pack["trials"])}
    configs = trial_configs(pack.get("slots", pack["trials"]))  # includes filler trials, which are not recorded
    callback = PackCallback(ledger, attempt, every_s=every_s, run=run, node_id=node_id)
    with crash_log(attempt.crash_file), contextlib.closing(callback):
        callback.heartbeat()
        checkpoint = ledger.latest_checkpoint(pack_id)
        try:
            engine = Engine(
                configs,
                device=device,
                keep_samples=pack["samples"],
                between_periods=callback,
                metric_threads=metric_threads,
            )
            if checkpoint is not None:
                engine.restore(checkpoint[1])
        except (torch.AcceleratorError, ImportError, DataError):
            raise
        except Exception as error:
            return failed(_Failure.from_exception(error), 0.0)
        callback.start(engine)
        for item in _training_errors_as_items(engine.evaluations()):
            if isinstance(item, _Failure):
                wall_s = engine.wall_s
                callback.engine = None
                del engine  # frees the memory for the next pack in this process
                release_memory(device)
                return failed(item, wall_s)
            records = [record for record in item.records if record.trial_id in trial_ids]
            attempt.append([_plain(record) for record in records], now_ms())
            if samples := {trial_id: kept for trial_id, kept in item.samples.items() if trial_id in trial_ids}:
                attempt.samples(item.index, samples)
            for record in records:
                if record.values["finite"] == 0.0:  # diverged: it has no further records
                    finish(record.trial_id, "complete", record.wall_s)
            callback.after_evaluation()
            if item.index < configs[0].evaluations:
                on_evaluation(item, pack["reference"])
        if pack["keep_checkpoints"] == "final":
            weights = {name: array for name, array in engine.weights().items() if name.split("/")[0] in trial_ids}
            attempt.weights(engine.next_evaluation - 1, weights)
        for trial_id in sorted(trial_ids):
            finish(trial_id, "complete", engine.wall_s)
    return _result("complete", len(trial_ids))


def _result(status: str, trials: int, *, failed: int = 0, text: str = "", errno: int = 0) -> dict[str, Any]:
    return {"status": status, "trials": trials, "failed": failed, "text": text, "errno": errno}


def _errno(error: BaseException | None) -> int:
    """Errno of the first operating-system error in a chain of causes; 0 if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return 0


def _training_errors_as_items(evaluations: Iterator[Evaluation]) -> Iterator[Evaluation | _Failure]:
    """Yield the evaluations; an error of the training code becomes the last item."""
    while True:
        try:
            item = next(evaluations)
        except StopIteration:
            return
        except (Stopped, StoreFailed, torch.AcceleratorError, ImportError, DataError):
            raise
        except Exception as error:
            failure = _Failure.from_exception(error)
            break
        yield item
    yield failure


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("trial_id", "evaluation", "step", "values", "wall_s")}
