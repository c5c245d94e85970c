"""Check the files of a store: half-written and damaged files, gaps in the records of trials."""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.attempt import Kind, file_of_attempt, is_intact_checkpoint
from vistudy.analysis.ledger.documents import PlannedTrial, Record, StoredPlan, TrialEnd
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import WRITE_TEST, Ledger
from vistudy.analysis.ledger.record_segments import decode
from vistudy.analysis.ledger.repair import Problem

MIN_AGE_S = 60.0
"""A temporary file that is younger may still be written."""
KINDS: tuple[Kind, ...] = ("records", "samples", "weights", "checkpoint")


def check_leftovers(files: FileStore) -> Iterator[Problem]:
    """Files of killed processes: half-written files, stop requests, write tests."""
    for name in files.list("stops"):
        yield Problem(kind="stale", where=f"stops/{name}", what="a run that has ended", quarantine=(f"stops/{name}",))
    for name in files.list(""):
        if name.startswith(WRITE_TEST):
            yield Problem(kind="stale", where=name, what="a write test of a killed process", quarantine=(name,))
    root = files.local
    if root is None:
        return  # other filesystems have no half-written files
    for top in ("packs", "trials", "studies", "references"):
        for folder, _, names in os.walk(root / top):
            for name in names:
                path = str(Path(folder, name).relative_to(root))
                if name.startswith(".") and name.endswith(".tmp"):
                    if time.time() - Path(folder, name).stat().st_mtime < MIN_AGE_S:
                        continue  # perhaps of another study, which is running
                    yield Problem(kind="half-written", where=path, what="its writer was killed", quarantine=(path,))


def check_plan(ledger: Ledger, study: str) -> StoredPlan | Problem:
    """The plan of a study; or the problem, if its plan or metadata cannot be read."""
    try:
        plan = ledger.read_plan(study)
        ledger.read_meta(study)
    except StoreError as error:
        file = next((name for name in ("plan.json", "meta.json") if name in str(error)), "plan.json")
        path = f"studies/{study}/{file}"
        # `vistudy run` writes the plan anew from the study file.
        damaged = (path,) if ledger.files.exists(path) else ()
        return Problem(kind="damaged", where=path, what=str(error), quarantine=damaged)
    return plan


def check_ends(ledger: Ledger, trial_ids: Collection[str], ends: dict[str, TrialEnd]) -> Iterator[Problem]:
    """Files of ended trials that are damaged. The others are added to `ends`."""
    for trial_id in sorted(ledger.finished_trials().intersection(trial_ids)):
        try:
            ends |= ledger.read_outcomes([trial_id])
        except StoreError as error:
            path = f"trials/{trial_id}.json"
            yield Problem(kind="damaged", where=path, what=str(error), quarantine=(path,))


class PackFiles:
    """Files of one pack: intact records by trial, intact checkpoints, and problems."""

    def __init__(self, files: FileStore, name: str, trial_ids: Collection[str]) -> None:
        """`trial_ids`: of the study. A pack that trains none of them is not read further."""
        self.name, self.problems, self.relevant = name, list[Problem](), False
        self.records: dict[str, dict[int, Record]] = {}
        """trial_id -> evaluation -> record, of the highest attempt."""
        self.checkpoints: list[tuple[int, str]] = []
        """(evaluation, path)."""
        self.trials: set[str] = set()
        path = f"packs/{name}/pack.json"
        attempts = [entry for entry in files.list(f"packs/{name}") if entry.startswith("attempt-")]
        try:
            self.trials = set(files.read_json(path)["trial_ids"])
        except (FileNotFoundError, StoreError, KeyError, TypeError) as error:
            if attempts or not isinstance(error, FileNotFoundError):
                inside = [f"packs/{name}/{a}/{file}" for a in attempts for file in files.list(f"packs/{name}/{a}")]
                self._add("damaged", path, f"it does not say which trials it holds: {error}", *inside, path)
            return
        self.relevant = not self.trials.isdisjoint(trial_ids)
        for attempt in attempts if self.relevant else ():
            self._check_attempt(files, f"packs/{name}/{attempt}")

    def _add(self, kind: str, where: str, what: str, *quarantine: str) -> None:
        self.problems.append(Problem(kind=kind, where=where, what=what, quarantine=quarantine))

    def _check_attempt(self, files: FileStore, folder: str) -> None:
        for name in files.list(folder):
            path, kind = f"{folder}/{name}", name.partition("-")[0]
            evaluation = file_of_attempt(name)
            if evaluation is None:
                self._add("foreign", path, "no such file belongs in the folder of an attempt", path)
            elif kind in KINDS and (why := self._damage(files, path, kind, evaluation)):
                self._add("damaged", path, why, path)

    def _damage(self, files: FileStore, path: str, kind: str, evaluation: int) -> str | None:
        """Why a file of an attempt is damaged; None if it is intact, and then it counts."""
        data = files.read(path)
        try:
            if kind == "records":
                for record in decode(files, path, evaluation, data):
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
        """Checkpoints from which a new attempt would skip an evaluation."""
        return tuple(path for at, path in self.checkpoints if at >= evaluation)


def _read_npz(data: bytes) -> None:
    import numpy as np

    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        for name in arrays.files:
            arrays[name]


def check_trials(
    trials: Mapping[str, PlannedTrial], ends: Mapping[str, TrialEnd], packs: Mapping[str, PackFiles]
) -> Iterator[Problem]:
    """Trials whose evaluations have gaps, stop before their end, or continue beyond it."""
    for trial_id, trial in trials.items():
        end, last = ends.get(trial_id), int(trial["config"]["evaluations"])
        path = f"trials/{trial_id}.json"
        if end is not None and end["pack_id"] not in packs:
            what = f"its pack {end['pack_id']} is not in the store"
            yield Problem(kind="missing records", where=path, what=what, quarantine=(path,))
            continue
        names = [end["pack_id"]] if end else [name for name in packs if trial_id in packs[name].trials]
        for pack in (packs[name] for name in names):
            records = pack.records.get(trial_id, {})
            beyond = [evaluation for evaluation in records if evaluation > last]
            if beyond:
                what = f"evaluations {_listed(beyond)} in pack {pack.name}, but the budget ends at {last}"
                yield Problem(kind="records beyond the end", where=trial_id, what=what)
            missing = _missing(records, end, last, max((at for at, _ in pack.checkpoints), default=-1))
            if missing:
                what = f"evaluations {_listed(missing)} of pack {pack.name} are missing"
                if end is not None:
                    what += f", though the trial is {end['state']}"
                paths = (*((path,) if end else ()), *pack.checkpoints_from(missing[0]))
                yield Problem(kind="missing records", where=trial_id, what=what, quarantine=paths)


def _missing(records: Mapping[int, Record], end: TrialEnd | None, last: int, checkpoint: int) -> list[int]:
    """Evaluations that must exist and do not: up to a complete trial's last one, or to that of the newest checkpoint.

    A trial has no evaluations after the one at which it became non-finite.
    """
    newest = max(records, default=-1)
    if not (records and records[newest]["values"].get("finite") == 0.0):
        if end is None:
            newest = max(newest, checkpoint)
        elif end["state"] == "complete":
            newest = max(newest, last)
    return [evaluation for evaluation in range(newest + 1) if evaluation not in records]


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
