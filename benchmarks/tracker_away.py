"""What a tracker that does not work costs training: `python -m benchmarks.tracker_away [--rounds 3]`.

The same study again and again, each time in a new store, with MLflow's server well, or with a tracker that nobody runs
(refused), that accepts and never answers (hangs), that answers 500, or that refuses the password (401). Every round has
all of them, in another order. Of each run: the seconds from the first record to the last end of a trial; the processor
seconds of the driver in which the mirror lives, also as a share of what the machine's cores could do meanwhile: more
than the driver takes with a tracker that is well is the most by which training can be slowed. Records are compared bit
by bit. Prints JSON and writes benchmarks/results/tracker-away-<date>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.chaos import Bits, bits
from benchmarks.chaos_faults import VISTUDY, Server, free_port
from benchmarks.machine import machine
from benchmarks.overhead import RESULTS
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import git_state, versions

STUDY: dict[str, Any] = {
    "study": "away",
    "model": "gan",
    "seeds": [0, 1, 2, 3],
    "blocks": [
        {
            "data": "ring8",
            "budget": {"d_updates": 3000, "evaluations": 20},
            "factors": {"lr": [1e-4, 1e-3, 1e-2], "reg_weight": [0, 5], "ratio": ["1:1", "1:2"]},
        }
    ],
}
TARGET = 0.01
WATCH_EVERY_S = 0.2


@contextlib.contextmanager
def well() -> Iterator[str]:
    """MLflow's server on SQLite."""
    with tempfile.TemporaryDirectory(prefix="vistudy-away-") as folder:
        server = Server(Path(folder), free_port())
        server.start()
        try:
            yield server.uri
        finally:
            server.stop()


@contextlib.contextmanager
def refused() -> Iterator[str]:
    """A port at which nobody listens."""
    yield f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def hangs() -> Iterator[str]:
    """A port at which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def answering(code: int) -> Iterator[str]:
    """A server with one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_PATCH = _answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


TRACKERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "well": well, "refused": refused, "hangs": hangs,
    "500": lambda: answering(500), "401": lambda: answering(401),
}  # fmt: skip


def run(uri: str) -> tuple[dict[str, Any], Bits]:
    """One run: what it took, and its records."""
    with tempfile.TemporaryDirectory(prefix="vistudy-away-") as folder:
        file, store = Path(folder) / "study.yaml", Path(folder) / "store"
        file.write_text(json.dumps(STUDY))
        began = time.monotonic()
        with (Path(folder) / "log").open("w+") as log:
            command = [*VISTUDY, "run", str(file), "--store", str(store), "--tracking-uri", uri]
            driver = subprocess.Popen(command, stdout=log, stderr=log)
            seen = _watch(driver)
            whole_s = time.monotonic() - began
            if driver.returncode:
                log.seek(0)
                raise SystemExit(f"exit code {driver.returncode} with the tracker {uri}:\n{log.read()}")
        ledger = Ledger(store)
        found, _ = bits(ledger)
        first = min(record["unix_ms"] for record in ledger.records()) / 1e3
        last = max(outcome["unix_ms"] for outcome in ledger.read_outcomes().values()) / 1e3
    inside = [cpu for at, cpu in seen if first <= at <= last]
    cpu_s = inside[-1] - inside[0]
    return {
        "whole_s": round(whole_s, 2), "train_s": round(last - first, 2), "driver_cpu_s": round(cpu_s, 2),
        "driver_share": round(cpu_s / ((last - first) * (os.cpu_count() or 1)), 4),
    }, found  # fmt: skip


def _watch(driver: subprocess.Popen[Any]) -> list[tuple[float, float]]:
    """(Unix seconds, processor seconds of the process itself) until it has ended."""
    stat, tick, seen = Path(f"/proc/{driver.pid}/stat"), os.sysconf("SC_CLK_TCK"), list[tuple[float, float]]()
    while driver.poll() is None:
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]  # proc(5): fields 14 and 15
        seen.append((time.time(), (int(user) + int(system)) / tick))
        time.sleep(WATCH_EVERY_S)
    return seen


def main() -> None:
    """Rounds, medians, result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no result")
    args, rng = parser.parse_args(), random.Random(0)
    machine_before, records = machine(), dict[str, Bits]()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TRACKERS}
    for _ in range(args.rounds):
        for name in rng.sample(sorted(TRACKERS), len(TRACKERS)):
            with TRACKERS[name]() as uri:
                row, records[name] = run(uri)
            rows[name].append(row)
            print(name, row, flush=True)
            if records[name] != next(iter(records.values())):
                raise SystemExit(f"records with the tracker {name!r} are others than before")
    medians = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]} for name, found in rows.items()
    }
    plain = medians["well"]
    for name, found in medians.items():
        found["train_ratio"] = round(found["train_s"] / plain["train_s"], 3)
        found["more_driver_share"] = round(found["driver_share"] - plain["driver_share"], 4)
        found["met"] = found["more_driver_share"] < TARGET
        print(name, json.dumps(found))
    if args.dry:
        return
    result = {
        "command": f"python -m benchmarks.tracker_away --rounds {args.rounds}", "machine": machine_before,
        "versions": versions(), "git": git_state(), "trials": 48, "target": TARGET, "medians": medians, "rows": rows,
    }  # fmt: skip
    path = RESULTS / f"tracker-away-{datetime.date.today().isoformat()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
