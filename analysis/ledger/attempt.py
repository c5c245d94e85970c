"""One attempt at training a pack: the files that it writes, and how the files of several attempts are merged."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.documents import Record, TrialEnd, TrialState
from vistudy.analysis.ledger.record_segments import decode, encode

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["records", "samples", "weights", "checkpoint"]
Merged = dict[str, dict[int, Record]]
"""trial_id -> evaluation -> record."""

_log = logging.getLogger("vistudy.ledger")
CRASH_LOG = "crash.txt"
"""Written by Python's fault handler when the process of an attempt crashes."""

_FILE = re.compile(
    r"(records|samples|weights|checkpoint)-(\d{5,})\.(jsonl|npz|pt)|claim-[0-9a-f]+|heartbeat\.json|crash\.txt"
)
_SUFFIX: dict[Kind, str] = {"records": "jsonl", "samples": "npz", "weights": "npz", "checkpoint": "pt"}
_CHECKPOINT = b"vistudy-checkpoint-1 sha256:"
_KEPT_CHECKPOINTS = 2


class Attempt:
    """The only writer of one attempt at a pack. It never writes a file twice."""

    def __init__(self, files: FileStore, pack_id: str, number: int) -> None:
        self._files, self.pack_id, self.number = files, pack_id, number
        self._checkpoints: list[str] = []
        self._written: set[int] = set()

    def _path(self, kind: Kind, evaluation: int) -> str:
        return f"{attempt_path(self.pack_id, self.number)}/{kind}-{evaluation:05d}.{_SUFFIX[kind]}"

    def append(self, records: Sequence[Mapping[str, Any]], unix_ms: int) -> None:
        """Store the records of one evaluation, all in one call. An empty sequence stores nothing.

        Args:
            records: trial_id, evaluation, step, wall_s and values of each; values may be non-finite.
            unix_ms: current time.

        Raises:
            ValueError: records of several evaluations, or an evaluation that this attempt has stored already.
        """
        if not records:
            return
        evaluation = int(records[0]["evaluation"])
        if any(record["evaluation"] != evaluation for record in records) or evaluation in self._written:
            raise ValueError(f"{self.pack_id}: append takes one evaluation at a time and each once, got {evaluation}")
        self._written.add(evaluation)
        self._files.write(self._path("records", evaluation), encode(records, unix_ms))

    def checkpoint(self, evaluation: int, payload: bytes) -> None:
        """Store the training state after an evaluation, durably and with a checksum. The last two are kept."""
        path = self._path("checkpoint", evaluation)
        head = _CHECKPOINT + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        self._files.write(path, head + payload, durable=True)
        self._checkpoints = [*(old for old in self._checkpoints if old != path), path]
        while len(self._checkpoints) > _KEPT_CHECKPOINTS:
            self._files.remove(self._checkpoints.pop(0))

    def write_heartbeat(self, payload: Mapping[str, Any]) -> None:
        """Replace the heartbeat of this attempt; keys as in `Heartbeat`."""
        data = json.dumps(dict(payload)).encode()
        self._files.write(f"{attempt_path(self.pack_id, self.number)}/heartbeat.json", data)

    @property
    def crash_file(self) -> Path | None:
        """Path for the fault handler of this process; None if the store is not on a local disk."""
        root = self._files.local
        return None if root is None else root / attempt_path(self.pack_id, self.number) / CRASH_LOG

    def samples(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store samples at an evaluation: trial_id -> array (n, *shape)."""
        self._files.write(self._path("samples", evaluation), to_npz(arrays), durable=False)

    def weights(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store trained parameters durably: `<trial_id>/<net>/<parameter>` -> array."""
        self._files.write(self._path("weights", evaluation), to_npz(arrays), durable=True)


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Encode arrays as a compressed npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def attempt_path(pack_id: str, number: int) -> str:
    """Folder of an attempt, relative to the store."""
    return f"packs/{pack_id}/attempt-{number:03d}"


def file_of_attempt(name: str) -> int | None:
    """Evaluation in the name of an attempt's file, 0 if it has none; None if no attempt writes such a file."""
    match = _FILE.fullmatch(name)
    return None if match is None else int(match.group(2) or 0)


def list_files(files: FileStore, pack_id: str, number: int, kind: Kind) -> list[tuple[int, str]]:
    """List (evaluation, path) of an attempt's files of one kind, ascending.

    Raises:
        StoreError: the folder holds a file that no attempt writes.
    """
    folder, paths = attempt_path(pack_id, number), []
    for name in files.list(folder):
        match = _FILE.fullmatch(name)
        if not match:
            raise files.corruption_error(f"{folder}/{name}", "no such file belongs in the folder of an attempt")
        if match.group(1) == kind:
            paths.append((int(match.group(2)), f"{folder}/{name}"))
    return sorted(paths)


def first_segment_trials(files: FileStore, pack_id: str, number: int) -> set[str]:
    """Ids of the trials in the first segment of an attempt: all that had not ended when it began."""
    return {
        record["trial_id"]
        for evaluation, path in list_files(files, pack_id, number, "records")[:1]
        for record in decode(files, path, evaluation, files.read(path))
    }


def merge(
    files: FileStore,
    pack_id: str,
    attempts: Sequence[int],
    trial_ids: Collection[str],
    outcomes: Mapping[str, TrialEnd],
) -> Merged:
    """Merge the records of a pack's attempts: of each (trial, evaluation) the highest attempt's record.

    Records that an older attempt wrote beyond the last evaluation of the attempt that finished a trial are left out.
    """
    merged: Merged = {}
    last: dict[str, int] = {}
    for number in sorted(attempts):
        segments = list_files(files, pack_id, number, "records")
        contents = files.read_many([path for _, path in segments])
        for (evaluation, path), data in zip(segments, contents, strict=True):
            for record in decode(files, path, evaluation, data):
                trial_id = record["trial_id"]
                if trial_id not in trial_ids:
                    continue
                merged.setdefault(trial_id, {})[evaluation] = record
                outcome = outcomes.get(trial_id)
                if outcome and outcome["pack_id"] == pack_id and number >= outcome["attempt"]:
                    last[trial_id] = max(evaluation, last.get(trial_id, 0))
    for trial_id, end in last.items():
        merged[trial_id] = {e: record for e, record in merged[trial_id].items() if e <= end}
    return merged


def newest_checkpoint(files: FileStore, pack_id: str, attempts: Sequence[int]) -> tuple[int, bytes] | None:
    """Find (evaluation, payload) of the newest intact checkpoint; damaged ones are logged and skipped."""
    for number in sorted(attempts, reverse=True):
        for evaluation, path in reversed(list_files(files, pack_id, number, "checkpoint")):
            try:
                data = files.read(path)
            except FileNotFoundError:  # its writer has just replaced it by a newer one
                continue
            if is_intact_checkpoint(data):
                return evaluation, data.partition(b"\n")[2]
            _log.warning("damaged checkpoint, using the one before it: %s", files.full_path(path))
    return None


def is_intact_checkpoint(data: bytes) -> bool:
    """Whether the checksum of a checkpoint file matches its content."""
    head, _, payload = data.partition(b"\n")
    return head == _CHECKPOINT + hashlib.sha256(payload).hexdigest().encode()


def read_samples(files: FileStore, pack_id: str, attempts: Sequence[int], trial_id: str) -> dict[int, np.ndarray]:
    """Read evaluation -> samples of one trial, from the highest attempt that has them."""
    stored = _read_arrays(files, pack_id, attempts, "samples", lambda name: name == trial_id)
    return {evaluation: arrays[trial_id] for evaluation, arrays in stored.items()}


def read_weights(files: FileStore, pack_id: str, attempts: Sequence[int], trial_id: str) -> dict[str, np.ndarray]:
    """Read `<net>/<parameter>` -> trained parameter of one trial; empty if none were kept."""
    stored = _read_arrays(files, pack_id, attempts, "weights", lambda name: name.startswith(f"{trial_id}/"))
    last = stored[max(stored)] if stored else {}
    return {name.removeprefix(f"{trial_id}/"): array for name, array in last.items()}


def _read_arrays(
    files: FileStore, pack_id: str, attempts: Sequence[int], kind: Kind, matches: Callable[[str], bool]
) -> dict[int, dict[str, np.ndarray]]:
    """evaluation -> arrays whose name matches, from the highest attempt that has one."""
    import numpy as np

    by_evaluation: dict[int, dict[str, np.ndarray]] = {}
    for number in sorted(attempts):
        for evaluation, path in list_files(files, pack_id, number, kind):
            try:
                with np.load(io.BytesIO(files.read(path)), allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files if matches(name)}
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise files.corruption_error(path, str(error)) from error
            if arrays:
                by_evaluation[evaluation] = arrays
    return dict(sorted(by_evaluation.items()))


def supersedes(new: Mapping[str, Any], stored: TrialEnd) -> bool:
    """Whether the end of a trial replaces the stored one. See `Ledger.finish_trial`."""
    if new["state"] != stored["state"]:
        return bool(new["state"] == TrialState.COMPLETE)
    return bool(new["pack_id"] == stored["pack_id"] and new["attempt"] >= stored["attempt"])
