"""Registering a claim: what is frozen, when, and that nothing is ever overwritten."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.study.mlflow_study import STUDY, new_ledger
from tests.study.runs import vistudy
from tests.study.stored import pack, record
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.verdict.registration import registration_status
from vistudy.study.api.register import claim_hash, describe, diff_paths, register, registration_content
from vistudy.study.planning.plan import plan
from vistudy.study.spec.arms import Match
from vistudy.study.spec.parser import parse_study
from vistudy.study.tracking import mirror
from vistudy.study.tracking.sync import registration_tags
from vistudy.trainables.data import DATASETS, fingerprint
from vistudy.trainables.data.mixtures import RING8

TEXT = """
study: s
model: gan
data: ring8
seeds: [0, 1]
budget: {d_updates: 100, evaluations: 20}
sampling: {method: sobol, n: 4, seed: 1, space: {lr: {low: 1e-4, high: 1e-1, log: true}}}
fixed: {ratio: "1:10"}
arms: {A0: {reg_weight: 0}, A1: {reg_weight: 5}}
claim: {id: c, baseline: A0, treatment: A1}
"""


def digest(text: str) -> str:
    return claim_hash(registration_content(parse_study(text)))


def test_a_registration_says_what_was_claimed_and_when(tmp_path: Path) -> None:
    study = parse_study(TEXT)
    found = register(study, str(tmp_path / "store"))
    ledger = Ledger(tmp_path / "store")
    assert ledger.registrations("s") == [json.loads(json.dumps(found))]
    assert (found["study_hash"], found["records_before"]) == (study.hash, 0)
    assert found["registered_ms"] > 1.7e12
    assert found["claim"] == plan(study).to_json()["claim"]
    assert found["blocks"]["gan-ring8"]["arms"] == {"A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}}
    assert found["blocks"]["gan-ring8"]["sample"]["space"] == {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    assert "before the first record" in describe(found)
    assert ledger.study_names() == []  # it has no plan before it is run


def test_the_same_claim_again_changes_nothing(tmp_path: Path) -> None:
    first = register(parse_study(TEXT), str(tmp_path))
    again = register(parse_study(TEXT.replace("reg_weight: 5", "reg_weight: 5.0") + "# a comment\n"), str(tmp_path))
    assert again == json.loads(json.dumps(first))
    assert len(Ledger(tmp_path).registrations("s")) == 1


def test_a_claim_registered_before_there_were_limits_of_room_is_the_same(tmp_path: Path) -> None:
    content = registration_content(parse_study(TEXT))
    content["claim"] = {k: v for k, v in content["claim"].items() if not k.startswith("room_")}
    old = {"claim_hash": claim_hash(content), "study_hash": "", "registered_ms": 1, "records_before": 0, **content}
    ledger = Ledger(tmp_path)
    ledger.create()
    ledger.write_registration("s", old)
    assert register(parse_study(TEXT), str(tmp_path))["claim_hash"] == old["claim_hash"]
    assert len(ledger.registrations("s")) == 1
    other = parse_study(TEXT.replace("baseline: A0", "baseline: A0, room_low: 0.2"))
    with pytest.raises(StudyError, match=r"differs in claim\.room_low"):
        register(other, str(tmp_path))
    stored = plan(other).to_json()
    found = registration_status([old], stored["claim"], stored["blocks"], None)
    assert found.earlier_rule
    assert found.differences == ("claim.room_low: nothing -> 0.2",)


def test_another_claim_needs_amend_and_both_stay(tmp_path: Path) -> None:
    first = register(parse_study(TEXT), str(tmp_path))
    changed = parse_study(TEXT.replace("n: 4", "n: 5"))
    with pytest.raises(StudyError, match=r"another claim is registered .* in blocks.gan-ring8.sample.n.*--amend"):
        register(changed, str(tmp_path))
    assert len(Ledger(tmp_path).registrations("s")) == 1
    for n in range(5, 16):  # more than nine: in order of their numbers, not of their names
        register(parse_study(TEXT.replace("n: 4", f"n: {n}")), str(tmp_path), amend=True)
    found = Ledger(tmp_path).registrations("s")
    assert found[0]["claim_hash"] == first["claim_hash"]
    assert [f["blocks"]["gan-ring8"]["sample"]["n"] for f in found] == list(range(4, 16))
    assert (tmp_path / "studies/s/registration-002.json").exists()


def test_a_claim_is_registered_for_the_data_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = register(parse_study(TEXT), str(tmp_path))
    assert first["blocks"]["gan-ring8"]["data_fingerprint"] == fingerprint("ring8")
    assert register(parse_study(TEXT), str(tmp_path)) == first
    monkeypatch.setitem(DATASETS, "ring8", dataclasses.replace(RING8, sd=0.06))
    with pytest.raises(StudyError, match=r"another claim is registered .* in blocks.gan-ring8.data_fingerprint"):
        register(parse_study(TEXT), str(tmp_path))


def test_a_registration_of_the_time_before_data_were_recorded_still_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()
    old = registration_content(parse_study(TEXT))
    registered = {"claim_hash": claim_hash(old), "registered_ms": 5, "records_before": 0, **old}
    ledger.write_registration("s", registered)
    assert register(parse_study(TEXT), str(tmp_path)) == registered


@pytest.mark.parametrize("evaluations", [4, 19])
def test_a_claim_on_few_evaluations_is_refused_before_anything_is_written(tmp_path: Path, evaluations: int) -> None:
    few = parse_study(TEXT.replace("evaluations: 20", f"evaluations: {evaluations}"))
    with pytest.raises(StudyError, match=rf"budget.evaluations.* too few evaluations .*{evaluations}.*20 or more"):
        register(few, str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(parse_study(TEXT), str(tmp_path))
    ledger = Ledger(tmp_path)
    monkeypatch.setattr(ledger, "_registration_files", lambda name: [])  # as a process that looked a moment before
    with pytest.raises(StoreError, match=r"registration.json has just been written by another process"):
        ledger.write_registration("s", {"claim_hash": "other"})


def test_records_of_the_studys_trials_are_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()
    mine = plan(parse_study(TEXT)).trials[0].trial_id
    ledger.write_pack(pack())
    attempt = ledger.open_attempt("p1")
    for evaluation in range(3):
        attempt.append([record(evaluation, mine), record(evaluation, "of-another-study")], unix_ms=1)
    found = register(parse_study(TEXT), str(tmp_path))
    assert found["records_before"] == 3
    assert "3 records of its trials were in the store before" in describe(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds: [0, 1]", "seeds: [0]"),
        ("d_updates: 100", "d_updates: 101"),
        ("high: 1e-1", "high: 1e-2"),
        ("seed: 1", "seed: 2"),
        ("reg_weight: 5", "reg_weight: 6"),
        ('"1:10"', '"1:5"'),
        ("treatment: A1", "treatment: A1, margin: 0.1"),
        ("treatment: A1", "treatment: A1, thresholds: {tau_ok: 0.3}"),
        ("treatment: A1", "treatment: A1, predictions: [{id: H, expect: harms}]"),
        ("data: ring8", "data: ring8\nclass: P"),
    ],
)
def test_whatever_bears_on_the_verdict_is_hashed(old: str, new: str) -> None:
    assert old in TEXT
    assert digest(TEXT.replace(old, new)) != digest(TEXT)
    assert (
        len(
            diff_paths(
                registration_content(parse_study(TEXT)), registration_content(parse_study(TEXT.replace(old, new)))
            )
        )
        == 1
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("study: s", "study: s\ndescription: words"),
        ("{A0: {reg_weight: 0}, A1: {reg_weight: 5}}", "{A1: {reg_weight: 5}, A0: {reg_weight: 0.0}}"),
        ("treatment: A1", "treatment: A1, sesoi: 0.08, thresholds: {tau_ok: 0.25}"),
    ],
)
def test_what_does_not_is_not(old: str, new: str) -> None:
    assert old in TEXT
    assert digest(TEXT.replace(old, new)) == digest(TEXT)


def test_what_cannot_be_registered(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(StudyError, match=r"study.yaml:1: nothing to register: the study has no 'claim'"):
        register(parse_study(TEXT.split("claim:")[0].lstrip()), str(store))
    with pytest.raises(StudyError, match=r"study.yaml:7: sampling.method: a claim cannot be .* got \"optuna\""):
        register(parse_study(TEXT.replace("sobol", "optuna")), str(store))
    assert not store.exists()


def test_mlflow_says_what_is_registered(tmp_path: Path, uri: str) -> None:
    assert registration_tags([]) == {}
    ledger, _ = new_ledger(tmp_path / "store")
    registration = {"claim": {"id": "c"}, "claim_hash": "abc", "registered_ms": 1_700_000_000_000}
    ledger.write_registration(STUDY, registration)
    ledger.write_registration(STUDY, registration | {"claim_hash": "def"})
    mirror.sync(ledger, STUDY, uri, samples=False)
    client = mirror.connect(uri)
    experiment = client.get_experiment_by_name(STUDY)
    (parent,) = client.search_runs([experiment.experiment_id], "tags.vistudy.kind = 'study'")
    tags = {name: value for name, value in parent.data.tags.items() if "claim" in name or "registered" in name}
    assert tags == {
        "vistudy.claim_id": "c",
        "vistudy.claim_hash": "def",
        "vistudy.registered": "2023-11-14T22:13:20+00:00",
    }


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(TEXT)
    output = vistudy("register", file, "--store", tmp_path / "store")
    assert re.search(r"claim c is registered as [0-9a-f]{12}: before the first record", output)
    file.write_text(TEXT.replace("n: 4", "n: 5"))
    assert "--amend" in vistudy("register", file, "--store", tmp_path / "store", code=2)
    found = json.loads(vistudy("register", file, "--store", tmp_path / "store", "--amend", "--json"))
    assert found["blocks"]["gan-ring8"]["sample"]["n"] == 5


def test_the_verdict_finds_no_difference_to_the_plan_and_every_change(tmp_path: Path) -> None:
    matched = TEXT.replace("A1: {reg_weight: 5}", "A1: {reg_weight: 5}, A3: {g_lr: {match_drift: A1}}")
    register(parse_study(matched), str(tmp_path))
    known = {("gan-ring8", "A3"): Match(scale=0.1, note="found")}
    for old, new, path in (
        ("", "", None),
        ("n: 4", "n: 5", "blocks.gan-ring8.sample.n"),
        ("d_updates: 100", "d_updates: 90", "blocks.gan-ring8.budget.d_updates"),
        ("seeds: [0, 1]", "seeds: [0]", "blocks.gan-ring8.seeds"),
        ("high: 1e-1", "high: 1e-2", "blocks.gan-ring8.sample.space.lr.high"),
        ("reg_weight: 5", "reg_weight: 6", "blocks.gan-ring8.arms.A1.reg_weight"),
        ("baseline: A0", "baseline: A0, sesoi: 0.1", "claim.sesoi"),
    ):
        stored = json.loads(json.dumps(plan(parse_study(matched.replace(old, new)), matched=known).to_json()))
        status = registration_status(Ledger(tmp_path).registrations("s"), stored["claim"], stored["blocks"], None)
        assert status.before_first_record
        assert [text.split(":")[0] for text in status.differences] == ([path] if path else [])
