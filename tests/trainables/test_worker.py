"""The trainable: what it writes, how it goes on, and that only a machine's errors leave it."""

from __future__ import annotations

import errno
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.configs import gan
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.trainables.data import DataError
from vistudy.trainables.models.gan import GanConfig, GanPack
from vistudy.trainables.node_checks import versions
from vistudy.trainables.worker import CONTEXT_BYTES, limit_memory, share_of_memory, train_pack

CONFIGS = [gan(seed=s, evaluations=4) for s in (0, 1)]


def stored(folder: Path, configs: list[GanConfig] = CONFIGS, keep: str = "none") -> Ledger:
    ledger = Ledger(folder)
    ledger.create()
    ledger.write_pack(
        {
            "pack_id": "p-1",
            "trial_ids": [c.trial_id() for c in configs],
            "trials": [c.to_dict() for c in configs],
            "reference": {},
            "samples": [2, 4],
            "keep_checkpoints": keep,
            "created_ms": 1,
        }
    )
    return ledger


def train(ledger: Ledger, every_s: float = 0.0, run: str = "") -> dict[str, Any]:
    return train_pack(
        {"pack_id": "p-1"}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=every_s, run=run, now_ms=lambda: 7
    )


def ended(result: dict[str, Any]) -> tuple[str, int, int]:
    return result["end"], result["trials"], result["failed"]


def bits(ledger: Ledger) -> list[tuple[str, int, dict[str, str]]]:
    return [(r["trial_id"], r["evaluation"], {n: v.hex() for n, v in r["values"].items()}) for r in ledger.records()]


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
    assert ledger.done() == set()


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
    assert ledger.done() == set()


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
    assert cut.done() == set()
    train(cut)
    assert periods["n"] == 13 + 20 - 10  # from the checkpoint at update 10 of 20, not from the start
    assert bits(cut) == bits(whole)


def test_a_pack_killed_after_its_last_checkpoint_is_only_closed(tmp_path, monkeypatch):
    ledger = stored(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Ledger, "finish_trial", lambda *_: (_ for _ in ()).throw(full))
    result = train(ledger)
    assert (result["end"], result["errno"]) == ("store", errno.ENOSPC)
    monkeypatch.undo()
    before = bits(ledger)
    assert ended(train(ledger)) == ("complete", 2, 0)
    assert bits(ledger) == before
    assert len(ledger.done()) == 2


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
    assert ledger.done() == set()


def test_a_broken_device_leaves_the_process(tmp_path, monkeypatch):
    ledger = stored(tmp_path)
    monkeypatch.setattr(GanPack, "period", broken(torch.AcceleratorError("CUDA error: uncorrectable ECC error")))
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        train(ledger)
    assert ledger.done() == set()


def test_a_pack_that_is_asked_to_stop_writes_a_checkpoint_between_periods(tmp_path, monkeypatch):
    """Not after the evaluation only, which may be minutes away; and it goes on bitwise from there."""
    monkeypatch.setattr("vistudy.trainables.worker.LOOK_EVERY_S", 0.0)
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    train(whole)
    calls = {"n": 0}
    inner = GanPack.period

    def period(self: GanPack, *, diagnose: bool) -> Any:
        calls["n"] += 1
        if calls["n"] == 13:
            cut.ask_stop("run-1")
        return inner(self, diagnose=diagnose)

    monkeypatch.setattr(GanPack, "period", period)
    assert train(cut, every_s=1e9, run="run-1")["end"] == "stopped"
    assert calls["n"] == 13
    assert cut.done() == set()
    assert (cut.heartbeat("p-1") or {})["saved_updates"] == 13
    assert train(cut, run="run-1")["end"] == "stopped"  # nothing is begun while the wish stands
    assert cut.attempts("p-1") == [1]
    cut.withdraw_stop("run-1")
    train(cut, run="run-1")
    assert calls["n"] == 20
    assert bits(cut) == bits(whole)


