"""Processor time of a period of the ring's GANs, gradients by hand against autograd: `python -m benchmarks.period`.

Both train the same pack, in turn, in one process with one thread. Prints JSON: milliseconds a period (median and least
of the repeats) and the ratio of the medians, for each ratio of D:G steps and size of pack, with batch norm and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from vistudy.study.execution.provenance import versions
from vistudy.trainables.models.gan import GanConfig, GanPack
from vistudy.trainables.nets import manual_gradients


def by_autograd(net: Any, x: Any, wrt: Any, stats: Any = None, momentum: Any = None) -> manual_gradients.Pass:
    """`manual_gradients.forward_pass` without the way by hand."""
    return manual_gradients.AutogradPass(net, x, wrt, stats, momentum)


def measure(trials: int, g_steps: int, norm: str, *, repeats: int, periods: int) -> dict[str, Any]:
    """One row of the result."""
    configs = [
        GanConfig(seed=seed, g_steps=g_steps, norm=norm, g_lr=1e-3, d_lr=1e-3, reg_weight=5.0).resolve()
        for seed in range(trials)
    ]
    begins = {"by_hand": manual_gradients.forward_pass, "autograd": by_autograd}
    packs = {name: GanPack(configs, torch.device("cpu")) for name in begins}
    times: dict[str, list[float]] = {name: [] for name in begins}
    for repeat in range(repeats + 1):
        for name in begins if repeat % 2 else reversed(begins):
            manual_gradients.forward_pass = begins[name]
            started = time.process_time()
            for _ in range(periods):
                packs[name].period(diagnose=False)
            if repeat:  # the first warms up
                times[name].append((time.process_time() - started) / periods * 1e3)
    manual_gradients.forward_pass = begins["by_hand"]
    rows = {name: {"median_ms": statistics.median(t), "least_ms": min(t)} for name, t in times.items()}
    ratio = rows["autograd"]["median_ms"] / rows["by_hand"]["median_ms"]
    return {"trials": trials, "norm": norm, "ratio": f"1:{g_steps}", **rows, "autograd_by_hand": ratio}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 8, 20, 32])
    parser.add_argument("--g-steps", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--norms", nargs="+", default=["none", "bn"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--periods", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = [
        measure(k, g, norm, repeats=args.repeats, periods=args.periods)
        for norm in args.norms
        for g in args.g_steps
        for k in args.trials
    ]
    print(json.dumps({"versions": versions(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
