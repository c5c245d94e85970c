"""Train the pending trials of a study, sync them to MLflow and draw its heatmaps."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.documents import TrialState
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.heatmap import draw_heatmaps
from vistudy.study.api.plan import to_study
from vistudy.study.api.status import DEFAULT_STORE, count_values, trial_states
from vistudy.study.execution.interrupts import DRAWING, SYNCING, Stop, Stopping, listening
from vistudy.study.execution.runner import LogFn, ProgressFn, StudyRunner, final_labels, no_op

if TYPE_CHECKING:
    from vistudy.study.planning.plan import Plan
    from vistudy.study.spec.model import Study


CHECKPOINT_EVERY_S = 20.0


HEARTBEAT_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a run did."""

    study: str
    trials: int
    """Trials of the plan."""
    n_trained: int
    """Trials that ended in this run."""
    n_existing: int
    """Trials that had ended before it."""
    n_unfinished: int
    """Trials that have not ended."""
    n_with_checkpoint: int
    """Those of them with a checkpoint, from which the next run resumes."""
    checkpoint_progress: float | None
    """Mean share of their training after which it was written."""
    n_started: int
    """Those that have records and no checkpoint: the next run trains them from the beginning."""
    states: dict[str, int]
    outcomes: dict[str, int]
    train_s: float
    """Seconds of training, with Ray's start and end."""
    heatmaps: tuple[Path, ...]
    synced: bool
    """MLflow was synced, or tried, at the end; not if the run was stopped before it trained anything."""
    tracking_error: str | None
    """Why MLflow is incomplete; None: it is complete."""
    interrupted: bool
    """The run was asked to stop, by Ctrl-C (SIGINT) or SIGTERM."""
    terminated: bool
    """By SIGTERM."""

    @property
    def failed(self) -> int:
        """Trials that a machine or an error of the code failed."""
        return self.states.get("failed", 0)


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

    Running again resumes: finished trials are kept, started packs resume from their checkpoints. Ctrl-C and
    SIGTERM (in the main thread) stop a run in order: packs write checkpoints, heatmaps are left out, MLflow gets
    FINAL_SYNC_TIMEOUT_S seconds, and the report says what is left.

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
    from vistudy.analysis.outcomes.label_study import update_outcome_cache
    from vistudy.study.execution.data_changes import other_data
    from vistudy.study.execution.data_check import check_data
    from vistudy.study.planning.rounds import rounds
    from vistudy.study.tracking import mirror
    from vistudy.trainables.data import forget_seen_files

    declared = to_study(study)
    uri = tracking_uri or mirror.default_tracking_uri(store)
    mirror.check_tracking_uri(uri)
    ledger = Ledger(store)
    forget_seen_files()
    outcomes = lambda ids: update_outcome_cache(ledger, declared.name).outcomes  # noqa: E731
    plans = rounds(declared, outcomes, ledger.records, allow_large=allow_large)
    first = next(plans)  # before anything is written: a plan may be refused
    check_data(first)
    first = first.noting(other_data(first, ledger))
    ledger.create()
    if declared.claim and not ledger.registrations(declared.name):
        say(f"claim {declared.claim.id} is not registered: `vistudy register` freezes it before the first record")
    planned, messages, heatmaps = first, set[str](), list[Path]()

    def draw_all() -> list[Path]:
        update_outcome_cache(ledger, declared.name)  # before the first of several readers
        return draw_heatmaps(declared.name, store=store, tracking_uri=uri, say=say)[1]

    with ledger.lock(declared.name, "run"), trainer_on(ledger=ledger, uri=uri) as trainer:
        ended = False
        try:
            for planned in itertools.chain([first], plans):
                for note in dict.fromkeys(note for note in planned.notes if note not in messages):
                    say(note)
                messages |= set(planned.notes)
                trainer.train(planned)
            ended = True
            if not trainer.mirrors:
                say(f"nothing left to run: all {len(planned.trials)} trials of {declared.name} are in {ledger.uri}")
            stop.doing = DRAWING
            heatmaps = trainer.disconnect_while(draw_all)
            stop.settle(SYNCING)
        except (Stopping, KeyboardInterrupt, SystemExit) as error:
            if not stop.here(error):
                raise
            trainer.disconnect()
        if ended or trainer.mirrors:
            trainer.finish_mirror(declared.name, heatmaps)
        return _report(ledger, planned, trainer, heatmaps, stop)


def _report(ledger: Ledger, planned: Plan, trainer: StudyRunner, heatmaps: Sequence[Path], stop: Stop) -> RunReport:
    """What a run did, counted in the ledger."""
    name, states = planned.study.name, trial_states(ledger, planned)
    ended = states.states.keys() - states.unfinished
    outcomes = final_labels(ledger, name, ended) if name in ledger.study_names() else {}
    return RunReport(
        study=name,
        trials=len(planned.trials),
        n_trained=len(ended - trainer.before),
        n_existing=len(ended & trainer.before),
        n_unfinished=len(states.unfinished),
        n_with_checkpoint=len(states.checkpoints),
        checkpoint_progress=sum(states.checkpoints.values()) / len(states.checkpoints) if states.checkpoints else None,
        n_started=sum(states.states[i] != TrialState.PLANNED for i in states.unfinished - states.checkpoints.keys()),
        states=count_values(states.states.values()),
        outcomes=count_values(str(labels["outcome"]) for labels in outcomes.values()),
        train_s=trainer.train_s,
        heatmaps=tuple(heatmaps),
        synced=trainer.synced,
        tracking_error=trainer.behind,
        interrupted=stop.asked.is_set(),
        terminated=stop.terminated,
    )
