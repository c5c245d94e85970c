"""Ray Tune as an executor: trains what a Supervisor hands out, tells it how each try ended, kills what hangs."""

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

import numpy as np
import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.labels import Reference
from vistudy.analysis.outcomes.rules import deficiency
from vistudy.clusters import Cluster
from vistudy.study.execution.interrupts import TRAINING, Stop
from vistudy.study.execution.provenance import now_ms
from vistudy.study.execution.supervisor import Executed, Supervisor
from vistudy.study.packing.packs import Pack
from vistudy.study.spec.schema import ExploreSpec
from vistudy.trainables.engine import Evaluation
from vistudy.trainables.node_checks import versions
from vistudy.trainables.worker import train_pack

HANG_FACTOR = 10.0
"""A silence has to be that many times the longest one that the pack has broken, too."""
WATCH_EVERY_S = 5.0
GRACE_S = 12.0
"""After a signal, how long packs may take to their next period, a checkpoint and their end."""

_log = logging.getLogger("vistudy.supervisor")


def execute(
    packs: Sequence[Pack],
    ledger: Ledger,
    on: Cluster,
    *,
    checkpoint_every_s: float,
    hang_after_s: float,
    stop: Stop | None = None,
    explore: ExploreSpec | None = None,
) -> Executed:
    """Train the packs to their ends, in order, each try as one Tune trial. Needs a connected cluster.

    `hang_after_s`: shortest silence of a pack after which its process is taken to hang. `stop`: at a signal packs write
    checkpoints and end; those that do not in GRACE_S are left. `explore`: packs of one trial are stopped where Tune's
    scheduler says so.

    Raises:
        StudyError: the store failed for good, or a node has other versions; the packs have stopped.
    """
    started, run = time.monotonic(), f"run-{secrets.token_hex(6)}"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints tables even when told to be silent
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the last result has no Q
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # signals are those of `vistudy.study.execution.interrupts`
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, min(on.slots, 200)))
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # deaths are told by the supervisor, in a line
    scratch = tempfile.mkdtemp(prefix="vistudy-tune-")
    supervisor = Supervisor(packs, ledger, clock=time.monotonic, now_ms=now_ms, one_machine=on.local)
    watch = _Watch(ledger, hang_after_s)
    told, asked = _Told(supervisor, watch), _Asked(supervisor, ledger, run)
    settings: dict[str, Any] = {"on_evaluation": _report} if explore else {}
    train = functools.partial(
        _train,
        journal=functools.partial(Ledger, ledger.uri),
        checkpoint_every_s=checkpoint_every_s,
        run=run,
        gpu_share=on.gpu_share,
        metric_threads=on.cpus,
        expected=versions(),
        **settings,
    )
    tuner = tune.Tuner(
        tune.with_resources(train, on.resources),
        # One process trains pack after pack: importing torch costs seconds. The engine keeps nothing between packs.
        tune_config=tune.TuneConfig(
            search_alg=_Queue(supervisor),
            num_samples=-1,
            reuse_actors=True,
            scheduler=_scheduler(explore, packs) if explore else None,
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[told],
            stop=asked,
        ),
    )
    try:
        waiting = _waiting_workers() if on.local else contextlib.nullcontext()
        with watch, waiting, asked, (stop or Stop()).patient(TRAINING, asked.stop):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(StudyError):  # a file that nobody will ask for again
            ledger.withdraw_stop(run)
        supervisor.lay_down()
    if told.error is not None:
        raise told.error
    if supervisor.broken is not None:
        raise supervisor.broken
    return Executed(wall_s=time.monotonic() - started, interrupted=supervisor.left > 0)


@contextlib.contextmanager
def _waiting_workers() -> Iterator[None]:
    """Let Tune use the workers that Ray has started and that have imported torch.

    Tune wants environment variables set for its actors, for which Ray starts others, seconds of imports; here workers
    have the variables of this process anyway, PL_DISABLE_FORK too (`clusters.local`).
    """
    with (
        unittest.mock.patch.object(class_cache, "DEFAULT_ENV_VARS", {}),
        unittest.mock.patch.object(class_cache, "ENV_VARS_TO_PROPAGATE", set()),
    ):
        yield


