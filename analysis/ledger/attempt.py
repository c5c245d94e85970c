"""What an attempt of a pack writes: records, samples, checkpoints, signs of life; and how attempts are merged again."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from vistudy.analysis.ledger.atomic_files import FileStore

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["records", "samples", "weights", "checkpoint"]
Merged = dict[str, dict[int, dict[str, Any]]]
"""trial_id -> evaluation -> record."""

_log = logging.getLogger("vistudy.ledger")
CRASH = "crash.txt"
"""File of an attempt into which Python's fault handler writes where its process crashed."""

_FILE = re.compile(
    r"(records|samples|weights|checkpoint)-(\d{5,})\.(jsonl|npz|pt)|claim-[0-9a-f]+|heartbeat\.json|crash\.txt"
)
_SUFFIX: dict[Kind, str] = {"records": "jsonl", "samples": "npz", "weights": "npz", "checkpoint": "pt"}
_CHECKPOINT = b"vistudy-checkpoint-1 sha256:"
_KEPT_CHECKPOINTS = 2
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_FLOATS = {float}
_FIELDS = {"trial_id", "evaluation", "step", "wall_s", "unix_ms", "values"}


class Attempt:
    """The one writer of one attempt of a pack. A file is never written twice."""

    def __init__(self, disk: FileStore, pack_id: str, number: int) -> None:
        self._disk, self.pack_id, self.number = disk, pack_id, number
        self._checkpoints: list[str] = []
        self._written: set[int] = set()

    def _path(self, kind: Kind, evaluation: int) -> str:
        return f"{attempt_path(self.pack_id, self.number)}/{kind}-{evaluation:05d}.{_SUFFIX[kind]}"

    def append(self, records: Sequence[Mapping[str, Any]], unix_ms: int) -> None:
        """Store the records of one evaluation, all in one call; an empty sequence stores nothing.

        Args:
            records: mappings with trial_id, evaluation, step, wall_s and values (floats, non-finite ones too).
            unix_ms: the time now.

        Raises:
            ValueError: records of several evaluations, or an evaluation that this attempt has stored already.
        """
        if not records:
            return
        evaluation = int(records[0]["evaluation"])
        if any(record["evaluation"] != evaluation for record in records) or evaluation in self._written:
            raise ValueError(f"{self.pack_id}: append takes one evaluation at a time and each once, got {evaluation}")
        self._written.add(evaluation)
        self._disk.write(self._path("records", evaluation), encode(records, unix_ms))

    def checkpoint(self, evaluation: int, payload: bytes) -> None:
        """Store the state after an evaluation, durably, with its checksum; this attempt's last two are kept."""
        path = self._path("checkpoint", evaluation)
        head = _CHECKPOINT + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        self._disk.write(path, head + payload, durable=True)
        self._checkpoints = [*(old for old in self._checkpoints if old != path), path]
        while len(self._checkpoints) > _KEPT_CHECKPOINTS:
            self._disk.remove(self._checkpoints.pop(0))

    def write_heartbeat(self, said: Mapping[str, Any]) -> None:
        """Replace this attempt's sign of life."""
        data = json.dumps(dict(said)).encode()
        self._disk.write(f"{attempt_path(self.pack_id, self.number)}/heartbeat.json", data)

    @property
    def crash_file(self) -> Path | None:
        """Where the fault handler may write while this process trains; None if the store is on no local disk."""
        root = self._disk.local
        return None if root is None else root / attempt_path(self.pack_id, self.number) / CRASH

    def samples(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store samples (n, *shape) of some trials at an evaluation, by trial_id."""
        self._disk.write(self._path("samples", evaluation), to_npz(arrays), durable=False)

    def weights(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store trained parameters by `<trial_id>/<net>/<parameter>`, durably."""
        self._disk.write(self._path("weights", evaluation), to_npz(arrays), durable=True)


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed npz file."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def attempt_path(pack_id: str, number: int) -> str:
    """Folder of an attempt, below the store."""
    return f"packs/{pack_id}/attempt-{number:03d}"


def file_of_attempt(name: str) -> int | None:
    """The evaluation of a file in an attempt's folder, 0 where it has none; None if no attempt writes such a file."""
    match = _FILE.fullmatch(name)
    return None if match is None else int(match.group(2) or 0)


def list_files(disk: FileStore, pack_id: str, number: int, kind: Kind) -> list[tuple[int, str]]:
    """(evaluation, path) of an attempt's files of one kind, ascending.

    Raises:
        StoreError: a file that no attempt writes is there.
    """
    folder, found = attempt_path(pack_id, number), []
    for name in disk.list(folder):
        match = _FILE.fullmatch(name)
        if not match:
            raise disk.corruption_error(f"{folder}/{name}", "no such file belongs in the folder of an attempt")
        if match.group(1) == kind:
            found.append((int(match.group(2)), f"{folder}/{name}"))
    return sorted(found)


def encode(records: Sequence[Mapping[str, Any]], unix_ms: int) -> bytes:
    """A record segment: one JSON object a line; floats keep every bit, non-finite ones are strings."""
    lines = []
    for record in records:
        values = {name: float(value) for name, value in record["values"].items()}
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = {
            "trial_id": record["trial_id"],
            "evaluation": int(record["evaluation"]),
            "step": int(record["step"]),
            "wall_s": float(record["wall_s"]),
            "unix_ms": int(unix_ms),
            "values": plain,
        }
        lines.append(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
    return "".join(lines).encode()


def decode(disk: FileStore, path: str, evaluation: int, data: bytes) -> list[dict[str, Any]]:
    """The records of a segment. Raises StoreError, naming the file, if one byte of it is not as `encode` writes it."""
    try:
        if not data.endswith(b"}\n"):
            raise ValueError("it is empty or cut short")
        records: list[dict[str, Any]] = orjson.loads(b"[" + data[:-1].replace(b"\n", b",") + b"]")
        for record in records:
            if record.keys() != _FIELDS or record["evaluation"] != evaluation:
                raise ValueError("fields or evaluation are not those of a record of this file")
            values = record["values"]
            if set(map(type, values.values())) != _FLOATS:  # rarely: a thousand values pass here for each that does not
                for name, value in values.items():
                    if type(value) is not float:
                        values[name] = _SPECIAL[value]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise disk.corruption_error(path, f"{type(error).__name__}: {error}") from error
    return records


def first_segment_trials(disk: FileStore, pack_id: str, number: int) -> set[str]:
    """Ids of the trials in an attempt's first segment (all trials that were alive when it began)."""
    return {
        record["trial_id"]
        for evaluation, path in list_files(disk, pack_id, number, "records")[:1]
        for record in decode(disk, path, evaluation, disk.read(path))
    }


def merge(
    disk: FileStore,
    pack_id: str,
    attempts: Sequence[int],
    wanted: Collection[str] | None,
    outcomes: Mapping[str, Mapping[str, Any]],
) -> Merged:
    """One record for each (trial, evaluation) of a pack: the highest attempt's.

    What older attempts wrote beyond the last evaluation of the attempt that finished a trial is left out.
    """
    merged: Merged = {}
    last: dict[str, int] = {}
    for number in sorted(attempts):
        segments = list_files(disk, pack_id, number, "records")
        contents = disk.read_many([path for _, path in segments])
        for (evaluation, path), data in zip(segments, contents, strict=True):
            for record in decode(disk, path, evaluation, data):
                trial_id = record["trial_id"]
                if wanted is not None and trial_id not in wanted:
                    continue
                merged.setdefault(trial_id, {})[evaluation] = record
                outcome = outcomes.get(trial_id)
                if outcome and outcome["pack_id"] == pack_id and number >= outcome["attempt"]:
                    last[trial_id] = max(evaluation, last.get(trial_id, 0))
    for trial_id, end in last.items():
        merged[trial_id] = {e: record for e, record in merged[trial_id].items() if e <= end}
    return merged


def newest_checkpoint(disk: FileStore, pack_id: str, attempts: Sequence[int]) -> tuple[int, bytes] | None:
    """(evaluation, payload) of the newest checkpoint with the right checksum; damaged ones are logged, passed over."""
    for number in sorted(attempts, reverse=True):
        for evaluation, path in reversed(list_files(disk, pack_id, number, "checkpoint")):
            try:
                data = disk.read(path)
            except FileNotFoundError:  # its writer has just put a newer one in its place
                continue
            if good_checkpoint(data):
                return evaluation, data.partition(b"\n")[2]
            _log.warning("damaged checkpoint, taking the one before: %s", disk.name(path))
    return None


def good_checkpoint(data: bytes) -> bool:
    """Whether a checkpoint file has the checksum of its content."""
    head, _, payload = data.partition(b"\n")
    return head == _CHECKPOINT + hashlib.sha256(payload).hexdigest().encode()


def read_samples(disk: FileStore, pack_id: str, attempts: Sequence[int], trial_id: str) -> dict[int, np.ndarray]:
    """evaluation -> samples of one trial; the highest attempt's."""
    found = _read_arrays(disk, pack_id, attempts, "samples", lambda name: name == trial_id)
    return {evaluation: arrays[trial_id] for evaluation, arrays in found.items()}


def read_weights(disk: FileStore, pack_id: str, attempts: Sequence[int], trial_id: str) -> dict[str, np.ndarray]:
    """`<net>/<parameter>` -> trained parameter of one trial; empty if none were kept."""
    found = _read_arrays(disk, pack_id, attempts, "weights", lambda name: name.startswith(f"{trial_id}/"))
    last = found[max(found)] if found else {}
    return {name.removeprefix(f"{trial_id}/"): array for name, array in last.items()}


def _read_arrays(
    disk: FileStore, pack_id: str, attempts: Sequence[int], kind: Kind, wanted: Callable[[str], bool]
) -> dict[int, dict[str, np.ndarray]]:
    """evaluation -> arrays with a wanted name, of the highest attempt that has one."""
    import numpy as np

    found: dict[int, dict[str, np.ndarray]] = {}
    for number in sorted(attempts):
        for evaluation, path in list_files(disk, pack_id, number, kind):
            try:
                with np.load(io.BytesIO(disk.read(path)), allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files if wanted(name)}
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise disk.corruption_error(path, str(error)) from error
            if arrays:
                found[evaluation] = arrays
    return dict(sorted(found.items()))


def supersedes(new: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a trial's outcome replaces the one that is stored. See `Ledger.finish_trial`."""
    if new["state"] != there["state"]:
        return bool(new["state"] == "complete")
    return bool(new["pack_id"] == there["pack_id"] and new["attempt"] >= there["attempt"])
