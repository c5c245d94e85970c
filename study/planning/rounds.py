"""Plan a study in rounds, where later trials depend on the outcomes of earlier ones.

Optuna and boundary refinement propose a round of cells, and the next one when its outcomes are known. An arm with
`match_drift` waits for its pilots. A plan depends on the ledger alone, so a new run repeats the same rounds and finds
their trials in the ledger.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.planning.boundary import SAMPLERS
from vistudy.study.planning.drift_matching import RecordLookup, match_drift, pilot_trial_ids
from vistudy.study.planning.plan import Plan, plan
from vistudy.study.planning.sampling import AdaptiveSampler, TrialOutcome
from vistudy.study.planning.trial_configs import DriftScales
from vistudy.study.spec.hyperparameters import Cell, Level
from vistudy.study.spec.model import Block, Study

ROUND_CELLS = 8
"""Cells per round and arm. TPE learns from whole rounds: smaller ones learn sooner, but run slower."""

OutcomeLookup = Callable[[Collection[str]], Mapping[str, TrialOutcome]]
"""trial ids -> their outcomes, for those that have one."""
CellKey = frozenset[tuple[str, Level]]
"""The items of a cell."""


def rounds(
    study: Study, outcomes: OutcomeLookup, records: RecordLookup = lambda ids: (), *, allow_large: bool = False
) -> Iterator[Plan]:
    """Yield the plans of a study, each with all trials so far; a single plan if no trial depends on an outcome.

    The trials of each plan but the last must have been run before the next is requested.

    Args:
        study: the study.
        outcomes: looks up the outcomes that adaptive samplers learn from.
        records: looks up the records by which the drift of arms is matched.
        allow_large: allow more than `MAX_TRIALS` trials.
    """
    samplers = {block.name: list(_samplers(block)) for block in study.blocks if _is_adaptive(block)}
    matched: DriftScales = {}
    every = [sampler for of_block in samplers.values() for sampler in of_block]
    unmatched = True
    while sum(len(sampler.next_cells(ROUND_CELLS)) for sampler in every) or unmatched:
        cells = {name: [cell for sampler in arms for cell in sampler.cells] for name, arms in samplers.items()}
        planned = plan(study, allow_large=allow_large, cells=cells, matched=matched)
        yield planned
        if every:
            _tell(samplers, _outcomes_by_cell(planned, outcomes))
        unmatched = bool(planned.unmatched_arms)
        if unmatched:
            matched = match_drift(planned, records)


def plan_from_store(study: Study, ledger: Ledger, *, allow_large: bool = False) -> Plan:
    """Plan a study with what the store has: with the scales of matched arms, if their pilots have ended."""
    planned = plan(study, allow_large=allow_large)
    if planned.unmatched_arms and ledger.exists() and pilot_trial_ids(planned) <= ledger.finished_trials():
        return plan(study, allow_large=allow_large, matched=match_drift(planned, ledger.records))
    return planned


def _is_adaptive(block: Block) -> bool:
    return block.sample is not None and block.sample.is_adaptive


def _samplers(block: Block) -> Iterator[AdaptiveSampler]:
    """One per arm and cell of the grid."""
    assert block.sample is not None
    sampler = SAMPLERS[block.sample.method]
    for levels in itertools.product(*block.factors.values()):
        cell: Cell = dict(zip(block.factors, levels, strict=True))
        yield from (sampler(block, arm={"arm": arm, **cell}) for arm in block.arms)
        if not block.arms:
            yield sampler(block, arm=cell)


def _tell(
    samplers: Mapping[str, list[AdaptiveSampler]],
    outcomes: Mapping[tuple[str, CellKey], list[TrialOutcome | None]],
) -> None:
    for name, of_block in samplers.items():
        for sampler in of_block:
            for cell, value in list(sampler.history):
                if value is None:
                    sampler.tell(cell, sampler.value(outcomes[name, frozenset(cell.items())]))


def _outcomes_by_cell(planned: Plan, lookup: OutcomeLookup) -> dict[tuple[str, CellKey], list[TrialOutcome | None]]:
    """(block, cell) -> the outcomes of its seeds; None if a trial has none."""
    outcomes = lookup([trial.trial_id for trial in planned.trials])
    by_cell: dict[tuple[str, CellKey], list[TrialOutcome | None]] = {}
    for trial in planned.trials:
        for block, cell in ((trial.block, trial.cell), *trial.duplicates):
            by_cell.setdefault((block, frozenset(cell.items())), []).append(outcomes.get(trial.trial_id))
    return by_cell
