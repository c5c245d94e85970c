"""Are two stores equal bit for bit? Trial ids, records, samples, outcomes, estimates and the verdict of a study.

    python -m tests.unchanged STORE_A STORE_B STUDY

Times, processes and machines are left out. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.arm_table import load_arms
from vistudy.analysis.tables.trials import load_frame, load_records
from vistudy.analysis.verdict.decide import decide_study

TIMES = ("wall_s", "unix_ms", "attempt", "pack_id", "device", "versions")


def content(store: str | Path, study: str) -> dict[str, Any]:
    """What a study's trials are and gave, without what differs between two runs of the same code.

    Numbers are hexadecimal, so that equal text means equal bits.
    """
    frame = load_frame(store, study).set_index("trial_id").sort_index()
    records = load_records(store, study).sort_values(["trial_id", "evaluation"], ignore_index=True)
    found: dict[str, Any] = {
        "trials": _plain(frame), "records": _plain(records.set_index(["trial_id", "evaluation"])),
        "samples": _samples(Ledger(store), list(frame.index)),
    }  # fmt: skip
    try:
        found["arms"] = _plain(load_arms(store, study))
        decision = decide_study(store, study).to_json()
        found["verdict"] = {name: value for name, value in decision.items() if name != "registered"}
    except StudyError as error:  # a study without arms or claim
        found["verdict"] = str(error).replace(str(store), "STORE")
    return found


def _samples(ledger: Ledger, trial_ids: list[str]) -> dict[str, str]:
    found = {}
    for trial_id in trial_ids:
        digest = hashlib.sha256()
        for evaluation, points in sorted(ledger.samples(trial_id).items()):
            digest.update(
                f"{evaluation} {points.shape} {points.dtype}".encode() + np.ascontiguousarray(points).tobytes()
            )
        found[trial_id] = digest.hexdigest()[:16]
    return found


def _plain(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    columns = [name for name in frame.columns if name not in TIMES]
    rows = zip(frame.index, frame[columns].itertuples(index=False, name=None), strict=True)
    return {str(key): dict(zip(columns, map(_text, row), strict=True)) for key, row in rows}


def _text(value: Any) -> str:
    return float(value).hex() if isinstance(value, float | np.floating) else str(value)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths at which two documents differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [line for key in sorted({*a, *b}) for line in differences(a.get(key), b.get(key), f"{path}/{key}")]
    return [] if a == b else [f"{path}: {str(a)[:80]} | {str(b)[:80]}"]


def main(argv: list[str] | None = None) -> int:
    """Compare, print what differs, and count what was compared."""
    parser = argparse.ArgumentParser(prog="python -m tests.unchanged", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stores", nargs=2, metavar="STORE")
    parser.add_argument("study")
    args = parser.parse_args(argv)
    a, b = (json.loads(json.dumps(content(store, args.study))) for store in args.stores)
    lines = differences(a, b)
    print(*lines[:20], sep="\n")
    print(
        f"{args.study}: {len(a['trials'])} trials, {len(a['records'])} records: "
        f"{len(lines)} differences; verdict compared: {isinstance(a['verdict'], dict)}"
    )
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
