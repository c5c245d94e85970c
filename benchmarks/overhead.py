"""What a study costs beside its training: `make bench`, or `python -m benchmarks.overhead`.

Trials a minute of one block of a study file, each measured as the wall time of whole processes:
  ours  `vistudy run`, as users type it, in a fresh store: ledger, MLflow (SQLite) and heatmaps included
  (a)   the same training as a plain Ray Tune function trainable with Ray's MLflow callback (plain_ray_tune.py)
  (a2)  (a) with reuse_actors and without Tune's own loggers, which Ray's tutorials leave as they are
  (b)   the engine alone: the same packs in plain processes (bare_engine.py)
README.md beside this file says what is counted how. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, slots_of_this_machine
from benchmarks.subject import blocks_of, stratified
from vistudy.study.execution.provenance import git_state, versions
from vistudy.study.planning.plan import Plan

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
TARGETS = {"a": 15.0, "b": 0.8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One process that has ended."""

    launched: float
    """Unix seconds."""
    ended: float
    out: str

    @property
    def wall_s(self) -> float:
        """Seconds."""
        return self.ended - self.launched


def launch(*command: str | Path) -> Process:
    """Run a command of this environment to its end, from the repository's root.

    Raises:
        SystemExit: it failed; with its output.
    """
    # A user has not set it: every process decides for itself how many threads it takes.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    launched = time.time()
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return Process(launched=launched, ended=time.time(), out=done.stdout)


def run_ours(study: Path, scratch: Path) -> float:
    """Wall seconds of `vistudy run` in a fresh store."""
    with tempfile.TemporaryDirectory(dir=scratch) as store:
        return launch(Path(sys.executable).with_name("vistudy"), "run", study, "--store", store).wall_s


def run_bare(study: Path, slots: int, trials: int) -> float:
    """Wall seconds of peer (b)."""
    done = launch(sys.executable, "-m", "benchmarks.bare_engine", study, "--slots", str(slots))
    trained = sum(report["trials"] for report in json.loads(done.out.splitlines()[-1]))
    assert trained == trials, f"the bare engine trained {trained} of {trials} trials"
    return done.wall_s


def run_plain(configs: Path, slots: int, trials: int, *, tuned: bool) -> dict[str, float]:
    """Peer (a) on a sample of the trials: its wall seconds, and those that all `trials` would take."""
    options = ["--tuned"] if tuned else []
    done = launch(sys.executable, "-m", "benchmarks.plain_ray_tune", configs, "--slots", str(slots), *options)
    times = json.loads(done.out.splitlines()[-1])
    full = extrapolated_wall_s(done, times["starts"], times["ends"], slots=slots, trials=trials)
    return {"sample_wall_s": done.wall_s, **full}


def extrapolated_wall_s(
    done: Process, starts: Sequence[float], ends: Sequence[float], *, slots: int, trials: int
) -> dict[str, float]:
    """Wall seconds of `trials` trials, from a sample of them; in favour of the one who is measured.

    What lies before the first start and after the last end is charged once. The rest grows with the number of trials,
    and no slot is taken to idle at the end: the sample's trials last until the mean of the last end of each slot.
    """
    fixed = starts[0] - done.launched + done.ended - max(ends)
    busy = statistics.fmean(sorted(ends)[-slots:]) - starts[0]
    return {"fixed_s": fixed, "s_per_trial": busy / len(ends), "wall_s": fixed + busy / len(ends) * trials}


