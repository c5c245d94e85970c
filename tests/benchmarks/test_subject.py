from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.subject import blocks_of, stratified
from vistudy.study.planning.plan import plan
from vistudy.study.spec.parser import load_study

QUICKSTART = Path(__file__).parents[2] / "study" / "recipes" / "quickstart.yaml"


def test_the_block_alone_has_the_study_s_own_trials(tmp_path: Path) -> None:
    whole = plan(load_study(QUICKSTART))
    ring = {trial.trial_id for trial in whole.trials if trial.config.data == "ring8"}
    alone = blocks_of(QUICKSTART, "ring8", tmp_path / "block.yaml")
    assert {trial.trial_id for trial in alone.trials} == ring
    assert len(ring) < len(whole.trials)


def test_a_study_of_blocks_of_is_taken_whole_and_its_budget_changes(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "study: one\nmodel: gan\ndata: grid25\nseeds: [3]\nbudget: {d_updates: 500, evaluations: 10}\n"
        "factors: {lr: [1e-4, 1e-3]}\n"
    )
    planned = blocks_of(file, "grid25", tmp_path / "block.yaml", budget={"d_updates": 50})
    assert [(t.config.d_updates, t.config.evaluations) for t in planned.trials] == [(50, 10)] * 2
    with pytest.raises(ValueError, match="ring8"):
        blocks_of(file, "ring8", tmp_path / "block.yaml")


def test_strata_are_drawn_in_proportion_and_each_at_least_once() -> None:
    items = [("a", i) for i in range(60)] + [("b", 100 + i) for i in range(30)] + [("c", 1000)]
    drawn = stratified(items, 10, seed=0)
    assert Counter("a" if x < 100 else "b" if x < 1000 else "c" for x in drawn) == {"a": 6, "b": 3, "c": 1}
    assert len(set(drawn)) == 10
    assert drawn == stratified(items, 10, seed=0) != stratified(items, 10, seed=1)


def test_rare_strata_take_from_the_common_ones() -> None:
    items = [("a", i) for i in range(97)] + [("b", 97), ("c", 98), ("d", 99)]
    drawn = stratified(items, 4, seed=2)
    assert drawn[0] < 97
    assert drawn[1:] == [97, 98, 99]


def test_what_rounding_leaves_is_drawn_too() -> None:
    items = [(kind, 10 * place + i) for place, kind in enumerate("abc") for i in range(10)]
    assert Counter(x // 10 for x in stratified(items, 8, seed=0)) in ({0: 3, 1: 3, 2: 2}, {0: 3, 1: 2, 2: 3})


@pytest.mark.parametrize("n", [1, 4])
def test_samples_without_every_stratum_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=r"allowed 2 .* to 3"):
        stratified([("a", 0), ("a", 1), ("b", 2)], n, seed=0)
