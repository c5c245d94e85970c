from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import Any, NamedTuple

import pytest

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.drift_matching import pilot_trial_ids, solve_scale
from vistudy.study.planning.plan import Plan
from vistudy.study.planning.rounds import ROUND_CELLS, plan_from_store, rounds
from vistudy.study.spec.parser import parse_study

TUNED = """
study: tuned
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 100, evaluations: 10}
factors: {reg_weight: [0, 5]}
sampling:
  method: optuna
  n: 20
  seed: 3
  space: {lr: {low: 1e-4, high: 1e-1, log: true}}
"""


class Outcome(NamedTuple):
    label: str
    q_final: float | None


def judged(best: float) -> Any:
    """Q that is smallest where lr is `best`; a trial far from it diverges."""

    def outcomes(plans: dict[str, Any]) -> Any:
        def judge(ids: Collection[str]) -> dict[str, Outcome]:
            found = {}
            for trial_id in ids:
                distance = abs(math.log10(plans[trial_id].config.g_lr / best))
                found[trial_id] = Outcome("diverged", None) if distance > 2 else Outcome("slow", distance)
            return found

        return judge

    return outcomes


def history(best: float) -> list[list[str]]:
    """Trial ids of every round."""
    known: dict[str, Any] = {}
    seen = []
    for planned in rounds(parse_study(TUNED), judged(best)(known)):
        known |= {trial.trial_id: trial for trial in planned.trials}
        seen.append([trial.trial_id for trial in planned.trials])
    return seen


def test_all_cells_are_asked_in_rounds_and_earlier_ones_stay():
    seen = history(1e-3)
    assert [len(ids) for ids in seen] == [2 * 2 * n for n in (ROUND_CELLS, 2 * ROUND_CELLS, 20)]
    for before, after in itertools.pairwise(seen):
        assert set(before) < set(after)


def test_the_same_answers_give_the_same_questions_and_others_do_not():
    assert history(1e-3) == history(1e-3)
    assert history(1e-3)[0] == history(5e-2)[0]
    assert history(1e-3)[-1] != history(5e-2)[-1]


def test_without_optuna_there_is_one_plan():
    plain = TUNED.split("sampling:", maxsplit=1)[0]
    (planned,) = rounds(parse_study(plain), lambda ids: {})
    assert len(planned.trials) == 4


def test_every_arm_is_tuned_with_the_same_effort_and_begins_with_the_same_points():
    tuned = TUNED.replace("factors: {reg_weight: [0, 5]}", "fixed: {ratio: '1:2'}")
    tuned += "arms: {A0: {reg_weight: 0}, A2: {reg_weight: {low: 0.1, high: 10, log: true}}}\n"
    known: dict[str, Any] = {}
    for planned in rounds(parse_study(tuned), judged(1e-3)(known)):
        known |= {trial.trial_id: trial for trial in planned.trials}
    cells = {arm: [t.cell for t in planned.trials if t.cell["arm"] == arm and t.seed == 0] for arm in ("A0", "A2")}
    assert [len(found) for found in cells.values()] == [20, 20]
    start, other = ([cell["lr"] for cell in found[:ROUND_CELLS]] for found in cells.values())
    assert start == other
    assert all("reg_weight" in cell for cell in cells["A2"])
    assert not any("reg_weight" in cell for cell in cells["A0"])


MATCHED = """
study: matched
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 100, evaluations: 10}
sampling: {method: sobol, n: 12, seed: 3, space: {lr: {low: 1e-4, high: 1e-1, log: true}}}
fixed: {ratio: "1:10"}
arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}, A3a: {reg_weight: 0, g_lr: {match_drift: A1}}}
"""


def drifting(plans: list[Plan], slower: float, *, diverged: Collection[str] = (), at: int = 7) -> Any:
    """Records in which the drift is the square of G's rate, times `slower` with the term; late halves are as asked."""

    def records(ids: Collection[str]) -> Any:
        for trial in plans[-1].trials:
            if trial.trial_id not in ids:
                continue
            config = trial.config.to_dict()
            drift = config["g_lr"] ** 2 * (slower if config["reg_weight"] else 1)
            last = at if trial.cell["arm"] in diverged else 10
            yield {"trial_id": trial.trial_id, "evaluation": 0, "values": {"finite": 1.0}}
            for evaluation in range(1, last + 1):
                late = drift if evaluation > 5 else 1e6
                finite = 0.0 if evaluation == last and trial.cell["arm"] in diverged else 1.0
                yield {
                    "trial_id": trial.trial_id,
                    "evaluation": evaluation,
                    "values": {"drift": late, "finite": finite},
                }

    return records


def passes(slower: float, **more: Any) -> list[Plan]:
    plans: list[Plan] = []
    for planned in rounds(parse_study(MATCHED), lambda ids: {}, drifting(plans, slower, **more)):
        plans.append(planned)
    return plans


