"""How well packs that take a minute fill 1, 4, 16, 64 slots: `python -m benchmarks.scaling [--slots 1 4 16 64]`.

Packs sleep instead of training, so that one machine can stand for many; everything else is real: Ray Tune, the
executor, the ledger. All slots are logical CPUs of one Ray node, so what the network of real nodes costs is not in it.

A slot's efficiency is what it spent in packs, of the time from its first pack's start to its last one's end: the rest
is the gap between one pack's last record and the next one's first. The time until all slots have begun is given apart:
here all workers import torch on the cores of one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from benchmarks.machine import machine
from benchmarks.scale import STUDY
from benchmarks.scale_steps import _sleeping
from benchmarks.synthetic_engine import REFERENCE
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.clusters.base import Cluster, nodes
from vistudy.study.execution import prepare, ray_tune
from vistudy.study.execution.provenance import git_state, now_ms, provenance, versions
from vistudy.study.packing.packs import make_packs
from vistudy.study.packing.workload import Workload
from vistudy.study.planning.plan import plan
from vistudy.study.spec.parser import parse_study
from vistudy.trainables.engine import reference_key

RESULTS = Path(__file__).parent / "results"
TRIALS_OF_A_PACK = 8
TARGET = 0.95


def measure(slots: int, packs_each: int, pack_s: float) -> dict[str, Any]:
    """Run `packs_each` packs a slot, and see from the ledger when each began and ended."""
    seeds = list(range(slots * packs_each * TRIALS_OF_A_PACK))
    planned = plan(parse_study(STUDY.format(name="scaling", seeds=seeds, lr=[1e-3], weights=[0.0])), allow_large=True)
    configs = [trial.config for trial in planned.trials]
    with tempfile.TemporaryDirectory(prefix="vistudy-scaling-") as folder:
        ledger = Ledger(folder)
        ledger.create()
        meta = provenance("scaling", ledger, planned.data)
        ledger.write_study("scaling", planned.study.text, planned.to_json(), meta)
        packs = make_packs(configs, slots=slots * packs_each, max_trials=TRIALS_OF_A_PACK)
        pending = {config.trial_id(): config for config in configs}
        todo = Workload(pending=pending, packs=tuple(packs), done=0, failed=0, sizes=())
        known = dict.fromkeys(map(reference_key, configs), REFERENCE)
        prepare.prepare(planned, todo, ledger, known, now_ms=now_ms())
        sleep_s = pack_s / (configs[0].evaluations + 1)
        ray_tune._train = functools.partial(_sleeping, sleep_s=sleep_s)  # type: ignore[assignment]
        began = time.time()
        ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            on = Cluster(name="simulated", nodes=nodes(), local=True)
            ray_tune.execute(packs, ledger, on, checkpoint_every_s=20.0, heartbeat_timeout_s=300.0)
        finally:
            ray.shutdown()
        spans = _spans(ledger, sleep_s)
    assert len(spans) == len(packs)
    return {
        "slots": slots,
        "packs": len(packs),
        "begun_s": sorted(first for first, _ in spans)[slots - 1] - began,
        **dataclasses.asdict(_filled(spans, slots)),
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """How well slots were filled."""

    efficiency: float
    """Seconds in packs, of all slots' seconds between their first pack's start and their last one's end."""
    gap_s: float
    """Median from one pack's end to the next one's start."""
    longest_gap_s: float


def _spans(ledger: Ledger, sleep_s: float) -> list[tuple[float, float]]:
    """Start and end of every pack, Unix seconds, from when its evaluations were stored."""
    times: dict[str, list[float]] = {}
    home = {t: pack_id for pack_id in ledger.packs() for t in ledger.read_pack(pack_id)["trial_ids"]}
    for record in ledger.records():
        times.setdefault(home[record["trial_id"]], []).append(record["unix_ms"] / 1e3)
    return sorted((min(of) - sleep_s, max(of)) for of in times.values())


def _filled(spans: list[tuple[float, float]], slots: int) -> Filled:
    """Hand each pack to the slot that has waited longest."""
    first, busy, ends, gaps = dict[int, float](), 0.0, dict[int, float](), list[float]()
    for start, end in spans:
        free = [slot for slot in ends if ends[slot] <= start]
        if len(ends) < slots:
            slot = len(ends)
            first[slot] = start
        else:
            slot = min(free, key=ends.__getitem__)
            gaps.append(start - ends[slot])
        ends[slot] = end
        busy += end - start
    whole = sum(ends[slot] - first[slot] for slot in ends)
    return Filled(efficiency=busy / whole, gap_s=statistics.median(gaps), longest_gap_s=max(gaps))


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--packs-each", type=int, default=3, help="Packs of a slot, at least 2.")
    parser.add_argument("--pack-s", type=float, default=60.0, help="Seconds that a pack takes.")
    parser.add_argument("--out", type=Path, help="Result; by default benchmarks/results/scaling-<date>.json.")
    parser.add_argument("--dry", action="store_true", help="Write no result.")
    args, started = parser.parse_args(), datetime.datetime.now(datetime.UTC)
    load, rows = os.getloadavg()[0], []
    for slots in args.slots:
        rows.append(measure(slots, args.packs_each, args.pack_s))
        print(json.dumps(rows[-1]), flush=True)
    for row in rows:
        met = "met" if row["efficiency"] >= TARGET else "MISSED"
        print(
            f"{row['slots']:>3} slots: {row['efficiency']:.1%} (at least {TARGET:.0%}: {met}), "
            f"gap {row['gap_s']:.2f} s, longest {row['longest_gap_s']:.2f} s; all begun after {row['begun_s']:.0f} s"
        )
    if args.dry:
        return
    head = {
        "date": started.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.scaling", *sys.argv[1:]]),
        "machine": machine() | {"load_at_start": load},
        "versions": versions(),
        "git": git_state(),
    }
    path = args.out or RESULTS / f"scaling-{started.date()}.json"
    path.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
