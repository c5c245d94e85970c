"""A large study that is mirrored while it runs: `python -m benchmarks.tracker [--server]`.

A second process writes trials into a ledger, evenly over some minutes, as workers would; here the mirror of
`vistudy run` follows into MLflow on a PostgreSQL server of its own: directly, or (`--server`) through an MLflow server.
Then the same with PostgreSQL (or the MLflow server) killed for the middle third. Every second trials that have ended
are counted, and trials whose runs have. Afterwards every value is compared with the ledger's. Needs Debian's package
postgresql. Prints JSON, and adds it to benchmarks/results/tracker-<date>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chaos_faults import Server, free_port
from benchmarks.machine import machine
from benchmarks.mirror import STUDY, differences, make, peak_mb
from benchmarks.overhead import RESULTS
from tests.clusters.postgres import Postgres, postgres
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import git_state, versions

ROOT = Path(__file__).parent.parent
FINAL_TRIES = 5


class Watch(threading.Thread):
    """Counts, every second, trials that have ended and runs that have."""

    def __init__(self, ledger: Ledger, database: str) -> None:
        super().__init__(daemon=True)
        self._ledger, self._database = ledger, database
        self._over = threading.Event()
        self.seen: list[tuple[float, int, int | None]] = []
        """(seconds, trials, runs: None while the database does not answer)."""

    def run(self) -> None:
        """Until `stop`."""
        import sqlalchemy as sa

        engine, began = sa.create_engine(self._database, poolclass=sa.NullPool), time.monotonic()
        ended = sa.text("SELECT count(*) FROM runs WHERE status = 'FINISHED'")
        while not self._over.wait(1.0):
            runs = None
            with contextlib.suppress(sa.exc.SQLAlchemyError), engine.connect() as connection:
                runs = int(connection.execute(ended).scalar() or 0)
            self.seen.append((time.monotonic() - began, len(self._ledger.done()), runs))

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()

    def lag(self) -> tuple[float, float]:
        """(median, largest) lag in seconds: how long ago as many trials had ended as runs have now."""
        lags = []
        for now, _, runs in self.seen:
            if runs is not None:
                lags.append(
                    now - max((then for then, trials, _ in self.seen if trials <= runs and then <= now), default=0.0)
                )
        return statistics.median(lags), max(lags)


def follow(
    folder: Path, database: str, uri: str, away: Callable[[bool], None] | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Mirror the study while it is written. `away(True)` takes the tracker away, `away(False)` brings it back."""
    from vistudy.study.execution.runner import MIRROR_EVERY_S, MIRROR_RUNNING_EVERY_S
    from vistudy.study.tracking.mirror import Mirror, open_database

    open_database(uri)
    ledger, before = Ledger(folder), peak_mb()
    settings = [folder, str(args.trials), str(args.records), str(args.metrics), str(args.seconds)]
    began = time.monotonic()
    writer = subprocess.Popen([sys.executable, "-m", "benchmarks.tracker", "--write", *map(str, settings)], cwd=ROOT)
    while not (folder / "studies" / STUDY / "plan.json").exists():
        time.sleep(0.05)
    mirror, watch = (
        Mirror(ledger, STUDY, uri, every_s=MIRROR_EVERY_S, running_every_s=MIRROR_RUNNING_EVERY_S),
        Watch(ledger, database),
    )
    mirror.start()
    watch.start()
    back = 0.0
    if away is not None:
        for wait, gone in ((args.seconds / 3, True), (2 * args.seconds / 3, False)):
            time.sleep(max(0.0, began + wait - time.monotonic()))
            away(gone)
        back = time.monotonic()
    if writer.wait():
        raise SystemExit("the writer failed")
    written = time.monotonic()
    status = mirror.stop()
    for _ in range(FINAL_TRIES):
        if status.error is None:
            break
        status = mirror.stop()
    done = time.monotonic()
    watch.stop()
    peak = peak_mb()
    if status.error is not None:
        raise SystemExit(f"the mirror ended with: {status.error}")
    metrics, unlike = differences(ledger, database)
    if unlike or metrics != args.trials * args.records * args.metrics:
        raise SystemExit(f"{metrics} metrics in the database, {unlike} differ from the ledger's")
    median, largest = watch.lag()
    caught_up = next(
        (t for t, trials, runs in watch.seen if runs is not None and t > back - began and trials - runs < 100),
        done - began,
    )
    return {
        "trials": args.trials, "metrics": metrics, "written_over_s": round(written - began, 1),
        "mirrored_after_s": round(done - began, 1), "metrics_per_s": round(metrics / (done - began)),
        "lag_median_s": round(median, 1), "lag_largest_s": round(largest, 1),
        "caught_up_s_after_back": round(caught_up - (back - began), 1) if away else None,
        "rest_after_the_last_trial_s": round(done - written, 1),
        "peak_mb_before": before, "peak_mb": peak,
    }  # fmt: skip


def regime(args: argparse.Namespace, *, outage: bool) -> dict[str, Any]:
    """One study in a new database."""
    with tempfile.TemporaryDirectory(prefix="vistudy-tracker-") as scratch, postgres() as database:
        folder, uri = Path(scratch), database.create("mlflow")
        if not args.server:
            return follow(folder / "store", uri, uri, _killed(database) if outage else None, args)
        server = Server(folder, free_port(), uri)
        server.start()
        try:
            return follow(folder / "store", uri, server.uri, _killed(server) if outage else None, args)
        finally:
            server.stop()


def _killed(server: Postgres | Server) -> Callable[[bool], None]:
    return lambda gone: server.kill() if gone else server.start()


def main() -> None:
    """Both regimes, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=10, help="of a trial")
    parser.add_argument("--metrics", type=int, default=15, help="of a record")
    parser.add_argument("--seconds", type=float, default=240.0, help="over which the trials are written")
    parser.add_argument("--server", action="store_true", help="through an MLflow server, which is what is killed")
    parser.add_argument("--regime", choices=("steady", "outage"), help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        folder, trials, records, metrics, over_s = args.write
        make(Path(folder), int(trials), int(records), int(metrics), samples=False, over_s=float(over_s))
        return
    if args.regime:
        print(json.dumps(regime(args, outage=args.regime == "outage")))
        return
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.tracker", *sys.argv[1:]]), "machine": machine(),
        "versions": versions(), "git": git_state(),
    }  # fmt: skip
    for name in ("steady", "outage"):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.tracker", *sys.argv[1:], "--regime", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(result[name], indent=1), file=sys.stderr, flush=True)
    path = RESULTS / f"tracker-{datetime.date.today().isoformat()}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*runs, result], indent=1) + "\n")


if __name__ == "__main__":
    main()
