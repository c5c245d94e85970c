"""Match the drift of an arm: the scale at which its generator moves as far per period as that of another arm."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from vistudy.study.planning.plan import Plan
from vistudy.study.planning.trial_configs import DriftScales, pilot_name
from vistudy.study.spec.arms import Arm, Match
from vistudy.study.spec.hyperparameters import Cell, Level
from vistudy.study.spec.limits import PILOT_SCALES

RecordLookup = Callable[[Collection[str]], Iterable[Mapping[str, Any]]]
"""trial ids -> their records, as `Ledger.records`."""
Pairs = dict[float, list[tuple[str, str]]]
"""Scale -> (pilot trial, trial of the same configuration and seed in the other arm)."""


def pilot_trial_ids(planned: Plan) -> set[str]:
    """Ids of the trials that decide the scales of a plan's unmatched arms."""
    decisive = (pair for of_arm in _pairs(planned).values() for pairs in of_arm.values() for pair in pairs)
    return {trial_id for pair in decisive for trial_id in pair}


def match_drift(planned: Plan, lookup: RecordLookup) -> DriftScales:
    """Solve for the scales of a plan's unmatched arms, whose pilots have ended. They depend on the records alone."""
    evaluations = {trial.trial_id: trial.config.evaluations for trial in planned.trials}
    drifts = _drifts(lookup(pilot_trial_ids(planned)), evaluations)
    blocks = {block.name: block for block in planned.study.blocks}
    return {
        (block, arm): solve_scale(blocks[block].arms[arm], pairs, drifts)
        for (block, arm), pairs in _pairs(planned).items()
    }


def solve_scale(arm: Arm, pairs: Pairs, drifts: Mapping[str, float]) -> Match:
    """Solve for the scale at which the median over pairs of log(drift of the arm / drift of the other) is 0.

    Linear interpolation in the logarithm of the scale between the two pilot scales where the sign changes; of several
    such places the one nearest to 1. Without a change of sign, the pilot scale whose median is nearest to 0.
    """
    key, other = arm.match or ("", "")
    points: list[tuple[float, float]] = []
    for scale in sorted(pairs, reverse=True):
        ratios = [math.log(drifts[a] / drifts[b]) for a, b in pairs[scale] if a in drifts and b in drifts]
        if ratios:
            points.append((math.log10(scale), statistics.median(ratios)))
    used = {b for of_scale in pairs.values() for a, b in of_scale if a in drifts and b in drifts}
    tried = len({b for of_scale in pairs.values() for _, b in of_scale})
    matched = f"arm {arm.name}: {key} of the configuration times"
    if not points:
        return Match(scale=None, note=f"arm {arm.name} is left out: in none of its {tried} pilot configurations did it "
                     f"and {other} both train to the end, so their drifts cannot be compared")  # fmt: skip
    by = f"{len(used)} of {tried} pilot configurations"
    for (x, y), (x_next, y_next) in itertools.pairwise(points):
        if y * y_next <= 0:
            scale = _three_digits(x if y == y_next else x + (x_next - x) * y / (y - y_next))
            return Match(scale=scale, note=f"{matched} {scale:g}: the median drift of {other}, by {by}")
    x, y = min(points, key=lambda point: abs(point[1]))
    scale = _three_digits(x)
    side = "more" if y > 0 else "less"
    return Match(
        scale=scale,
        note=f"{matched} {scale:g}, the nearest of the scales tried: at every one it drifts {side} than {other} "
        f"({math.exp(y):.2g} times as far here, by {by})",
    )


def _three_digits(exponent: float) -> float:
    """10 to the exponent, to three digits: more could differ between machines, and with them trial ids."""
    return float(f"{10**exponent:.3g}")


def _pairs(planned: Plan) -> dict[tuple[str, str], Pairs]:
    """(block, arm) of the unmatched arms -> their pairs."""
    blocks = {block.name: block for block in planned.study.blocks}
    places: dict[tuple[str, str, frozenset[tuple[str, Level]]], str] = {}
    for trial in planned.trials:
        for block, cell in ((trial.block, trial.cell), *trial.duplicates):
            if "arm" in cell and trial.seed == blocks[block].seeds[0]:
                places[block, str(cell["arm"]), _configuration(cell, blocks[block].varied)] = trial.trial_id
    pairs: dict[tuple[str, str], Pairs] = {}
    for block_name, arm in planned.unmatched_arms:
        other = (blocks[block_name].arms[arm].match or ("", ""))[1]
        pairs[block_name, arm] = {
            scale: [
                (trial_id, places[block_name, other, config])
                for (block, name, config), trial_id in places.items()
                if block == block_name and name == pilot_name(arm, scale)
            ]
            for scale in PILOT_SCALES
        }
    return pairs


def _configuration(cell: Cell, varied: Collection[str]) -> frozenset[tuple[str, Level]]:
    return frozenset((name, cell[name]) for name in varied if name in cell)


def _drifts(records: Iterable[Mapping[str, Any]], evaluations: Mapping[str, int]) -> dict[str, float]:
    """trial_id -> median drift over the last half of its evaluations, for trials that trained to their end."""
    late: dict[str, list[float]] = {}
    ended = set()
    for record in records:
        trial_id, evaluation = record["trial_id"], record["evaluation"]
        if 2 * evaluation > evaluations[trial_id] and "drift" in record["values"]:
            late.setdefault(trial_id, []).append(record["values"]["drift"])
        if evaluation == evaluations[trial_id] and record["values"].get("finite", 1.0) == 1.0:
            ended.add(trial_id)
    medians = {trial_id: statistics.median(late[trial_id]) for trial_id in ended & late.keys()}
    return {trial_id: value for trial_id, value in medians.items() if 0 < value < math.inf}
