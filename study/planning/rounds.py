"""Studies that are planned in rounds: what comes next depends on what the trials before have shown.

Optuna, and what refines a boundary, ask a round of cells and ask again when their values are told. An arm with
`match_drift` waits for its pilots.
Nothing is remembered between runs: what is asked depends on the ledger alone, so a new run goes through the same rounds
again and finds their trials in the ledger.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.planning.boundary import SAMPLERS
from vistudy.study.planning.drift_matching import RecordLookup, match_drift, pilot_trial_ids
from vistudy.study.planning.plan import Plan, plan
from vistudy.study.planning.sampling import AdaptiveSampler, TrialOutcome
from vistudy.study.planning.trial_configs import DriftScales
from vistudy.study.spec.hyperparameters import Cell
from vistudy.study.spec.model import Block, Study

ROUND_CELLS = 8
"""Cells of an arm that Optuna is asked at once. TPE learns from whole rounds; smaller ones learn sooner, run slower."""

OutcomeLookup = Callable[[Collection[str]], Mapping[str, TrialOutcome]]
"""trial ids -> their outcomes, for those that have one."""


def rounds(
    study: Study, judged: OutcomeLookup, recorded: RecordLookup = lambda ids: (), *, allow_large: bool = False
) -> Iterator[Plan]:
    """Plans of a study, each with all trials known so far; one plan if nothing in it waits for a result.

    After each item but the last, its trials must have been run.

    Args:
        study: the study.
        judged: outcomes, of which the designs are told.
        recorded: records, by which the drift of arms is matched.
        allow_large: allow more than `MAX_TRIALS` trials.
    """
    designs = {block.name: list(_samplers(block)) for block in study.blocks if _is_adaptive(block)}
    matched: DriftScales = {}
    every = [design for of_block in designs.values() for design in of_block]
    news = True
    while sum(len(design.next_cells(ROUND_CELLS)) for design in every) or news:
        cells = {name: [cell for design in arms for cell in design.cells] for name, arms in designs.items()}
        planned = plan(study, allow_large=allow_large, cells=cells, matched=matched)
        yield planned
        if every:
            _tell(designs, _outcomes(planned, judged))
        news = bool(planned.unmatched_arms)
        if news:
            matched = match_drift(planned, recorded)


def plan_from_store(study: Study, ledger: Ledger, *, allow_large: bool = False) -> Plan:
    """The plan of a study as far as the store tells: with the scales of matched arms if their pilots are done."""
    planned = plan(study, allow_large=allow_large)
    if planned.unmatched_arms and ledger.exists() and pilot_trial_ids(planned) <= ledger.finished_trials():
        return plan(study, allow_large=allow_large, matched=match_drift(planned, ledger.records))
    return planned


def _is_adaptive(block: Block) -> bool:
    return block.sample is not None and block.sample.is_adaptive


def _samplers(block: Block) -> Iterator[AdaptiveSampler]:
    """One for each arm in each cell of the grid."""
    assert block.sample is not None
    design = SAMPLERS[block.sample.method]
    for levels in itertools.product(*block.factors.values()):
        cell: Cell = dict(zip(block.factors, levels, strict=True))
        yield from (design(block, arm={"arm": arm, **cell}) for arm in block.arms)
        if not block.arms:
            yield design(block, arm=cell)


def _tell(
    designs: Mapping[str, list[AdaptiveSampler]], outcomes: Mapping[tuple[str, str], list[TrialOutcome | None]]
) -> None:
    for name, of_block in designs.items():
        for design in of_block:
            for cell, told in list(design.history):
                if told is None:
                    design.tell(cell, design.value(outcomes[name, _key(cell)]))


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


def _outcomes(planned: Plan, judged: OutcomeLookup) -> dict[tuple[str, str], list[TrialOutcome | None]]:
    """(block, cell) -> the outcomes of its seeds; None where a trial has none."""
    outcomes = judged([trial.trial_id for trial in planned.trials])
    found: dict[tuple[str, str], list[TrialOutcome | None]] = {}
    for trial in planned.trials:
        for block, cell in ((trial.block, trial.cell), *trial.duplicates):
            found.setdefault((block, _key(cell)), []).append(outcomes.get(trial.trial_id))
    return found
