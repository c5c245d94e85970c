"""The packed engine against its peers on one device: `make bench-engine` (CPU), `make bench-gpu` (CUDA).

Needs torch, torchvision and numpy alone. For each net, in one process after the other on the same device:
  ours  the packed engine, K trials fused, for several K, in each precision
  (a)   a plain eager loop, one trial at a time (plain_gan.py)
  (c)   processes that share the device, each with (a); and as many with the best pack of ours
  (d)   the same K trials fused horizontally as HFTA does it (fused_array.py)
  (e)   the ceiling: the best rate of matrix products measured here, against the operations that (a) does
On a GPU also where the time of a period goes, by kind of kernel, and whole trainings of 1,024 small GANs, with their
evaluations.
Prints D updates of trials a second, the share of the ceiling, memory a trial, and from which K on fusing pays.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fused_array import GanArray
from benchmarks.machine import machine
from benchmarks.plain_gan import Gan, draws
from vistudy.trainables.cuda_graphs import WARM
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.images.celeba import CelebA
from vistudy.trainables.data.images.prepared_images import Prepared
from vistudy.trainables.device import PRECISIONS, precision_context
from vistudy.trainables.engine import Engine, make_period
from vistudy.trainables.models import make_pack
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.models.stream_parallel import StreamParallelPack

RESULTS = Path(__file__).parent / "results"
WORKLOADS: dict[str, dict[str, Any]] = {
    "mlp-ring8": {"data": "ring8", "g_steps": 2},
    "mlp-ring8-bn": {"data": "ring8", "norm": "bn", "g_steps": 2},
    "mlp-ring8-ten": {"data": "ring8", "g_steps": 10},
    "dcgan-digits": {"data": "digits", "net": "dcgan", "width": 16, "norm": "bn", "g_steps": 2},
    "dcgan-28": {"data": "polygons", "net": "dcgan", "width": 32, "norm": "bn", "g_steps": 2},
    "dcgan-64": {"data": "celeba", "net": "dcgan", "width": 64, "norm": "bn", "g_steps": 2},
}
"""Name -> fields of the configuration. celeba: the net and the shape; its files are not read."""
PACKS = {"cpu": (1, 4, 8, 16, 24, 32), "cuda": (8, 64, 512, 2048)}
PACKS_OF_IMAGES = {"dcgan-28": (8, 64), "dcgan-64": (8, 32)}
"""Sizes of packs on a GPU of nets that fill it sooner."""
WHOLE = {"trials": 1024, "d_updates": 2000, "evaluations": 10}
BARRIER_TIMEOUT_S = 120.0
ON_CPU = ("mlp-ring8", "mlp-ring8-bn", "mlp-ring8-ten", "dcgan-digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(CelebA):
    """CelebA without its files: what is on the images does not change what a step costs."""

    @property
    def prepared(self) -> Prepared:
        """1,024 images of noise, to learn."""
        images = np.random.default_rng(0).integers(0, 256, (1024, *self.shape), np.uint8)
        return Prepared(images=images, labels=None, train=1024, split="none", fingerprint="noise")


def configs(workload: str, k: int, precision: str) -> list[GanConfig]:
    """K trials: rates by weights by seeds, as a study fuses them."""
    rates, weights = (4e-4, 1.6e-3, 6.4e-3), (0.0, 5.0)
    return [
        GanConfig(
            seed=i // 6,
            g_lr=rates[i % 3],
            d_lr=rates[i % 3],
            reg_weight=weights[i // 3 % 2],
            batch_size=64,
            precision=precision,
            **WORKLOADS[workload],
        ).resolve()
        for i in range(k)
    ]


def per_second(period: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Calls a second in five stretches of `seconds` / 5, after a warm-up."""
    at_once = 1

    def stretch(length: float) -> float:
        done, started = 0, time.perf_counter()
        while True:
            for _ in range(at_once):
                period()
            done += at_once
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if (took := time.perf_counter() - started) >= length:
                return done / took

    rate = stretch(min(1.0, seconds / 5))
    if device.type == "cuda":  # training does not wait for the GPU after each period either
        at_once = max(1, min(16, int(rate * seconds / 20)))
    return [stretch(seconds / 5) for _ in range(5)]


def period_of(peer: Gan | GanArray, config: dict[str, Any], source: Any) -> Callable[[], object]:
    """A period of a peer: its D updates, then its G updates."""

    def period() -> None:
        for _ in range(config["d_steps"]):
            peer.d_step(source)
        for _ in peer.g_phase(source):
            pass

    return period


