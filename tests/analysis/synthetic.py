"""What a report costs: `python -m tests.analysis.synthetic`.

Writes a made-up study of 10,000 trials x 50 records (numbers only: nothing is trained) into a ledger and measures, each
in a process of its own: labelling all trials and caching the outcomes, as `vistudy run` does; then the wall
and processor seconds and the peak memory of `vistudy.analysis.report.report.report`; then one heatmap.
Targets: a report under 15 s and 2 GB on 2 cores, its HTML under 15 MB; a heatmap from a frame under 2 s.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky import get_reusable_executor
from scipy.special import expit

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import git_state, versions

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TARGETS = {"report_s": 15.0, "peak_gb": 2.0, "html_mb": 15.0, "heatmap_s": 2.0}
REFERENCE = {
    "dist_floor": 0.05, "dist_floor_sd": 0.01, "dist_ceiling": 1.05, "dist_trivial": 0.25,
    "cov_real": 1.0, "prec_real": 1.0, "max_abs_data": 1.2,
}  # fmt: skip
CONFIG = {
    "model": "gan", "seed": 0, "d_updates": 2000, "batch_size": 64, "precision": "fp32", "optimizer": "adam",
    "beta1": 0.5, "beta2": 0.999, "anchor": "period_start", "z_use": "pool", "net": "mlp", "width": 64, "depth": 2,
    "z_dim": 8, "r1_weight": 0.0, "g_loss": "non_saturating",
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}, "A3a": {"reg_weight": 0, "g_lr": {"match_drift": "A1"}},
    "A3b": {"reg_weight": 0, "g_steps": {"times": 0.2}}, "A4": {"reg_weight": 0, "r1_weight": 10},
}  # fmt: skip
LIFT = {"P": {"A1": 0.1, "A4": 1.0}, "G": {"A1": 1.6, "A3a": 0.5, "A3b": 0.7, "A4": 1.2}, "D": {"A1": -0.4, "A4": 0.8}}
"""What an arm adds to the logit of being stable, by class."""
RATIOS = {"P": ("1:2", "5:10"), "G": ("1:5", "1:10"), "D": ("5:2",)}
FAILURES = ("slow", "stalled", "mode_collapse_late", "diverged", "oscillating", "plateau")
PACK = 64


def make_study(
    store: Path, *, configs: int = 200, seeds: int = 2, evaluations: int = 50, blocks: int = 5, seed: int = 0,
    study: str = "synthetic", claim: Mapping[str, Any] | None = None, text: str = "",
    arms: Mapping[str, Mapping[str, Any]] = ARMS,
) -> int:  # fmt: skip
    """Write a study of `blocks * configs * seeds * len(arms)` complete trials into a new ledger; returns their number.

    Shares of stable trials fall off on both sides of a middle learning rate; arms shift them as LIFT says, by class.
    """
    rng = np.random.default_rng(seed)
    ledger = Ledger(store)
    ledger.create()
    trials: list[dict[str, Any]] = []
    kinds: list[str] = []
    names = {}
    for number in range(blocks):
        data, group = ("ring8", "grid25", "digits")[number // 3 % 3], "PGD"[number % 3]
        name = f"{data}-{group}" if number < 9 else f"{data}-{group}-{number}"
        names[name] = _block(data, group, seeds, arms)
        for c in range(configs):
            point = {
                "lr": float(10 ** rng.uniform(-4, -1)), "batch_norm": bool(rng.random() < 0.5),
                "ratio": str(rng.choice(RATIOS[group])),
            }  # fmt: skip
            base = 2.0 - 3.0 * (np.log10(point["lr"]) + 2.4) ** 2 + rng.normal(0, 1)
            for s in range(seeds):
                luck = rng.random()
                for arm, settings in arms.items():
                    stable = luck < expit(base + LIFT[group].get(arm, 0.0))
                    failure = FAILURES[int(rng.integers(len(FAILURES)))] if point["lr"] > 2e-3 else "slow"
                    kinds.append("converged" if stable else failure)
                    trials.append(_entry(name, data, arm, settings, point, s, evaluations, f"{name}/{c}/{s}/{arm}"))
    write_trials(ledger, trials, kinds, rng)
    plan = {
        "study": study, "hash": "5" * 12, "factors": {}, "seeds": list(range(seeds)),
        "cells": configs * blocks * len(arms), "blocks": names, "trials": trials,
    }  # fmt: skip
    meta = {
        "created_ms": 1_795_000_000_000, "last_run_ms": 1_795_000_600_000, "git": {"commit": "0" * 40, "dirty": False},
        "versions": {"python": platform.python_version(), "vistudy": "0.1.0"}, "metrics": {},
    }  # fmt: skip
    ledger.write_study(study, text or f"study: {study}\n", plan | ({"claim": dict(claim)} if claim else {}), meta)
    return len(trials)


CLAIM: dict[str, Any] = {
    "id": "synthetic", "question": "Does the term make training less sensitive to its hyperparameters?",
    "baseline": "A0", "treatment": "A1", "slower": ["A3a", "A3b"], "tuned": None, "positive_control": "A4",
    "negative_controls": [], "default": {"lr": 2e-4}, "sesoi": 0.08, "margin": 0.08, "alpha": 0.05,
    "strong_margin": 0.05, "best_of": 20, "thresholds": {},
    "predictions": [
        {"id": "H1", "class": "P", "expect": "no effect"}, {"id": "H2", "class": "G", "expect": "supported"},
    ],
}  # fmt: skip


def _block(data: str, group: str, seeds: int, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "model": "gan", "data": data, "family": f"gan_mlp_{data}", "class": group, "seeds": list(range(seeds)),
        "factors": {}, "sampled": ["lr", "batch_norm", "ratio"], "arms": {name: dict(arms[name]) for name in arms},
        "fixed": {"anchor": "period_start", "z_use": "pool"}, "sample_evaluations": [], "keep_checkpoints": "none",
    }  # fmt: skip


def _entry(
    block: str, data: str, arm: str, settings: Mapping[str, Any], point: Mapping[str, Any], seed: int, evaluations: int,
    key: str,
) -> dict[str, Any]:  # fmt: skip
    d_steps, g_steps = map(int, point["ratio"].split(":"))
    times = settings.get("g_steps", {}).get("times", 1.0)
    g_lr = point["lr"] * (0.3 if "g_lr" in settings else 1.0)
    config = CONFIG | {
        "data": data, "seed": seed, "evaluations": evaluations, "g_lr": g_lr, "d_lr": point["lr"], "d_steps": d_steps,
        "g_steps": max(1, round(g_steps * times)), "norm": "bn" if point["batch_norm"] else "none",
        "reg_weight": float(settings.get("reg_weight", 0)), "r1_weight": float(settings.get("r1_weight", 0)),
    }  # fmt: skip
    trial_id = f"t1-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    cell = {"arm": arm, **point}
    return {
        "trial_id": trial_id, "block": block, "cell": cell, "seed": seed, "inert": [], "also": [], "config": config
    }  # fmt: skip


def write_trials(
    ledger: Ledger, trials: list[dict[str, Any]], kinds: list[str], rng: np.random.Generator, *, first_ms: int = 0
) -> None:
    """Write records and ends of trials (entries of a plan, in packs of equal budget) with the given outcomes.

    `first_ms`: when the first record is said to have been written.
    """
    for start in range(0, len(trials), PACK):
        part, kind = trials[start : start + PACK], kinds[start : start + PACK]
        pack_id = f"p-{start:08d}"
        configs = [entry["config"] for entry in part]
        ledger.write_pack({
            "pack_id": pack_id, "trial_ids": [entry["trial_id"] for entry in part], "trials": configs,
            "reference": REFERENCE, "created_ms": first_ms + start, "samples": [],
        })  # fmt: skip
        attempt = ledger.open_attempt(pack_id)
        evaluations = int(part[0]["config"]["evaluations"])
        series = [_series(k, evaluations, rng) for k in kind]
        for evaluation in range(evaluations + 1):
            records = [
                {
                    "trial_id": entry["trial_id"], "evaluation": evaluation, "wall_s": 0.5 * evaluation,
                    "step": evaluation * entry["config"]["d_updates"] // evaluations,
                    "values": {name: float(values[evaluation]) for name, values in found.items()},
                }
                for entry, found in zip(part, series, strict=True)
                if evaluation < found["dist"].size
            ]  # fmt: skip
            attempt.append(records, unix_ms=first_ms + start + evaluation)
        for entry in part:
            ledger._files.write(  # not finish_trial: its fsyncs are not what is measured
                f"trials/{entry['trial_id']}.json",
                json.dumps({
                    "trial_id": entry["trial_id"], "state": "complete", "wall_s": 25.0, "error": None,
                    "unix_ms": first_ms + start, "pack_id": pack_id, "attempt": 1, "device": "cpu (synthetic)",
                    "versions": {},
                }).encode(),
            )  # fmt: skip


def _series(kind: str, evaluations: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What a trial with this outcome might have recorded, (evaluations + 1,) each."""
    t = np.arange(evaluations + 1) / evaluations
    pace = rng.uniform(3, 15)
    q = np.exp(-pace * t)
    if kind == "converged":
        q = 0.08 + 0.92 * np.exp(-rng.uniform(8, 30) * t)
    elif kind == "slow":
        q = 1 - rng.uniform(0.3, 0.6) * t
    elif kind == "stalled":
        q = np.full(t.size, 0.95)
    elif kind == "plateau":
        q = 0.5 + 0.5 * np.exp(-20 * t)
    elif kind == "oscillating":
        q = 0.5 + 0.35 * np.cos(2 * np.pi * rng.uniform(3, 5) * t)
    elif kind == "mode_collapse_late":
        q = np.where(t > rng.uniform(0.4, 0.8), 0.85, 0.1 + 0.9 * np.exp(-15 * t))
    q = np.clip(q + rng.normal(0, 0.01, t.size), 0.0, 1.0)
    values = {
        "dist": REFERENCE["dist_floor"] + q, "cov": 1 - q, "prec": np.ones(t.size), "finite": np.ones(t.size),
        "g_param_norm": np.full(t.size, 15.0), "d_param_norm": np.full(t.size, 20.0),
        "max_abs_sample": np.full(t.size, 1.3),
    }  # fmt: skip
    for name in (
        "d_loss", "g_loss", "g_grad_norm_adv", "g_grad_norm_reg", "rho", "d_grad_norm", "drift", "d_acc_real",
        "d_acc_fake", "hq_share", "modes", "robust_modes", "reverse_kl", "energy_distance",
    ):  # fmt: skip
        values[name] = rng.random(t.size).astype(np.float32)
    if kind == "diverged":
        end = int(rng.integers(2, evaluations))
        values = {name: array[: end + 1].copy() for name, array in values.items()}
        values["finite"][-1] = 0.0
    return values


