"""The doctor: each kind of damage is found and named, repair moves it aside, and the run that follows is whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.trainables.configs import gan
from vistudy.analysis.ledger.errors import StudyBusyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.doctor import Finding
from vistudy.study.api.doctor import examine as doctor
from vistudy.study.packing.packs import resumable
from vistudy.study.tracking import mirror
from vistudy.trainables.worker import train_pack

CONFIGS = [gan(seed=s, evaluations=4) for s in (0, 1)]
IDS = [config.trial_id() for config in CONFIGS]
Bits = dict[tuple[str, int], dict[str, str]]


def trained(folder: Path) -> Ledger:
    """A study of two trials in a pack, trained to its end, with a checkpoint after every evaluation kept."""
    ledger = Ledger(folder)
    ledger.create()
    plan = {
        "study": "small",
        "trials": [{"trial_id": i, "config": c.to_dict(), "cell": {}} for i, c in zip(IDS, CONFIGS, strict=True)],
    }
    ledger.write_study("small", "study: small\n", plan, {"created_ms": 1})
    ledger.write_pack(
        {
            "pack_id": "p-1",
            "trial_ids": IDS,
            "trials": [c.to_dict() for c in CONFIGS],
            "reference": {},
            "samples": [2],
            "keep_checkpoints": "final",
            "created_ms": 1,
        }
    )
    train(ledger)
    return ledger


def train(ledger: Ledger, pack_id: str = "p-1") -> None:
    result = train_pack({"pack_id": pack_id}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=0.0)
    assert result["status"] == "complete"


def bits(ledger: Ledger) -> Bits:
    return {
        (r["trial_id"], r["evaluation"]): {name: value.hex() for name, value in r["values"].items()}
        for r in Ledger(ledger.uri).records()
    }


def examine(ledger: Ledger, *, repair: bool = False, uri: str | None = None) -> list[Finding]:
    found, busy = doctor("small", Ledger(ledger.uri), uri, repairing=repair, stamp="t")
    assert busy is None
    return found


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path, place: int) -> None:
    path.write_bytes(path.read_bytes()[:place])


def test_nothing_is_wrong_with_a_store_that_is_whole(tmp_path):
    ledger = trained(tmp_path)
    assert examine(ledger) == []
    before = sorted(tmp_path.rglob("*"))
    assert examine(ledger, repair=True) == []
    assert sorted(p for p in tmp_path.rglob("*") if ".lock" not in p.name) == [
        p for p in before if ".lock" not in p.name
    ]


ATTEMPT = "packs/p-1/attempt-001"


@pytest.mark.parametrize(
    ("path", "damage", "kinds"),
    [
        (f"{ATTEMPT}/records-00002.jsonl", lambda p: cut(p, 40), {"damaged", "missing records"}),
        (f"{ATTEMPT}/records-00002.jsonl", lambda p: cut(p, p.read_bytes().index(b"\n") + 1), {"missing records"}),
        (f"{ATTEMPT}/records-00004.jsonl", Path.unlink, {"missing records"}),
        (f"{ATTEMPT}/records-00000.jsonl", Path.unlink, {"missing records"}),
        (f"{ATTEMPT}/checkpoint-00004.pt", lambda p: flip(p, 300), {"damaged"}),
        (f"{ATTEMPT}/samples-00002.npz", lambda p: cut(p, 50), {"damaged"}),
        (f"{ATTEMPT}/weights-00004.npz", lambda p: cut(p, 50), {"damaged"}),
        (f"{ATTEMPT}/notes.txt", lambda p: p.write_text("mine"), {"foreign"}),
        (f"trials/{IDS[0]}.json", lambda p: cut(p, 30), {"damaged"}),
        ("packs/p-1/pack.json", lambda p: cut(p, 30), {"damaged", "missing records"}),
        ("packs/p-1/pack.json", Path.unlink, {"damaged", "missing records"}),
        ("stops/run-1.json", lambda p: (p.parent.mkdir(), p.write_text("{}")), {"stale"}),
        ("write-test-host-1", lambda p: p.write_text(""), {"stale"}),
    ],
)
def test_damage_is_found_moved_aside_and_trained_again_bitwise(tmp_path, path, damage, kinds):
    ledger = trained(tmp_path)
    whole = bits(ledger)
    damage(tmp_path / path)
    left = (tmp_path / path).read_bytes() if (tmp_path / path).exists() else None
    found = examine(ledger)
    assert {one.kind for one in found} == kinds
    assert not any(one.repaired for one in found)
    assert all(one.repaired for one in examine(ledger, repair=True))
    if left is not None and "missing records" not in kinds - {"damaged"}:
        assert (tmp_path / "quarantine/t" / path).read_bytes() == left
    # What `vistudy run` does: packs that were begun go on, trials without a pack get a new one.
    fresh = Ledger(tmp_path)
    pending = {i: c for i, c in zip(IDS, CONFIGS, strict=True) if i not in fresh.finished_trials()}
    for pack in resumable(fresh.packs(), pending, fresh.finished_trials()):
        train(fresh, pack.pack_id)
    if not fresh.packs():
        trained_again = {"reference": {}, "samples": [2], "keep_checkpoints": "final", "created_ms": 2}
        trials = [c.to_dict() for c in CONFIGS]
        fresh.write_pack({"pack_id": "p-2", "trial_ids": IDS, "trials": trials, **trained_again})
        train(fresh, "p-2")
    assert examine(ledger) == []
    assert bits(ledger) == whole
    assert Ledger(tmp_path).finished_trials() == set(IDS)


def test_a_segment_lost_under_a_newer_checkpoint_is_found_though_no_record_follows_it(tmp_path):
    """Else the next attempt would go on beyond it, and the gap would stay."""
    ledger = trained(tmp_path)
    whole = bits(ledger)
    for trial_id in IDS:
        (tmp_path / f"trials/{trial_id}.json").unlink()
    (tmp_path / ATTEMPT / "records-00004.jsonl").unlink()
    assert {one.kind for one in examine(ledger, repair=True)} == {"missing records"}
    train(ledger)
    assert bits(ledger) == whole


def test_records_beyond_the_end_are_named(tmp_path):
    ledger = trained(tmp_path)
    text = (tmp_path / ATTEMPT / "records-00004.jsonl").read_text().replace('"evaluation":4', '"evaluation":5')
    (tmp_path / ATTEMPT / "records-00005.jsonl").write_text(text)
    assert {one.kind for one in examine(ledger)} == {"records beyond the end"}


def test_half_written_files_are_told_from_files_that_are_being_written(tmp_path):
    ledger = trained(tmp_path)
    old, new = tmp_path / ATTEMPT / ".0123.tmp", tmp_path / "trials" / ".4567.tmp"
    for path in (old, new):
        path.write_text("half a rec")
    os.utime(old, times=(time.time() - 3600,) * 2)
    (found,) = examine(ledger, repair=True)
    assert (found.kind, found.where) == ("half-written", f"{ATTEMPT}/.0123.tmp")
    assert new.exists()
    assert not old.exists()


def test_a_damaged_plan_is_no_empty_study(tmp_path):
    ledger = trained(tmp_path)
    cut(tmp_path / "studies/small/plan.json", 30)
    (found,) = examine(ledger, repair=True)
    assert (found.kind, found.where, found.repaired) == ("damaged", "studies/small/plan.json", True)


def test_a_running_study_is_looked_at_but_not_repaired(tmp_path):
    ledger = trained(tmp_path)
    cut(tmp_path / ATTEMPT / "samples-00002.npz", 50)
    with ledger.lock("small", "run"):
        found, busy = doctor("small", Ledger(tmp_path), None, repairing=False, stamp="t")
        assert {one.kind for one in found} == {"damaged"}
        assert "run is being done by process" in str(busy)
        with pytest.raises(StudyBusyError):
            doctor("small", Ledger(tmp_path), None, repairing=True, stamp="t")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_orphan_double_and_running_runs(tmp_path, uri):
    ledger = trained(tmp_path / "store")
    mirror.sync(ledger, "small", uri)
    client = mirror.connect(uri)
    experiment = client.get_experiment_by_name("small").experiment_id

    def runs() -> dict[str, str]:
        found = client.search_runs([experiment], "tags.vistudy.kind = 'trial'")
        assert len(found) == len({run.data.tags["vistudy.trial_id"] for run in found})
        return {run.info.run_id: run.info.status for run in found}

    expected = runs()
    assert examine(ledger, uri=uri) == []
    for trial_id in (IDS[0], "t1-of-another-study"):
        client.create_run(experiment, tags={"vistudy.kind": "trial", "vistudy.trial_id": trial_id})
    client.update_run(list(expected)[1], status="RUNNING")
    found = examine(ledger, uri=uri)
    assert sorted(one.kind for one in found) == ["double run", "left RUNNING", "orphan run"]
    assert all(one.repaired for one in examine(ledger, uri=uri, repair=True))
    assert examine(ledger, uri=uri) == []
    assert runs() == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_runs_of_an_earlier_plan_are_no_orphans(tmp_path, uri):
    """Other data make a plan of new trials: those of the one before stay, in the store and in MLflow."""
    ledger = trained(tmp_path / "store")
    mirror.sync(ledger, "small", uri)
    plan = ledger.read_plan("small")
    ledger.write_study("small", "study: small\n", plan | {"trials": plan["trials"][:1]}, {"created_ms": 1})
    assert examine(ledger, uri=uri) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_runs_of_unfinished_trials_of_an_earlier_plan_are_no_orphans(tmp_path, uri):
    ledger = trained(tmp_path / "store")
    (tmp_path / "store" / "trials" / f"{IDS[1]}.json").unlink()
    mirror.sync(ledger, "small", uri)
    plan = ledger.read_plan("small")
    ledger.write_study("small", "study: small\n", plan | {"trials": plan["trials"][:1]}, {"created_ms": 1})
    assert "orphan run" not in {one.kind for one in examine(ledger, uri=uri)}


def test_an_mlflow_that_is_down_is_a_finding(tmp_path):
    ledger = trained(tmp_path)
    (found,) = examine(ledger, uri="http://user:secret@127.0.0.1:9")
    assert found.kind == "unreachable"
    assert "secret" not in found.where + found.what
