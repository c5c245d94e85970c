"""Looks for what no fault should leave in a store and its MLflow mirror, and repairs it. Nothing is ever deleted.

What is damaged, half-written or without its counterpart is moved to `aside/<time>/` in the store, with its path; then
`vistudy run` trains again what is missing, from the checkpoints that are left. Runs of MLflow go to MLflow's own bin.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.attempt import Kind, file_of_attempt, is_intact_checkpoint
from vistudy.analysis.ledger.documents import Record, TrialEnd
from vistudy.analysis.ledger.errors import StoreError, StudyBusyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.ledger.record_segments import decode
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.tracking.client import Experiment, connect
from vistudy.study.tracking.locations import (
    OWNER,
    describe_move,
    former_place_of_files,
    former_places,
    is_own,
    moved_message,
    other_owner,
    rewrite_locations,
)
from vistudy.study.tracking.uri import (
    TrackingError,
    artifact_location,
    database_file,
    default_tracking_uri,
    without_password,
)

LIVE_S = 60.0
"""A temporary file that is younger may have a writer."""
KINDS: tuple[Kind, ...] = ("records", "samples", "weights", "checkpoint")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    kind: str
    where: str
    """File, trial or run."""
    what: str
    repaired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wrong:
    """A finding with what would repair it."""

    kind: str
    where: str
    what: str
    aside: tuple[str, ...] = ()
    """Files to move aside."""
    act: Callable[[], None] | None = None
    """What else is to be done."""


def doctor(
    study: str, *, store: str = DEFAULT_STORE, tracking_uri: str | None = None, repair: bool = False
) -> tuple[list[Finding], str | None]:
    """Check a study's store and its MLflow mirror for damage. Arguments, result and errors as in `examine`.

    `tracking_uri`: default, the store's own database. Repairs move files below `aside/<time>` of the store.
    """
    uri = tracking_uri or default_tracking_uri(store)
    return examine(study, Ledger(store), uri, repair=repair, stamp=time.strftime("%Y%m%d-%H%M%S"))


def examine(
    study: str, ledger: Ledger, tracking_uri: str | None, *, repair: bool, stamp: str
) -> tuple[list[Finding], str | None]:
    """Examine a study, and repair it if asked to.

    Args:
        study: its name.
        ledger: the store.
        tracking_uri: MLflow, or None to leave it alone.
        repair: move aside what is wrong.
        stamp: names the folder below `aside/`.

    Returns:
        What is wrong; and who runs the study at this moment, if somebody does: files under way are no faults then.

    Raises:
        StudyBusyError: it is running, and `repair` was asked for.
        StoreError: there is no such store.
    """
    if not ledger.exists():
        ledger.finished_trials()  # raises, and says what is there
    try:
        with _locked(study, ledger, repair):
            # First: what is connected to a database that is replaced would write into the one that it was linked to.
            moved = [_treat(one, ledger.files, stamp, repair) for one in _moved(study, tracking_uri)]
            wrong = list(_examine(study, ledger, tracking_uri))
            return moved + [_treat(one, ledger.files, stamp, repair) for one in wrong], None
    except StudyBusyError as busy:
        if repair:
            raise
        wrong = [one for one in _examine(study, ledger, None) if one.kind != "half-written"]
        return [_treat(one, ledger.files, stamp, False) for one in (*_moved(study, tracking_uri), *wrong)], str(busy)


@contextlib.contextmanager
def _locked(study: str, ledger: Ledger, repair: bool) -> Iterator[None]:
    """Hold the study's locks; only looking at a store that cannot be written to needs none."""
    root = ledger.files.local
    if not repair and root is not None and not os.access(root / "studies" / study, os.W_OK):
        yield
        return
    with ledger.lock(study, "run"), ledger.lock(study, "sync"):
        yield


def _moved(study: str, tracking_uri: str | None) -> Iterator[_Wrong]:
    """An SQLite database whose locations are of the place in which it was made."""
    path = database_file(tracking_uri) if tracking_uri is not None else None
    if path is None:
        return
    only = None if is_own(path) else study
    with contextlib.suppress(TrackingError):  # one that cannot be read is met again
        if places := former_places(path, only):
            what = (
                f"{describe_move(places)} The next command that writes corrects its locations, `--repair` does it now"
            )
            yield _Wrong(
                kind="moved database", where=str(path), what=what, act=functools.partial(rewrite_locations, path, only)
            )


