"""What a trial was trained on is part of what it is: other data, other trials; nothing of theirs is shared or mixed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import vistudy as vs
from tests.trainables.configs import gan
from vistudy.analysis.ledger.errors import RunAbortedError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.report.text import provenance as told
from vistudy.analysis.tables.trials import load_frame
from vistudy.study.api.doctor import examine
from vistudy.study.execution.data_changes import other_data
from vistudy.study.execution.supervisor import MAX_INFRASTRUCTURE_FAILURES, Supervisor
from vistudy.study.films.retrain import film_trial
from vistudy.study.packing.packs import Pack, make_packs, pack_id
from vistudy.study.planning.plan import plan
from vistudy.study.spec.parser import parse_study
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DATASETS, DataError, fingerprint
from vistudy.trainables.data.mixtures import RING8
from vistudy.trainables.engine import Engine, reference_key
from vistudy.trainables.models import config_from_dict
from vistudy.trainables.trial_identity import NOT_RECORDED
from vistudy.trainables.worker import train_pack

SCHEMA1 = Path(__file__).with_name("schema1")
"""A store as vistudy of schema 1 wrote it: study `old`, four trials of `gan` on `ring8`."""
TEXT = """
study: NAME
model: gan
data: ring8
seeds: SEEDS
budget: {d_updates: 20, evaluations: 2}
fixed: {batch_size: 16, width: 4}
"""


def text(name: str = "s", seeds: str = "[0, 1]") -> str:
    return TEXT.replace("NAME", name).replace("SEEDS", seeds)


def wider(monkeypatch: pytest.MonkeyPatch, sd: float = 0.06) -> str:
    """Let the ring hold other data from now on; their fingerprint."""
    monkeypatch.setitem(DATASETS, "ring8", dataclasses.replace(RING8, sd=sd))
    return fingerprint("ring8")


def stored(ledger: Ledger, configs: list[TrainConfig]) -> str:
    ids = [config.trial_id() for config in configs]
    content = {
        "pack_id": pack_id(ids), "trial_ids": ids, "trials": [config.to_dict() for config in configs],
        "reference": {"max_abs_data": 1.2}, "samples": [2], "keep_checkpoints": "none", "created_ms": 5,
    }  # fmt: skip
    ledger.write_pack(content)
    return pack_id(ids)


def train(ledger: Ledger, pack: str) -> dict[str, Any]:
    return train_pack({"pack_id": pack}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=0.0)


@pytest.fixture
def schema1(tmp_path: Path) -> Ledger:
    shutil.copytree(SCHEMA1, tmp_path / "old")
    return Ledger(tmp_path / "old")


def ids(name: str = "s") -> list[str]:
    return [trial.trial_id for trial in plan(parse_study(text(name))).trials]


def test_other_data_are_other_trials_and_the_same_data_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids()
    wider(monkeypatch)
    assert not set(ids()) & set(before)
    monkeypatch.setitem(DATASETS, "ring8", RING8)
    assert ids("another-name") == before


def test_they_share_no_pack_and_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    one = gan()
    wider(monkeypatch)
    other = gan(seed=1)
    assert len(make_packs([one, other], slots=1, max_trials=8)) == 2
    assert reference_key(one) != reference_key(other)
    with pytest.raises(ValueError, match="structural"):
        Engine([other, one])


def test_a_store_says_in_a_sentence_what_changed(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str, seeds: str = "[0, 1]") -> list[str]:
        return list(other_data(plan(parse_study(text(name, seeds))), disk))

    before = fingerprint("ring8")
    assert said("s") == []
    stored(disk, [trial.config for trial in plan(parse_study(text())).trials])
    assert said("s") == []
    now = wider(monkeypatch)
    assert said("s") == said("other") == [
        f"ring8 holds other data than when 2 of these trials were trained (fingerprint {before} then, {now} now): "
        "they are new trials; the earlier ones stay in the store"
    ]  # fmt: skip
    assert said("other", "[7]") == [
        f"ring8 holds other data than when 2 other trials of this store were trained (fingerprint {before} then, "
        f"{now} now): none of them is used here"
    ]


def test_runs_on_two_contents_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first study's numbers are never shown as the second one's, nor averaged with them."""
    store, said = str(tmp_path / "store"), list[str]()

    def run(name: str, seeds: str) -> vs.RunReport:
        study = parse_study(text(name, seeds))
        return vs.run(study, store=store, cluster="debug", say=said.append)

    assert run("red", "[0]").n_trained == 1
    first, ledger = load_frame(store, "red"), Ledger(store)
    red, blue = first["data_fingerprint"][0], wider(monkeypatch)
    assert run("blue", "[0]").n_trained == 1
    assert f"(fingerprint {red} then, {blue} now)" in " ".join(said)
    assert load_frame(store, "blue")["q_final"][0] != first["q_final"][0]
    assert run("red", "[0, 1]").n_trained == 1  # seed 0 is blue's
    again = load_frame(store, "red")
    assert set(again["data_fingerprint"]) == {blue}
    ceilings = [ledger.read_pack(p)["reference"]["dist_ceiling"] for p in (first["pack_id"][0], *again["pack_id"])]
    assert ceilings[0] != ceilings[1] == ceilings[2]
    earlier = f"red@{red[:8]}"
    assert ledger.study_names() == ["blue", "red", earlier]
    assert load_frame(store, earlier)["q_final"].equals(first["q_final"])
    meta = ledger.read_meta("red")
    assert meta["data"] == {"ring8": {"fingerprint": blue, "division": ""}}
    assert blue in (Path(store) / "heatmaps" / "red" / "red.html").read_text()
    monkeypatch.setitem(DATASETS, "ring8", RING8)
    assert list(other_data(plan(parse_study(text("red", "[0]"))), ledger)) == [
        f"ring8 holds earlier data again (fingerprint {blue} at the last run, {red} now): trials that were trained on "
        f"them are used; a run keeps the plan of the last run as study red@{blue[:8]}"
    ]
    rows = dict(told(ledger.read_plan("red"), meta, "", again, [], None))
    assert rows["data ring8"] == f"fingerprint {blue}"
    monkeypatch.setitem(DATASETS, "ring8", RING8)
    assert run("red", "[0]").n_trained == 0  # the earlier data, the earlier trials