def measure(study: Path, planned: Plan, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All four, ours and (b) in turn."""
    slots, trials = slots_of_this_machine(), len(planned.trials)
    sample = stratified([(trial.config.structure(), trial) for trial in planned.trials], args.peer_trials, args.seed)
    configs = scratch / "sample.json"
    configs.write_text(json.dumps([trial.config.to_dict() for trial in sample]), "utf-8")
    ours: list[float] = []
    bare: list[float] = []
    for repeat in range(args.repeats):
        # b after ours, then ours after b: a machine that grows slower favours neither
        for name in ("ours", "b") if repeat % 2 == 0 else ("b", "ours"):
            wall_s = run_ours(study, scratch) if name == "ours" else run_bare(study, slots, trials)
            (ours if name == "ours" else bare).append(wall_s)
            say(f"{name} {repeat + 1} of {args.repeats}: {wall_s:.1f} s")
    plain = {}
    for name in ("a", "a2"):
        plain[name] = run_plain(configs, slots, trials, tuned=name == "a2")
        say(f"{name}: {len(sample)} trials in {plain[name]['sample_wall_s']:.1f} s")
    ratios = {
        "b": summary([theirs / mine for mine, theirs in zip(ours, bare, strict=True)]),
        **{name: summary([peer["wall_s"] / mine for mine in ours]) for name, peer in plain.items()},
    }
    return {
        "slots": slots,
        "trials": trials,
        "ours": walls(ours, trials),
        "b": walls(bare, trials),
        **{name: peer | {"trials_per_min": 60 * trials / peer["wall_s"]} for name, peer in plain.items()},
        "sample": [trial.trial_id for trial in sample],
        "ratios": ratios,
    }


def walls(seconds: list[float], trials: int) -> dict[str, Any]:
    """Wall times of repeats and the rate at their median."""
    return {"wall_s": summary(seconds), "trials_per_min": 60 * trials / statistics.median(seconds)}


def summary(values: list[float]) -> dict[str, Any]:
    """Median and all values in order."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def table(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    n, taken = result["trials"], len(result["sample"])
    rows = [("", "trials", "wall s", "trials/min", "ours is")]
    for name, what in (("ours", "vistudy run"), ("b", "(b) bare engine")):
        w = result[name]["wall_s"]
        ratio = spread(result["ratios"]["b"]) if name == "b" else ""
        wall = f"{w['median']:.1f} ({w['min']:.1f} to {w['max']:.1f})"
        rows.append((what, str(n), wall, f"{result[name]['trials_per_min']:.1f}", ratio))
    for name, what in (("a", "(a) plain Ray Tune"), ("a2", "(a2) reuse_actors, no loggers")):
        wall = f"{result[name]['sample_wall_s']:.1f}, for all {result[name]['wall_s']:.0f}"
        ratio = spread(result["ratios"][name])
        rows.append((what, f"{taken} of {n}", wall, f"{result[name]['trials_per_min']:.1f}", ratio))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for name, target in TARGETS.items():
        median = result["ratios"][name]["median"]
        lines.append(
            f"target: ours at least {target:g} x ({name}): {'met' if median >= target else 'MISSED'}, {median:.2f}"
        )
    return "\n".join(lines)


def spread(ratio: dict[str, Any]) -> str:
    """A ratio with its range over repeats."""
    return f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})"


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("study/recipes/quickstart.yaml"))
    parser.add_argument("--data", default="ring8", help="The block that learns this is measured.")
    parser.add_argument("--repeats", type=int, default=3, help="Of ours and of (b), in turn.")
    parser.add_argument("--peer-trials", type=int, default=16, help="Trials that (a) and (a2) train, every structure.")
    parser.add_argument("--seed", type=int, default=0, help="Of the sample of trials.")
    parser.add_argument("--d-updates", type=int, help="Another budget, to try the benchmark; nothing is written.")
    parser.add_argument("--evaluations", type=int, help="Likewise.")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write benchmarks/results/overhead-<date>.json."""
    args, started = parse(), datetime.datetime.now(datetime.UTC)
    changed = {name: getattr(args, name) for name in ("d_updates", "evaluations") if getattr(args, name)}
    with tempfile.TemporaryDirectory(prefix="vistudy-bench-") as name:
        scratch = Path(name)
        study = scratch / "block.yaml"
        planned = blocks_of(args.study, args.data, study, budget=changed)
        machine_ = machine()
        result = measure(study, planned, args, scratch)
    print(table(result))
    if changed:
        return
    head = {
        "date": started.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.overhead", *sys.argv[1:]]),
        "study": {"name": planned.study.name, "data": args.data, "hash_of_block": planned.study.hash},
        "machine": machine_,
        "versions": versions(),
        "git": git_state(),
    }
    path = RESULTS / f"overhead-{started.date()}.json"
    path.write_text(json.dumps(head | result, indent=1) + "\n", "utf-8")
    say(f"written: benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
