"""What it costs to mirror a study to MLflow in SQLite: `python -m benchmarks.mirror --trials 1000`.

A ledger of that many trials is made through `Ledger`, with samples of points at the last evaluation, and synced
into an empty database: in bulk, and by MLflow's client (of fewer trials: it is slow). Each in a process of its own.
Imports and the making of the database are not counted. Every value is compared with the ledger's afterwards. Prints
JSON and writes benchmarks/results/mirror-<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.overhead import RESULTS
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import versions

STUDY, PACK = "mirrored", 32


def make(
    root: Path, trials: int, records: int, metrics: int, *, samples: bool = True, over_s: float = 0.0
) -> Ledger:  # fmt: skip
    """A store with a study whose trials are all complete: packs of PACK trials, numbers drawn from a seed.

    `over_s`: seconds over which the packs are spread evenly.
    """
    ledger, rng = Ledger(root), np.random.default_rng(0)
    ledger.create()
    plan = [
        {"trial_id": f"t1-{i:06d}", "cell": {"lr": i // 10}, "config": {"model": "gan", "data": "ring8", "seed": i % 10}
         | {f"field_{k}": k for k in range(25)}}
        for i in range(trials)
    ]  # fmt: skip
    ledger.write_study(STUDY, "study: mirrored\n", {"study": STUDY, "trials": plan}, {"created_ms": 1})
    names = ["finite", *(f"metric_{k:02d}" for k in range(1, metrics))]
    began = time.monotonic()
    for first in range(0, trials, PACK):
        time.sleep(max(0.0, began + over_s * first / trials - time.monotonic()))
        ids = [trial["trial_id"] for trial in plan[first : first + PACK]]
        pack_id = f"p{first:06d}"
        ledger.write_pack({"pack_id": pack_id, "trials": [], "trial_ids": ids, "reference": {}, "created_ms": first})
        attempt = ledger.open_attempt(pack_id)
        for evaluation in range(records):
            drawn = rng.standard_normal((len(ids), metrics))
            lines = [
                {"trial_id": i, "evaluation": evaluation, "step": 40 * evaluation, "wall_s": 0.1,
                 "values": dict(zip(names, row, strict=True))}
                for i, row in zip(ids, drawn, strict=True)
            ]  # fmt: skip
            attempt.append(lines, unix_ms=1_700_000_000_000 + 1000 * (first + evaluation))
        if samples:
            attempt.samples(records - 1, {i: rng.standard_normal((500, 2)).astype(np.float16) for i in ids})
        for i in ids:
            ledger.finish_trial(
                {"trial_id": i, "state": "complete", "pack_id": pack_id, "attempt": 1, "wall_s": 1.0, "device": "cpu",
                 "versions": {"torch": "2"}, "error": None, "unix_ms": 1_700_000_999_000}
            )  # fmt: skip
    return ledger


def differences(ledger: Ledger, uri: str) -> tuple[int, int]:
    """(metrics in a database, values that are in the ledger and not there, or there and not in the ledger)."""
    import sqlalchemy as sa

    rows = sa.text(
        "SELECT tags.value, metrics.key, metrics.step, metrics.value FROM metrics JOIN tags "
        "ON tags.run_uuid = metrics.run_uuid AND tags.key = 'vistudy.trial_id'"
    )
    count, there = 0, set[int]()  # hashes of rows: a million rows are 100 MB
    with sa.create_engine(uri, poolclass=sa.NullPool).connect() as connection:
        for row in connection.execution_options(stream_results=True).execute(rows):
            count += 1
            there.add(hash(tuple(row)))
    unlike = len(there)
    for trial_id, records in ledger.histories():
        for record in records:
            for name, value in record["values"].items():
                unlike += -1 if hash((trial_id, name, record["step"], value)) in there else 1
    return count, unlike


def measure(root: Path, way: str) -> dict[str, Any]:
    """Sync a store in this process. Times without imports; every value is compared with the ledger's afterwards."""
    from vistudy.study.tracking import mirror

    ledger, uri = Ledger(root), f"sqlite:///{root}/{way}.db"
    if way == "client":
        mirror.writable = lambda client: False
    opening = time.process_time()
    mirror.open_database(uri)
    opened, before = time.process_time(), peak_mb()
    wall = time.perf_counter()
    report = mirror.sync(ledger, STUDY, uri)
    wall, cpu = time.perf_counter() - wall, time.process_time() - opened
    peak = peak_mb()
    rows, unlike = differences(ledger, uri)
    if rows != report.metrics_written or unlike:
        raise SystemExit(f"{way}: {rows} of {report.metrics_written} metrics in the database, {unlike} differ")
    trials = report.runs_created
    return {
        "way": way,
        "trials": trials,
        "metrics": rows,
        "images": report.images_written,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "cpu_ms_per_trial": round(1000 * cpu / trials, 2),
        "trials_per_s": round(trials / wall, 1),
        "metrics_per_s": round(rows / wall),
        "open_database_cpu_s": round(opened - opening, 2),
        "peak_mb_before": before,
        "peak_mb": peak,
        "database_mb": round((root / f"{way}.db").stat().st_size / 1e6, 1),
    }


def peak_mb() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--records", type=int, default=50, help="of a trial")
    parser.add_argument("--metrics", type=int, default=15, help="of a record")
    parser.add_argument("--client-trials", type=int, default=32, help="trials that MLflow's client writes, too")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=["bulk", "client"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure both ways, print, write."""
    args = parse()
    if args.way:
        print(json.dumps(measure(args.store, args.way)))
        return
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.mirror", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "records": args.records,
        "metrics": args.metrics,
        "rows": [],
    }
    for way, trials in (("bulk", args.trials), ("client", args.client_trials)):
        if not trials:
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), trials, args.records, args.metrics)
            command = [sys.executable, "-m", "benchmarks.mirror", "--way", way, "--store", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result["rows"].append(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(result, indent=1))
    path = RESULTS / f"mirror-{datetime.date.today().isoformat()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
