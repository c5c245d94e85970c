"""The steps that `scale.py` measures, a process each: `python -m benchmarks.scale_steps STEP STUDY STORE`.

A step prints, as JSON, what it took after its imports. It writes to the store what the following steps need.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SLEEP_S = 0.002
"""An evaluation of the synthetic engine under Ray Tune."""
Work = Callable[[], dict[str, Any]]


def rss_mb() -> float:
    """Peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def plan(study: Path, store: str) -> Work:
    """Expand the study and make its packs."""
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.packing.workload import plan_workload
    from vistudy.study.planning.plan import plan as expand
    from vistudy.study.spec.parser import load_study

    def run() -> dict[str, Any]:
        planned = expand(load_study(study))
        expanded = time.perf_counter()
        todo = plan_workload(planned, Ledger(store), slots=2, gpu=False)
        return {"trials": len(planned.trials), "packs": len(todo.packs), "packing_s": time.perf_counter() - expanded}

    return run


def write(study: Path, store: str) -> Work:
    """What a run does besides training and Ray: write the plan, the packs, all records, the ends of all trials."""
    from benchmarks.synthetic_engine import REFERENCE, SyntheticEngine, series, train_pack
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.execution import prepare
    from vistudy.study.execution.provenance import now_ms, provenance
    from vistudy.study.packing.workload import plan_workload
    from vistudy.study.planning.plan import plan as expand
    from vistudy.study.spec.parser import load_study
    from vistudy.trainables.engine import reference_key

    def run() -> dict[str, Any]:
        planned = expand(load_study(study))
        ledger, name = Ledger(store), planned.study.name
        ledger.create()
        times = [time.perf_counter()]
        ledger.write_study(name, planned.study.text, planned.to_json(), provenance(name, ledger, planned.data))
        todo = plan_workload(planned, ledger, slots=2, gpu=False)
        known = {reference_key(trial.config): REFERENCE for trial in planned.trials}
        prepare.prepare(planned, todo, ledger, known, now_ms=now_ms())
        times.append(time.perf_counter())
        for pack in todo.packs:
            train_pack({"pack_id": pack.pack_id}, sleep_s=0.0, journal=functools.partial(Ledger, store),
                       checkpoint_every_s=1e9)  # fmt: skip
        times.append(time.perf_counter())
        for pack in todo.packs:  # what making the records took is no part of it
            for _ in SyntheticEngine(pack.configs, device=None, keep_samples=()).evaluations():  # type: ignore[arg-type]
                pass
        made = time.perf_counter() - times[2]
        assert series
        trials = len(planned.trials)
        return {
            "prepare_ms_per_trial": 1e3 * (times[1] - times[0]) / trials,
            "write_ms_per_trial": 1e3 * (times[2] - times[1] - made) / trials,
            "packs": len(todo.packs),
        }

    return run


def _sleeping(config: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What the executor's workers run instead of training."""
    from benchmarks.synthetic_engine import train_pack

    return train_pack(config, node_id="", **settings)


def ray(study: Path, store: str) -> Work:
    """The same packs through Ray Tune, with an engine that sleeps; the mirror is not part of it."""
    from benchmarks.synthetic_engine import REFERENCE
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.execution import prepare, ray_tune
    from vistudy.study.execution.connect import connected as reached
    from vistudy.study.execution.provenance import now_ms, provenance
    from vistudy.study.packing.workload import plan_workload
    from vistudy.study.planning.plan import plan as expand
    from vistudy.study.spec.parser import load_study
    from vistudy.trainables.engine import reference_key

    ray_tune._train = functools.partial(_sleeping, sleep_s=SLEEP_S)  # type: ignore[assignment]

    def run() -> dict[str, Any]:
        planned = expand(load_study(study))
        scratch = tempfile.mkdtemp(dir=Path(store).parent)
        ledger, name = Ledger(scratch), planned.study.name
        ledger.create()
        started = time.perf_counter()
        with reached("local") as on:
            connected = time.perf_counter()
            ledger.write_study(name, planned.study.text, planned.to_json(), provenance(name, ledger, planned.data))
            todo = plan_workload(planned, ledger, slots=on.slots, gpu=False)
            known = {reference_key(trial.config): REFERENCE for trial in planned.trials}
            prepare.prepare(planned, todo, ledger, known, now_ms=now_ms())
            executed = ray_tune.execute(todo.packs, ledger, on, checkpoint_every_s=20.0, heartbeat_timeout_s=300.0)
            assert not executed.interrupted
            trained = time.perf_counter()
        assert len(ledger.finished_trials()) == len(planned.trials)
        slept = max(sum(SLEEP_S * (p.configs[0].evaluations + 1) for p in todo.packs[i :: on.slots]) for i in (0, 1))
        return {
            "start_s": connected - started,
            "tune_ms_per_trial": 1e3 * (trained - connected - slept) / len(planned.trials),
            "packs": len(todo.packs),
        }

    return run


def status(study: Path, store: str) -> Work:
    """Count the trials."""
    from vistudy.study.api.status import status as count

    return lambda: {"outcomes": count(study.stem, store=store).outcomes}


def sync(study: Path, store: str) -> Work:
    """Bring a new SQLite file of MLflow up to date."""
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.study.execution.runner import sync_all
    from vistudy.study.tracking.mirror import open_database

    uri = f"sqlite:///{store}/mlflow.db"
    open_database(uri)

    def run() -> dict[str, Any]:
        report = sync_all(Ledger(store), study.stem, uri, [])
        return {"runs": report.runs_created, "metrics": report.metrics_written}

    return run


def heatmap(study: Path, store: str) -> Work:
    """Read the trials and draw the heatmaps."""
    from vistudy.study.api.heatmap import draw_heatmaps

    return lambda: {"files": len(draw_heatmaps(study.stem, store=store, out=Path(store) / "heatmaps")[1])}


STEPS = {step.__name__: step for step in (plan, write, ray, status, sync, heatmap)}


def main() -> None:
    """Measure one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("study", type=Path)
    parser.add_argument("store")
    args = parser.parse_args()
    work = STEPS[args.step](args.study, args.store)
    imports_s, before_mb = time.process_time(), rss_mb()
    started, cpu = time.perf_counter(), time.process_time()
    found = work()
    found |= {
        "work_s": time.perf_counter() - started,
        "work_cpu_s": time.process_time() - cpu,
        "imports_cpu_s": imports_s,
        "imports_mb": before_mb,
        "work_mb": rss_mb() - before_mb,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