def _treat(wrong: _Wrong, disk: FileStore, stamp: str, repair: bool) -> Finding:
    can = bool(wrong.aside or wrong.act)
    if repair and can:
        for path in wrong.aside:
            if disk.exists(path):
                disk.write(f"aside/{stamp}/{path}", disk.read(path), durable=True)
                disk.remove(path)
                _prune(disk, path)
        if wrong.act:
            wrong.act()
    return Finding(kind=wrong.kind, where=wrong.where, what=wrong.what, repaired=repair and can)


def _prune(disk: FileStore, path: str) -> None:
    """Remove folders of attempts and packs that have become empty: an attempt without a file is none."""
    for folder in list(Path(path).parents)[:-2] if disk.local else ():
        with contextlib.suppress(OSError):  # not empty
            (disk.local or Path()).joinpath(folder).rmdir()


def _examine(study: str, ledger: Ledger, tracking_uri: str | None) -> Iterator[_Wrong]:
    disk = ledger.files
    yield from _leftovers(disk)
    try:
        plan = ledger.read_plan(study)
        ledger.read_meta(study)
    except StoreError as error:
        file = next((f for f in ("plan.json", "meta.json") if f in str(error)), "plan.json")
        path = f"studies/{study}/{file}"
        # The study file makes the plan: `vistudy run` writes it anew.
        yield _Wrong(kind="damaged", where=path, what=str(error), aside=(path,) if disk.exists(path) else ())
        return
    trials = {trial["trial_id"]: trial for trial in plan["trials"]}
    yield from _data(study, trials)
    outcomes: dict[str, TrialEnd] = {}
    for trial_id in sorted(trials.keys() & ledger.finished_trials()):
        try:
            outcomes |= ledger.read_outcomes([trial_id])
        except StoreError as error:
            path = f"trials/{trial_id}.json"
            yield _Wrong(kind="damaged", where=path, what=str(error), aside=(path,))
    packs: dict[str, _PackFiles] = {}
    for name in disk.list("packs"):
        found = _PackFiles(disk, name, trials.keys())
        yield from found.wrong
        if found.mine:
            packs[name] = found
    yield from _trials(trials, outcomes, packs)
    if tracking_uri is not None:
        yield from _mlflow(study, ledger, trials.keys(), outcomes, tracking_uri)


def _leftovers(disk: FileStore) -> Iterator[_Wrong]:
    """What killed processes leave behind: half-written files, wishes to stop, probes."""
    for name in disk.list("stops"):
        yield _Wrong(kind="stale", where=f"stops/{name}", what="a run that has ended", aside=(f"stops/{name}",))
    for name in disk.list(""):
        if name.startswith("probe-"):
            yield _Wrong(kind="stale", where=name, what="a probe of a process that was killed", aside=(name,))
    root = disk.local
    if root is None:
        return  # on other filesystems a file is there whole or not at all
    for top in ("packs", "trials", "studies", "references"):
        for folder, _, names in os.walk(root / top):
            for name in names:
                path = str(Path(folder, name).relative_to(root))
                if name.startswith(".") and name.endswith(".tmp"):
                    if time.time() - Path(folder, name).stat().st_mtime < LIVE_S:
                        continue  # perhaps of another study, which is running
                    yield _Wrong(kind="half-written", where=path, what="its writer was killed", aside=(path,))


