"""Where the trials of a plan stand by the ledger alone: nothing is judged, and the store need not know the plan yet."""

from __future__ import annotations

from dataclasses import dataclass

from study.design import Plan
from study.ledger import Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """States of the trials of a plan."""

    states: dict[str, str]
    """trial_id -> state, as `analysis.judged.Judged.state`."""
    left: frozenset[str]
    """Those that have not ended."""
    saved: dict[str, float]
    """Those of them with a checkpoint -> share of their training that is in it."""


def standing(ledger: Ledger, planned: Plan) -> Standing:
    """Read listings, ends and signs of life."""
    updates = {trial.trial_id: trial.config.d_updates for trial in planned.trials}
    if not ledger.exists():
        return Standing(states=dict.fromkeys(updates, "planned"), left=frozenset(updates), saved={})
    states = {trial_id: str(end["state"]) for trial_id, end in ledger.read_outcomes(list(updates)).items()}
    left = frozenset(updates.keys() - states.keys())
    saved: dict[str, float] = {}
    begun: set[str] = set()
    for pack_id, pack in ledger.packs().items() if left else ():
        mine = left.intersection(pack.get("trial_ids", ()))
        if mine and ledger.progress_of(pack_id) >= 0:
            begun |= mine
            if at := ledger.saved_updates(pack_id):
                saved |= {
                    trial_id: max(saved.get(trial_id, 0.0), min(1.0, at / updates[trial_id])) for trial_id in mine
                }
    live = ledger.live(planned.study.name, begun)
    states |= {i: "planned" if i not in begun else "running" if i in live else "interrupted" for i in sorted(left)}
    return Standing(states=states, left=left, saved=saved)