def _train(config: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return train_pack(config, node_id=ray.get_runtime_context().get_node_id(), **settings)


_NOT_LOADED = "failed to import on the worker"
"""What Ray says where unpickling an actor's class fails, before the traceback."""
WORST_Q = 1e9
"""What a scheduler is told of a Q that is not known or infinite."""


def _scheduler(explore: ExploreSpec, packs: Sequence[Pack]) -> ASHAScheduler:
    last = max((config.evaluations for pack in packs for config in pack.configs), default=1)
    return ASHAScheduler(
        time_attr="evaluation",
        metric="q",
        mode="min",
        grace_period=min(explore.grace, last),
        max_t=last + 1,  # whoever gets to the end has ended by itself
        reduction_factor=explore.reduction,
    )


def _report(item: Evaluation, reference: Mapping[str, float]) -> None:
    """Tell Tune the Q of the one trial of a pack."""
    values = {name: np.array([value]) for name, value in item.records[0].values.items()}
    q = float(deficiency(values, Reference.from_dict(dict(reference)))[0])
    tune.report({"evaluation": item.index, "q": q if np.isfinite(q) else WORST_Q})


class _Queue(Searcher):
    """Tune asks it for the next trial; it searches nothing."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor

    def suggest(self, trial_id: str) -> Any:
        """The next pack, None if there is none now, or that there will be none."""
        pack = self._supervisor.next()
        if pack is not None:
            return {"pack_id": pack.pack_id}
        return Searcher.FINISHED if self._supervisor.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See _Told, which gets to know more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what is gone on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see save."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a `restore` that we do not use


class _Asked(tune.Stopper):
    """Stops the packs of a run: they write checkpoints and end, and Tune with them; after GRACE_S Tune ends anyway."""

    def __init__(self, supervisor: Supervisor, ledger: Ledger, run: str) -> None:
        self._supervisor, self._ledger, self._run = supervisor, ledger, run
        self._ended, self._late = threading.Event(), False

    def stop(self) -> None:
        """Ask, and wait for the end. In a thread of its own."""
        self._supervisor.stop()
        try:
            self._ledger.ask_stop(self._run)
        except StudyError as error:
            _log.warning("packs cannot be asked for checkpoints: %s", error)
            self._late = True
        self._late |= not self._ended.wait(0.0 if self._late else GRACE_S)

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No pack is stopped by what it reports."""
        return False

    def stop_all(self) -> bool:
        """Whether Tune is to end now."""
        return self._late

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Told(tune.Callback):
    """Tells the supervisor of every end. An exception here would kill the study: the first is kept, and ends it."""

    def __init__(self, supervisor: Supervisor, watch: _Watch) -> None:
        self._supervisor, self._watch = supervisor, watch
        self.error: Exception | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has begun with a pack."""
        self._watch.started(trial.config["pack_id"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """`train_pack` has returned, or was stopped early."""
        pack_id, result = trial.config["pack_id"], trial.last_result
        self._watch.ended(pack_id)
        if "status" in result:
            self._tell(self._supervisor.ended, pack_id, result)
        else:  # a scheduler has stopped it
            self._tell(self._supervisor.censored, pack_id, float(result.get("time_total_s", 0.0)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker, or its node, is gone."""
        pack_id = trial.config["pack_id"]
        hung, text = self._watch.ended(pack_id), _error_text(trial)
        if (lacks := not_loaded(text)) is not None:
            self._tell(self._supervisor.ended, pack_id, {"status": "node", "text": lacks, "errno": 0})
        else:
            self._tell(self._supervisor.died, pack_id, hung or _why(text), hung=hung is not None)

    def _tell(self, how: Any, *what: Any, **more: Any) -> None:
        try:
            how(*what, **more)
        except Exception as error:  # a store that is full, damaged or gone
            self.error = self.error or error
            self._supervisor.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _error_text(trial: Any) -> str:
    path = Path(trial.error_file) if trial.error_file else None
    return path.read_text(errors="replace") if path and path.exists() else "no reason is known"


def not_loaded(text: str) -> str | None:
    """What Ray says of a worker that could not import this code, in a sentence; None if it says something else."""
    if _NOT_LOADED not in text:
        return None
    lines = [line.strip() for line in text.rpartition(_NOT_LOADED)[2].splitlines()]
    error = next((line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)), "no reason given")
    files = [line for line in lines if line.startswith("File ")]
    node = next((line.strip()[4:] for line in text.splitlines() if line.strip().startswith("ip: ")), "a node")
    wanted = re.search(r"No module named '(\w+)", error)
    names = ("vistudy/__init__.py", "vistudy.py") if wanted and wanted[1] == "vistudy" else ()
    shadow = next((path for name in names if (path := Path(name).absolute()).exists()), None)  # workers look here, too
    mend = (
        f"{shadow} is found in place of vistudy's: start vistudy from another folder, or rename that one"
        if shadow
        else "Install vistudy and requirements.lock on that node, in the versions of this one"
    )
    return f"{node} cannot load this code: {error}, by {files[-1] if files else 'an unknown file'}. {mend}"


