"""Exploration: Tune's ASHA stops trials that fall behind; they are censored, and no claim is made on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.study.runs import mlflow_runs, records, vistudy, write
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.packing.workload import plan_workload
from vistudy.study.planning.plan import plan
from vistudy.study.spec.parser import parse_study

STUDY: dict[str, Any] = {
    "study": "explored",
    "model": "gan",
    "data": "ring8",
    "seeds": [0, 1],
    "budget": {"d_updates": 400, "evaluations": 8},
    "factors": {"lr": [1e-5, 1e-4, 6.4e-3], "reg_weight": [0, 5]},
    "fixed": {"ratio": "1:2"},
    "explore": {"grace": 2, "reduction": 2},
}


def states(store: Path) -> dict[str, str]:
    ledger = Ledger(str(store))
    return {trial_id: outcome["state"] for trial_id, outcome in ledger.read_outcomes(ledger.done()).items()}


def test_trials_that_fall_behind_are_censored_and_trained_to_their_end_by_a_study_that_does_not_explore(tmp_path):
    file, store = write(tmp_path / "study.yaml", STUDY), tmp_path / "store"
    vistudy("run", file, "--store", store)
    found = states(store)
    assert len(found) == 12
    assert set(found.values()) == {"complete", "censored"}
    first = records(store)
    length = {trial_id: sum(key[0] == trial_id for key in first) for trial_id in found}
    assert all((length[trial_id] == 9) == (state == "complete") for trial_id, state in found.items())
    assert all(3 <= n <= 9 for n in length.values())  # none is stopped before its grace is over
    runs = {run.data.tags["vistudy.trial_id"]: run for run in mlflow_runs(store, "explored")}
    assert {trial_id: run.data.tags["vistudy.state"] for trial_id, run in runs.items()} == found
    vistudy("run", file, "--store", store)
    assert states(store) == found

    whole = write(tmp_path / "whole.yaml", {**STUDY, "study": "whole", "explore": None})
    vistudy("run", whole, "--store", store)
    assert set(states(store).values()) == {"complete"}
    after = records(store)
    assert {key: after[key] for key in first} == first


def test_packs_of_one(tmp_path):
    todo = plan_workload(plan(parse_study(json.dumps(STUDY))), Ledger(str(tmp_path)), slots=2, gpu=False)
    assert [len(pack.configs) for pack in todo.packs] == [1] * 12


def test_a_claim_is_not_explored():
    claim = {"id": "c", "question": "?", "baseline": "A0", "treatment": "A1", "default": {}}
    arms = {"A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}}
    factors = {"lr": [1e-4, 6.4e-3]}
    with pytest.raises(StudyError, match="stops them early"):
        parse_study(json.dumps(STUDY | {"claim": claim, "arms": arms, "factors": factors}))


def test_without_ray_it_is_refused(tmp_path):
    file = write(tmp_path / "study.yaml", STUDY)
    output = vistudy("run", file, "--store", tmp_path / "store", "--cluster", "debug", code=2)
    assert "no Ray" in output
