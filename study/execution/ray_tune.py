"""Ray Tune as an executor: trains the packs that a Supervisor hands out and reports how each attempt ended."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.clusters import Cluster
from vistudy.study.execution.interrupts import TRAINING, Stop
from vistudy.study.execution.provenance import now_ms
from vistudy.study.execution.supervisor import ExecutionResult, Supervisor
from vistudy.study.execution.watchdog import Watchdog
from vistudy.study.packing.packs import Pack
from vistudy.trainables.node_checks import versions
from vistudy.trainables.worker import train_pack

GRACE_S = 12.0
"""Seconds that packs have after a signal to finish a period, write a checkpoint and end."""

_log = logging.getLogger("vistudy.supervisor")


def execute(
    packs: Sequence[Pack],
    ledger: Ledger,
    cluster: Cluster,
    *,
    checkpoint_every_s: float,
    heartbeat_timeout_s: float,
    stop: Stop | None = None,
) -> ExecutionResult:
    """Train the packs to completion, in order, each attempt as one Tune trial. Needs a connected cluster.

    `heartbeat_timeout_s`: shortest time without a heartbeat after which a process is considered hung. `stop`: after a
    signal, packs write checkpoints and end; those that take longer than GRACE_S are abandoned.

    Raises:
        StudyError: the store failed permanently, or a node has other versions; the packs have stopped.
    """
    started, run = time.monotonic(), f"run-{secrets.token_hex(6)}"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints tables even at verbose=0
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the last result has no Q
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # signals are those of `vistudy.study.execution.interrupts`
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, min(cluster.slots, 200)))
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the supervisor reports deaths, in one line
    scratch = tempfile.mkdtemp(prefix="vistudy-tune-")
    supervisor = Supervisor(packs, ledger, clock=time.monotonic, now_ms=now_ms, one_machine=cluster.local)
    watch = Watchdog(ledger, heartbeat_timeout_s, _kill)
    callback, stopper = _TuneCallback(supervisor, watch), _StopRequested(supervisor, ledger, run)
    train = functools.partial(
        _train,
        journal=functools.partial(Ledger, ledger.uri),
        checkpoint_every_s=checkpoint_every_s,
        run=run,
        gpu_share=cluster.gpu_share,
        metric_threads=cluster.cpus,
        expected=versions(),
    )
    tuner = tune.Tuner(
        tune.with_resources(train, cluster.resources),
        # One process trains pack after pack: importing torch costs seconds. The engine keeps nothing between packs.
        tune_config=tune.TuneConfig(
            search_alg=_PackSearcher(supervisor),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[callback],
            stop=stopper,
        ),
    )
    try:
        workers = _reuse_prestarted_workers() if cluster.local else contextlib.nullcontext()
        with watch, workers, stopper, (stop or Stop()).patient(TRAINING, stopper.stop):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(StudyError):  # nobody reads this file again
            ledger.clear_stop_request(run)
        supervisor.mark_stopped()
    if callback.error is not None:
        raise callback.error
    if supervisor.fatal_error is not None:
        raise supervisor.fatal_error
    return ExecutionResult(wall_s=time.monotonic() - started, interrupted=supervisor.n_unfinished > 0)


@contextlib.contextmanager
def _reuse_prestarted_workers() -> Iterator[None]:
    """Let Tune use the workers that Ray has already started and that have imported torch.

    Tune sets environment variables for its actors, for which Ray would start new workers: seconds of imports. Here
    workers inherit the variables of this process anyway, PL_DISABLE_FORK too (`clusters.local`).
    """
    with (
        unittest.mock.patch.object(class_cache, "DEFAULT_ENV_VARS", {}),
        unittest.mock.patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", set()),
    ):
        yield


def _train(config: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return train_pack(config, node_id=ray.get_runtime_context().get_node_id(), **settings)


_IMPORT_FAILED = "failed to import on the worker"
"""Ray's message when unpickling an actor's class fails, before the traceback."""


class _PackSearcher(Searcher):
    """Searcher that hands out packs: Tune asks it for the next trial."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor

    def suggest(self, trial_id: str) -> Any:
        """Return the next pack, None if there is none now, or FINISHED."""
        pack = self._supervisor.next()
        if pack is not None:
            return {"pack_id": pack.pack_id}
        return Searcher.FINISHED if self._supervisor.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """No-op: `_TuneCallback` gets more information."""

    def save(self, checkpoint_path: str) -> None:
        """No-op: runs resume from the ledger, not from Tune's state."""

    def restore(self, checkpoint_path: str) -> None:
        """No-op: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a `restore` that we do not use


class _StopRequested(tune.Stopper):
    """Stopper of a run: packs write checkpoints and end, and Tune with them; after GRACE_S Tune ends anyway."""

    def __init__(self, supervisor: Supervisor, ledger: Ledger, run: str) -> None:
        self._supervisor, self._ledger, self._run = supervisor, ledger, run
        self._ended, self._late = threading.Event(), False

    def stop(self) -> None:
        """Request the stop and wait for the end; runs in a separate thread."""
        self._supervisor.stop()
        try:
            self._ledger.request_stop(self._run)
        except StudyError as error:
            _log.warning("cannot request checkpoints of the packs: %s", error)
            self._late = True
        self._late |= not self._ended.wait(0.0 if self._late else GRACE_S)

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a pack because of its results."""
        return False

    def stop_all(self) -> bool:
        """Whether Tune must end now."""
        return self._late

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _TuneCallback(tune.Callback):
    """Report the end of every attempt to the supervisor. The first exception is kept and ends the run in order."""

    def __init__(self, supervisor: Supervisor, watch: Watchdog) -> None:
        self._supervisor, self._watch = supervisor, watch
        self.error: Exception | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Start watching a pack: a worker has started it."""
        self._watch.started(trial.config["pack_id"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that `train_pack` has returned."""
        pack_id = trial.config["pack_id"]
        self._watch.ended(pack_id)
        self._report(self._supervisor.ended, pack_id, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that a worker or its node is gone."""
        pack_id = trial.config["pack_id"]
        hung, text = self._watch.ended(pack_id), _error_text(trial)
        if (lacks := import_failure(text)) is not None:
            self._report(self._supervisor.ended, pack_id, {"status": "node", "text": lacks, "errno": 0})
        else:
            self._report(self._supervisor.died, pack_id, hung or _death_reason(text), hung=hung is not None)

    def _report(self, method: Any, *args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # the store is full, damaged or gone
            self.error = self.error or error
            self._supervisor.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _error_text(trial: Any) -> str:
    path = Path(trial.error_file) if trial.error_file else None
    return path.read_text(errors="replace") if path and path.exists() else "no reason is known"


def import_failure(text: str) -> str | None:
    """Explain in a sentence that a worker could not import this code; None if the text says otherwise."""
    if _IMPORT_FAILED not in text:
        return None
    lines = [line.strip() for line in text.rpartition(_IMPORT_FAILED)[2].splitlines()]
    error = next((line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)), "no reason given")
    files = [line for line in lines if line.startswith("File ")]
    node = next((line.strip()[4:] for line in text.splitlines() if line.strip().startswith("ip: ")), "a node")
    module = re.search(r"No module named '(\w+)", error)
    names = ("vistudy/__init__.py", "vistudy.py") if module and module[1] == "vistudy" else ()
    # Workers search the working directory, too.
    shadow = next((path for name in names if (path := Path(name).absolute()).exists()), None)
    remedy = (
        f"{shadow} is found in place of vistudy's: start vistudy from another folder, or rename that one"
        if shadow
        else "Install vistudy and requirements.lock on that node, in the versions of this one"
    )
    return f"{node} cannot load this code: {error}, by {files[-1] if files else 'an unknown file'}. {remedy}"


def _death_reason(text: str) -> str:
    """Extract the reason of a worker's death from Ray's text, without the stack."""
    lines = [line.strip() for line in text.splitlines()]
    reasons = [line for line in lines if line.startswith(("The actor is dead because", "The actor died because"))]
    return (reasons or [line for line in lines if line] or [text])[-1][:2000]


def _kill(node: str, pid: int) -> None:
    """Kill a process on its node. Ray itself declares unresponsive nodes dead."""

    def end() -> None:  # Ray does not accept builtins
        os.kill(pid, signal.SIGKILL)

    affinity = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    ray.remote(num_cpus=0, max_retries=0)(end).options(scheduling_strategy=affinity).remote()