class _PackFiles:
    """What is in the folder of one pack: good records by trial, good checkpoints, and what is wrong."""

    def __init__(self, disk: FileStore, name: str, wanted: Any) -> None:
        self.name, self.wrong, self.mine = name, list[_Wrong](), False
        self.records: dict[str, dict[int, Record]] = {}
        """Trial -> evaluation -> record, of the highest attempt."""
        self.checkpoints: list[tuple[int, str]] = []
        """(evaluation, path)."""
        self.trials: set[str] = set()
        path = f"packs/{name}/pack.json"
        attempts = [entry for entry in disk.list(f"packs/{name}") if entry.startswith("attempt-")]
        try:
            self.trials = set(disk.read_json(path)["trial_ids"])
        except (FileNotFoundError, StoreError, KeyError, TypeError) as error:
            if attempts or not isinstance(error, FileNotFoundError):
                inside = [f"packs/{name}/{a}/{file}" for a in attempts for file in disk.list(f"packs/{name}/{a}")]
                self._found("damaged", path, f"it does not say which trials it holds: {error}", *inside, path)
            return
        self.mine = not self.trials.isdisjoint(wanted)
        for attempt in attempts if self.mine else ():
            self._look(disk, f"packs/{name}/{attempt}")

    def _found(self, kind: str, where: str, what: str, *aside: str) -> None:
        self.wrong.append(_Wrong(kind=kind, where=where, what=what, aside=aside))

    def _look(self, disk: FileStore, folder: str) -> None:
        for name in disk.list(folder):
            path, kind = f"{folder}/{name}", name.partition("-")[0]
            match = file_of_attempt(name)
            if match is None:
                self._found("foreign", path, "no such file belongs in the folder of an attempt", path)
            elif kind in KINDS and (why := self._damage(disk, path, kind, match)):
                self._found("damaged", path, why, path)

    def _damage(self, disk: FileStore, path: str, kind: str, evaluation: int) -> str | None:
        """Why a file of an attempt is not good; None if it is, and then it counts."""
        data = disk.read(path)
        try:
            if kind == "records":
                for record in decode(disk, path, evaluation, data):
                    self.records.setdefault(record["trial_id"], {})[evaluation] = record
            elif kind == "checkpoint":
                if not is_intact_checkpoint(data):
                    return "its checksum is not that of its content"
                self.checkpoints.append((evaluation, path))
            else:
                _read_npz(data)
        except StoreError as error:
            return str(error)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def checkpoints_from(self, evaluation: int) -> tuple[str, ...]:
        """Checkpoints that would let a new attempt start beyond the evaluation before this one."""
        return tuple(path for at, path in self.checkpoints if at >= evaluation)


def _read_npz(data: bytes) -> None:
    import numpy as np

    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        for name in stored.files:
            stored[name]


def _data(study: str, trials: Mapping[str, Mapping[str, Any]]) -> Iterator[_Wrong]:
    """Trials of a study that were not trained on one content of their data, or of which that is not known."""
    from vistudy.trainables.data import DATASETS  # here: it takes torch

    prints: dict[str, Counter[str]] = {}
    for trial in trials.values():
        config = trial["config"]
        prints.setdefault(config["data"], Counter())[config.get("data_fingerprint", "")] += 1
    for data, found in prints.items():
        where = f"studies/{study}/plan.json"
        if len(found) > 1:
            parts = ", ".join(f"{n} on {print_ or 'data that are not recorded'}" for print_, n in found.items())
            what = f"trials of {data} are of different data, and share cells: {parts}. Run the study again"
            yield _Wrong(kind="mixed data", where=where, what=what)
        elif "" in found and data in DATASETS and DATASETS[data].from_files:
            what = (
                f"data not recorded: whether its {found['']} trials of {data} saw the same files cannot be told. "
                "Run the study again: its trials are trained anew, and these are kept"
            )
            yield _Wrong(kind="data not recorded", where=where, what=what)


def _trials(
    trials: Mapping[str, Mapping[str, Any]],
    outcomes: Mapping[str, Mapping[str, Any]],
    packs: Mapping[str, _PackFiles],
) -> Iterator[_Wrong]:
    """Each trial has its evaluations without a gap, up to its outcome and none beyond."""
    for trial_id, trial in trials.items():
        outcome, last = outcomes.get(trial_id), int(trial["config"]["evaluations"])
        path = f"trials/{trial_id}.json"
        if outcome is not None and outcome["pack_id"] not in packs:
            what = f"its pack {outcome['pack_id']} is not in the store"
            yield _Wrong(kind="missing records", where=path, what=what, aside=(path,))
            continue
        homes = [outcome["pack_id"]] if outcome else [name for name in packs if trial_id in packs[name].trials]
        for pack in (packs[name] for name in homes):
            records = pack.records.get(trial_id, {})
            beyond = [evaluation for evaluation in records if evaluation > last]
            if beyond:
                what = f"evaluations {_listed(beyond)} in pack {pack.name}, but the budget ends at {last}"
                yield _Wrong(kind="records beyond the end", where=trial_id, what=what)
            missing = _missing(records, outcome, last, max((at for at, _ in pack.checkpoints), default=-1))
            if missing:
                what = f"evaluations {_listed(missing)} of pack {pack.name} are not there"
                if outcome is not None:
                    what += ", though the trial is " + str(outcome["state"])
                aside = (*((path,) if outcome else ()), *pack.checkpoints_from(missing[0]))
                yield _Wrong(kind="missing records", where=trial_id, what=what, aside=aside)


