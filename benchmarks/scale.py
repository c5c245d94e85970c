"""How costs grow with the number of trials: `python -m benchmarks.scale [--trials 10 100 1000 10000]`.

For each number, in a fresh store, a made-up study (learning rate x reg_weight x seeds of the ring GAN). Its records
come from an engine that trains nothing (`synthetic_engine.py`) and are written through the ledger as the trainable
writes them: 50 evaluations of 21 values. Each step (`scale_steps.py`) and each command is a process of its own; wall
and processor seconds and peak memory are the whole process's, `work` is what is left without starting Python and
importing.

  plan, `vistudy plan --no-pilot`          write: what a run does besides training, without Ray and MLflow
  ray: the same packs through Ray Tune     status, `vistudy status` (first: no outcome is cached yet)
  sync: into a new SQLite file of MLflow   heatmap: table of trials and heatmaps

Exponents are slopes of log seconds (or MB) over log trials, between the two largest numbers and over all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from vistudy.study.execution.provenance import git_state, versions

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
STUDY = """study: {name}
model: gan
data: ring8
seeds: {seeds}
budget: {{d_updates: 2000, evaluations: 50}}
save_samples: {{evaluations: []}}
factors:
  lr: {lr}
  reg_weight: {weights}
fixed: {{ratio: "1:2"}}
"""
TARGETS = {"plan_s": 3.0, "status_s": 1.0, "ms_per_trial": 25.0}


def grid(trials: int) -> tuple[int, int, int]:
    """Numbers of learning rates, weights and seeds whose product is `trials`, as equal as can be.

    >>> grid(10_000)
    (25, 20, 20)
    """
    triples = [
        (a, b, trials // a // b)
        for a in range(1, trials + 1)
        if trials % a == 0
        for b in range(1, a + 1)
        if trials // a % b == 0 and trials // a // b <= b
    ]
    return min(triples, key=max)


def study_text(name: str, trials: int) -> str:
    """A study file of exactly so many trials."""
    lrs, weights, seeds = grid(trials)
    return STUDY.format(
        name=name,
        seeds=list(range(seeds)),
        lr=[float(f"{x:.6g}") for x in np.geomspace(1e-4, 1e-1, lrs)],
        weights=[0.0, *(float(f"{x:.6g}") for x in np.geomspace(0.1, 100, weights - 1))] if weights > 1 else [0.0],
    )


def measured(*command: str | Path) -> dict[str, Any]:
    """Run a command of this environment to its end: seconds, processor seconds, peak MB, and the JSON it printed.

    Raises:
        SystemExit: it failed; with its output.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=out, stderr=errors)
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        wall_s = time.perf_counter() - started
        out.seek(0)
        errors.seek(0)
        text = out.read().decode()
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{text}{errors.read().decode()}")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    result = json.loads(last) if last.startswith("{") and last.endswith("}") else {}
    peak_mb = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak_mb, **result}


