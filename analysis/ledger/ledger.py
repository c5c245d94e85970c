"""The ledger: the append-only store of studies, packs, records and outcomes, and the only source of truth.

Layout, units and the meaning of every field: `docs/records.md`. Each file is written whole and atomically, an
evaluation of a pack is one file, and a pack's attempt has one writer: a kill at any moment leaves no torn line behind.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from vistudy.analysis.ledger import attempt as journal
from vistudy.analysis.ledger.atomic_files import FileStore, sync_path
from vistudy.analysis.ledger.attempt import Attempt
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.liveness import WorkerSignals
from vistudy.analysis.ledger.study_files import StudyFiles, check_name, to_json_bytes

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
WRITE_TEST = bytes(2**18)
"""Written and removed again: an empty file can be made on a full disk."""
_ATTEMPT = re.compile(r"attempt-(\d{3,})")

__all__ = ["Attempt", "Ledger"]


class IncompatibleStoreError(StoreError):
    """The store has another format, or does not do what it is asked."""


ENDED = ("complete", "failed")
"""States of trials that have ended."""
STOPPED_EARLY = "censored"
"""State that earlier versions gave to trials that a scheduler had stopped. They count as not trained to their end."""
LOOKUP_LIMIT = 3
"""Trials that are looked for by name: more are found faster by listing all."""


class Ledger(StudyFiles, WorkerSignals):
    """A store of trials and records in a directory, or under any fsspec URI.

    Making one touches nothing; `create` makes the store. Every other method raises StoreError if there is no store, if
    it has another format, or if a file in it is damaged: the message names the file.
    """

    uri: str
    """Absolute path or URI of the store; equal for all processes that see it."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self._disk = FileStore(uri)
        self.uri = self._disk.uri
        self._checked = False
        self._packs: dict[str, dict[str, Any]] = {}
        self._synced: set[str] = set()
        self._first: dict[tuple[str, int], set[str]] = {}

    @property
    def disk(self) -> FileStore:
        """The files themselves, for whoever looks for damage."""
        return self._open_store()

    # -- the store itself ------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the store if it is not there and check that it can be written to.

        Raises:
            StoreError: the place is not writable, is a file, or holds a store of another format.
        """
        try:
            if not self.exists():
                self._disk.write("ledger.json", json.dumps({"format": FORMAT}).encode(), durable=True)
            probe = f"probe-{socket.gethostname()}-{os.getpid()}"
            self._disk.write(probe, WRITE_TEST)
            replaced = self._disk.write(probe, b"", exclusive=True)
            self._disk.remove(probe)
            if replaced:
                raise IncompatibleStoreError(
                    f"store {self.uri}: it replaces files although it was asked not to (S3's If-None-Match): two "
                    "workers could overwrite each other. Use a server that knows conditional puts, or a shared folder."
                )
        except IncompatibleStoreError:
            raise
        except Exception as error:  # filesystems have exceptions of their own for credentials, buckets, read-only media
            raise StoreError(
                f"store {self.uri}: cannot be written to ({error}). Give another place with --store, or make this one "
                "a directory (or bucket) that you may write to and that has space."
            ) from error

    def exists(self) -> bool:
        """Whether there is a store. Raises StoreError if it has another format."""
        if self._checked:
            return True
        try:
            found = self._disk.read_json("ledger.json")
        except FileNotFoundError:
            return False
        except StoreError as error:
            if isinstance(error.__cause__, NotADirectoryError):
                raise StoreError(f"store {self.uri}: it is a file, or below one: give a folder with --store") from error
            raise
        if found.get("format") != FORMAT:
            raise IncompatibleStoreError(
                f"store {self.uri}: ledger.json says format {found.get('format')!r}; this vistudy reads {FORMAT}. "
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
        return self._disk

    # -- studies: see StudyFiles -----------------------------------------------------------------------------------

    def lock(self, study: str, what: str) -> AbstractContextManager[None]:
        """Hold `studies/<study>/<what>.lock`; the system frees it when the process ends, however it ends.

        Local disks only: other filesystems have no locks, and there this does nothing.

        Raises:
            StudyBusyError: somebody else holds it (on entering).
        """
        return self._disk.hold(f"studies/{check_name(study, 'study')}", what)

    # -- packs and attempts ----------------------------------------------------------------------------------------

    def write_pack(self, pack: dict[str, Any]) -> None:
        """Store a pack once; a second call with the same trials changes nothing."""
        disk, pack_id = self._open_store(), check_name(pack["pack_id"], "pack")
        path, data = f"packs/{pack_id}/pack.json", to_json_bytes(pack)
        if not disk.write(path, data, durable=True, exclusive=True):
            there = self._disk.read_json(path)
            if there["trials"] != json.loads(data)["trials"]:
                raise StoreError(f"{disk.name(path)} holds other trials than the pack {pack_id} to be stored.")

    def packs(self) -> dict[str, dict[str, Any]]:
        """Every pack: pack_id -> content of its `pack.json`."""
        disk = self._open_store()
        new = [name for name in disk.list("packs") if name not in self._packs]
        paths = [f"packs/{name}/pack.json" for name in new]
        try:
            found = disk.read_many(paths)
        except FileNotFoundError as error:  # a folder without pack.json: of a pack that is being made, or damaged
            begun = [name for name in new if not disk.exists(f"packs/{name}/pack.json") and self.attempts(name)]
            if begun:
                raise StoreError(f"a pack in {self.uri} has attempts but no pack.json: {error}") from error
            new = [name for name in new if disk.exists(f"packs/{name}/pack.json")]
            paths = [f"packs/{name}/pack.json" for name in new]
            found = disk.read_many(paths)
        for name, path, data in zip(new, paths, found, strict=True):
            self._packs[name] = self._disk.parse(path, data)  # never changes once written
        return dict(self._packs)

    def read_pack(self, pack_id: str) -> dict[str, Any]:
        """Content of one pack's `pack.json`. Raises StoreError if it is not there."""
        if pack_id not in self._packs:
            path = f"packs/{check_name(pack_id, 'pack')}/pack.json"
            try:
                self._packs[pack_id] = self._open_store().read_json(path)
            except FileNotFoundError:
                raise StoreError(f"pack {pack_id!r} is not in the store {self.uri}: no {path}.") from None
        return self._packs[pack_id]

    def attempts(self, pack_id: str) -> list[int]:
        """Numbers of a pack's attempts, ascending."""
        names = self._open_store().list(f"packs/{check_name(pack_id, 'pack')}")
        return sorted(int(match.group(1)) for name in names if (match := _ATTEMPT.fullmatch(name)))

    def open_attempt(self, pack_id: str) -> Attempt:
        """Begin the next attempt of a pack; two openers get two numbers."""
        disk = self._open_store()
        if not disk.exists(f"packs/{check_name(pack_id, 'pack')}/pack.json"):
            raise StoreError(f"pack {pack_id!r} is not in the store {self.uri}; write_pack comes first.")
        number = max(self.attempts(pack_id), default=0) + 1
        while not disk.claim(journal.attempt_path(pack_id, number)):
            number += 1
        return Attempt(disk, pack_id, number)

    def latest_checkpoint(self, pack_id: str) -> tuple[int, bytes] | None:
        """(evaluation, payload) of the newest good checkpoint: highest attempt, then highest evaluation.

        Damaged ones are logged by name and passed over; None if no good one is left.
        """
        return journal.newest_checkpoint(self._open_store(), pack_id, self.attempts(pack_id))

    def segments(self) -> dict[str, dict[int, int]]:
        """pack_id -> attempt -> number of evaluations that it has recorded, of packs with an attempt. Listings only.

        Recorded evaluations never change: equal numbers are equal records.
        """
        found: dict[str, dict[int, int]] = {}
        for path in self._open_store().list_recursive("packs"):
            pack_id, _, rest = path.partition("/")
            folder, _, name = rest.partition("/")
            if match := _ATTEMPT.fullmatch(folder):
                attempts = found.setdefault(pack_id, {})
                number = int(match.group(1))
                attempts[number] = attempts.get(number, 0) + name.startswith("records-")
        return found

    def progress(self) -> dict[str, int]:
        """pack_id -> highest evaluation recorded by any attempt (-1 if none). Reads listings only."""
        return {pack_id: self.progress_of(pack_id) for pack_id in self.packs()}

    def progress_of(self, pack_id: str) -> int:
        """Highest evaluation of one pack recorded by any attempt; -1 if none."""
        last = [journal.list_files(self._disk, pack_id, number, "records")[-1:] for number in self.attempts(pack_id)]
        return max((evaluation for item in last for evaluation, _ in item), default=-1)

    # -- outcomes of trials ----------------------------------------------------------------------------------------

    def finish_trial(self, outcome: dict[str, Any]) -> None:
        """Store that a trial has ended; this file alone means "done". Its records reach the disk before it does.

        In one pack the highest attempt wins. A failure never replaces a completed trial; of two packs the first stays.
        """
        disk, path = self._open_store(), f"trials/{check_name(outcome['trial_id'], 'trial')}.json"
        if outcome["state"] not in ENDED:
            raise ValueError(f"state of a finished trial is one of {', '.join(ENDED)}, got {outcome['state']!r}")
        self._sync_attempt(outcome["pack_id"], outcome["attempt"])
        data = to_json_bytes(outcome)
        while not disk.write(path, data, durable=True, exclusive=True):
            try:
                there = self._outcome(path, disk.read(path))
            except FileNotFoundError:
                continue  # forgotten between the two calls
            if journal.supersedes(outcome, there):
                disk.write(path, data, durable=True)
            return

    def _sync_attempt(self, pack_id: str, number: int) -> None:
        root = self._disk.local
        if root is None:
            return
        new = {path for _, path in journal.list_files(self._disk, pack_id, number, "records")} - self._synced
        for path in sorted(new):
            sync_path(f"{root}/{path}")
        if new:
            sync_path(f"{root}/{journal.attempt_path(pack_id, number)}")
        self._synced |= new

    def _outcome(self, path: str, data: bytes) -> dict[str, Any]:
        found = self._disk.parse(path, data)
        if path != f"trials/{found.get('trial_id')}.json" or found.get("state") not in (*ENDED, STOPPED_EARLY):
            raise self._disk.corruption_error(path, "it is not the outcome of the trial that its name says")
        return found

    def done(self) -> set[str]:
        """Ids of the trials that have ended, in whatever state. One listing."""
        return {name.removesuffix(".json") for name in self._open_store().list("trials")}

    def read_outcomes(self, trial_ids: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
        """trial_id -> content of its outcome file, for those (of `trial_ids`) that have ended.

        Trials that an earlier version stopped early are left out: they have not been trained to their end.
        """
        if trial_ids is not None and len(trial_ids) <= LOOKUP_LIMIT:
            wanted = sorted(i for i in set(trial_ids) if self._open_store().exists(f"trials/{i}.json"))
        else:
            wanted = sorted(self.done() if trial_ids is None else self.done() & set(trial_ids))
        paths = [f"trials/{trial_id}.json" for trial_id in wanted]
        found = zip(wanted, paths, self._disk.read_many(paths), strict=True)
        outcomes = {trial_id: self._outcome(path, data) for trial_id, path, data in found}
        return {trial_id: outcome for trial_id, outcome in outcomes.items() if outcome["state"] != STOPPED_EARLY}

    def discard_outcomes(self, trial_ids: Iterable[str]) -> None:
        """Remove the outcomes of trials that are not complete, so that they run again. Their records stay.

        Raises:
            StoreError: one of them is complete; then none is removed.
        """
        ended = self.done() & set(trial_ids)
        outcomes = self.read_outcomes(ended)
        complete = [trial_id for trial_id, outcome in outcomes.items() if outcome["state"] == "complete"]
        if complete:
            raise StoreError(f"complete trials cannot be forgotten: {', '.join(complete)}")
        for trial_id in ended:
            self._disk.remove(f"trials/{trial_id}.json")

    # -- records and samples ---------------------------------------------------------------------------------------

    def records(self, trial_ids: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """Records of all trials or some, one for each (trial_id, evaluation), in that order; see `histories`.

        To be in order, all of them are held at once: whoever reads a large study takes `histories`.
        """
        for _, records in sorted(self.histories(trial_ids), key=lambda history: history[0]):
            yield from records

    def histories(
        self, trial_ids: Collection[str] | None = None, outcomes: Mapping[str, dict[str, Any]] | None = None
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """(trial_id, its records by evaluation) of all trials or some that have any; pack by pack, one held at a time.

        The highest attempt wins. A trial that several packs hold is taken from one of them only: the pack of its
        outcome, else the newest. What an older attempt wrote beyond the last evaluation of the attempt that finished
        is left out. `outcomes`: what `read_outcomes` gave for (at least) these trials, if they were read before.
        """
        wanted = None if trial_ids is None else set(trial_ids)
        if outcomes is None:
            outcomes = self.read_outcomes(wanted)
        elif wanted is not None:
            outcomes = {trial_id: outcomes[trial_id] for trial_id in wanted & outcomes.keys()}
        for pack_id, members in self._source_packs(wanted, outcomes).items():
            merged = journal.merge(self._disk, pack_id, self.attempts(pack_id), members, outcomes)
            for trial_id in sorted(merged):
                yield trial_id, [merged[trial_id][evaluation] for evaluation in sorted(merged[trial_id])]

    def _source_packs(self, wanted: set[str] | None, outcomes: Mapping[str, dict[str, Any]]) -> dict[str, set[str]]:
        """Pack -> the trials to be read from it: each trial stands in one."""
        home = {trial_id: outcome["pack_id"] for trial_id, outcome in outcomes.items()}
        if wanted is None or wanted - outcomes.keys():
            packs = self.packs()
            for pack_id in sorted(packs, key=lambda pack_id: (packs[pack_id].get("created_ms", 0), pack_id)):
                for trial_id in self._trials_of(pack_id) - outcomes.keys():
                    if wanted is None or trial_id in wanted:
                        home[trial_id] = pack_id  # oldest first: a newer one replaces an older one
        found: dict[str, set[str]] = {}
        for trial_id, pack_id in home.items():
            found.setdefault(pack_id, set()).add(trial_id)
        return dict(sorted(found.items()))

    def _trials_of(self, pack_id: str) -> set[str]:
        found: set[str] = set()
        for number in self.attempts(pack_id):
            key = (pack_id, number)
            if key not in self._first:
                first = journal.first_segment_trials(self._disk, pack_id, number)
                if first:
                    self._first[key] = first  # a first segment never changes
            found |= self._first.get(key, set())
        return found

    def samples(self, trial_id: str) -> dict[int, np.ndarray]:
        """evaluation -> samples (n, *shape) of one trial; pack and attempt are chosen as in `records`."""
        found: dict[int, np.ndarray] = {}
        for pack_id in self._source_packs({trial_id}, self.read_outcomes([trial_id])):
            found = journal.read_samples(self._disk, pack_id, self.attempts(pack_id), trial_id) or found
        return found

    def weights(self, trial_id: str) -> dict[str, np.ndarray]:
        """`<net>/<parameter>` -> trained parameter of a complete trial; empty where `keep_checkpoints` was none."""
        outcome = self.read_outcomes([trial_id]).get(trial_id)
        if outcome is None:
            return {}
        return journal.read_weights(self._disk, outcome["pack_id"], self.attempts(outcome["pack_id"]), trial_id)

    def write_reference(self, key: str, reference: dict[str, float]) -> None:
        """Store a reference under its key."""
        self._open_store().write(f"references/{check_name(key, 'reference')}.json", to_json_bytes(reference))

    def read_reference(self, key: str) -> dict[str, float] | None:
        """The reference of that key, or None if it has not been computed."""
        try:
            self._open_store()
            return self._disk.read_json(f"references/{check_name(key, 'reference')}.json")
        except FileNotFoundError:
            return None
