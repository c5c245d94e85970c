"""Studies that Optuna tunes: ask a round of cells, train them, tell their values, ask again.

Nothing is remembered between runs: what is asked depends on what was told alone, so a new run goes through the same
rounds again and finds their trials in the ledger.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from study.design import Plan, plan
from study.factors import Cell
from study.sampling import OptunaDesign
from study.spec import Study

ROUND_CELLS = 8
"""Cells of one arm that are asked at once. TPE learns from whole rounds; smaller ones learn sooner and run slower."""

Judged = Callable[[Collection[str]], Mapping[str, Mapping[str, Any]]]
"""trial ids -> fields of their outcomes, for those that have one."""


def rounds(study: Study, judged: Judged, *, yes: bool = False) -> Iterator[Plan]:
    """Plans of a study, each with all trials known so far; one plan if nothing in it is tuned by Optuna.

    After each item but the last, its trials must have been run.
    """
    designs = {
        block.name: [
            OptunaDesign(block, arm=dict(zip(block.factors, levels, strict=True)))
            for levels in itertools.product(*block.factors.values())
        ]
        for block in study.blocks
        if block.sample is not None and block.sample.method == "optuna"
    }
    if not designs:
        yield plan(study, yes=yes)
        return
    every = [design for arms in designs.values() for design in arms]
    while sum(len(design.next_cells(ROUND_CELLS)) for design in every):
        asked = {name: [cell for design in arms for cell in design.cells] for name, arms in designs.items()}
        planned = plan(study, yes=yes, asked=asked)
        yield planned
        values = _values(planned, judged)
        for name, arms in designs.items():
            for design in arms:
                for cell, told in list(design.history):
                    if told is None:
                        design.tell(cell, values[name, _key(cell)])


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


def _values(planned: Plan, judged: Judged) -> dict[tuple[str, str], float]:
    """(block, cell) -> mean over seeds of the final Q; infinite where a seed diverged or has no outcome."""
    outcomes = judged([trial.trial_id for trial in planned.trials])
    found: dict[tuple[str, str], list[float]] = {}
    for trial in planned.trials:
        q = outcomes.get(trial.trial_id, {}).get("q_final")
        for block, cell in ((trial.block, trial.cell), *trial.also):
            found.setdefault((block, _key(cell)), []).append(math.inf if q is None else float(q))
    return {key: float(np.mean(values)) for key, values in found.items()}
