"""The verbs of `vistudy` as functions, for notebooks and for the command line alike."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.errors import ReadOnlyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.status import DEFAULT_STORE, Standing, Status, counts, standing, status
from vistudy.study.execution.interrupts import DRAWING, SYNCING, Stop, Stopping, listening
from vistudy.study.execution.runner import LogFn, ProgressFn, StudyRunner, judged_all, no_op, sync_all
from vistudy.study.tracking.locations import unshare

if TYPE_CHECKING:
    import pandas as pd

    from vistudy.analysis.report.report import Report
    from vistudy.clusters import Cluster
    from vistudy.study.packing.runtime_estimate import Estimate
    from vistudy.study.packing.workload import Workload
    from vistudy.study.planning.plan import Plan
    from vistudy.study.spec.model import Study
    from vistudy.study.tracking.sync import SyncReport

__all__ = [
    "DEFAULT_STORE", "Preview", "RunReport", "Status", "draw", "plan", "report", "run", "status", "sync",
]  # fmt: skip

CHECKPOINT_EVERY_S = 20.0
HEARTBEAT_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a run did."""

    study: str
    trials: int
    """Trials of the plan."""
    ran: int
    """Trials that ended in this run."""
    already: int
    """Trials that had ended before it."""
    left: int
    """Trials that have not ended."""
    saved: int
    """Those of them with a checkpoint, from which the next run goes on."""
    saved_at: float | None
    """Mean share of their training after which it was written."""
    begun: int
    """Those that have records and no checkpoint: the next run begins them again."""
    states: dict[str, int]
    outcomes: dict[str, int]
    train_s: float
    """Seconds of training, with Ray's start and end."""
    heatmaps: tuple[Path, ...]
    synced: bool
    """MLflow was written, or tried, at the end. It is not where a run was stopped before it trained anything."""
    tracking_error: str | None
    """Why MLflow lacks something, if it does."""
    interrupted: bool
    """It was asked to stop, by Ctrl-C (SIGINT) or SIGTERM; `left`, `heatmaps` and `tracking_error` say where."""
    terminated: bool
    """By SIGTERM."""

    @property
    def failed(self) -> int:
        """Trials that a machine or an error of the code failed."""
        return self.states.get("failed", 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A plan held against a store and a cluster."""

    plan: Plan
    work: Workload
    cluster: str
    slots: int
    gpus: int
    estimate: Estimate | None
    standing: Standing
    """Where its trials stand in the store."""


def as_study(study: Study | str | os.PathLike[str]) -> Study:
    """A study as it is, or read from its file."""
    from vistudy.study.spec.model import Study
    from vistudy.study.spec.parser import load_study

    return study if isinstance(study, Study) else load_study(study)


def plan(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    cluster: str = "local",
    gpus: int = 0,
    packs_per_gpu: int = 1,
    allow_large: bool = False,
    pilot: bool = True,
) -> Preview:
    """Expand a study, look what the store already has, check that the cluster can hold a pack, estimate the cost.

    The estimate does not know that packs which share a GPU slow each other.

    Raises:
        StudyError: a mistake in the file, the store or the address.
    """
    from vistudy.study.execution.data_changes import other_data
    from vistudy.study.execution.data_check import check_data
    from vistudy.study.planning.rounds import plan_from_store
    from vistudy.trainables.data import forget_seen_files

    ledger = Ledger(store)
    forget_seen_files()
    planned = plan_from_store(as_study(study), ledger, allow_large=allow_large)
    check_data(planned)
    planned = planned.noting(other_data(planned, ledger))
    if cluster == "local":
        from vistudy.study.execution.preflight import local_cluster

        return _plan_here(planned, ledger, local_cluster(packs_per_gpu, gpus), pilot=pilot)
    from vistudy.study.execution.connect import connected
    from vistudy.study.execution.remote_profiling import estimate_runtime, profile_packs
    from vistudy.study.packing.workload import plan_workload

    with connected(cluster, packs_per_gpu, gpus) as on:
        costs = profile_packs([trial.config for trial in planned.trials], on) if pilot else None
        todo = plan_workload(planned, ledger, slots=on.slots, gpu=on.gpus > 0, costs=costs)
        cost = estimate_runtime(todo.packs, on) if pilot and todo.packs else None
        return _preview(planned, ledger, todo, on, cost)


def _plan_here(planned: Plan, ledger: Ledger, on: Cluster, *, pilot: bool) -> Preview:
    """As on the cluster `local`: it is this machine, so nothing of Ray's has to be started, or imported."""
    from vistudy.study.execution.data_check import data_errors
    from vistudy.study.packing import profiling
    from vistudy.study.packing.runtime_estimate import PILOT_STRUCTURES, estimate, representatives, time_pack
    from vistudy.study.packing.workload import plan_workload

    configs = [trial.config for trial in planned.trials]
    costs = profiling.costs(configs, PILOT_STRUCTURES, on.gpu_share) if pilot else None
    todo = plan_workload(planned, ledger, slots=on.slots, gpu=on.gpus > 0, costs=costs)
    cost = None
    if pilot and todo.packs:
        with data_errors():
            chosen = representatives(todo.packs, PILOT_STRUCTURES)
            timings = {pack.pack_id: time_pack(pack.configs, on.cpus) for pack in chosen}
        cost = estimate(todo.packs, timings, on.slots)
    return _preview(planned, ledger, todo, on, cost)


def _preview(planned: Plan, ledger: Ledger, todo: Workload, on: Cluster, cost: Estimate | None) -> Preview:
    found = standing(ledger, planned)
    return Preview(
        plan=planned, work=todo, cluster=on.name, slots=on.slots, gpus=on.gpus, estimate=cost, standing=found
    )


def run(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    cluster: str = "local",
    gpus: int = 0,
    packs_per_gpu: int = 1,
    allow_large: bool = False,
    retry_failed: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
    say: LogFn = no_op,
    tick: ProgressFn = no_op,
    end_now: Callable[[int], None] | None = None,
) -> RunReport:
    """Run the trials of a study that the store lacks, mirror them to MLflow and draw the heatmaps.

    Running again is resuming: what is done is kept, packs that were begun go on from their checkpoints. Ctrl-C and
    SIGTERM (in the main thread) stop a run in order: packs write checkpoints, heatmaps are left out, MLflow gets
    LAST_SYNC_S seconds, and the report says what is left.

    Args:
        study: a Study, or the path of its file.
        store: directory or fsspec URI of the ledger.
        tracking_uri: MLflow; by default an SQLite file in the store.
        cluster: `local`, or the address of a running Ray cluster.
        gpus: GPUs that the cluster must have.
        packs_per_gpu: packs that share a GPU, each in a process of its own with that share of its memory.
        allow_large: allow more than 10,000 trials.
        retry_failed: run failed trials again.
        checkpoint_every_s: seconds of training between checkpoints of a pack; more than that is never done again. Where
            checkpoints are so slow that they would cost over 3 % of training, they are rarer. 0: at every evaluation.
        heartbeat_timeout_s: shortest silence after which the process of a pack is taken to hang, and is killed.
        say: called with lines of progress, from several threads. Without it, what a signal does goes to stderr.
        tick: called with (trials done, trials to do) while training.
        end_now: called with the number of a second signal, from another thread, to end the process.

    Raises:
        StudyError: a mistake in the file, the store, the address or the tracking URI.
        KeyboardInterrupt: Ctrl-C before the study was planned, or a second one without `end_now`.
        Terminated: SIGTERM before the study was planned.
    """
    aloud = functools.partial(print, file=sys.stderr, flush=True) if say is no_op else say
    with listening(aloud, end_now) as stop:
        return _run(
            study, store, tracking_uri, allow_large, stop, say,
            functools.partial(
                StudyRunner, cluster=cluster, gpus=gpus, packs_per_gpu=packs_per_gpu, retry_failed=retry_failed,
                checkpoint_every_s=checkpoint_every_s, heartbeat_timeout_s=heartbeat_timeout_s, stop=stop, say=say,
                tick=tick,
            ),
        )  # fmt: skip


def _run(
    study: Study | str | os.PathLike[str],
    store: str,
    tracking_uri: str | None,
    allow_large: bool,
    stop: Stop,
    say: LogFn,
    trainer_on: Callable[..., StudyRunner],
) -> RunReport:
    from vistudy.analysis.outcomes.label_study import label_study
    from vistudy.study.execution.data_changes import other_data
    from vistudy.study.execution.data_check import check_data
    from vistudy.study.planning.rounds import rounds
    from vistudy.study.tracking import mirror
    from vistudy.trainables.data import forget_seen_files

    wanted = as_study(study)
    uri = tracking_uri or mirror.default_tracking_uri(store)
    mirror.check_tracking_uri(uri)
    ledger = Ledger(store)
    forget_seen_files()
    outcomes = lambda ids: label_study(ledger, wanted.name).outcomes  # noqa: E731
    plans = rounds(wanted, outcomes, ledger.records, allow_large=allow_large)
    first = next(plans)  # before anything is written: a plan may be refused
    check_data(first)
    first = first.noting(other_data(first, ledger))
    ledger.create()
    if wanted.claim and not ledger.registrations(wanted.name):
        say(f"claim {wanted.claim.id} is not registered: `vistudy register` freezes it before the first record")
    planned, said, drawn = first, set[str](), list[Path]()
    with ledger.lock(wanted.name, "run"), trainer_on(ledger=ledger, uri=uri) as trainer:
        ended = False
        try:
            for planned in itertools.chain([first], plans):
                for note in dict.fromkeys(note for note in planned.notes if note not in said):
                    say(note)
                said |= set(planned.notes)
                trainer.train(planned)
            ended = True
            if not trainer.mirrors:
                say(f"nothing left to run: all {len(planned.trials)} trials of {wanted.name} are in {ledger.uri}")
            stop.doing = DRAWING
            drawn = trainer.release_while(lambda: draw(wanted.name, store=store, tracking_uri=uri, say=say)[1])
            stop.settle(SYNCING)
        except (Stopping, KeyboardInterrupt, SystemExit) as error:
            if not stop.here(error):
                raise
            trainer.release()
        if ended or trainer.mirrors:
            trainer.finish_mirror(wanted.name, drawn)
        return _report(ledger, planned, trainer, drawn, stop)


def _report(ledger: Ledger, planned: Plan, trainer: StudyRunner, drawn: Sequence[Path], stop: Stop) -> RunReport:
    """What a run did, counted in the ledger."""
    name, found = planned.study.name, standing(ledger, planned)
    ended = found.states.keys() - found.left
    outcomes = judged_all(ledger, name, ended) if name in ledger.study_names() else {}
    return RunReport(
        study=name,
        trials=len(planned.trials),
        ran=len(ended - trainer.before),
        already=len(ended & trainer.before),
        left=len(found.left),
        saved=len(found.saved),
        saved_at=sum(found.saved.values()) / len(found.saved) if found.saved else None,
        begun=sum(state != "planned" for state in map(found.states.get, found.left - found.saved.keys())),
        states=counts(found.states.values()),
        outcomes=counts(str(labels["outcome"]) for labels in outcomes.values()),
        train_s=trainer.train_s,
        heatmaps=tuple(drawn),
        synced=trainer.synced,
        tracking_error=trainer.behind,
        interrupted=stop.asked.is_set(),
        terminated=stop.terminated,
    )


def sync(
    study: str, *, store: str = DEFAULT_STORE, tracking_uri: str | None = None, tick: ProgressFn | None = None
) -> SyncReport:
    """Bring MLflow up to date with the ledger, outcomes of the present rules included; rebuilds it if it was wiped.

    Raises:
        StudyError: unknown study, or MLflow cannot be reached.
    """
    from vistudy.study.tracking.mirror import default_tracking_uri

    ledger = Ledger(store)
    ledger.read_plan(study)
    uri = tracking_uri or default_tracking_uri(store)
    _, drawn = draw(study, store=store, tracking_uri=uri)
    return sync_all(ledger, study, uri, drawn, tick)


def draw(
    study: str,
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    out: str | os.PathLike[str] | None = None,
    say: LogFn = no_op,
) -> tuple[pd.DataFrame, list[Path]]:
    """Draw a study's heatmaps as PNG, SVG and one offline HTML page. Returns its frame of trials and the files.

    `out`: folder; by default `heatmaps/<study>` in a local store, else in the present folder.

    Raises:
        StudyError: unknown study, or a frame that does not add up.
    """
    from vistudy.analysis.maps.heatmap import save_heatmaps
    from vistudy.analysis.maps.heatmap_page import heatmap_html
    from vistudy.analysis.tables.columns import NO_DATA, data_of
    from vistudy.analysis.tables.trials import load_frame
    from vistudy.study.tracking.mirror import experiment_url

    ledger = Ledger(store)
    factors = list(ledger.read_plan(study)["factors"]) or None
    frame = load_frame(ledger, study)
    folder = Path(out) if out is not None else Path("" if "://" in ledger.uri else ledger.uri, "heatmaps", study)
    say(f"drawing heatmaps into {folder}")
    unshare(folder)
    files = save_heatmaps(frame, factors, folder, study)
    meta = ledger.read_meta(study)
    page = folder / f"{study}.html"
    url = experiment_url(tracking_uri, study) if tracking_uri else None
    provenance = {
        "study file": ledger.read_plan(study)["hash"],
        "git commit": meta["git"]["commit"] or "none",
        "vistudy": meta["versions"]["vistudy"],
        "torch": meta["versions"]["torch"],
        "data": "; ".join(f"{name}, {text}" for name, text in data_of(meta).items()) or NO_DATA,
    }
    page.write_text(heatmap_html(frame, factors, study=study, mlflow_url=url, provenance=provenance), "utf-8")
    return frame, [*files, page]


def report(
    study: str,
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    out: str | os.PathLike[str] | None = None,
    png: bool = False,
) -> tuple[Report, str | None]:
    """Write a study's report. Returns what was written, and why MLflow has no copy of it, if it has not.

    `out`: folder; by default `reports/<study>` in a local store, else in the present folder.
    `png`: write the pictures for print as PNG, too.

    Raises:
        StudyError: unknown study, or a store that does not add up.
    """
    from vistudy.analysis.report.report import report as write
    from vistudy.study.execution.runner import real_modes
    from vistudy.study.tracking.mirror import TrackingError, experiment_url
    from vistudy.study.tracking.uri import default_tracking_uri

    ledger = Ledger(store)
    ledger.read_plan(study)
    uri = tracking_uri or default_tracking_uri(store)
    folder = Path(out) if out is not None else Path("" if "://" in ledger.uri else ledger.uri, "reports", study)
    unshare(folder)
    made = write(ledger, study, folder, mlflow_url=experiment_url(uri, study), modes=real_modes(), png=png)
    try:
        sync_all(ledger, study, uri, [made.html, made.markdown])
    except (TrackingError, ReadOnlyError) as error:
        return made, str(error)
    return made, None
