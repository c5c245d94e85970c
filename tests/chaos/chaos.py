"""Chaos: one small study again and again, each time with a fault in the middle; it must end as if nothing had been.

    python -m tests.chaos --faults 20 --seed 1 [--quick] [--kinds worker_killed,driver_sigterm]

Real processes on this machine: Ray nodes on loopback, drivers, an MLflow server, on PostgreSQL where that is installed.
After every fault the same command is given until it succeeds. Then no trial is lost or doubled, every record has the
bits of the undisturbed run, and MLflow has one run a trial, none left RUNNING. One row a fault goes to
`benchmarks/results/chaos-<date>.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, SLOW, Scene, Server, SkippedFault, free_port, undisturbed
from tests.clusters.four_nodes import Nodes, four_nodes
from tests.clusters.postgres import Postgres, available
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import git_state

NODES = 3
MOST_RUNS = 4
"""Runs after a fault until it counts as not finished."""
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
Bits = dict[tuple[str, int], tuple[int, tuple[tuple[str, str], ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What became of one fault."""

    fault: int
    kind: str
    exit_codes: list[int]
    """Of all runs, the disturbed one first; negative: a signal, -1: it did not end in time."""
    first_end_s: float
    """From the fault to the end of the disturbed run, healing of what was broken included."""
    recovered_s: float
    """From the fault to the end of the study."""
    redone_evaluations: int
    """Record segments that were written once more by a later attempt."""
    lost: int
    doubled: int
    differing: int
    runs_not_one: int
    left_running: int
    note: str
    verdict: str
    """held, broken, or skipped with the reason in `note`."""


def study(name: str, d_updates: int) -> dict[str, Any]:
    """Six trials of two structures on a ring."""
    return {
        "study": name,
        "model": "gan",
        "seeds": [0, 1, 2],
        "blocks": [
            {
                "data": "ring8",
                "budget": {"d_updates": d_updates, "evaluations": 10},
                "factors": {"lr": [4e-4], "ratio": ["1:1", "1:2"]},
                "fixed": {"batch_size": 16},
            }
        ],
    }


def bits(ledger: Ledger) -> tuple[Bits, int]:
    """(trial, evaluation) -> step and the bits of every value; and how many records came twice."""
    found: Bits = {}
    doubled = 0
    for record in ledger.records():
        key = (record["trial_id"], record["evaluation"])
        doubled += key in found
        found[key] = (record["step"], tuple((name, value.hex()) for name, value in sorted(record["values"].items())))
    return found, doubled


def redone(store: Path) -> int:
    """Evaluations of packs that more than one attempt wrote."""
    segments = Counter((path.parent.parent.name, path.name) for path in store.glob("packs/*/attempt-*/records-*"))
    return sum(count - 1 for count in segments.values())


def mlflow_counts(uri: str, name: str, trial_ids: Sequence[str]) -> tuple[int, int]:
    """(trials that have not exactly one run, runs left RUNNING)."""
    from vistudy.study.tracking.client import connect

    client = connect(uri)
    experiment = client.get_experiment_by_name(name)
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []
    count = Counter(run.data.tags.get("vistudy.trial_id") for run in runs)
    return sum(count[i] != 1 for i in trial_ids), sum(run.info.status == "RUNNING" for run in runs)


class Harness:
    """A cluster that is kept alive over many faults, and the undisturbed records."""

    def __init__(self, folder: Path, d_updates: int, *, quick: bool = False) -> None:
        """`quick`: two nodes, and no command once more where the disturbed run ended well and MLflow was not broken."""
        self._folder, self._d_updates, self._quick = folder, d_updates, quick
        self._cluster = contextlib.ExitStack()
        self._server: Server | None = None
        self._postgres: Postgres | None = None
        self.nodes: Nodes
        self.whole: Bits = {}

    def __enter__(self) -> Harness:
        self._renew()
        scene = self._scene("undisturbed", random.Random(0))
        undisturbed(scene)
        if scene.codes != [0]:
            log = scene.store.with_suffix(".log").read_text()
            raise SystemExit(f"the undisturbed run ended with {scene.codes}:\n{log}")
        self.whole, _ = bits(Ledger(scene.store))
        self.took_s = time.monotonic() - scene.broken_at
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
        if self._postgres is not None:
            self._postgres.stop()
        self._cluster.close()

    def _renew(self) -> None:
        """A new cluster in place of the old one."""
        self._cluster.close()
        self.nodes = self._cluster.enter_context(four_nodes(2 if self._quick else NODES, 1))

    def _scene(self, name: str, rng: random.Random, *, server: bool = False) -> Scene:
        file = self._folder / f"{name}.yaml"
        file.write_text(json.dumps(study(name, self._d_updates)))
        if server and self._server is None:
            database = ""
            if available():
                self._postgres = Postgres()
                self._postgres.start()
                database = self._postgres.create("mlflow")
            self._server = Server(self._folder, free_port(), database)
            self._server.start()
        return Scene(
            nodes=self.nodes,
            file=file,
            store=self._folder / name,
            rng=rng,
            uri=self._server.uri if server and self._server else None,
            server=self._server if server else None,
            postgres=self._postgres if server else None,
        )

    def break_(self, number: int, kind: str, seed: int) -> Row:
        """One fault, and all that follows."""
        name = f"chaos-{number:03d}"
        scene = self._scene(
            name, random.Random(f"{seed} {number} {kind}"), server=kind.startswith(("mlflow", "postgres"))
        )
        problem, first_s = "", 0.0
        try:
            FAULTS[kind](scene)
            first_s = time.monotonic() - scene.broken_at
        except SkippedFault as reason:
            if not scene.codes:
                return self._row(number, kind, scene, 0.0, f"{reason}", skipped=True)
            scene.note += f"no fault: {reason}"
        except Exception:
            problem = traceback.format_exc(limit=3)
        if kind == "head_killed":
            self._renew()
            scene.nodes = self.nodes
        whole = self._quick and scene.server is None and scene.codes[-1:] == [0]
        for _ in range(0 if whole else MOST_RUNS):
            if scene.end(scene.start()) == 0:
                break
        row = self._row(number, kind, scene, first_s, problem)
        if row.verdict != "broken":
            self._forget(scene)
        return row

    def _forget(self, scene: Scene) -> None:
        if os.path.ismount(scene.store):
            subprocess.run(["umount", "-l", str(scene.store)], check=True)
        shutil.rmtree(scene.store, ignore_errors=True)

    def _row(self, number: int, kind: str, scene: Scene, first_s: float, problem: str, *, skipped: bool = False) -> Row:
        recovered_s = time.monotonic() - scene.broken_at
        lost = doubled = differing = not_one = running = again = 0
        if not skipped:
            ledger = Ledger(scene.store)
            ids = sorted({trial_id for trial_id, _ in self.whole})
            complete = {i for i, outcome in ledger.read_outcomes(ids).items() if outcome["state"] == "complete"}
            found, doubled = bits(ledger)
            lost = len(ids) - len(complete)
            differing = sum(found.get(key) != value for key, value in self.whole.items()) + len(
                found.keys() - self.whole.keys()
            )
            not_one, running = mlflow_counts(scene.uri or f"sqlite:///{scene.store}/mlflow.db", scene.file.stem, ids)
            again = redone(scene.store)
        bad = bool(problem) or scene.codes[-1:] != [0] or any((lost, doubled, differing, not_one, running))
        return Row(
            fault=number,
            kind=kind,
            exit_codes=scene.codes,
            first_end_s=round(first_s, 1),
            recovered_s=round(recovered_s, 1),
            redone_evaluations=again,
            lost=lost,
            doubled=doubled,
            differing=differing,
            runs_not_one=not_one,
            left_running=running,
            note=problem or scene.note,
            verdict="skipped" if skipped else "broken" if bad else "held",
        )