def measure_labelling(store: Path, _: Path) -> dict[str, float]:
    """Seconds of reading all records, labelling all trials for the first time and caching the outcomes."""
    from vistudy.analysis.outcomes.label_study import update_outcome_cache

    start = time.perf_counter()
    update_outcome_cache(Ledger(store), "synthetic")
    return {"label_s": time.perf_counter() - start}


def measure(store: Path, out: Path) -> dict[str, float]:
    """Seconds, memory and sizes of a report of the study `synthetic`, in this process and its children."""
    from vistudy.analysis.report.report import report

    wall, before = time.perf_counter(), os.times()
    found = report(store, "synthetic", out)
    seconds = time.perf_counter() - wall
    get_reusable_executor().shutdown()  # a process that has not ended has not told what it took
    after = os.times()
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "report_s": seconds,
        "report_cpu_s": sum(after[:4]) - sum(before[:4]),
        "peak_gb": sum(peaks) / 1e6,
        "html_mb": found.html.stat().st_size / 1e6,
        "files_mb": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6,
    }


def measure_heatmap(store: Path, out: Path) -> dict[str, float]:
    """Seconds from a frame of the study to its heatmap's files."""
    from vistudy.analysis.maps.heatmap import save_heatmaps
    from vistudy.analysis.tables.trials import load_frame

    frame = load_frame(store, "synthetic")
    frame = frame[frame["data"] == frame["data"].iloc[0]]
    start = time.perf_counter()
    save_heatmaps(frame, ["lr", "batch_norm"], out, "heatmap")
    return {"heatmap_s": time.perf_counter() - start, "heatmap_trials": len(frame)}


