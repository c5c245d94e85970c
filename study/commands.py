"""The verbs of `vistudy` as functions, for notebooks and for the command line alike."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import ReadOnlyError, StudyError
from study.ledger import Ledger
from study.locations import unshare
from study.provenance import now_ms
from study.trainer import Say, Tick, Trainer, judged_all, quiet, sync_all

if TYPE_CHECKING:
    import pandas as pd

    from analysis.report import Report
    from clusters import Cluster
    from study.design import Plan
    from study.pilot import Estimate
    from study.replay import SyncReport
    from study.spec import Study
    from study.todo import Work

DEFAULT_STORE = "vistudy-data"
CHECKPOINT_EVERY_S = 20.0
HANG_AFTER_S = 300.0
LAST_SYNC_S = 6.0
"""After SIGTERM, how long MLflow may take."""
STALE_MS = 120_000
"""Packs that have recorded nothing for so long do not count as running in an estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a run did."""

    study: str
    trials: int
    """Trials of the plan."""
    ran: int
    """Trials that ended in this run."""
    already: int
    """Trials that were in the store before."""
    states: dict[str, int]
    outcomes: dict[str, int]
    train_s: float
    """Seconds of training, with Ray's start and end."""
    heatmaps: tuple[Path, ...]
    tracking_error: str | None
    """Why MLflow lacks something, if it does."""
    interrupted: bool
    """It ended before its end."""
    terminated: bool
    """By SIGTERM: packs wrote checkpoints first."""

    @property
    def failed(self) -> int:
        """Trials that a machine or an error of the code failed."""
        return self.states.get("failed", 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A plan held against a store and a cluster."""

    plan: Plan
    work: Work
    cluster: str
    slots: int
    gpus: int
    estimate: Estimate | None


def as_study(study: Study | str | os.PathLike[str]) -> Study:
    """A study as it is, or read from its file."""
    from study.spec import Study, load_study

    return study if isinstance(study, Study) else load_study(study)


def plan(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    cluster: str = "local",
    gpus: int = 0,
    packs_per_gpu: int = 1,
    yes: bool = False,
    pilot: bool = True,
) -> Preview:
    """Expand a study, look what the store already has, check that the cluster can hold a pack, estimate the cost.

    The estimate does not know that packs which share a GPU slow each other.

    Raises:
        StudyError: a mistake in the file, the store or the address.
    """
    from study.rounds import foreseen

    ledger = Ledger(store)
    planned = foreseen(as_study(study), ledger, yes=yes)
    check_data(planned)
    ledger.exists()
    if cluster == "local":
        from study.todo import this_machine

        return _plan_here(planned, ledger, this_machine(packs_per_gpu, gpus), pilot=pilot)
    from study import launch

    with launch.cluster(cluster, packs_per_gpu, gpus) as on:
        costs = launch.costs([trial.config for trial in planned.trials], on) if pilot else None
        todo = launch.work(planned, ledger, slots=on.slots, gpu=on.gpus > 0, costs=costs)
        cost = launch.pilot(todo.packs, on) if pilot and todo.packs else None
        return Preview(plan=planned, work=todo, cluster=on.name, slots=on.slots, gpus=on.gpus, estimate=cost)


def _plan_here(planned: Plan, ledger: Ledger, on: Cluster, *, pilot: bool) -> Preview:
    """As on the cluster `local`: it is this machine, so nothing of Ray's has to be started, or imported."""
    from study import probe
    from study.pilot import PILOT_STRUCTURES, estimate, measure, representatives
    from study.todo import work

    configs = [trial.config for trial in planned.trials]
    costs = probe.costs(configs, PILOT_STRUCTURES, on.gpu_share) if pilot else None
    todo = work(planned, ledger, slots=on.slots, gpu=on.gpus > 0, costs=costs)
    cost = None
    if pilot and todo.packs:
        timings = {
            pack.pack_id: measure(pack.configs, on.cpus) for pack in representatives(todo.packs, PILOT_STRUCTURES)
        }
        cost = estimate(todo.packs, timings, on.slots)
    return Preview(plan=planned, work=todo, cluster=on.name, slots=on.slots, gpus=on.gpus, estimate=cost)


def check_data(planned: Plan) -> None:
    """Read every data set of a plan once: files are prepared here, not by many workers at once.

    Raises:
        StudyError: files are missing or damaged.
    """
    from trainables.data import DATASETS, DataError

    for name in dict.fromkeys(trial.config.data for trial in planned.trials):
        try:
            assert DATASETS[name].fingerprint
        except DataError as error:
            raise StudyError(f"data: {name}: {error}") from error


def run(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    cluster: str = "local",
    gpus: int = 0,
    packs_per_gpu: int = 1,
    yes: bool = False,
    retry_failed: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    hang_after_s: float = HANG_AFTER_S,
    say: Say = quiet,
    tick: Tick = quiet,
) -> RunReport:
    """Run the trials of a study that the store lacks, mirror them to MLflow and draw the heatmaps.

    Running again is resuming: what is done is kept, packs that were begun go on from their checkpoints.

    Args:
        study: a Study, or the path of its file.
        store: directory or fsspec URI of the ledger.
        tracking_uri: MLflow; by default an SQLite file in the store.
        cluster: `local`, or the address of a running Ray cluster.
        gpus: GPUs that the cluster must have.
        packs_per_gpu: packs that share a GPU, each in a process of its own with that share of its memory.
        yes: allow very many trials.
        retry_failed: run failed trials again.
        checkpoint_every_s: seconds of training between checkpoints of a pack; more than that is never done again. Where
            checkpoints are so slow that they would cost over 3 % of training, they are rarer. 0: at every evaluation.
        hang_after_s: shortest silence after which the process of a pack is taken to hang, and is killed.
        say: called with lines of progress.
        tick: called with (trials done, trials to do) while training.

    Raises:
        StudyError: a mistake in the file, the store, the address or the tracking URI.
    """
    from analysis.frame import load_frame
    from study import tracking
    from study.rounds import rounds

    wanted = as_study(study)
    uri = tracking_uri or tracking.default_tracking_uri(store)
    tracking.check_tracking_uri(uri)
    ledger = Ledger(store)
    plans = rounds(wanted, lambda ids: judged_all(ledger, wanted.name, ids), ledger.records, yes=yes)
    first = next(plans)  # before anything is written: a plan may be refused
    check_data(first)
    ledger.create()
    if wanted.claim and not ledger.registrations(wanted.name):
        say(f"claim {wanted.claim.id} is not registered: `vistudy register` freezes it before the first record")
    said: set[str] = set()
    with (
        ledger.lock(wanted.name, "run"),
        Trainer(
            ledger=ledger,
            cluster=cluster,
            gpus=gpus,
            packs_per_gpu=packs_per_gpu,
            uri=uri,
            retry_failed=retry_failed,
            checkpoint_every_s=checkpoint_every_s,
            hang_after_s=hang_after_s,
            say=say,
            tick=tick,
        ) as trainer,
    ):
        for planned in itertools.chain([first], plans):
            for note in dict.fromkeys(note for note in planned.notes if note not in said):
                say(note)
            said |= set(planned.notes)
            trainer.train(planned)
            if trainer.interrupted:
                break
        if not trainer.ran:
            say(f"nothing left to run: all {len(planned.trials)} trials of {wanted.name} are in {ledger.uri}")
        drawn: list[Path] = []
        if trainer.terminated:  # somebody is about to send SIGKILL: no pictures now
            trainer.release()
            frame = load_frame(ledger, wanted.name)
        else:
            frame, drawn = trainer.release_while(lambda: draw(wanted.name, store=store, tracking_uri=uri, say=say))
        error = trainer.finish_mirror(wanted.name, drawn, LAST_SYNC_S if trainer.terminated else None)
    return RunReport(
        study=wanted.name,
        trials=len(planned.trials),
        ran=trainer.ran,
        already=len(planned.trials) - trainer.ran,
        states=_counts(frame["state"]),
        outcomes=_counts(frame["outcome"].dropna()),
        train_s=trainer.train_s,
        heatmaps=tuple(drawn),
        tracking_error=error,
        interrupted=trainer.interrupted,
        terminated=trainer.terminated,
    )


def sync(
    study: str, *, store: str = DEFAULT_STORE, tracking_uri: str | None = None, tick: Tick | None = None
) -> SyncReport:
    """Bring MLflow up to date with the ledger, outcomes of the present rules included; rebuilds it if it was wiped.

    Raises:
        StudyError: unknown study, or MLflow cannot be reached.
    """
    from study.tracking import default_tracking_uri

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
    say: Say = quiet,
) -> tuple[pd.DataFrame, list[Path]]:
    """Draw a study's heatmaps as PNG, SVG and one offline HTML page. Returns its frame of trials and the files.

    `out`: folder; by default `heatmaps/<study>` in a local store, else in the present folder.

    Raises:
        StudyError: unknown study, or a frame that does not add up.
    """
    from analysis.figures import save_heatmaps
    from analysis.frame import load_frame
    from analysis.heatmap_html import heatmap_html
    from study.tracking import experiment_url

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
    from analysis.report import report as write
    from study.tracking import TrackingError, experiment_url
    from study.tracking_uri import default_tracking_uri
    from study.trainer import real_modes

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a study stands."""

    study: str
    trials: int
    states: dict[str, int]
    outcomes: dict[str, int]
    progress: float
    """Share of all evaluations that are recorded, 0 to 1."""
    eta_s: float | None
    """Seconds to the end at the present pace, while packs are being recorded."""
    errors: dict[str, str]
    """Failed trial -> traceback."""


def status(study: str, *, store: str = DEFAULT_STORE) -> Status:
    """Count a study's trials by state and outcome.

    Raises:
        StudyError: unknown study.
    """
    from analysis.judged import judge_study

    known = judge_study(Ledger(store), study)
    states = {trial_id: known.state(trial_id) for trial_id in known.entries}
    evaluations = {trial_id: int(entry["config"]["evaluations"]) for trial_id, entry in known.entries.items()}
    now, pace = now_ms(), 0.0
    done = sum(evaluations[trial_id] for trial_id in known.ended)
    for begun in known.begun.values():
        (first, last), (first_ms, last_ms) = begun.evaluations, begun.unix_ms
        done += last
        if last_ms > first_ms and now - last_ms < STALE_MS:
            pace += (last - first) / (last_ms - first_ms) * 1000
    total = sum(evaluations.values())
    return Status(
        study=study,
        trials=len(known.entries),
        states=_counts(states.values()),
        outcomes=_counts(outcome.label for outcome in known.outcomes.values()),
        progress=done / total if total else 1.0,
        eta_s=(total - done) / pace if pace else None,
        errors={trial_id: known.ended[trial_id]["error"] for trial_id, state in states.items() if state == "failed"},
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    """Most frequent first."""
    return dict(Counter(values).most_common())