@pytest.mark.parametrize("scale", [0.5, 0.2, 0.1, 0.05])
def test_the_second_pass_trains_the_arm_at_the_scale_with_the_same_drift(scale: float):
    first, second = passes(scale**2)
    assert not any(trial.cell["arm"] == "A3a" for trial in first.trials)
    assert {t.trial_id for t in first.trials} <= {t.trial_id for t in second.trials}
    found = second.matched["gan-ring8", "A3a"].scale
    assert found == pytest.approx(scale, rel=0.005)
    arm = [t for t in second.trials if t.cell["arm"] == "A3a"]
    arm += [t for t in second.trials if any(c["arm"] == "A3a" for _, c in t.duplicates)]
    assert len(arm) == 24
    assert all(t.config.to_dict()["g_lr"] == float(f"{float(t.cell['lr']) * found:.12g}") for t in arm)
    written = second.to_json()["blocks"]["gan-ring8"]["arms"]["A3a"]
    assert written == {"reg_weight": 0, "g_lr": {"match_drift": "A1", "scale": found}}
    assert any("by 8 of 8 pilot configurations" in note for note in second.notes)


@pytest.mark.parametrize(("slower", "scale", "side"), [(9.0, 1.0, "less"), (1e-6, 0.0316, "more")])
def test_beyond_the_scales_tried_the_nearest_is_taken_and_said(slower: float, scale: float, side: str):
    _, second = passes(slower)
    assert second.matched["gan-ring8", "A3a"].scale == scale
    assert any(f"at every one it drifts {side} than A1" in note for note in second.notes)


@pytest.mark.parametrize("at", [7, 10])
def test_pilots_that_diverged_are_not_compared(at: int):
    _, second = passes(0.04, diverged=["A3a~0.316"], at=at)
    found = second.matched["gan-ring8", "A3a"]
    assert found.scale == pytest.approx(0.2, rel=0.005)  # between 1 and 0.1
    _, none = passes(0.04, diverged=["A1"], at=at)
    assert none.matched["gan-ring8", "A3a"].scale is None
    assert not any(trial.cell["arm"] == "A3a" for trial in none.trials)
    assert any("left out: in none of its 8 pilot configurations" in note for note in none.notes)
    assert none.to_json()["blocks"]["gan-ring8"]["arms"]["A3a"]["g_lr"]["scale"] is None


def test_the_scale_is_that_of_the_median_pair_and_of_the_crossing_nearest_to_1():
    arm = parse_study(MATCHED).blocks[0].arms["A3a"]
    pairs = {scale: [(f"{scale}/{i}", f"other/{i}") for i in range(3)] for scale in (1.0, 0.1, 0.01)}
    log_ratios = {1.0: (2, 2, -9), 0.1: (-2, -2, 50), 0.01: (1, 1, 1)}
    drifts = {f"{scale}/{i}": math.exp(value) for scale, three in log_ratios.items() for i, value in enumerate(three)}
    found = solve_scale(arm, pairs, drifts | {f"other/{i}": 1.0 for i in range(3)})
    assert found.scale == 0.316  # halfway, in the logarithm


class Store:
    """As much of a ledger as `plan_from_store` asks."""

    def __init__(self, done: set[str], plans: list[Plan]) -> None:
        self._done, self.records = done, drifting(plans, 0.04)

    def exists(self) -> bool:
        return True

    def finished_trials(self) -> set[str]:
        return self._done


def test_a_plan_knows_the_scale_as_soon_as_all_pilots_are_done():
    study = parse_study(MATCHED)
    first, second = passes(0.04)
    pilots = pilot_trial_ids(first)
    names = {t.cell["arm"] for t in first.trials if t.trial_id in pilots}
    assert names == {"A0", "A1", "A3a~0.316", "A3a~0.1", "A3a~0.0316"}  # A0 is the pilot at 1
    assert len(pilots) == 8 * 5
    known: Any = Store(pilots, [first])
    assert [t.trial_id for t in plan_from_store(study, known).trials] == [t.trial_id for t in second.trials]
    waiting: Any = Store(pilots - {min(pilots)}, [first])
    assert [t.trial_id for t in plan_from_store(study, waiting).trials] == [t.trial_id for t in first.trials]


def test_optuna_and_a_matched_arm_in_one_study():
    blocks = (
        "blocks:\n  - {name: m}\n  - name: t\n    arms: null\n    sampling: {method: optuna, n: 20, seed: 3, space: "
    )
    text = MATCHED + blocks + "{lr: {low: 1e-4, high: 1e-1, log: true}}}\n"
    plans: list[Plan] = []
    for planned in rounds(parse_study(text), lambda ids: {}, drifting(plans, 0.04)):
        plans.append(planned)
    assert [len({t.cell["lr"] for t in p.trials if t.block == "t"}) for p in plans] == [8, 16, 20]
    assert [any(t.cell.get("arm") == "A3a" for t in p.trials) for p in plans] == [False, True, True]


def test_a_matched_arm_is_not_tuned():
    text = MATCHED.replace("sobol", "optuna")
    with pytest.raises(StudyError, match=r"arms.A3a.g_lr: a matched arm needs .*\{times: 0.3\}"):
        parse_study(text)