def _missing(
    records: Mapping[int, Mapping[str, Any]], outcome: Mapping[str, Any] | None, last: int, checkpoint: int
) -> list[int]:
    """Evaluations that ought to be there: up to a complete trial's last one, or to the one that a checkpoint is after.

    A trial that went non-finite has none after that.
    """
    end = max(records, default=-1)
    if not (records and _decided(records[end])):
        if outcome is None:
            end = max(end, checkpoint)
        elif outcome["state"] == "complete":
            end = max(end, last)
    return [evaluation for evaluation in range(end + 1) if evaluation not in records]


def _decided(record: Mapping[str, Any]) -> bool:
    return bool(record["values"].get("finite") == 0.0)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _mlflow(
    study: str, ledger: Ledger, ids: Any, outcomes: Mapping[str, Mapping[str, Any]], uri: str
) -> Iterator[_Wrong]:
    """Runs without a trial, trials with two runs, runs left RUNNING though nobody trains them."""
    try:
        path = database_file(uri)
        if path is not None and not (path.is_file() and path.stat().st_size):
            return  # looking makes none
        client = connect(uri, reads=True)
        found = client.get_experiment_by_name(study)
        if found is None:
            return
        api = Experiment(client, study)
        runs = [run for run in api.runs() if run.tags.get("vistudy.kind") == "trial"]
    except Exception as error:  # MLflow's, its database's and the network's have no common kind
        shown = without_password(uri)
        lines = str(error).replace(uri, shown).splitlines() or [type(error).__name__]
        yield _Wrong(kind="unreachable", where=shown, what=f"MLflow cannot be looked at: {lines[0][:300]}")
        return
    if other := other_owner(ledger, study, uri, found.tags.get(OWNER)):
        what = f"experiment {study!r} is the mirror of the store {other}, which is still there; its runs are left alone"
        yield _Wrong(kind="another store's mirror", where=without_password(uri), what=what)
        return
    if path is None and (
        place := former_place_of_files(found.artifact_location, study, artifact_location(uri, ledger.uri))
    ):
        yield _Wrong(kind="moved store", where=without_password(uri), what=moved_message(study, place, uri))
    fullest: dict[str, Any] = {}
    for run in runs:
        trial_id = run.tags.get("vistudy.trial_id", "")
        if trial_id not in fullest or run.synced > fullest[trial_id].synced:
            fullest[trial_id] = run
    count = Counter(run.tags.get("vistudy.trial_id", "") for run in runs)
    # Of any plan: trials of an earlier one, on other data say, are no orphans, whether they ended or not.
    stored = {
        trial_id for pack in ledger.packs().values() for trial_id in pack.get("trial_ids", ())
    } | ledger.finished_trials()
    for run in runs:
        trial_id = run.tags.get("vistudy.trial_id", "")
        if trial_id not in ids and trial_id not in stored:
            what = f"run of {trial_id or 'no trial'}, which is not in the study"
            yield _Wrong(kind="orphan run", where=run.run_id, what=what, act=functools.partial(api.delete, run))
        elif run is not fullest[trial_id]:
            what = f"one of {count[trial_id]} runs of {trial_id}, and not the fullest"
            yield _Wrong(kind="double run", where=run.run_id, what=what, act=functools.partial(api.delete, run))
        elif run.status == "RUNNING":
            what = f"run of {trial_id} is RUNNING, and nobody runs the study"
            state = outcomes[trial_id]["state"] if trial_id in outcomes else None
            status = {"complete": "FINISHED", "failed": "FAILED"}.get(str(state), "KILLED")
            yield _Wrong(
                kind="left RUNNING", where=run.run_id, what=what, act=functools.partial(api.set_status, run, status)
            )
