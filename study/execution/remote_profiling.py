"""Profile packs and estimate a study's runtime on the hardware of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vistudy.analysis.ledger.errors import StudyError
from vistudy.clusters import Cluster
from vistudy.clusters.broadcast import last_line
from vistudy.study.execution.data_check import data_errors
from vistudy.study.packing.packs import Pack, PackCost, Structure
from vistudy.study.packing.profiling import periods, profile_structure, worth_profiling
from vistudy.study.packing.runtime_estimate import (
    PILOT_STRUCTURES,
    Estimate,
    Timing,
    estimate,
    representatives,
    time_pack,
)
from vistudy.trainables.config import TrainConfig


def profile_packs(configs: Sequence[TrainConfig], cluster: Cluster) -> dict[Structure, PackCost]:
    """Measure the cost of packs on the cluster, for structures that train long. See `packing.profiling`."""
    groups = list(worth_profiling(configs).items())[:PILOT_STRUCTURES]
    if not groups:
        return {}
    if cluster.in_process:
        return {
            key: cost for key, group in groups if (cost := profile_structure(group[0], periods(group), 1.0)) is not None
        }
    import ray

    # A whole GPU, so that no other pack interferes.
    remote = ray.remote(num_cpus=1, num_gpus=min(1, cluster.gpus))(profile_structure)
    try:
        costs: list[PackCost | None] = ray.get(
            [remote.remote(group[0], periods(group), cluster.gpu_share) for _, group in groups]
        )
    except ray.exceptions.RayError as error:  # a worker or its node died: use default pack sizes
        logging.getLogger("vistudy.probe").warning("packs are not measured: %s", error)
        return {}
    return {key: cost for (key, _), cost in zip(groups, costs, strict=True) if cost is not None}


def estimate_runtime(packs: Sequence[Pack], cluster: Cluster) -> Estimate:
    """Estimate the runtime of packs by training each structure briefly on the cluster."""
    chosen = representatives(packs, PILOT_STRUCTURES)
    if cluster.in_process:
        return estimate(packs, {pack.pack_id: time_pack(pack.configs, 1) for pack in chosen}, cluster.slots)
    import ray

    remote = ray.remote(num_cpus=cluster.resources["cpu"], num_gpus=cluster.resources.get("gpu", 0))(time_pack)
    try:
        with data_errors():
            timings: list[Timing] = ray.get([remote.remote(list(pack.configs), cluster.cpus) for pack in chosen])
    except ray.exceptions.RayError as error:
        raise StudyError(
            f"cluster {cluster.name}: the pilot failed there: {last_line(str(error))}. `vistudy cluster check` checks "
            "every node; --no-pilot plans without an estimate."
        ) from error
    return estimate(packs, dict(zip((p.pack_id for p in chosen), timings, strict=True)), cluster.slots)
