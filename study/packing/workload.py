"""Compare a plan with the ledger and pack the pending trials. Needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.packing.packs import (
    MAX_TRIALS_CPU,
    MAX_TRIALS_GPU,
    Pack,
    PackCost,
    Structure,
    cost_key,
    make_packs,
    resumable,
)
from vistudy.study.planning.plan import Plan
from vistudy.trainables.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Trials that a run has to train, in packs."""

    pending: dict[str, TrainConfig]
    """Trials without an outcome in the ledger."""
    packs: tuple[Pack, ...]
    done: int
    """Number of the plan's trials that are already in the store."""
    failed: int
    """How many of those failed."""
    sizes: tuple[str, ...]
    """Reasons for the sizes of the new packs, one sentence each."""


def plan_workload(
    plan: Plan, ledger: Ledger, *, slots: int, gpu: bool, costs: Mapping[Structure, PackCost] | None = None
) -> Workload:
    """Compare a plan with the ledger and pack pending trials. Packs that have started keep their trials."""
    exists = ledger.exists()
    done = ledger.finished_trials() if exists else set()
    pending = {trial.trial_id: trial.config for trial in plan.trials if trial.trial_id not in done}
    started = resumable(ledger.packs(), pending, done, costs) if exists and pending else []
    in_begun = {config.trial_id() for pack in started for config in pack.configs}
    fresh = [config for trial_id, config in pending.items() if trial_id not in in_begun]
    most = MAX_TRIALS_GPU if gpu else MAX_TRIALS_CPU
    new = make_packs(fresh, slots=slots, max_trials=most, costs=costs)
    finished = {trial.trial_id for trial in plan.trials} & done
    outcomes = ledger.read_outcomes(finished) if finished else {}
    return Workload(
        pending=pending,
        packs=tuple(sorted([*started, *new], key=lambda pack: -pack.cost)),
        done=len(finished),
        failed=sum(outcome["state"] == "failed" for outcome in outcomes.values()),
        sizes=tuple(dict.fromkeys(_reason(pack.configs[0], most, costs or {}) for pack in new)),
    )


def _reason(config: TrainConfig, most: int, costs: Mapping[Structure, PackCost]) -> str:
    cost = costs.get(cost_key(config))
    if cost is None:
        return f"at most {most} trials share a pack: the default, since training is too short to measure better"
    alone, best = cost.seconds(1), cost.seconds(cost.best) / cost.best
    return (
        f"{config.model} on {config.data}: at most {cost.best} trials share a pack: measured, a period of one takes "
        f"{1e3 * best:.2g} ms then and {1e3 * alone:.2g} ms alone; up to {cost.max_trials} were tried or fit"
    )