def measure_one(
    kind: str,
    workload: str,
    k: int,
    precision: str,
    device_name: str,
    seconds: float,
    ready: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Trial-updates a second of `ours`, `plain` or `fused` with K trials, with its peak memory.

    `ready` is called when periods run at full speed, before they are timed.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    DATASETS["celeba"] = Noise()
    device, cs = torch.device(device_name), configs(workload, k, precision)
    c = cs[0].to_dict()
    before, how = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, dict[str, bool]()
    if kind == "ours":
        pack = make_pack(cs, device)
        if device.type == "cuda":
            how = {"side_by_side": isinstance(pack, StreamParallelPack)}
            torch.cuda.reset_peak_memory_stats()  # the probe's is not the pack's
        train = make_period(pack, device)
        period: Callable[[], object] = functools.partial(train, diagnose=False)
    elif kind == "fused":
        array = GanArray([x.to_dict() for x in cs], device)
        period = period_of(array, c, draws(c, (k,), device))
    else:
        peer = Gan(configs(workload, 6, precision)[4].to_dict(), device)  # weight 5: the term is computed, as in ours
        period = period_of(peer, c, draws(c, (), device))
    with precision_context(precision, device):
        if kind == "ours" and device.type == "cuda":
            for _ in range(WARM + 1):  # until the graph is captured
                period()
        period()
        ready()
        rates = per_second(period, device, seconds)
    rss = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else rss
    updates = [rate * k * c["d_steps"] for rate in rates]
    return {
        "trials": k,
        "precision": precision,
        "trial_updates_per_s": statistics.median(updates),
        "least": min(updates),
        "most": max(updates),
        "mib_per_trial": memory / k / 2**20 if memory else None,  # None: below the peak of starting Python
        **how,
    }


def measured(*arguments: Any) -> dict[str, Any]:
    """`measure_one`; on the CPU in a process of its own, whose memory starts empty."""
    if "cuda" in arguments:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return measure_one(*arguments)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result: dict[str, Any] = pool.apply(measure_one, arguments)
        return result


def shared(processes: int, *what: Any) -> dict[str, Any]:
    """As many processes at once with `measure_one(*what)`, all timed in the same seconds."""
    if "cuda" in what:
        torch.cuda.empty_cache()  # the others need what this process keeps
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _together, (barrier,)) as pool:
        rows = pool.starmap(_measure_together, [what] * processes, chunksize=1)
    rate = sum(row["trial_updates_per_s"] for row in rows)
    return {"processes": processes, "trials": processes * rows[0]["trials"], "trial_updates_per_s": rate}


