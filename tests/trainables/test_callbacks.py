"""Checkpoints, heartbeats, stop requests and crash logs of a worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.trainables.stored_packs import bits, stored, train
from vistudy.analysis.ledger.ledger import Attempt
from vistudy.trainables.models.gan import GanPack


def test_a_pack_that_is_asked_to_stop_writes_a_checkpoint_between_periods(tmp_path, monkeypatch):
    """Not after the evaluation only, which may be minutes away; and it goes on bitwise from there."""
    monkeypatch.setattr("vistudy.trainables.callbacks.STOP_POLL_S", 0.0)
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    train(whole)
    calls = {"n": 0}
    inner = GanPack.period

    def period(self: GanPack, *, diagnose: bool) -> Any:
        calls["n"] += 1
        if calls["n"] == 13:
            cut.request_stop("run-1")
        return inner(self, diagnose=diagnose)

    monkeypatch.setattr(GanPack, "period", period)
    assert train(cut, every_s=1e9, run="run-1")["status"] == "stopped"
    assert calls["n"] == 13
    assert cut.finished_trials() == set()
    assert (cut.heartbeat("p-1") or {})["saved_updates"] == 13
    assert train(cut, run="run-1")["status"] == "stopped"  # nothing is begun while the wish stands
    assert cut.attempts("p-1") == [1]
    cut.clear_stop_request("run-1")
    train(cut, run="run-1")
    assert calls["n"] == 20
    assert bits(cut) == bits(whole)


@pytest.mark.parametrize(("cost_s", "expected"), [(0.0, 10), (10.0, 1)])
def test_checkpoints_are_rarer_where_they_are_slow(tmp_path, monkeypatch, cost_s, expected):
    """20 periods of 10 s: every 20 s there is to be a checkpoint, but it may cost 3 % at most."""
    now = {"s": 0.0, "checkpoints": 0}
    monkeypatch.setattr("vistudy.trainables.callbacks.time.monotonic", lambda: now["s"])
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
    monkeypatch.setattr("vistudy.trainables.callbacks.STOP_POLL_S", 0.0)
    monkeypatch.setattr("vistudy.trainables.callbacks.HEARTBEAT_INTERVAL_S", 0.0)
    ledger, said = stored(tmp_path), []
    monkeypatch.setattr(Attempt, "write_heartbeat", lambda self, sign: said.append(sign["d_updates"]))
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
    assert "Segmentation fault" in ledger.read_crash_log("p-1")
    assert "_train_and_evaluate" in ledger.read_crash_log("p-1")
    train(ledger)
    assert ledger.read_crash_log("p-1") == ""
