"""Peer (b) of `make bench`: the engine alone. The same packs in as many plain processes, costliest first.

No Ray, no ledger, no MLflow, no heatmaps, no floor and ceiling of the metrics: records are made and counted. It trains
what `vistudy run` trains and evaluates it at the same evaluations, so the difference is what the study around it costs.
`python -m benchmarks.bare_engine STUDY.yaml --slots N` prints what each process did, as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch


def work(packs: Any, results: Any) -> None:
    """Train packs from the queue until it is empty."""
    from vistudy.trainables.engine import Engine
    from vistudy.trainables.models import config_from_dict

    torch.set_num_threads(1)
    report = {"records": 0, "trials": 0, "ready_unix": time.time(), "engine_s": 0.0}
    while (trials := packs.get()) is not None:
        engine = Engine([config_from_dict(trial) for trial in trials])
        report["records"] += sum(len(item.records) for item in engine.evaluations())
        report["trials"] += len(trials)
        report["engine_s"] += engine.wall_s * len(trials)
    report["end_unix"] = time.time()
    results.put(report)


def main() -> None:
    """Train a study's packs and print the processes' reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--slots", type=int, required=True)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    packs, results = context.Queue(), context.Queue()
    processes = [context.Process(target=work, args=(packs, results)) for _ in range(args.slots)]
    for process in processes:
        process.start()

    from vistudy.study.packing.packs import MAX_TRIALS_CPU, make_packs
    from vistudy.study.planning.plan import plan
    from vistudy.study.spec.parser import load_study

    configs = [trial.config for trial in plan(load_study(args.study)).trials]
    for pack in make_packs(configs, slots=args.slots, max_trials=MAX_TRIALS_CPU):
        packs.put([config.to_dict() for config in pack.configs])
    for _ in processes:
        packs.put(None)
    reports = [results.get() for _ in processes]
    for process in processes:
        process.join()
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
