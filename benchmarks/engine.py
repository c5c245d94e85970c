"""The packed engine against its peers on one device: `make bench-engine` (CPU), `make bench-gpu` (CUDA).

Needs torch, torchvision and numpy alone. For each net, in one process after the other on the same device:
  ours  the packed engine, K trials fused, for several K
  (a)   a plain eager loop, one trial at a time (plain_gan.py)
  (c)   K processes that share the device, each with (a)
  (d)   the same K trials fused horizontally as HFTA does it (fused_array.py)
  (e)   the ceiling: the best rate of matrix products measured here, against the operations that (a) does
Prints D updates of trials a second, the share of the ceiling, memory a trial, and from which K on fusing pays.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fused_array import GanArray
from benchmarks.plain_gan import Gan, draws
from trainables.models.gan import GanConfig, GanPack

RESULTS = Path(__file__).parent / "results"
WORKLOADS: dict[str, dict[str, Any]] = {
    "mlp-ring8": {"data": "ring8", "g_steps": 2},
    "mlp-ring8-ten": {"data": "ring8", "g_steps": 10},
    "dcgan-digits": {"data": "digits", "net": "dcgan", "width": 16, "norm": "bn", "g_steps": 2},
    "dcgan-28": {"data": "polygons", "net": "dcgan", "width": 32, "norm": "bn", "g_steps": 2},
    "dcgan-64": {"data": "celeba", "net": "dcgan", "width": 64, "norm": "bn", "g_steps": 2},
}
"""Name -> fields of the configuration. celeba: the net and the shape; its files are not read."""
ON_CPU = ("mlp-ring8", "mlp-ring8-ten", "dcgan-digits")


def configs(workload: str, k: int) -> list[GanConfig]:
    """K trials: rates by weights by seeds, as a study fuses them."""
    rates, weights = (4e-4, 1.6e-3, 6.4e-3), (0.0, 5.0)
    return [
        GanConfig(
            seed=i // 6,
            g_lr=rates[i % 3],
            d_lr=rates[i % 3],
            reg_weight=weights[i // 3 % 2],
            batch_size=64,
            **WORKLOADS[workload],
        ).resolve()
        for i in range(k)
    ]


def per_second(period: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Calls a second in five stretches of `seconds` / 5, after a warm-up."""

    def stretch(length: float) -> float:
        done, started = 0, time.perf_counter()
        while True:
            period()
            done += 1
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if (took := time.perf_counter() - started) >= length:
                return done / took

    stretch(min(1.0, seconds / 5))
    return [stretch(seconds / 5) for _ in range(5)]


def period_of(peer: Gan | GanArray, config: dict[str, Any], source: Any) -> Callable[[], object]:
    """A period of a peer: its D updates, then its G updates."""

    def period() -> None:
        for _ in range(config["d_steps"]):
            peer.d_step(source)
        for _ in peer.g_phase(source):
            pass

    return period


def measure_one(kind: str, workload: str, k: int, device_name: str, seconds: float) -> dict[str, Any]:
    """Trial-updates a second of `ours`, `plain` or `fused` with K trials, with its peak memory."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device, cs = torch.device(device_name), configs(workload, k)
    c = cs[0].to_dict()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "ours":
        pack = GanPack(cs, device)
        rates = per_second(lambda: pack.period(diagnose=False), device, seconds)
    elif kind == "fused":
        array = GanArray([x.to_dict() for x in cs], device)
        rates = per_second(period_of(array, c, draws(c, (k,), device)), device, seconds)
    else:
        peer = Gan(configs(workload, 6)[4].to_dict(), device)  # weight 5: the term is computed, as in ours
        rates = per_second(period_of(peer, c, draws(c, (), device)), device, seconds)
    rss = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else rss
    updates = [rate * k * c["d_steps"] for rate in rates]
    return {
        "trials": k,
        "trial_updates_per_s": statistics.median(updates),
        "least": min(updates),
        "most": max(updates),
        "mib_per_trial": memory / k / 2**20,
    }


def apart(*arguments: Any) -> dict[str, Any]:
    """`measure_one` in a process of its own: memory and caches start empty."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(measure_one, arguments)
        return found