def _together(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _measure_together(*what: Any) -> dict[str, Any]:
    try:
        return measure_one(*what, ready=functools.partial(_barrier.wait, BARRIER_TIMEOUT_S))
    except BaseException:
        _barrier.abort()  # the others do not wait for this one
        raise


def ceiling(device_name: str, precisions: list[str]) -> dict[str, float]:
    """Best rates measured here: matrix products in GFLOP/s by precision, copies in GB/s (read and written)."""
    torch.set_num_threads(1)
    device, n = torch.device(device_name), 1024 if device_name == "cpu" else 8192
    out = {}
    for precision in precisions:
        a, b = (torch.randn(n, n, device=device) for _ in range(2))
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        with precision_context("fp32" if precision == "bf16" else precision, device):
            products = max(per_second(lambda a=a, b=b: torch.mm(a, b), device, 2.0))  # type: ignore[misc]
        out[f"matmul_gflop_s_{precision}"] = 2 * n**3 * products / 1e9
    source = torch.randn(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(source)
    copies = max(per_second(lambda: target.copy_(source), device, 1.0))
    return out | {"copy_gb_s": 8 * source.numel() * copies / 1e9}


def operations(workload: str, device: torch.device) -> float:
    """Floating-point operations of products and convolutions in one period of (a), by D update."""
    c = configs(workload, 6, "fp32")[4].to_dict()
    counter = FlopCounterMode(display=False)
    with counter:
        period_of(Gan(c, device), c, draws(c, (), device))()
    return counter.get_total_flops() / c["d_steps"]


def row(workload: str, precision: str, args: argparse.Namespace, top: dict[str, float]) -> dict[str, Any]:
    """All measurements of one net in one precision; ours and each peer at the same K in turn."""
    flops, rest = operations(workload, torch.device(args.device)), (precision, args.device, args.seconds)
    plain = [measured("plain", workload, 1, *rest)]
    ours, fused = [], []
    sizes = args.packs or (PACKS_OF_IMAGES if args.device == "cuda" else {}).get(workload, PACKS[args.device])
    for k in sizes:
        try:
            ours.append(measured("ours", workload, k, *rest))
            fused.append(measured("fused", workload, k, *rest))
        except torch.OutOfMemoryError:
            break
    plain.append(measured("plain", workload, 1, *rest))  # again: the machine may have changed
    rate = statistics.fmean(p["trial_updates_per_s"] for p in plain)
    best = max(ours, key=lambda r: r["trial_updates_per_s"])
    paying = [r["trials"] for r in ours if r["trial_updates_per_s"] > rate]
    return {
        "gflop_per_d_update": flops / 1e9,
        "a": {"trial_updates_per_s": rate, "passes": plain},
        "c": [shared(n, "plain", workload, 1, *rest) for n in args.processes],
        "ours_shared": [shared(n, "ours", workload, best["trials"], *rest) for n in args.shared],
        "d": fused,
        "ours": ours,
        "best_pack": best["trials"],
        "times_a": best["trial_updates_per_s"] / rate,
        "times_d": best["trial_updates_per_s"] / max(r["trial_updates_per_s"] for r in fused),
        "share_of_matmul_ceiling": best["trial_updates_per_s"] * flops / 1e9 / top[f"matmul_gflop_s_{precision}"],
        "breaks_even_at": min(paying, default=None),
    }


KINDS = {
    "optimizer": ("adam", "multi_tensor"),
    "batch norm": ("batch_norm", "batchnorm", "bn_"),
    "layout and padding": ("nchw", "nhwc", "converttensor", "padding"),
    "products and convolutions": ("gemm", "conv", "cutlass", "xmma", "wgrad", "dgrad", "fprop", "nvjet", "winograd"),
    "copies and fills": ("memcpy", "memset", "copy", "fill", "cat"),
}
"""Kind -> parts of names of kernels; the first that fits. The rest is elementwise work and sums."""


def kernels(workload: str, precision: str, k: int) -> dict[str, float]:
    """Share of a replayed period's kernel time by kind, and milliseconds of kernels and of the period."""
    device = torch.device("cuda")
    periods = make_period(make_pack(configs(workload, k, precision), device), device)
    with precision_context(precision, device):
        for _ in range(WARM + 2):
            periods(diagnose=False)
        wall = 1e3 / statistics.median(per_second(lambda: periods(diagnose=False), device, 0.5))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            periods(diagnose=False)
            torch.cuda.synchronize()
    spent = dict.fromkeys([*KINDS, "elementwise and sums"], 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        if "nhwc" in name and ("xmma" in name or "batchnorm" in name):  # names of kernels list their layouts, too
            name = name.replace("nhwc", "")
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), None)
        spent[kind or "elementwise and sums"] += event.self_device_time_total / 1e3
    total = sum(spent.values())
    shares = {f"share of {kind}": ms / total for kind, ms in spent.items()}
    return shares | {"ms_of_kernels": total, "ms_of_a_period": wall}


def operators(workload: str, k: int) -> dict[str, float]:
    """Shares of a period's time on the CPU by torch's operator, and its milliseconds."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    pack = make_pack(configs(workload, k, "fp32"), torch.device("cpu"))
    period = functools.partial(pack.period, diagnose=False)
    wall = 1e3 / statistics.median(per_second(period, torch.device("cpu"), 2.0))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(20):
            period()
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    top = sorted(spent, key=lambda name: -spent[name])[:12]
    return {"ms_of_a_period": wall} | {name: spent[name] / sum(spent.values()) for name in top}


def whole(precision: str) -> dict[str, float]:
    """Seconds of whole trainings on a GPU: training, and evaluation by the metrics of points on the CPU."""
    c = WHOLE
    engines = [
        dataclasses.replace(config, d_updates=c["d_updates"], evaluations=c["evaluations"], seed=i)
        for i, config in enumerate(configs("mlp-ring8", c["trials"], precision))
    ]
    started, finite, trained = time.perf_counter(), 0, 0.0
    engine = Engine(engines, device="cuda", metric_threads=os.cpu_count() or 1)
    evaluate = engine._evaluate

    def timed(diagnostics: Any) -> Any:
        nonlocal trained
        torch.cuda.synchronize()
        at = time.perf_counter()
        out = evaluate(diagnostics)
        trained -= time.perf_counter() - at
        return out

    engine._evaluate = timed  # type: ignore[method-assign]
    for item in engine.evaluations():
        finite = sum(record.values["finite"] == 1 for record in item.records)
    wall = time.perf_counter() - started
    return {
        **c,
        "wall_s": wall,
        "training_s": wall + trained,
        "finite": finite,
        "trials_per_min": 60 * c["trials"] / wall,
    }


def joined(before: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """An earlier result, to which rows may be added.

    Raises:
        SystemExit: it is of another device, or of another torch.
    """
    if other := [name for name in ("device", "torch") if before[name] != result[name]]:
        sys.exit(f"--add: the result that is there has another {' and '.join(other)}")
    return before | {"ceiling": before["ceiling"] | result["ceiling"]}


def table(result: dict[str, Any]) -> str:
    """The figures in a few lines."""
    top = result["ceiling"]
    lines = [f"{result['device']}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in top.items())]
    for name, r in result["rows"].items():
        by_k = ", ".join(f"K={o['trials']} {o['trial_updates_per_s']:.0f}" for o in r["ours"])
        peers = ", ".join(f"K={o['trials']} {o['trial_updates_per_s']:.0f}" for o in r["d"])
        lines += [
            f"{name}: trial-updates a second",
            f"  ours {by_k}",
            f"  (a) {r['a']['trial_updates_per_s']:.0f}   (c) "
            + ", ".join(f"{c['processes']} processes {c['trial_updates_per_s']:.0f}" for c in r["c"])
            + "   ours in "
            + ", ".join(f"{c['processes']} processes {c['trial_updates_per_s']:.0f}" for c in r["ours_shared"]),
            f"  (d) {peers}",
            f"  best K={r['best_pack']}: {r['times_a']:.2f} x (a), {r['times_d']:.2f} x (d), "
            f"{r['share_of_matmul_ceiling']:.0%} of the ceiling; pays from K={r['breaks_even_at']}",
        ]
        if "kernels" in r:
            lines.append("  " + ", ".join(f"{name} {value:.3g}" for name, value in r["kernels"].items()))
    if "whole" in result:
        lines.append(f"whole: {result['whole']}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write benchmarks/results/engine-<device>-<date>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--packs", type=int, nargs="+")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--processes", type=int, nargs="+", help="That share the device; 4 on a GPU, else 1 and 2.")
    parser.add_argument("--shared", type=int, nargs="+", default=[], help="So many of ours share the device, too.")
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each measurement.")
    parser.add_argument("--profile", action="store_true", help="CPU: only the shares of operators, packs of 24.")
    parser.add_argument("--add", action="store_true", help="Join rows to the result of the same device and day.")
    parser.add_argument("--out", type=Path, help="Folder of the result; benchmarks/results by default.")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    device_name = torch.cuda.get_device_name() if cuda else machine()["cpu"]
    args.processes = args.processes or ([4] if cuda else [1, 2])
    args.precisions = args.precisions or (["tf32", "bf16"] if cuda else ["fp32"])
    names = args.workloads or (list(WORKLOADS) if cuda else list(ON_CPU))
    started = datetime.datetime.now(datetime.UTC)
    if args.profile:
        profile = {"date": started.isoformat(timespec="seconds"), "command": "python -m benchmarks.engine --profile"}
        profile |= {name: operators(name, 24) for name in names}
        text = json.dumps(profile, indent=1)
        print(text)
        ((args.out or RESULTS) / f"profile-cpu-{started.date()}.json").write_text(text + "\n", "utf-8")
        return
    top = ceiling(args.device, args.precisions)
    command = " ".join(["python -m benchmarks.engine", *sys.argv[1:]])
    result: dict[str, Any] = {
        "date": started.isoformat(timespec="seconds"),
        "command": command,
        "device": device_name,
        "torch": torch.__version__,
        "threads_per_process": 1,
        "ceiling": top,
        "rows": {},
    }
    path = (args.out or RESULTS) / f"engine-{args.device}-{started.date()}.json"
    if args.add and path.exists():
        result = joined(json.loads(path.read_text("utf-8")), result)
    for name, precision in itertools.product(names, args.precisions):
        print(name, precision, file=sys.stderr, flush=True)
        measured_row = result["rows"][f"{name}, {precision}"] = row(name, precision, args, top)
        measured_row["command"] = command
        if cuda:
            measured_row["kernels"] = kernels(name, precision, measured_row["best_pack"])
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")  # what there is, should the rest fail
    if cuda and "mlp-ring8" in names:
        result["whole"] = whole(args.precisions[0])
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
