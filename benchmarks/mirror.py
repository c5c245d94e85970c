"""What it costs to mirror a study to MLflow in SQLite: `python -m benchmarks.mirror --trials 1000`.

A ledger of that many trials is made through `study.ledger`, with samples of points at the last evaluation, and synced
into an empty database: in bulk, and by MLflow's client (of fewer trials: it is slow). Each in a process of its own.
Imports and the making of the database are not counted. Prints JSON and writes benchmarks/results/mirror-<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.overhead import RESULTS, machine
from study.ledger import Ledger
from study.provenance import versions

STUDY, PACK = "mirrored", 32


def make(root: Path, trials: int, records: int, metrics: int) -> Ledger:
    """A store with a study whose trials are all complete: packs of PACK trials, numbers drawn from a seed."""
    ledger, rng = Ledger(root), np.random.default_rng(0)
    ledger.create()
    plan = [
        {"trial_id": f"t1-{i:06d}", "cell": {"lr": i // 10}, "config": {"model": "gan", "data": "ring8", "seed": i % 10}
         | {f"field_{k}": k for k in range(25)}}
        for i in range(trials)
    ]  # fmt: skip
    ledger.write_study(STUDY, "study: mirrored\n", {"study": STUDY, "trials": plan}, {"created_ms": 1})
    names = ["finite", *(f"metric_{k:02d}" for k in range(1, metrics))]
    for first in range(0, trials, PACK):
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
        attempt.samples(records - 1, {i: rng.standard_normal((500, 2)).astype(np.float16) for i in ids})
        for i in ids:
            ledger.finish_trial(
                {"trial_id": i, "state": "complete", "pack_id": pack_id, "attempt": 1, "wall_s": 1.0, "device": "cpu",
                 "versions": {"torch": "2"}, "error": None, "unix_ms": 1_700_000_999_000}
            )  # fmt: skip
    return ledger


def measure(root: Path, way: str) -> dict[str, Any]:
    """Sync a store in this process. Times without imports; every metric is counted in the database afterwards."""
    from study import tracking

    ledger, uri = Ledger(root), f"sqlite:///{root}/{way}.db"
    if way == "client":
        tracking.writable = lambda client: False
    opening = time.process_time()
    tracking.open_database(uri)
    opened, before = time.process_time(), peak_mb()
    wall = time.perf_counter()
    report = tracking.sync(ledger, STUDY, uri)
    wall, cpu = time.perf_counter() - wall, time.process_time() - opened
    with sqlite3.connect(f"{root}/{way}.db") as database:
        (rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    if rows != report.metrics_written:
        raise SystemExit(f"{way}: {rows} metrics in the database, {report.metrics_written} were to be written")
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
        "peak_mb": peak_mb(),
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
