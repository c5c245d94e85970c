from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import Any

from study.rounds import ROUND_CELLS, rounds
from study.spec import parse_study

TUNED = """
study: tuned
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 100, evaluations: 10}
factors: {reg_weight: [0, 5]}
sample:
  method: optuna
  n: 20
  seed: 3
  space: {lr: {low: 1e-4, high: 1e-1, log: true}}
"""


def judged(best: float) -> Any:
    """Q that is smallest where lr is `best`; a trial far from it diverges."""

    def outcomes(plans: dict[str, Any]) -> Any:
        def judge(ids: Collection[str]) -> dict[str, dict[str, Any]]:
            found = {}
            for trial_id in ids:
                distance = abs(math.log10(plans[trial_id].config.g_lr / best))
                found[trial_id] = {"label": "diverged", "q_final": None} if distance > 2 else {"q_final": distance}
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
    plain = TUNED.split("sample:", maxsplit=1)[0]
    (planned,) = rounds(parse_study(plain), lambda ids: {})
    assert len(planned.trials) == 4
