"""Packs -> Ray Tune, as an executor of an explicit list. Running again is resuming: only what the ledger lacks runs."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch

from clusters import Cluster, ClusterError, connect
from study.design import Plan
from study.errors import StudyError
from study.ledger import Ledger
from study.packing import Pack, PackCost, Structure
from study.pilot import PILOT_STRUCTURES, Estimate, Timing, estimate, measure, representatives
from study.probe import cost_of, periods, worth
from study.todo import Work, work
from trainables.config import TrainConfig
from trainables.data import DATASETS
from trainables.engine import reference, reference_key
from trainables.metrics.evaluate import evaluator
from trainables.models import config_from_dict
from trainables.tune import train_pack

MACHINE_FAILURES = 5
"""How often a pack is tried again after its process or node died, before its trials are `failed`."""

__all__ = ["Executed", "Work", "cluster", "costs", "execute", "mark_lost", "pilot", "preload", "prepare", "references",
           "work"]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Executed:
    """What Tune did."""

    wall_s: float
    lost_packs: dict[str, str]
    """Packs whose processes died too often -> last error."""
    interrupted: bool


@contextmanager
def cluster(name: str) -> Iterator[Cluster]:
    """Connect, and refuse a cluster on which a pack can never be placed."""
    try:
        with connect(name) as connected:
            connected.check()
            yield connected
    except ClusterError as error:
        raise StudyError(str(error)) from error


def preload() -> None:
    """Import what `execute` needs, a second of work."""
    import ray.tune  # noqa: F401


def references(plan: Plan, ledger: Ledger, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Floors and ceilings that the trials of a plan will be judged by, by key: the ledger's, or computed now."""
    configs = {reference_key(trial.config): trial.config for trial in plan.trials}
    found = {}
    torch.set_num_threads(1)  # as where packs train: more only wait for each other in small operations
    for key, config in configs.items():
        known = ledger.read_reference(key)
        if known is None:
            progress(f"computing floor and ceiling of the metrics for {key}")
            known = reference(config)
        found[key] = known
    return found


def judged_by(plan: Plan) -> dict[str, dict[str, Any]]:
    """Data set -> suite, N, feature space and weights by which its samples are judged."""
    return {name: dict(evaluator(DATASETS[name]).provenance()) for name in {t.config.data for t in plan.trials}}


def prepare(plan: Plan, todo: Work, ledger: Ledger, known: Mapping[str, Mapping[str, float]], *, now_ms: int) -> None:
    """Write the packs, with the references of `references` that their trials will be judged by."""
    blocks = {block.name: block for block in plan.study.blocks}
    block_of = {trial.trial_id: blocks[trial.block] for trial in plan.trials}
    for key, values in known.items():
        ledger.write_reference(key, dict(values))
    for pack in todo.packs:
        if pack.resumed:
            continue
        trial_ids = [config.trial_id() for config in pack.configs]
        block = block_of[trial_ids[0]]
        ledger.write_pack(
            {
                "pack_id": pack.pack_id,
                "trial_ids": trial_ids,
                "trials": [config.to_dict() for config in pack.configs],
                "reference": known[reference_key(pack.configs[0])],
                "samples": list(block.sample_evaluations),
                "keep_checkpoints": block.keep_checkpoints,
                "created_ms": now_ms,
            }
        )


def execute(packs: Sequence[Pack], ledger: Ledger, on: Cluster, *, checkpoint_every_s: float) -> Executed:
    """Train the packs to their ends, costliest first, each as one Tune trial. Needs a connected cluster."""
    from ray import tune  # see preload

    started = time.monotonic()
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints tables even when told to be silent
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    scratch = tempfile.mkdtemp(prefix="vistudy-tune-")
    trainable = tune.with_resources(
        tune.with_parameters(
            train_pack, journal=functools.partial(Ledger, ledger.uri), checkpoint_every_s=checkpoint_every_s
        ),
        on.resources,
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"pack_id": tune.grid_search([pack.pack_id for pack in packs])},
        # One process trains pack after pack: importing torch costs seconds. The engine keeps nothing between packs.
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MACHINE_FAILURES),
        ),
    )
    try:
        with _sigterm_as_ctrl_c():
            results = tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    ended = [results[i] for i in range(len(results))]
    lost = {
        str(result.config["pack_id"]): str(result.error)
        for result in ended
        if result.error is not None and result.config is not None
    }
    finished = sum(result.metrics is not None and "trials" in result.metrics for result in ended)
    return Executed(wall_s=time.monotonic() - started, lost_packs=lost, interrupted=finished + len(lost) < len(packs))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Slurm, Kubernetes and spot instances send SIGTERM: end as on Ctrl-C, with the ledger and MLflow in order.

    To be entered after `ray.init`, which sets a handler that aborts the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def costs(configs: Sequence[TrainConfig], on: Cluster) -> dict[Structure, PackCost]:
    """Measured costs of packs of the structures that train long, on the cluster's own hardware. See `study.probe`."""
    groups = list(worth(configs).items())[:PILOT_STRUCTURES]
    remote = ray.remote(num_cpus=on.resources["cpu"], num_gpus=on.resources.get("gpu", 0))(cost_of)
    try:
        found: list[PackCost | None] = ray.get([remote.remote(group[0], periods(group)) for _, group in groups])
    except ray.exceptions.RayError as error:  # a worker or its node died: packs have a default size
        logging.getLogger("vistudy.probe").warning("packs are not measured: %s", error)
        return {}
    return {key: cost for (key, _), cost in zip(groups, found, strict=True) if cost is not None}


def pilot(packs: Sequence[Pack], on: Cluster) -> Estimate:
    """Estimate from a moment of training of each structure, on the cluster's own hardware."""
    chosen = representatives(packs, PILOT_STRUCTURES)
    remote = ray.remote(num_cpus=on.resources["cpu"], num_gpus=on.resources.get("gpu", 0))(measure)
    timings: list[Timing] = ray.get([remote.remote(list(pack.configs)) for pack in chosen])
    by_pack: Mapping[str, Timing] = dict(zip((p.pack_id for p in chosen), timings, strict=True))
    return estimate(packs, dict(by_pack), on.slots)


def mark_lost(lost: Mapping[str, str], ledger: Ledger, now_ms: int) -> None:
    """Trials of a pack whose processes died too often are `failed`: a state, not an outcome."""
    done = ledger.done()
    for pack_id, error in lost.items():
        attempts = ledger.attempts(pack_id)
        origin: dict[str, Any] = {"pack_id": pack_id, "attempt": max(attempts, default=1), "device": "", "versions": {}}
        for trial in ledger.read_pack(pack_id)["trials"]:
            trial_id = config_from_dict(trial).trial_id()
            if trial_id not in done:
                ledger.finish_trial(
                    {
                        "trial_id": trial_id,
                        "state": "failed",
                        "wall_s": 0.0,
                        "error": f"the worker process or its node died {MACHINE_FAILURES + 1} times: {error}",
                        "unix_ms": now_ms,
                        **origin,
                    }
                )