def test_a_worker_with_other_data_records_nothing(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    config = gan()
    pack = stored(disk, [config])
    here = wider(monkeypatch)
    result = train(disk, pack)
    assert result["status"] == "data"
    for print_ in (here, config.data_fingerprint):
        assert str(print_) in result["text"]
    assert disk.attempts(pack) == []
    assert not disk.finished_trials()


def test_a_pack_does_not_go_on_on_other_data(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    config = gan(evaluations=4)
    pack = stored(disk, [config])

    def stop(item: Any, reference: Any) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        train_pack({"pack_id": pack}, journal=lambda: Ledger(disk.uri), checkpoint_every_s=1e-9, on_evaluation=stop)
    before = disk.segments()
    wider(monkeypatch)
    assert train(disk, pack)["status"] == "data"
    assert disk.segments() == before


def test_a_worker_without_the_data_is_no_failure_of_its_trials(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = stored(disk, [gan()])

    def gone(name: str, recorded: str) -> None:
        raise DataError(f"data {name!r} is not there")

    monkeypatch.setattr("vistudy.trainables.node_checks.refuse_other_data", gone)
    result = train(disk, pack)
    assert (result["status"], disk.finished_trials()) == ("node", set())
    assert "data 'ring8' is not there" in result["text"]


def test_a_run_whose_nodes_have_other_data_stops_and_names_both(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    config, now = gan(), [0.0]
    pack = Pack(pack_id=stored(disk, [config]), configs=(config,), cost=1.0)
    supervisor = Supervisor([pack], disk, clock=lambda: now[0], now_ms=lambda: 1)
    here = wider(monkeypatch)
    for _ in range(MAX_INFRASTRUCTURE_FAILURES):  # another node may have the right ones
        assert supervisor.fatal_error is None
        now[0] += 100
        assert supervisor.next() == pack
        supervisor.ended(pack.pack_id, train(disk, pack.pack_id))
    assert isinstance(supervisor.fatal_error, RunAbortedError)
    assert here in str(supervisor.fatal_error)
    assert str(config.data_fingerprint) in str(supervisor.fatal_error)
    assert "Put those data back" in str(supervisor.fatal_error)
    assert supervisor.n_unfinished == 1
    assert not disk.finished_trials()


def test_a_film_of_other_data_is_refused(disk: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(parse_study(text(seeds="[0]")))
    (trial,) = planned.trials
    disk.write_study("s", text(), planned.to_json(), {"created_ms": 1})
    train(disk, stored(disk, [trial.config]))
    here = wider(monkeypatch)
    with pytest.raises(StudyError, match=rf"trial {trial.trial_id}: .*{here}.*{trial.config.data_fingerprint}"):
        film_trial(trial.trial_id, disk.uri, tmp_path / "films", frames=1)
    assert not (tmp_path / "films").exists()


class TestSchema1:
    def test_its_trials_keep_their_ids(self, schema1: Ledger) -> None:
        for entry in schema1.read_plan("old")["trials"]:
            config = config_from_dict(entry["config"])
            assert config.data_fingerprint == NOT_RECORDED
            assert config.trial_id() == entry["trial_id"]
            assert config.to_dict() == entry["config"]
            assert config.resolve() == config

    def test_it_is_read_and_says_what_is_not_known(self, schema1: Ledger) -> None:
        frame = load_frame(schema1, "old")
        assert set(frame["state"]) == {"complete"}
        assert set(frame["data_fingerprint"]) == {"data not recorded"}
        assert vs.status("old", store=schema1.uri).states == {"complete": 4}
        rows = dict(told(schema1.read_plan("old"), schema1.read_meta("old"), "", frame, [], None))
        assert rows["data"] == "data not recorded"
        assert examine("old", schema1, None, repairing=False, stamp="t") == ([], None)

    def test_its_trials_are_trained_again_and_stay_readable(self, schema1: Ledger) -> None:
        planned = plan(parse_study(schema1.read_study_text("old")))
        (sentence,) = other_data(planned, schema1)
        assert sentence == (
            "4 of these trials were trained on ring8 when the data of a trial were not recorded: they are new trials "
            f"(fingerprint {fingerprint('ring8')}); a run keeps the earlier ones as study old@data-not-recorded"
        )
        before = load_frame(schema1, "old")
        meta = {"created_ms": 1, "data": {"ring8": {"fingerprint": fingerprint("ring8"), "division": ""}}}
        schema1.write_study("old", planned.study.text, planned.to_json(), meta)
        assert set(load_frame(schema1, "old")["state"]) == {"planned"}
        after = load_frame(schema1, "old@data-not-recorded")
        assert after.drop(columns="study").equals(before.drop(columns="study"))

    def test_a_film_of_its_trials_is_what_was_recorded(self, schema1: Ledger, tmp_path: Path) -> None:
        """The pack's other trials train with it, so that it is the same bit for bit where the machine is the same."""
        made = film_trial(schema1.read_plan("old")["trials"][0]["trial_id"], schema1.uri, tmp_path, frames=1)
        assert made.agreement.compared == 3

    def test_files_of_unknown_content_are_a_finding(self, schema1: Ledger) -> None:
        rewrite(schema1, lambda trials: [trial["config"].update(data="mnist") for trial in trials])
        (found,), _ = examine("old", schema1, None, repairing=False, stamp="t")
        assert found.kind == "data not recorded"
        assert "its 4 trials of mnist saw the same files" in found.what


def test_doctor_finds_a_study_that_mixes_data(schema1: Ledger) -> None:
    rewrite(schema1, lambda trials: trials[0]["config"].update(data_fingerprint="0" * 16))
    (found,), _ = examine("old", schema1, None, repairing=False, stamp="t")
    assert found.kind == "mixed data"
    assert "1 on 0000000000000000, 3 on data that are not recorded" in found.what


def rewrite(ledger: Ledger, change: Any) -> None:
    path = Path(ledger.uri) / "studies/old/plan.json"
    content = json.loads(path.read_text())
    change(content["trials"])
    path.write_text(json.dumps(content))
