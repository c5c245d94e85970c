"""The trainable: what it writes, how it goes on, and that only a machine's errors leave it."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

import pytest
import torch

from tests.trainables.configs import gan
from tests.trainables.stored_packs import CONFIGS, bits, stored, train
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.trainables.data import DataError
from vistudy.trainables.models.gan import GanPack
from vistudy.trainables.node_checks import versions
from vistudy.trainables.worker import train_pack


def ended(result: dict[str, Any]) -> tuple[str, int, int]:
    return result["status"], result["trials"], result["failed"]


def test_a_pack_is_trained_to_its_end(tmp_path):
    ledger = stored(tmp_path, keep="final")
    assert ended(train(ledger)) == ("complete", 2, 0)
    outcomes = ledger.read_outcomes()
    assert {o["state"] for o in outcomes.values()} == {"complete"}
    assert len(bits(ledger)) == 2 * 5
    assert set(ledger.samples(CONFIGS[0].trial_id())) == {2, 4}
    assert len(list(tmp_path.glob("packs/p-1/attempt-001/weights-*.npz"))) == 1
    assert all(o["wall_s"] > 0 and o["versions"]["torch"] for o in outcomes.values())


def test_nothing_is_trained_where_versions_are_others(tmp_path):
    """On a node that joined after the cluster was looked at."""
    ledger = stored(tmp_path)
    run = versions() | {"torch": "2.0.1"}
    result = train_pack({"pack_id": "p-1"}, journal=lambda: ledger, checkpoint_every_s=0.0, expected=run)
    assert ended(result) == ("node", 0, 0)
    assert f"has torch {versions()['torch']} (the run: 2.0.1)" in result["text"]
    assert not ledger.attempts("p-1")
    built = {name: number.partition("+")[0] + "+other" for name, number in versions().items()}
    result = train_pack({"pack_id": "p-1"}, journal=lambda: ledger, checkpoint_every_s=0.0, expected=built)
    assert ended(result) == ("complete", 2, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "mine"}, "model 'mine' is not in .*/trainables/models/__init__.py, .* docs/add-a-model.md"),
        ({"data": "mine"}, "data 'mine' is not in .*/trainables/data/__init__.py, .* Add its file and its line there"),
        ({"momentum": 0.9}, "model 'gan' of .* is another one .*momentum.* Use the code of vistudy that planned it"),
    ],
)
def test_what_a_worker_does_not_know_is_no_failure_of_the_store(tmp_path, change, says):
    """A model of a notebook, say, which no worker imports."""
    ledger = stored(tmp_path)
    pack = ledger.read_pack("p-1")
    ledger.write_pack(pack | {"pack_id": "p-2", "trials": [trial | change for trial in pack["trials"]]})
    result = train_pack({"pack_id": "p-2"}, journal=lambda: ledger, checkpoint_every_s=0.0)
    assert ended(result) == ("node", 2, 0)
    assert re.match(f"{socket.gethostname()} cannot build it: {says}", result["text"])
    assert ledger.finished_trials() == set()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ModuleNotFoundError("No module named 'ot'", name="ot"),
            r"cannot import ot: .*, in .*test_worker.py:\d+. Install",
        ),
        (DataError("/data/mnist: not there"), "cannot read data: /data/mnist: not there. Every node needs the same"),
    ],
)
@pytest.mark.parametrize("when", ["__init__", "period"])
def test_what_a_machine_lacks_fails_no_trial(tmp_path, monkeypatch, when, error, says):
    def lacking(*_, **__):
        raise error

    monkeypatch.setattr(GanPack, when, lacking)
    ledger = stored(tmp_path, CONFIGS[:1])
    result = train(ledger)
    assert ended(result) == ("node", 1, 0)
    assert re.match(f"{socket.gethostname()} {says}", result["text"])
    assert ledger.finished_trials() == set()


def test_a_killed_process_goes_on_from_its_checkpoint_bitwise(tmp_path, monkeypatch):
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    train(whole)
    periods = {"n": 0}
    inner = GanPack.period

    def dies(self: GanPack, *, diagnose: bool) -> Any:
        periods["n"] += 1
        if periods["n"] == 13:
            raise KeyboardInterrupt  # as a killed process: nothing after it runs
        return inner(self, diagnose=diagnose)

    monkeypatch.setattr(GanPack, "period", dies)
    with pytest.raises(KeyboardInterrupt):
        train(cut)
    assert cut.finished_trials() == set()
    train(cut)
    assert periods["n"] == 13 + 20 - 10  # from the checkpoint at update 10 of 20, not from the start
    assert bits(cut) == bits(whole)


def test_a_pack_killed_after_its_last_checkpoint_is_only_closed(tmp_path, monkeypatch):
    ledger = stored(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Ledger, "finish_trial", lambda *_: (_ for _ in ()).throw(full))
    result = train(ledger)
    assert (result["status"], result["errno"]) == ("store", errno.ENOSPC)
    monkeypatch.undo()
    before = bits(ledger)
    assert ended(train(ledger)) == ("complete", 2, 0)
    assert bits(ledger) == before
    assert len(ledger.finished_trials()) == 2


def broken(error: Exception) -> Any:
    def period(self: GanPack, *, diagnose: bool) -> Any:
        raise error

    return period


def test_an_error_of_the_code_fails_a_trial_that_is_alone_in_its_pack(tmp_path, monkeypatch):
    ledger = stored(tmp_path, CONFIGS[:1])
    monkeypatch.setattr(GanPack, "period", broken(ZeroDivisionError("the loss has no denominator")))
    assert ended(train(ledger)) == ("complete", 1, 1)
    (outcome,) = ledger.read_outcomes().values()
    assert outcome["state"] == "failed"
    assert "ZeroDivisionError: the loss has no denominator" in outcome["error"]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ZeroDivisionError("no denominator"), "error"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (MemoryError("host"), "memory"),
    ],
)
def test_an_error_in_a_pack_of_several_fails_none_of_them_yet(tmp_path, monkeypatch, error, end):
    ledger = stored(tmp_path)
    monkeypatch.setattr(GanPack, "period", broken(error))
    result = train(ledger)
    assert ended(result) == (end, 2, 0)
    assert str(error) in result["text"]
    assert ledger.finished_trials() == set()


def test_a_broken_device_leaves_the_process(tmp_path, monkeypatch):
    ledger = stored(tmp_path)
    monkeypatch.setattr(GanPack, "period", broken(torch.AcceleratorError("CUDA error: uncorrectable ECC error")))
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        train(ledger)
    assert ledger.finished_trials() == set()


def test_divergence_is_an_outcome_not_an_error(tmp_path):
    configs = [gan(seed=0, evaluations=4), gan(seed=1, evaluations=4, g_lr=1e30, d_lr=1e30)]
    ledger = stored(tmp_path, configs)
    train(ledger)
    outcomes = ledger.read_outcomes()
    assert {o["state"] for o in outcomes.values()} == {"complete"}
    per_trial = [sum(t == c.trial_id() for t, _, _ in bits(ledger)) for c in configs]
    assert per_trial == [5, 2]


@pytest.mark.parametrize("where", ["append", "checkpoint", "write_heartbeat"])
def test_errors_of_the_store_are_the_machines(tmp_path, monkeypatch, where):
    monkeypatch.setattr("vistudy.trainables.callbacks.STOP_POLL_S", 0.0)
    monkeypatch.setattr("vistudy.trainables.callbacks.HEARTBEAT_INTERVAL_S", 0.0)
    ledger = stored(tmp_path, CONFIGS[:1])
    stale = OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(Attempt, where, lambda *_: (_ for _ in ()).throw(stale))
    result = train(ledger)
    assert (result["status"], result["errno"]) == ("store", errno.ESTALE)
    assert ledger.finished_trials() == set()
