"""The ledger: the append-only store of studies, packs, records and outcomes, and the only source of truth.

`docs/records.md` has the layout, units and the meaning of every field. Each file is written whole and atomically, each
evaluation of a pack is one file, and each attempt has one writer, so a kill at any moment leaves no partial line.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from vistudy.analysis.ledger.atomic_files import FileStore, sync_path
from vistudy.analysis.ledger.attempt import (
    Attempt,
    attempt_path,
    first_segment_trials,
    list_files,
    merge,
    newest_checkpoint,
    read_samples,
    read_weights,
    supersedes,
)
from vistudy.analysis.ledger.documents import PackRecord, Record, TrialEnd, TrialState
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.liveness import WorkerSignals
from vistudy.analysis.ledger.study_files import StudyFiles, check_name, to_json_bytes

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
WRITE_TEST = "write-test-"
"""Beginning of the name of a test file, which is not empty: an empty one could be created on a full disk."""
_ATTEMPT = re.compile(r"attempt-(\d{3,})")

__all__ = ["Attempt", "Ledger"]


class IncompatibleStoreError(StoreError):
    """The store has another format, or its file system ignores conditional writes."""


ENDED = (TrialState.COMPLETE, TrialState.FAILED)
"""States of trials that have ended."""
STOPPED_EARLY = "censored"
"""State that earlier versions gave to trials that a scheduler stopped. They count as not trained to their end."""
LOOKUP_LIMIT = 3
"""Up to this many trials are looked up by name; one listing is faster for more."""


class Ledger(StudyFiles, WorkerSignals):
    """A store of trials and records in a directory, or under any fsspec URI.

    The constructor touches nothing; `create` makes the store. Every other method raises StoreError if there is no
    store, if it has another format, or if a file in it is damaged; the message names the file.
    """

    uri: str
    """Absolute path or URI of the store; the same for all processes that see it."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self._files = FileStore(uri)
        self.uri = self._files.uri
        self._checked = False
        self._packs: dict[str, PackRecord] = {}
        self._synced: set[str] = set()
        self._first_trials: dict[tuple[str, int], set[str]] = {}

    @property
    def files(self) -> FileStore:
        """The files of the store, for checks of their integrity."""
        return self._open_store()

    # -- the store itself ------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Create the store if there is none, and check that it can be written to.

        Raises:
            StoreError: the path is not writable, is a file, or holds a store of another format.
        """
        try:
            if not self.exists():
                self._files.write("ledger.json", json.dumps({"format": FORMAT}).encode(), durable=True)
            test_file = f"{WRITE_TEST}{socket.gethostname()}-{os.getpid()}"
            self._files.write(test_file, bytes(2**18))
            replaced = self._files.write(test_file, b"", exclusive=True)
            self._files.remove(test_file)
            if replaced:
                raise IncompatibleStoreError(
                    f"store {self.uri}: it replaces files although it was asked not to (S3's If-None-Match), so "
                    "workers could overwrite each other. Use a server with conditional puts, or a shared folder."
                )
        except IncompatibleStoreError:
            raise
        except Exception as error:  # each filesystem has its own exceptions for credentials, buckets, read-only media
            raise StoreError(
                f"store {self.uri}: cannot be written to ({error}). Give another place with --store, or make this one "
                "a directory (or bucket) that you may write to and that has space."
            ) from error

    def exists(self) -> bool:
        """Whether there is a store. Raises StoreError if it has another format."""
        if self._checked:
            return True
        try:
            document = self._files.read_json("ledger.json")
        except FileNotFoundError:
            return False
        except StoreError as error:
            if isinstance(error.__cause__, NotADirectoryError):
                raise StoreError(f"store {self.uri}: it is a file, or below one: give a folder with --store") from error
            raise
        if document.get("format") != FORMAT:
            raise IncompatibleStoreError(
                f"store {self.uri}: ledger.json says format {document.get('format')!r}; this vistudy reads {FORMAT}. "
                "Use the version of vistudy that wrote it, or another --store."
            )
        self._checked = True
        return True

    def _open_store(self) -> FileStore:
        if not self.exists():
            raise StoreError(
                f"store {self.uri}: no vistudy store is there (no ledger.json), as seen from {socket.gethostname()}. "
                "Check --store; on a cluster it must be on storage that every node shares."
            )
        return self._files

    # -- studies: see StudyFiles -----------------------------------------------------------------------------------

    def lock(self, study: str, what: str) -> AbstractContextManager[None]:
        """Hold `studies/<study>/<what>.lock`; the operating system releases it when the process ends.

        On local disks only: elsewhere there are no locks, and this does nothing.

        Raises:
            StudyBusyError: another process holds it (on entering).
        """
        return self._files.lock(f"studies/{check_name(study, 'study')}", what)

    # -- packs and attempts ----------------------------------------------------------------------------------------

    def write_pack(self, pack: PackRecord) -> None:
        """Store a pack. A second call with the same trials changes nothing."""
        files, pack_id = self._open_store(), check_name(pack["pack_id"], "pack")
        path, data = f"packs/{pack_id}/pack.json", to_json_bytes(pack)
        is_new = files.write(path, data, durable=True, exclusive=True)
        if not is_new and files.read_json(path)["trials"] != json.loads(data)["trials"]:
            raise StoreError(f"{files.full_path(path)} holds other trials than the pack {pack_id} to be stored.")

    def packs(self) -> dict[str, PackRecord]:
        """Read every pack: pack_id -> content of its `pack.json`."""
        files = self._open_store()
        new = [name for name in files.list("packs") if name not in self._packs]
        paths = [f"packs/{name}/pack.json" for name in new]
        try:
            contents = files.read_many(paths)
        except FileNotFoundError as error:  # a folder without pack.json: the pack is being written, or damaged
            started = [name for name in new if not files.exists(f"packs/{name}/pack.json") and self.attempts(name)]
            if started:
                raise StoreError(f"a pack in {self.uri} has attempts but no pack.json: {error}") from error
            new = [name for name in new if files.exists(f"packs/{name}/pack.json")]
            paths = [f"packs/{name}/pack.json" for name in new]
            contents = files.read_many(paths)
        for name, path, data in zip(new, paths, contents, strict=True):
            self._packs[name] = cast("PackRecord", self._files.parse(path, data))  # never changes once written
        return dict(self._packs)

    def read_pack(self, pack_id: str) -> PackRecord:
        """Read one pack. Raises StoreError if it is not in the store."""
        if pack_id not in self._packs:
            path = f"packs/{check_name(pack_id, 'pack')}/pack.json"
            try:
                self._packs[pack_id] = cast("PackRecord", self._open_store().read_json(path))
            except FileNotFoundError:
                raise StoreError(f"pack {pack_id!r} is not in the store {self.uri}: no {path}.") from None
        return self._packs[pack_id]

    def attempts(self, pack_id: str) -> list[int]:
        """List the numbers of a pack's attempts, ascending."""
        names = self._open_store().list(f"packs/{check_name(pack_id, 'pack')}")
        return sorted(int(match.group(1)) for name in names if (match := _ATTEMPT.fullmatch(name)))

    def open_attempt(self, pack_id: str) -> Attempt:
        """Begin the next attempt at a pack; concurrent callers get different numbers."""
        files = self._open_store()
        if not files.exists(f"packs/{check_name(pack_id, 'pack')}/pack.json"):
            raise StoreError(f"pack {pack_id!r} is not in the store {self.uri}; write_pack comes first.")
        number = max(self.attempts(pack_id), default=0) + 1
        while not files.create_exclusive(attempt_path(pack_id, number)):
            number += 1
        return Attempt(files, pack_id, number)

    def latest_checkpoint(self, pack_id: str) -> tuple[int, bytes] | None:
        """Find (evaluation, payload) of the newest intact checkpoint: highest attempt, then highest evaluation.

        Damaged ones are logged by name and skipped; None if no intact one is left.
        """
        return newest_checkpoint(self._open_store(), pack_id, self.attempts(pack_id))

    def segments(self) -> dict[str, dict[int, int]]:
        """Count pack_id -> attempt -> recorded evaluations, of packs with an attempt. Only lists files.

        Recorded evaluations never change, so equal counts mean equal records.
        """
        counts: dict[str, dict[int, int]] = {}
        for path in self._open_store().list_recursive("packs"):
            pack_id, _, rest = path.partition("/")
            folder, _, name = rest.partition("/")
            if match := _ATTEMPT.fullmatch(folder):
                attempts = counts.setdefault(pack_id, {})
                number = int(match.group(1))
                attempts[number] = attempts.get(number, 0) + name.startswith("records-")
        return counts

    def progress(self) -> dict[str, int]:
        """Map pack_id -> highest evaluation recorded by any attempt; -1 if none. Only lists files."""
        return {pack_id: self.progress_of(pack_id) for pack_id in self.packs()}

    def progress_of(self, pack_id: str) -> int:
        """Highest evaluation of one pack recorded by any attempt; -1 if none."""
        last = [list_files(self._files, pack_id, number, "records")[-1:] for number in self.attempts(pack_id)]
        return max((evaluation for item in last for evaluation, _ in item), default=-1)

    # -- outcomes of trials ----------------------------------------------------------------------------------------

    def finish_trial(self, outcome: Mapping[str, Any]) -> None:
        """Store that a trial has ended; keys as in `TrialEnd`. Its records reach the disk before this file.

        Within a pack the highest attempt wins. A failure never replaces a complete trial; of two packs the first stays.
        """
        files, path = self._open_store(), f"trials/{check_name(outcome['trial_id'], 'trial')}.json"
        if outcome["state"] not in ENDED:
            raise ValueError(f"state of a finished trial is one of {', '.join(ENDED)}, got {outcome['state']!r}")
        self._sync_attempt(outcome["pack_id"], outcome["attempt"])
        data = to_json_bytes(outcome)
        while not files.write(path, data, durable=True, exclusive=True):
            try:
                stored = self._outcome(path, files.read(path))
            except FileNotFoundError:
                continue  # discarded between the two calls
            if supersedes(outcome, stored):
                files.write(path, data, durable=True)
            return

    def _sync_attempt(self, pack_id: str, number: int) -> None:
        root = self._files.local
        if root is None:
            return
        new = {path for _, path in list_files(self._files, pack_id, number, "records")} - self._synced
        for path in sorted(new):
            sync_path(f"{root}/{path}")
        if new:
            sync_path(f"{root}/{attempt_path(pack_id, number)}")
        self._synced |= new

    def _outcome(self, path: str, data: bytes) -> TrialEnd:
        outcome = self._files.parse(path, data)
        if path != f"trials/{outcome.get('trial_id')}.json" or outcome.get("state") not in (*ENDED, STOPPED_EARLY):
            raise self._files.corruption_error(path, "it is not the outcome of the trial that its name says")
        return cast("TrialEnd", outcome)

    def finished_trials(self) -> set[str]:
        """List the ids of the trials that have ended, in whatever state."""
        return {name.removesuffix(".json") for name in self._open_store().list("trials")}

    def read_outcomes(self, trial_ids: Collection[str] | None = None) -> dict[str, TrialEnd]:
        """Read trial_id -> how it ended, of those (of `trial_ids`) that have ended.

        Trials that an earlier version stopped early are left out: they have not been trained to their end.
        """
        if trial_ids is not None and len(trial_ids) <= LOOKUP_LIMIT:
            ended = sorted(i for i in set(trial_ids) if self._open_store().exists(f"trials/{i}.json"))
        else:
            ended = sorted(self.finished_trials() if trial_ids is None else self.finished_trials() & set(trial_ids))
        paths = [f"trials/{trial_id}.json" for trial_id in ended]
        contents = zip(ended, paths, self._files.read_many(paths), strict=True)
        outcomes = {trial_id: self._outcome(path, data) for trial_id, path, data in contents}
        return {trial_id: outcome for trial_id, outcome in outcomes.items() if outcome["state"] != STOPPED_EARLY}

    def discard_outcomes(self, trial_ids: Iterable[str]) -> None:
        """Remove the outcomes of incomplete trials, so that they run again. Their records stay.

        Raises:
            StoreError: one of them is complete; then none is removed.
        """
        ended = self.finished_trials() & set(trial_ids)
        outcomes = self.read_outcomes(ended)
        complete = [trial_id for trial_id, outcome in outcomes.items() if outcome["state"] == TrialState.COMPLETE]
        if complete:
            raise StoreError(f"outcomes of complete trials cannot be removed: {', '.join(complete)}")
        for trial_id in ended:
            self._files.remove(f"trials/{trial_id}.json")

    # -- records and samples ---------------------------------------------------------------------------------------

    def records(self, trial_ids: Collection[str] | None = None) -> Iterator[Record]:
        """Iterate over the records of all trials or some, sorted by (trial_id, evaluation); see `histories`.

        Sorting holds all of them in memory: use `histories` for a large study.
        """
        for _, records in sorted(self.histories(trial_ids), key=lambda history: history[0]):
            yield from records

    def histories(
        self, trial_ids: Collection[str] | None = None, outcomes: Mapping[str, TrialEnd] | None = None
    ) -> Iterator[tuple[str, list[Record]]]:
        """Iterate over (trial_id, records by evaluation) of trials that have records, holding one pack at a time.

        The highest attempt wins. A trial that several packs hold is read from one of them: the pack of its outcome,
        else the newest. Records beyond the last evaluation of the attempt that finished it are left out.

        Args:
            trial_ids: None: all.
            outcomes: of (at least) these trials, as `read_outcomes` returns them, to save reading them again.
        """
        selected = None if trial_ids is None else set(trial_ids)
        if outcomes is None:
            outcomes = self.read_outcomes(selected)
        elif selected is not None:
            outcomes = {trial_id: outcomes[trial_id] for trial_id in selected & outcomes.keys()}
        for pack_id, members in self._source_packs(selected, outcomes).items():
            merged = merge(self._files, pack_id, self.attempts(pack_id), members, outcomes)
            for trial_id in sorted(merged):
                yield trial_id, [merged[trial_id][evaluation] for evaluation in sorted(merged[trial_id])]

    def _source_packs(self, selected: set[str] | None, outcomes: Mapping[str, TrialEnd]) -> dict[str, set[str]]:
        """pack_id -> the trials to read from it; each trial has one."""
        home = {trial_id: outcome["pack_id"] for trial_id, outcome in outcomes.items()}
        if selected is None or selected - outcomes.keys():
            packs = self.packs()
            for pack_id in sorted(packs, key=lambda pack_id: (packs[pack_id].get("created_ms", 0), pack_id)):
                for trial_id in self._trials_of(pack_id) - outcomes.keys():
                    if selected is None or trial_id in selected:
                        home[trial_id] = pack_id  # oldest first: newer packs replace older ones
        members: dict[str, set[str]] = {}
        for trial_id, pack_id in home.items():
            members.setdefault(pack_id, set()).add(trial_id)
        return dict(sorted(members.items()))

    def _trials_of(self, pack_id: str) -> set[str]:
        members: set[str] = set()
        for number in self.attempts(pack_id):
            if not self._first_trials.get((pack_id, number)):  # a first segment never changes once it is there
                self._first_trials[pack_id, number] = first_segment_trials(self._files, pack_id, number)
            members |= self._first_trials[pack_id, number]
        return members

    def samples(self, trial_id: str) -> dict[int, np.ndarray]:
        """Read evaluation -> samples (n, *shape) of one trial, from the pack and attempts that `histories` reads."""
        samples: dict[int, np.ndarray] = {}
        for pack_id in self._source_packs({trial_id}, self.read_outcomes([trial_id])):
            samples = read_samples(self._files, pack_id, self.attempts(pack_id), trial_id) or samples
        return samples

    def weights(self, trial_id: str) -> dict[str, np.ndarray]:
        """Read `<net>/<parameter>` -> trained parameter of a complete trial; empty if none were kept."""
        outcome = self.read_outcomes([trial_id]).get(trial_id)
        if outcome is None:
            return {}
        return read_weights(self._files, outcome["pack_id"], self.attempts(outcome["pack_id"]), trial_id)

    def write_reference(self, key: str, reference: dict[str, float]) -> None:
        """Store the metric values of a reference (real data, or an untrained model) under its key."""
        self._open_store().write(f"references/{check_name(key, 'reference')}.json", to_json_bytes(reference))

    def read_reference(self, key: str) -> dict[str, float] | None:
        """Read the metric values of a reference; None if they have not been computed."""
        try:
            self._open_store()
            return self._files.read_json(f"references/{check_name(key, 'reference')}.json")
        except FileNotFoundError:
            return None