def _why(text: str) -> str:
    """What Ray says of a death, without its stack."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line.startswith(("The actor is dead because", "The actor died because"))]
    return (found or [line for line in lines if line] or [text])[-1][:2000]


class _Watch:
    """A thread that kills the processes of packs that give no sign of life. Uses no clock but its own."""

    def __init__(self, ledger: Ledger, hang_after_s: float) -> None:
        self._ledger, self._hang_after_s = Ledger(ledger.uri), hang_after_s
        self._since: dict[str, tuple[Any, float, float]] = {}
        """Pack -> last sign, when it came, longest silence so far."""
        self._hung: dict[str, str] = {}
        self._times: dict[str, int] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="vistudy-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def started(self, pack_id: str) -> None:
        """A worker has begun with a pack."""
        with self._lock:
            self._since[pack_id] = (None, time.monotonic(), 0.0)

    def ended(self, pack_id: str) -> str | None:
        """It has ended. Returns why it was killed, if it was."""
        with self._lock:
            self._since.pop(pack_id, None)
            return self._hung.pop(pack_id, None)

    def _work(self) -> None:
        while not self._stop.wait(min(WATCH_EVERY_S, self._hang_after_s / 4)):
            for pack_id in list(self._since):
                try:
                    self._look(pack_id, self._ledger.heartbeat(pack_id))
                except StudyError as error:
                    _log.warning("cannot see whether pack %s is alive: %s", pack_id, error)
                except Exception:  # whatever it is, the other packs are watched
                    _log.exception("pack %s cannot be watched", pack_id)

    def _look(self, pack_id: str, sign: dict[str, Any] | None) -> None:
        now = time.monotonic()
        with self._lock:
            if pack_id not in self._since:
                return
            last, since, longest = self._since[pack_id]
            if sign != last:
                self._since[pack_id] = (sign, now, max(longest, now - since) if last is not None else longest)
                return
            # Each time that a pack was taken to hang, it is given twice as long: it may only be slow.
            limit = max(self._hang_after_s, HANG_FACTOR * longest) * 2 ** self._times.get(pack_id, 0)
            if sign is None or now - since < limit:
                return
            self._hung[pack_id] = f"it gave no sign of life for {now - since:.0f} s and was killed"
            self._times[pack_id] = self._times.get(pack_id, 0) + 1
            self._since[pack_id] = (sign, now, longest)
        _log.warning("pack %s hangs: process %s on %s is killed", pack_id, sign["pid"], sign["host"])
        _kill(str(sign["place"]), int(sign["pid"]))


def _kill(node: str, pid: int) -> None:
    """Kill a process on its node. A node that does not answer is Ray's to declare dead."""

    def end() -> None:  # Ray takes no builtin
        os.kill(pid, signal.SIGKILL)

    affinity = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    ray.remote(num_cpus=0, max_retries=0)(end).options(scheduling_strategy=affinity).remote()
