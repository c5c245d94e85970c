"""The verbs of `vistudy` as functions, for notebooks and for the command line alike."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import StoreError
from study.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd

    from study.design import Plan
    from study.launch import Work
    from study.pilot import Estimate
    from study.replay import SyncReport
    from study.spec import Study
    from study.tracking import Mirror

DEFAULT_STORE = "vistudy-data"
MIRROR_EVERY_S = 10.0
CHECKPOINT_EVERY_S = 20.0
STALE_MS = 120_000
"""Packs that have recorded nothing for so long do not count as running in an estimate."""
RECORDED_PACKAGES = ("vistudy", "torch", "torchvision", "numpy", "ray", "mlflow", "optuna", "pandas", "scipy")

Say = Callable[[str], None]
Tick = Callable[[int, int], None]


def _quiet(*_: object) -> None:
    pass


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
    yes: bool = False,
    pilot: bool = True,
) -> Preview:
    """Expand a study, look what the store already has, check that the cluster can hold a pack, estimate the cost.

    Raises:
        StudyError: a mistake in the file, the store or the address.
    """
    from study import launch
    from study.design import plan as expand

    planned = expand(as_study(study), yes=yes)
    ledger = Ledger(store)
    ledger.exists()
    with launch.cluster(cluster) as on:
        todo = launch.work(planned, ledger, slots=on.slots, gpu=on.gpus > 0)
        cost = launch.pilot(todo.packs, on) if pilot and todo.packs else None
        return Preview(plan=planned, work=todo, cluster=on.name, slots=on.slots, gpus=on.gpus, estimate=cost)


def run(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    cluster: str = "local",
    yes: bool = False,
    retry_failed: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    say: Say = _quiet,
    tick: Tick = _quiet,
) -> RunReport:
    """Run the trials of a study that the store lacks, mirror them to MLflow and draw the heatmaps.

    Running again is resuming: what is done is kept, packs that were begun go on from their checkpoints.

    Args:
        study: a Study, or the path of its file.
        store: directory or fsspec URI of the ledger.
        tracking_uri: MLflow; by default an SQLite file in the store.
        cluster: `local`, or the address of a running Ray cluster.
        yes: allow very many trials.
        retry_failed: run failed trials again.
        checkpoint_every_s: seconds of training between checkpoints of a pack; more than that is never done again.
        say: called with lines of progress.
        tick: called with (trials done, trials to do) while training.

    Raises:
        StudyError: a mistake in the file, the store, the address or the tracking URI.
    """
    from study import tracking
    from study.rounds import rounds

    wanted = as_study(study)
    uri = tracking_uri or tracking.default_tracking_uri(store)
    tracking.check_tracking_uri(uri)
    ledger = Ledger(store)
    plans = rounds(wanted, lambda ids: _judge(ledger, wanted.name, ids)[0], yes=yes)
    first = next(plans)  # before anything is written: a plan may be refused
    ledger.create()
    with ledger.lock(wanted.name, "run"):
        trainer = _Trainer(ledger=ledger, cluster=cluster, uri=uri, retry_failed=retry_failed, say=say, tick=tick)
        trainer.checkpoint_every_s = checkpoint_every_s
        for planned in itertools.chain([first], plans):
            trainer.train(planned)
            if trainer.interrupted:
                break
        if not trainer.ran:
            say(f"nothing left to run: all {len(planned.trials)} trials of {wanted.name} are in {ledger.uri}")
        frame, drawn = draw(wanted.name, store=store, tracking_uri=uri, say=say)
        error = trainer.finish_mirror(wanted.name, drawn)
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
    )


class _Trainer:
    """Trains plan after plan of one study on one cluster, with one mirror."""

    def __init__(self, *, ledger: Ledger, cluster: str, uri: str, retry_failed: bool, say: Say, tick: Tick) -> None:
        self._ledger, self._cluster, self._uri, self._retry = ledger, cluster, uri, retry_failed
        self._say, self._tick = say, tick
        self._mirror: Mirror | None = None
        self.checkpoint_every_s = CHECKPOINT_EVERY_S
        self.ran, self.train_s, self.interrupted = 0, 0.0, False

    def train(self, planned: Plan) -> None:
        """Run what the ledger lacks of a plan."""
        from study import launch

        ledger, name, ids = self._ledger, planned.study.name, {trial.trial_id for trial in planned.trials}
        if self._retry:
            ended = ledger.read_outcomes(ids)
            ledger.forget([trial_id for trial_id, outcome in ended.items() if outcome["state"] == "failed"])
        before = ledger.done() & ids
        ledger.write_study(name, planned.study.text, planned.to_json(), _meta(name, ledger))
        if before == ids:
            return
        with launch.cluster(self._cluster) as on:
            todo = launch.work(planned, ledger, slots=on.slots, gpu=on.gpus > 0)
            launch.prepare(planned, todo, ledger, _now_ms(), self._say)
            self._say(
                f"{len(todo.pending)} of {len(ids)} trials to run, in {len(todo.packs)} packs "
                f"on {on.slots} {'GPU' if on.gpus else 'CPU'} slots of {on.name}"
            )
            self._start_mirror(name)
            with _ticking(ledger, set(todo.pending), self._tick):
                executed = launch.execute(
                    todo.packs, ledger, on, checkpoint_every_s=self.checkpoint_every_s
                )
            launch.mark_lost(executed.lost_packs, ledger, _now_ms())
        self.ran += len((ledger.done() & ids) - before)
        self.train_s += executed.wall_s
        self.interrupted = executed.interrupted

    def _start_mirror(self, name: str) -> None:
        from study.tracking import Mirror

        if self._mirror is None:
            self._mirror = Mirror(
                self._ledger,
                name,
                self._uri,
                lambda ids: _judge(self._ledger, name, ids)[0],
                MIRROR_EVERY_S,
                q_fn=lambda ids: _judge(self._ledger, name, ids)[1],
                modes=real_modes(),
            )
            self._mirror.start()

    def finish_mirror(self, name: str, artifacts: Sequence[Path]) -> str | None:
        """Mirror everything, leaving no run open. Returns why that failed, or None."""
        from study.tracking import TrackingError

        if self._mirror is not None:
            return self._mirror.stop(final=True, artifacts=artifacts).error
        try:
            _sync(self._ledger, name, self._uri, artifacts)
        except TrackingError as error:
            return str(error)
        return None


def _judge(ledger: Ledger, name: str, ids: Collection[str]) -> tuple[dict[str, dict[str, Any]], Any]:
    """Outcome tags and Q of trials, as the mirror wants them."""
    from analysis.frame import judge

    labels, q = judge(ledger, name, ids)
    return {trial_id: _tags(fields) for trial_id, fields in labels.items()}, q


def _tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome in the words of MLflow's tags."""
    renamed = {"label": "outcome", "version": "outcome_version"}
    return {renamed.get(name, name): value for name, value in fields.items()} | {"flags": ";".join(fields["flags"])}


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
    return _sync(ledger, study, uri, drawn, tick)