def kinds_in_order(faults: int, seed: int, chosen: Sequence[str]) -> list[str]:
    """So many kinds: rounds of all chosen ones in random order, the slow ones every fourth round."""
    rng, order = random.Random(seed), list[str]()
    for round_ in range(faults):
        kinds = [kind for kind in chosen if kind not in SLOW or round_ % 4 == 0 or set(chosen) <= set(SLOW)]
        rng.shuffle(kinds)
        order += kinds
        if len(order) >= faults:
            break
    return order[:faults]


def chaos(
    faults: int, seed: int, chosen: Sequence[str], d_updates: int, done: int = 0, *, quick: bool = False
) -> Iterator[Row | float]:
    """Seconds of the undisturbed run; then one row a fault, without the first `done`. `quick`: see `Harness`."""
    folder = Path(tempfile.mkdtemp(prefix="vistudy-chaos-"))
    with Harness(folder, d_updates, quick=quick) as harness:
        yield harness.took_s
        broken = False
        for number, kind in list(enumerate(kinds_in_order(faults, seed, chosen), 1))[done:]:
            row = harness.break_(number, kind, seed)
            broken |= row.verdict == "broken"
            yield row
    if not broken:
        shutil.rmtree(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(FAULTS), help="comma-separated")
    parser.add_argument("--d-updates", type=int, default=1200, help="budget of a trial: how long training takes")
    parser.add_argument("--out", type=Path, default=RESULTS / f"chaos-{datetime.date.today().isoformat()}.json")
    parser.add_argument(
        "--quick", action="store_true", help="two nodes, and no run that only confirms: no pause between faults"
    )
    parser.add_argument("--go-on", action="store_true", help="after the last fault that --out has; else it is replaced")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending what was started
    chosen = args.kinds.split(",")
    if unknown := set(chosen) - FAULTS.keys():
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    rows: list[Row] = []
    command = f"python -m tests.chaos --faults {args.faults} --seed {args.seed}" + " --quick" * args.quick
    found: dict[str, Any] = {"command": command}
    if args.go_on and args.out.exists():
        before = json.loads(args.out.read_text())
        if before["command"] != found["command"]:
            parser.error(f"--go-on: {args.out} is of another run: {before['command']}")
        rows += [Row(**row) for row in before["rows"]]
        found = before
    parts = found.setdefault("parts", [])
    for item in chaos(args.faults, args.seed, chosen, args.d_updates, len(rows), quick=args.quick):
        if isinstance(item, float):
            parts.append({"from_fault": len(rows) + 1, "undisturbed_s": round(item, 1), "git": git_state()})
            print(f"undisturbed: {item:.1f} s", flush=True)
            continue
        rows.append(item)
        print(
            f"{item.fault:3d} {item.kind:24s} {item.verdict:8s} exit codes {item.exit_codes} "
            f"{item.recovered_s:6.1f} s to the end {item.note}",
            flush=True,
        )
        counts = Counter(row.verdict for row in rows)
        totals = {key: sum(getattr(row, key) for row in rows) for key in
                  ("lost", "doubled", "differing", "runs_not_one", "left_running")}  # fmt: skip
        found |= {"verdicts": dict(counts), "totals": totals, "rows": [asdict(row) for row in rows]}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in ("verdicts", "totals")}))
    sys.exit(any(row.verdict == "broken" for row in rows))
