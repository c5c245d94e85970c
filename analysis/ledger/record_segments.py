"""Record segments: the records of one evaluation of an attempt, as one file of JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from vistudy.analysis.ledger.atomic_files import FileStore
from vistudy.analysis.ledger.documents import Record

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_FLOATS = {float}


def encode(records: Sequence[Mapping[str, Any]], unix_ms: int) -> bytes:
    """Encode records, one JSON object per line. Floats keep every bit; non-finite ones become strings."""
    lines = []
    for record in records:
        values = {name: float(value) for name, value in record["values"].items()}
        line: Record = {
            "trial_id": record["trial_id"],
            "evaluation": int(record["evaluation"]),
            "step": int(record["step"]),
            "wall_s": float(record["wall_s"]),
            "unix_ms": int(unix_ms),
            "values": {name: value if math.isfinite(value) else str(value) for name, value in values.items()},  # type: ignore[misc]
        }
        lines.append(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
    return "".join(lines).encode()


def decode(files: FileStore, path: str, evaluation: int, data: bytes) -> list[Record]:
    """Decode a segment.

    Raises:
        StoreError: a byte of it is not as `encode` writes it. Names the file.
    """
    try:
        if not data.endswith(b"}\n"):
            raise ValueError("it is empty or cut short")
        records: list[Record] = orjson.loads(b"[" + data[:-1].replace(b"\n", b",") + b"]")
        for record in records:
            if record.keys() != Record.__annotations__.keys() or record["evaluation"] != evaluation:
                raise ValueError("fields or evaluation are not those of a record of this file")
            values: dict[str, Any] = record["values"]
            if set(map(type, values.values())) != _FLOATS:  # the fast test: nearly all records have floats alone
                values |= {name: _NON_FINITE[value] for name, value in values.items() if type(value) is not float}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise files.corruption_error(path, f"{type(error).__name__}: {error}") from error
    return records
