"""Packs -> Ray Tune, as an executor of an explicit list. Running again is resuming: only what the ledger lacks runs."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.clusters import Cluster, ClusterError, connect
from vistudy.clusters.broadcast import last_line
from vistudy.study.execution.data_check import data_errors
from vistudy.study.execution.preflight import checked
from vistudy.study.packing.packs import Pack, PackCost, Structure
from vistudy.study.packing.profiling import cost_of, periods, worth
from vistudy.study.packing.runtime_estimate import (
    PILOT_STRUCTURES,
    Estimate,
    Timing,
    estimate,
    measure,
    representatives,
)
from vistudy.study.packing.workload import Work, work
from vistudy.study.planning.plan import Plan
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DATASETS
from vistudy.trainables.engine import reference, reference_key
from vistudy.trainables.metrics.evaluate import evaluator

__all__ = ["Work", "cluster", "costs", "judged_by", "pilot", "preload", "prepare", "references",
           "work"]  # fmt: skip


@contextmanager
def cluster(name: str, packs_per_gpu: int = 1, gpus: int = 0) -> Iterator[Cluster]:
    """Connect, and refuse a cluster on which a pack can never be placed, or with fewer GPUs than `gpus`."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with connect(name) as connected:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray's own handler aborts the process
            yield checked(dataclasses.replace(connected, packs_per_gpu=packs_per_gpu, min_gpus=gpus))
    except ClusterError as error:
        raise StudyError(str(error)) from error


def preload() -> None:
    """Import what `execute` needs, a second of work."""
    import vistudy.study.execution.ray_tune  # noqa: F401


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


def costs(configs: Sequence[TrainConfig], on: Cluster) -> dict[Structure, PackCost]:
    """Measured costs of packs of the structures that train long, on the cluster. See `packing.profiling`."""
    groups = list(worth(configs).items())[:PILOT_STRUCTURES]
    if not groups:
        return {}
    if on.inline:
        return {key: cost for key, group in groups if (cost := cost_of(group[0], periods(group), 1.0)) is not None}
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=min(1, on.gpus))(cost_of)  # a whole GPU: no other pack disturbs it
    try:
        found: list[PackCost | None] = ray.get(
            [remote.remote(group[0], periods(group), on.gpu_share) for _, group in groups]
        )
    except ray.exceptions.RayError as error:  # a worker or its node died: packs have a default size
        logging.getLogger("vistudy.probe").warning("packs are not measured: %s", error)
        return {}
    return {key: cost for (key, _), cost in zip(groups, found, strict=True) if cost is not None}


def pilot(packs: Sequence[Pack], on: Cluster) -> Estimate:
    """Estimate from a moment of training of each structure, on the cluster's own hardware."""
    chosen = representatives(packs, PILOT_STRUCTURES)
    if on.inline:
        return estimate(packs, {pack.pack_id: measure(pack.configs, 1) for pack in chosen}, on.slots)
    import ray

    remote = ray.remote(num_cpus=on.resources["cpu"], num_gpus=on.resources.get("gpu", 0))(measure)
    try:
        with data_errors():
            timings: list[Timing] = ray.get([remote.remote(list(pack.configs), on.cpus) for pack in chosen])
    except ray.exceptions.RayError as error:
        raise StudyError(
            f"cluster {on.name}: the pilot failed there: {last_line(str(error))}. `vistudy cluster check` asks every "
            "node what it has; --no-pilot plans without an estimate."
        ) from error
    by_pack: Mapping[str, Timing] = dict(zip((p.pack_id for p in chosen), timings, strict=True))
    return estimate(packs, dict(by_pack), on.slots)
