"""What a run has to do: a plan held against the ledger, and packed. Needs no Ray."""

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
    make_packs,
    resumable,
    training,
)
from vistudy.study.planning.plan import Plan
from vistudy.trainables.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a run has to do."""

    pending: dict[str, TrainConfig]
    """Trials that the ledger has no outcome of."""
    packs: tuple[Pack, ...]
    done: int
    """Trials of the plan that are in the store already."""
    failed: int
    """Those of them that failed."""
    sizes: tuple[str, ...]
    """Why the new packs are as large as they are, a sentence for each reason."""


def work(
    plan: Plan, ledger: Ledger, *, slots: int, gpu: bool, costs: Mapping[Structure, PackCost] | None = None
) -> Work:
    """Compare a plan with the ledger and pack what is missing. Packs that were begun go on as they were composed."""
    exists = ledger.exists()
    done = ledger.done() if exists else set()
    pending = {trial.trial_id: trial.config for trial in plan.trials if trial.trial_id not in done}
    begun = resumable(ledger.packs(), pending, done, costs) if exists and pending else []
    in_begun = {config.trial_id() for pack in begun for config in pack.configs}
    fresh = [config for trial_id, config in pending.items() if trial_id not in in_begun]
    most = MAX_TRIALS_GPU if gpu else MAX_TRIALS_CPU
    new = make_packs(fresh, slots=slots, max_trials=most, costs=costs)
    mine = {trial.trial_id for trial in plan.trials} & done
    outcomes = ledger.read_outcomes(mine) if mine else {}
    return Work(
        pending=pending,
        packs=tuple(sorted([*begun, *new], key=lambda pack: -pack.cost)),
        done=len(mine),
        failed=sum(outcome["state"] == "failed" for outcome in outcomes.values()),
        sizes=tuple(dict.fromkeys(_reason(pack.configs[0], most, costs or {}) for pack in new)),
    )


def _reason(config: TrainConfig, most: int, costs: Mapping[Structure, PackCost]) -> str:
    cost = costs.get(training(config))
    if cost is None:
        return f"at most {most} trials share a pack: the default, since training is too short to measure better"
    alone, best = cost.seconds(1), cost.seconds(cost.best) / cost.best
    return (
        f"{config.model} on {config.data}: at most {cost.best} trials share a pack: measured, a period of one takes "
        f"{1e3 * best:.2g} ms then and {1e3 * alone:.2g} ms alone; up to {cost.most} were tried or fit"
    )