def shared(workload: str, processes: int, device_name: str, seconds: float) -> dict[str, Any]:
    """Peer (c): as many processes with (a) at once."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        arguments = [("plain", workload, 1, device_name, seconds)] * processes
        rows = pool.starmap(measure_one, arguments, chunksize=1)
    return {"processes": processes, "trial_updates_per_s": sum(row["trial_updates_per_s"] for row in rows)}


def ceiling(device_name: str) -> dict[str, float]:
    """Best rates measured here: matrix products in GFLOP/s, copies in GB/s (read and written)."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    device, n = torch.device(device_name), 1024 if device_name == "cpu" else 8192
    a, b, out = (torch.randn(n, n, device=device) for _ in range(3))
    products = max(per_second(lambda: torch.mm(a, b, out=out), device, 2.0))
    source = torch.randn(2**26 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(source)
    copies = max(per_second(lambda: target.copy_(source), device, 1.0))
    return {"matmul_gflop_s": 2 * n**3 * products / 1e9, "copy_gb_s": 8 * source.numel() * copies / 1e9}


def operations(workload: str) -> float:
    """Floating-point operations of products and convolutions in one period of (a), by D update."""
    c = configs(workload, 6)[4].to_dict()
    counter = FlopCounterMode(display=False)
    with counter:
        period_of(Gan(c), c, draws(c))()
    return counter.get_total_flops() / c["d_steps"]


def row(workload: str, args: argparse.Namespace, top: dict[str, float]) -> dict[str, Any]:
    """All measurements of one net; ours and each peer at the same K in turn."""
    flops = operations(workload)
    plain = [apart("plain", workload, 1, args.device, args.seconds)]
    ours, fused = [], []
    for k in args.packs:
        ours.append(apart("ours", workload, k, args.device, args.seconds))
        fused.append(apart("fused", workload, k, args.device, args.seconds))
    plain.append(apart("plain", workload, 1, args.device, args.seconds))  # again: the machine may have changed
    rate = statistics.fmean(p["trial_updates_per_s"] for p in plain)
    best = max(ours, key=lambda r: r["trial_updates_per_s"])
    paying = [r["trials"] for r in ours if r["trial_updates_per_s"] > rate]
    return {
        "gflop_per_d_update": flops / 1e9,
        "a": {"trial_updates_per_s": rate, "passes": plain},
        "c": [shared(workload, n, args.device, args.seconds) for n in args.processes],
        "d": fused,
        "ours": ours,
        "best_pack": best["trials"],
        "times_a": best["trial_updates_per_s"] / rate,
        "times_d": best["trial_updates_per_s"] / max(r["trial_updates_per_s"] for r in fused),
        "share_of_matmul_ceiling": best["trial_updates_per_s"] * flops / 1e9 / top["matmul_gflop_s"],
        "breaks_even_at": min(paying, default=None),
    }


def table(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    top = result["ceiling"]
    lines = [f"{result['device']}: {top['matmul_gflop_s']:.0f} GFLOP/s, {top['copy_gb_s']:.0f} GB/s"]
    for name, r in result["rows"].items():
        by_k = ", ".join(f"K={o['trials']} {o['trial_updates_per_s']:.0f}" for o in r["ours"])
        peers = ", ".join(f"K={o['trials']} {o['trial_updates_per_s']:.0f}" for o in r["d"])
        lines += [
            f"{name}: trial-updates a second",
            f"  ours {by_k}",
            f"  (a) {r['a']['trial_updates_per_s']:.0f}   (c) "
            + ", ".join(f"{c['processes']} processes {c['trial_updates_per_s']:.0f}" for c in r["c"]),
            f"  (d) {peers}",
            f"  best K={r['best_pack']}: {r['times_a']:.2f} x (a), {r['times_d']:.2f} x (d), "
            f"{r['share_of_matmul_ceiling']:.0%} of the ceiling; pays from K={r['breaks_even_at']}",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write benchmarks/results/engine-<device>-<date>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--packs", type=int, nargs="+")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each measurement.")
    parser.add_argument("--out", type=Path, help="Folder of the result; benchmarks/results by default.")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    args.packs = args.packs or ([1, 8, 32, 64, 128, 256] if cuda else [1, 4, 8, 16, 24, 32])
    names = args.workloads or (list(WORKLOADS) if cuda else list(ON_CPU))
    started = datetime.datetime.now(datetime.UTC)
    top = ceiling(args.device)
    rows = {}
    for name in names:
        print(name, file=sys.stderr, flush=True)
        rows[name] = row(name, args, top)
    result = {
        "date": started.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.engine", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads_per_process": 1,
        "ceiling": top,
        "rows": rows,
    }
    print(table(result))
    path = (args.out or RESULTS) / f"engine-{args.device}-{started.date()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