@pytest.mark.parametrize(("cost_s", "expected"), [(0.0, 10), (10.0, 1)])
def test_checkpoints_are_rarer_where_they_are_slow(tmp_path, monkeypatch, cost_s, expected):
    """20 periods of 10 s: every 20 s there is to be a checkpoint, but it may cost 3 % at most."""
    now = {"s": 0.0, "checkpoints": 0}
    monkeypatch.setattr("vistudy.trainables.worker.time.monotonic", lambda: now["s"])
    inner, checkpoint = GanPack.period, Attempt.checkpoint

    def period(self: GanPack, *, diagnose: bool) -> Any:
        now["s"] += 10.0
        return inner(self, diagnose=diagnose)

    def slow(self: Attempt, evaluation: int, payload: bytes) -> None:
        now["s"] += cost_s
        now["checkpoints"] += 1
        checkpoint(self, evaluation, payload)

    monkeypatch.setattr(GanPack, "period", period)
    monkeypatch.setattr(Attempt, "checkpoint", slow)
    train(stored(tmp_path), every_s=20.0)
    assert now["checkpoints"] == expected


def test_signs_of_life_between_periods(tmp_path, monkeypatch):
    monkeypatch.setattr("vistudy.trainables.worker.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("vistudy.trainables.worker.BEAT_EVERY_S", 0.0)
    ledger, said = stored(tmp_path), []
    monkeypatch.setattr(Attempt, "beat", lambda self, sign: said.append(sign["d_updates"]))
    train(ledger)
    assert sorted(set(said)) == list(range(21))


def test_a_crash_leaves_its_traceback_beside_the_records(tmp_path):
    """In a process of its own, which a memory fault ends."""
    ledger = stored(tmp_path)
    code = (
        "import ctypes, sys\n"
        "from vistudy.analysis.ledger.ledger import Ledger\n"
        "from vistudy.trainables.models.gan import GanPack\n"
        "from vistudy.trainables.worker import train_pack\n"
        "GanPack.period = lambda self, *, diagnose: ctypes.string_at(0)\n"
        "train_pack({'pack_id': 'p-1'}, journal=lambda: Ledger(sys.argv[1]), checkpoint_every_s=0)"
    )
    done = subprocess.run([sys.executable, "-c", code, ledger.uri], check=False, capture_output=True)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in ledger.crash("p-1")
    assert "_train_and_evaluate" in ledger.crash("p-1")
    train(ledger)
    assert ledger.crash("p-1") == ""


def test_divergence_is_an_outcome_not_an_error(tmp_path):
    configs = [gan(seed=0, evaluations=4), gan(seed=1, evaluations=4, g_lr=1e30, d_lr=1e30)]
    ledger = stored(tmp_path, configs)
    train(ledger)
    outcomes = ledger.read_outcomes()
    assert {o["state"] for o in outcomes.values()} == {"complete"}
    per_trial = [sum(t == c.trial_id() for t, _, _ in bits(ledger)) for c in configs]
    assert per_trial == [5, 2]


@pytest.mark.parametrize("where", ["append", "checkpoint", "beat"])
def test_errors_of_the_store_are_the_machines(tmp_path, monkeypatch, where):
    monkeypatch.setattr("vistudy.trainables.worker.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("vistudy.trainables.worker.BEAT_EVERY_S", 0.0)
    ledger = stored(tmp_path, CONFIGS[:1])
    stale = OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(Attempt, where, lambda *_: (_ for _ in ()).throw(stale))
    result = train(ledger)
    assert (result["end"], result["errno"]) == ("store", errno.ESTALE)
    assert ledger.done() == set()


def test_a_share_of_a_gpu_leaves_room_for_the_other_processes():
    gib = 2**30
    assert share_of_memory(80 * gib, 1.0) == 80 * gib
    for packs in (2, 4, 8):
        assert packs * (share_of_memory(80 * gib, 1 / packs) + CONTEXT_BYTES) <= 80 * gib
    assert share_of_memory(2 * gib, 1 / 4) == gib / 4  # a small one: half of the share at least


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_more_than_its_share_of_a_gpu_is_out_of_memory():
    device = torch.device("cuda:0")
    mine = limit_memory(device, 1 / 4)
    assert mine is not None
    try:
        torch.cuda.empty_cache()
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(mine + 2**20, dtype=torch.uint8, device=device)
    finally:
        limit_memory(device, 1.0)
