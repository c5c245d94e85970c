"""Plan a study: what it would train, in which packs, and how long that takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.status import DEFAULT_STORE, TrialStates, trial_states

if TYPE_CHECKING:
    from vistudy.clusters import Cluster
    from vistudy.study.packing.runtime_estimate import Estimate
    from vistudy.study.packing.workload import Workload
    from vistudy.study.planning.plan import Plan
    from vistudy.study.spec.model import Study


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A plan held against a store and a cluster."""

    plan: Plan
    workload: Workload
    cluster: str
    slots: int
    gpus: int
    estimate: Estimate | None
    trial_states: TrialStates
    """Where its trials stand in the store."""


def to_study(study: Study | str | os.PathLike[str]) -> Study:
    """A study as it is, or read from its file."""
    from vistudy.study.spec.model import Study
    from vistudy.study.spec.parser import load_study

    return study if isinstance(study, Study) else load_study(study)


def plan(
    study: Study | str | os.PathLike[str],
    *,
    store: str = DEFAULT_STORE,
    cluster: str = "local",
    gpus: int = 0,
    packs_per_gpu: int = 1,
    allow_large: bool = False,
    pilot: bool = True,
) -> Preview:
    """Expand a study, look what the store already has, check that the cluster can hold a pack, estimate the cost.

    The estimate does not know that packs which share a GPU slow each other.

    Raises:
        StudyError: a mistake in the file, the store or the address.
    """
    from vistudy.study.execution.data_changes import other_data
    from vistudy.study.execution.data_check import check_data
    from vistudy.study.planning.rounds import plan_from_store
    from vistudy.trainables.data import forget_seen_files

    ledger = Ledger(store)
    forget_seen_files()
    planned = plan_from_store(to_study(study), ledger, allow_large=allow_large)
    check_data(planned)
    planned = planned.noting(other_data(planned, ledger))
    if cluster == "local":
        from vistudy.study.execution.preflight import local_cluster

        return _plan_here(planned, ledger, local_cluster(packs_per_gpu, gpus), pilot=pilot)
    from vistudy.study.execution.connect import connected
    from vistudy.study.execution.remote_profiling import estimate_runtime, profile_packs
    from vistudy.study.packing.workload import plan_workload

    with connected(cluster, packs_per_gpu, gpus) as cluster_:
        costs = profile_packs([trial.config for trial in planned.trials], cluster_) if pilot else None
        todo = plan_workload(planned, ledger, slots=cluster_.slots, gpu=cluster_.gpus > 0, costs=costs)
        cost = estimate_runtime(todo.packs, cluster_) if pilot and todo.packs else None
        return _preview(planned, ledger, todo, cluster_, cost)


def _plan_here(planned: Plan, ledger: Ledger, cluster: Cluster, *, pilot: bool) -> Preview:
    """As on the cluster `local`: it is this machine, so nothing of Ray's has to be started, or imported."""
    from vistudy.study.execution.data_check import data_errors
    from vistudy.study.packing import profiling
    from vistudy.study.packing.runtime_estimate import PILOT_STRUCTURES, estimate, representatives, time_pack
    from vistudy.study.packing.workload import plan_workload

    configs = [trial.config for trial in planned.trials]
    costs = profiling.costs(configs, PILOT_STRUCTURES, cluster.gpu_share) if pilot else None
    todo = plan_workload(planned, ledger, slots=cluster.slots, gpu=cluster.gpus > 0, costs=costs)
    cost = None
    if pilot and todo.packs:
        with data_errors():
            chosen = representatives(todo.packs, PILOT_STRUCTURES)
            timings = {pack.pack_id: time_pack(pack.configs, cluster.cpus) for pack in chosen}
        cost = estimate(todo.packs, timings, cluster.slots)
    return _preview(planned, ledger, todo, cluster, cost)


def _preview(planned: Plan, ledger: Ledger, workload: Workload, cluster: Cluster, cost: Estimate | None) -> Preview:
    states = trial_states(ledger, planned)
    return Preview(
        plan=planned,
        workload=workload,
        cluster=cluster.name,
        slots=cluster.slots,
        gpus=cluster.gpus,
        estimate=cost,
        trial_states=states,
    )