MODES = {"label": measure_labelling, "report": measure, "heatmap": measure_heatmap}


def child(mode: str, store: Path, out: Path) -> dict[str, float]:
    """Run this module again in a process that has done nothing else; with its start and imports in `process_s`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tests.analysis.synthetic", mode, str(store), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {f"{mode}_process_s": time.perf_counter() - start}


def main() -> None:
    """Make the study, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=tuple(MODES), help="measure in this process; for itself")
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--configs", type=int, default=200, help="configurations a block; fewer: nothing is written")
    options = parser.parse_args()
    if options.mode:
        store, out = options.paths
        print(json.dumps(MODES[options.mode](store, out)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trials = make_study(place / "store", configs=options.configs, claim=CLAIM)
        load = os.getloadavg()[0]
        result = {}
        for mode in MODES:
            result |= child(mode, place / "store", place / mode)
    result = {name: round(value, 2) for name, value in result.items()}
    whole = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "trials": trials, "records_a_trial": 50,
        "cores": os.cpu_count(), "load_before": round(load, 2), "targets": TARGETS, "result": result,
        "met": {name: result[name] <= target for name, target in TARGETS.items()},
        "git": git_state(), "versions": versions(),
    }  # fmt: skip
    print(json.dumps(whole, indent=1))
    if options.configs == 200:
        path = RESULTS / f"report-{whole['date']}.json"
        path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
