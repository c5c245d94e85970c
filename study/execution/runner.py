"""Train the pending trials of a study, while the mirror syncs them to MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vistudy.analysis.ledger.documents import TrialEnd
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.interrupts import POLL_S, Stop
from vistudy.study.execution.provenance import now_ms, provenance

if TYPE_CHECKING:
    from vistudy.clusters import Cluster
    from vistudy.study.execution.supervisor import ExecutionResult
    from vistudy.study.packing.packs import Pack
    from vistudy.study.planning.plan import Plan
    from vistudy.study.tracking.background_sync import BackgroundSync, SyncStatus
    from vistudy.study.tracking.runs import Records
    from vistudy.study.tracking.sync import Labels, Series, SyncReport

MIRROR_EVERY_S = 10.0
MIRROR_RUNNING_EVERY_S = 60.0
"""Finished trials are synced soon and only once; running trials rarely, because each sync takes processor time from
training. The ledger is always up to date."""

FINAL_SYNC_TIMEOUT_S = 6.0
"""Seconds that the final sync may take after a signal."""

T = TypeVar("T")
LogFn = Callable[[str], None]
ProgressFn = Callable[[int, int], None]


def no_op(*_: object) -> None:
    """Ignore messages and progress."""


class StudyRunner:
    """Train the plans of one study, one after another, on one cluster with one mirror. A context manager."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        cluster: str,
        gpus: int,
        packs_per_gpu: int,
        uri: str,
        retry_failed: bool,
        checkpoint_every_s: float,
        heartbeat_timeout_s: float,
        stop: Stop,
        say: LogFn,
        tick: ProgressFn,
    ) -> None:
        self._ledger, self._cluster, self._uri, self._retry_failed = ledger, cluster, uri, retry_failed
        self._gpus, self._packs_per_gpu = gpus, packs_per_gpu
        self._checkpoint_every_s, self._heartbeat_timeout_s = checkpoint_every_s, heartbeat_timeout_s
        self._stop, self._say, self._tick = stop, say, tick
        self._mirror: BackgroundSync | None = None
        self._started: Future[None] | None = None
        self._connected: Cluster | None = None
        self._connection = contextlib.ExitStack()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="vistudy-background")
        self.before = ledger.finished_trials()
        """Trials that had finished before this run, without those that are trained again."""
        self.train_s = 0.0
        self.synced = False
        self.behind: str | None = None
        """Whether the final sync has started, and why MLflow is incomplete after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._mirror is not None and not self._stop.again:
            self._stop_mirror()  # after an error, too: close all runs
        self.disconnect()
        stopped = self._stop.asked.is_set()  # do not wait for background work then
        self._background.shutdown(wait=not stopped, cancel_futures=stopped)

    def train(self, planned: Plan) -> None:
        """Train the pending trials of a plan.

        Raises:
            Stopping: the run was asked to stop before training or after it.
        """
        from vistudy.study.execution import prepare
        from vistudy.study.execution.remote_profiling import profile_packs
        from vistudy.study.packing.workload import plan_workload
        from vistudy.study.tracking.mirror import open_database

        ledger, name, ids = self._ledger, planned.study.name, {trial.trial_id for trial in planned.trials}
        if ledger.exists():
            done = ledger.finished_trials() & ids
            ended = ledger.read_outcomes(done)
            cut_short = done - ended.keys()
            if cut_short:
                self._say(f"{len(cut_short)} trials that an earlier version stopped early are trained to their end")
            failed = {trial_id for trial_id, outcome in ended.items() if outcome["state"] == "failed"}
            retried = cut_short | failed if self._retry_failed else cut_short
            ledger.discard_outcomes(retried)
            self.before -= retried
        before = ledger.finished_trials() & ids
        write = functools.partial(ledger.write_study, name, planned.study.text, planned.to_json())
        if before == ids:
            write(provenance(name, ledger, planned.data))
            return
        warm_up = self._background.submit(self._warm_up, planned)
        self._background.submit(open_database, self._uri)  # takes seconds; training does not wait for it
        cluster = self._connect()
        references, metrics = self._stop.wait(warm_up)
        write(provenance(name, ledger, planned.data, metrics))  # a cluster that refuses leaves no trace in the store
        costs = profile_packs([trial.config for trial in planned.trials if trial.trial_id not in before], cluster)
        workload = plan_workload(planned, ledger, slots=cluster.slots, gpu=cluster.gpus > 0, costs=costs)
        prepare.prepare(planned, workload, ledger, references, now_ms=now_ms())
        self._say(
            f"{len(workload.pending)} of {len(ids)} trials to run, in {len(workload.packs)} packs "
            f"on {cluster.slots} {'GPU' if cluster.gpus else 'CPU'} slots of {cluster.name}"
        )
        self._start_mirror(name)
        with report_progress(ledger, set(workload.pending), self._tick):
            result = self._execute(workload.packs, cluster)
        self.train_s += result.wall_s
        self._stop.check()

    def _execute(self, packs: Sequence[Pack], cluster: Cluster) -> ExecutionResult:
        if cluster.in_process:
            from vistudy.study.execution.in_process import execute_in_process

            return execute_in_process(packs, self._ledger, checkpoint_every_s=self._checkpoint_every_s, stop=self._stop)
        from vistudy.study.execution import ray_tune  # already imported

        return ray_tune.execute(
            packs,
            self._ledger,
            cluster,
            checkpoint_every_s=self._checkpoint_every_s,
            heartbeat_timeout_s=self._heartbeat_timeout_s,
            stop=self._stop,
        )

    def _warm_up(self, planned: Plan) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
        """Prepare training while Ray starts its processes."""
        from vistudy.clusters import needs_ray
        from vistudy.study.execution import prepare
        from vistudy.study.execution.data_check import data_errors

        if needs_ray(self._cluster):
            import vistudy.study.execution.ray_tune  # noqa: F401  (a second, while Ray starts)
        with data_errors():
            return prepare.references(planned, self._ledger, self._say), prepare.evaluation_protocols(planned)

    def _connect(self) -> Cluster:
        from vistudy.study.execution.connect import connected
        from vistudy.study.execution.preflight import require_usable

        if self._connected is None:
            cluster = self._connection.enter_context(connected(self._cluster, self._packs_per_gpu, self._gpus))
            self._connected = require_usable(cluster, self._ledger.uri)
        return self._connected

    def disconnect(self) -> None:
        """Disconnect from the cluster.

        Collecting a Ray object during `ray.shutdown` crashes the process, and Tune leaves reference cycles that another
        thread may collect. Collect them first, and disable the garbage collector during shutdown.
        """
        gc.collect()
        gc.disable()
        try:
            with self._stop.patient():
                self._connection.close()
        finally:
            gc.enable()

    @property
    def mirrors(self) -> bool:
        """Whether this run trained anything that may be missing in MLflow."""
        return self._mirror is not None

    def _start_mirror(self, name: str) -> None:
        from vistudy.study.tracking.background_sync import BackgroundSync

        if self._mirror is None:
            label = functools.partial(mirror_labels, self._ledger, name)
            self._mirror = BackgroundSync(
                self._ledger,
                name,
                self._uri,
                label,
                MIRROR_EVERY_S,
                running_every_s=MIRROR_RUNNING_EVERY_S,
                modes=real_modes(),
            )
            self._started = self._background.submit(self._mirror.start)  # when its database is open

    def _stop_mirror(self, artifacts: Sequence[Path] = ()) -> SyncStatus:
        assert self._mirror is not None
        assert self._started is not None
        self._started.result()
        return self._mirror.stop(final=True, artifacts=artifacts)

    def disconnect_while(self, work: Callable[[], T]) -> T:
        """Disconnect in this thread while another thread does `work`. Returns the result of `work`.

        Raises:
            Stopping: the run was asked to stop.
        """
        future = self._background.submit(work)
        self.disconnect()
        return self._stop.wait(future)

    def finish_mirror(self, name: str, artifacts: Sequence[Path]) -> None:
        """Sync everything and close all runs, within FINAL_SYNC_TIMEOUT_S seconds of a signal."""
        self.synced = True
        last: Future[str | None] = Future()

        def finish() -> None:
            try:
                last.set_result(self._finish_mirror(name, artifacts))
            except Exception as error:
                last.set_exception(error)

        threading.Thread(target=finish, name="vistudy-last-sync", daemon=True).start()
        while not wait([last], POLL_S).done and not self._stop.asked.is_set():
            pass
        late = not wait([last], FINAL_SYNC_TIMEOUT_S if self._stop.asked.is_set() else None).done
        self.behind = (
            f"left after {FINAL_SYNC_TIMEOUT_S:.0f} s; `vistudy sync` writes the rest" if late else last.result()
        )

    def _finish_mirror(self, name: str, artifacts: Sequence[Path]) -> str | None:
        from vistudy.study.tracking.mirror import TrackingError

        if self._mirror is not None:
            return self._stop_mirror(artifacts).error
        try:
            sync_all(self._ledger, name, self._uri, artifacts)
        except TrackingError as error:
            return str(error)
        return None


def mirror_labels(
    ledger: Ledger, name: str, records: Mapping[str, Records], outcomes: Mapping[str, TrialEnd]
) -> tuple[Labels, Series]:
    """Return outcomes as MLflow tags, and Q."""
    from vistudy.analysis.tables.trials import label_trials

    labels, q = label_trials(ledger, name, records, outcomes)
    return {trial_id: _tags(fields) for trial_id, fields in labels.items()}, q


def final_labels(ledger: Ledger, name: str, ids: Collection[str]) -> Labels:
    """Return outcomes of the complete trials among `ids`, by the current rules, and cache them."""
    from vistudy.analysis.outcomes.label_study import update_outcome_cache

    outcomes = update_outcome_cache(ledger, name).outcomes
    return {trial_id: _tags(dataclasses.asdict(outcomes[trial_id])) for trial_id in outcomes.keys() & set(ids)}


def _tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"label": "outcome", "version": "outcome_version"}
    return {renamed.get(name, name): value for name, value in fields.items()} | {"flags": ";".join(fields["flags"])}


def sync_all(
    ledger: Ledger, name: str, uri: str, artifacts: Sequence[Path], tick: ProgressFn | None = None
) -> SyncReport:
    """Sync the whole ledger to MLflow, outcomes of finished trials included.

    Runs of trials that are training at this moment stay open.
    """
    from vistudy.study.tracking import mirror

    return mirror.sync(
        ledger,
        name,
        uri,
        label=functools.partial(mirror_labels, ledger, name),
        relabel=True,
        artifacts=artifacts,
        modes=real_modes(),
        final=not ledger.live(
            name, {trial["trial_id"] for trial in ledger.read_plan(name)["trials"]} - ledger.finished_trials()
        ),
        progress=tick,
    )


@contextlib.contextmanager
def report_progress(ledger: Ledger, pending: set[str], tick: ProgressFn) -> Iterator[None]:
    """Call `tick(done, total)` every second for the time of a `with`."""
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(1.0):
            tick(len(ledger.finished_trials() & pending), len(pending))

    thread = threading.Thread(target=count, name="vistudy-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tick(len(ledger.finished_trials() & pending), len(pending))


def real_modes() -> dict[str, Any]:
    """Return, per data set, the centres of its modes, for pictures of samples."""
    from vistudy.trainables.data import DATASETS
    from vistudy.trainables.data.gaussians import GaussianMixture

    return {name: data.means for name, data in DATASETS.items() if isinstance(data, GaussianMixture)}