def measure(trials: int, scratch: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All steps at one number of trials."""
    name, store = f"scale-{trials}", scratch / "store"
    study = scratch / f"{name}.yaml"
    study.write_text(study_text(name, trials), "utf-8")
    vistudy = Path(sys.executable).with_name("vistudy")

    def step(which: str) -> dict[str, Any]:
        say(f"{trials} trials: {which}")
        return measured(sys.executable, "-m", "benchmarks.scale_steps", which, study, store)

    def command(*words: str | Path) -> dict[str, Any]:
        say(f"{trials} trials: vistudy {words[0]}")
        return measured(vistudy, *words, "--store", store)

    rows = {"plan": step("plan"), "vistudy plan": command("plan", study, "--no-pilot"), "write": step("write")}
    if trials <= args.ray_most:
        rows["ray"] = step("ray")
    rows |= {"status, first": step("status"), "status": step("status"), "vistudy status": command("status", name)}
    if trials <= args.sync_most:
        rows["sync"] = step("sync")
    return rows | {"heatmap": step("heatmap")}


def exponents(sizes: Sequence[int], values: Sequence[float]) -> dict[str, float | None]:
    """Slope of log value over log size: over all, and between the two largest. None with fewer than two sizes."""
    if len(sizes) < 2:
        return {"all": None, "last": None}
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-9))
    return {"all": float(np.polyfit(x, y, 1)[0]), "last": float((y[-1] - y[-2]) / (x[-1] - x[-2]))}


def fits(results: dict[int, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Step -> exponents of its seconds (of the work alone, where that is known) and of its peak memory."""
    out: dict[str, dict[str, Any]] = {}
    for step in dict.fromkeys(name for steps in results.values() for name in steps):
        sizes = sorted(n for n, steps in results.items() if step in steps)
        rows = [results[n][step] for n in sizes]
        out[step] = {
            "seconds": exponents(sizes, [row.get("work_s", row["wall_s"]) for row in rows]),
            "peak_mb": exponents(sizes, [row["peak_mb"] for row in rows]),
        }
    return out


def table(results: dict[int, dict[str, dict[str, Any]]], fitted: dict[str, dict[str, Any]]) -> str:
    """One row a step and number of trials, then the exponents, then the targets."""
    lines = [f"{'':<16}{'trials':>7}{'wall s':>9}{'CPU s':>9}{'work s':>9}{'peak MB':>9}{'ms/trial':>10}"]
    for step, fit in fitted.items():
        for n in sorted(n for n, steps in results.items() if step in steps):
            row = results[n][step]
            work = row.get("work_s")
            columns = f"{row['wall_s']:>9.2f}{row['cpu_s']:>9.2f}" + (
                f"{work:>9.2f}" if work is not None else f"{'':>9}"
            )
            lines.append(f"{step:<16}{n:>7}{columns}{row['peak_mb']:>9.0f}{1e3 * (work or row['wall_s']) / n:>10.2f}")
        slopes = ", ".join(f"{what} n^{s['last']:.2f} (all: {s['all']:.2f})" for what, s in fit.items() if s["all"])
        lines.append(f"{'':<16}{slopes}")
    most = max(results)
    lines += [f"at {most:,} trials:", *verdicts(results[most])]
    return "\n".join(lines)


def verdicts(row: dict[str, dict[str, Any]]) -> list[str]:
    """What was asked, and what was found, at the largest number of trials."""
    fixed = row["write"]["prepare_ms_per_trial"] + row["write"]["write_ms_per_trial"]
    rows = {
        "plan_s": row["vistudy plan"]["wall_s"],
        "status_s": row["vistudy status"]["wall_s"],
        "ms_per_trial": fixed,
    }
    return [
        f"  {name}: at most {target:g}: {'met' if rows[name] <= target else 'MISSED'}, {rows[name]:.2f}"
        for name, target in TARGETS.items()
    ]


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and write benchmarks/results/scale-<date>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--ray-most", type=int, default=1000, help="Most trials that go through Ray Tune.")
    parser.add_argument("--sync-most", type=int, default=1000, help="Most trials that are synced to MLflow.")
    parser.add_argument("--scratch", type=Path, help="Folder for the stores; default the system's temporary folder.")
    parser.add_argument("--dry", action="store_true", help="Write no result.")
    args, started = parser.parse_args(), datetime.datetime.now(datetime.UTC)
    load = os.getloadavg()[0]
    results: dict[int, dict[str, dict[str, Any]]] = {}
    for trials in sorted(set(args.trials)):
        with tempfile.TemporaryDirectory(prefix="vistudy-scale-", dir=args.scratch) as scratch:
            results[trials] = measure(trials, Path(scratch), args)
    fitted = fits(results)
    print(table(results, fitted))
    if args.dry:
        return
    head = {
        "date": started.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.scale", *sys.argv[1:]]),
        "machine": machine() | {"load_at_start": load},
        "versions": versions(),
        "git": git_state(),
    }
    path = RESULTS / f"scale-{started.date()}.json"
    path.write_text(json.dumps(head | {"exponents": fitted, "steps": results}, indent=1) + "\n", "utf-8")
    say(f"written: benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