def _sync(ledger: Ledger, name: str, uri: str, artifacts: Sequence[Path], tick: Tick | None = None) -> SyncReport:
    from study import tracking

    ids = [trial["trial_id"] for trial in ledger.read_plan(name)["trials"]]
    labels, q = _judge(ledger, name, ids)
    return tracking.sync(
        ledger, name, uri, outcomes=labels, q=q, artifacts=artifacts, modes=real_modes(), final=True, progress=tick
    )


def draw(
    study: str,
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    out: str | os.PathLike[str] | None = None,
    say: Say = _quiet,
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
    from analysis.frame import load_frame

    ledger = Ledger(store)
    plan_ = ledger.read_plan(study)
    ids = [trial["trial_id"] for trial in plan_["trials"]]
    frame = load_frame(ledger, study)
    evaluations = {trial["trial_id"]: int(trial["config"]["evaluations"]) for trial in plan_["trials"]}
    done = sum(evaluations[trial_id] for trial_id in frame.loc[frame["state"].isin(["complete", "failed"]), "trial_id"])
    running = frame.loc[frame["state"] == "running", "trial_id"].tolist()
    now_ms, pace = _now_ms(), 0.0
    for trial_id, group in itertools.groupby(ledger.records(running), key=lambda record: str(record["trial_id"])):
        records = list(group)
        done += int(records[-1]["evaluation"])
        took_ms = records[-1]["unix_ms"] - records[0]["unix_ms"]
        if took_ms > 0 and now_ms - records[-1]["unix_ms"] < STALE_MS:
            pace += (records[-1]["evaluation"] - records[0]["evaluation"]) / took_ms * 1000
        assert trial_id in evaluations
    total = sum(evaluations.values())
    failed = frame[frame["state"] == "failed"]
    return Status(
        study=study,
        trials=len(ids),
        states=_counts(frame["state"]),
        outcomes=_counts(frame["outcome"].dropna()),
        progress=done / total if total else 1.0,
        eta_s=(total - done) / pace if pace else None,
        errors=dict(zip(failed["trial_id"], failed["error"], strict=True)),
    )


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(name): int(n) for name, n in column.value_counts().items()}


@contextlib.contextmanager
def _ticking(ledger: Ledger, pending: set[str], tick: Tick) -> Iterator[None]:
    """Call `tick` with (done, to do) every second for the time of a `with`."""
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(1.0):
            tick(len(ledger.done() & pending), len(pending))

    thread = threading.Thread(target=count, name="vistudy-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tick(len(ledger.done() & pending), len(pending))


def real_modes() -> dict[str, Any]:
    """Data set -> centres of its modes, for pictures of samples."""
    from trainables.data import DATASETS
    from trainables.data.mixtures import Mixture

    return {name: data.means for name, data in DATASETS.items() if isinstance(data, Mixture)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _meta(name: str, ledger: Ledger) -> dict[str, Any]:
    """Where and with what a study was run last, and when first."""
    now = _now_ms()
    try:
        created = ledger.read_meta(name)["created_ms"]
    except StoreError:
        created = now
    return {"created_ms": created, "last_run_ms": now, "git": git_state(), "versions": versions()}


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in RECORDED_PACKAGES}


def git_state() -> dict[str, str | bool | None]:
    """Commit of this project's checkout, and whether it has uncommitted changes; None outside a checkout."""
    root = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
