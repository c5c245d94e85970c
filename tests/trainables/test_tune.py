"""The trainable: what it writes, how it goes on, and that only a machine's errors leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.ledger import Ledger
from tests.trainables.configs import gan
from trainables.models.gan import GanConfig, GanPack
from trainables.tune import train_pack

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


def train(ledger: Ledger, every_s: float = 0.0) -> dict[str, Any]:
    return train_pack(
        {"pack_id": "p-1"}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=every_s, now_ms=lambda: 7
    )


def bits(ledger: Ledger) -> list[tuple[str, int, dict[str, str]]]:
    return [(r["trial_id"], r["evaluation"], {n: v.hex() for n, v in r["values"].items()}) for r in ledger.records()]


def test_a_pack_is_trained_to_its_end(tmp_path):
    ledger = stored(tmp_path, keep="final")
    assert train(ledger) == {"trials": 2, "failed": 0}
    outcomes = ledger.read_outcomes()
    assert {o["state"] for o in outcomes.values()} == {"complete"}
    assert len(bits(ledger)) == 2 * 5
    assert set(ledger.samples(CONFIGS[0].trial_id())) == {2, 4}
    assert len(list(tmp_path.glob("packs/p-1/attempt-001/weights-*.npz"))) == 1
    assert all(o["wall_s"] > 0 and o["versions"]["torch"] for o in outcomes.values())


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
    monkeypatch.setattr(Ledger, "finish_trial", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        train(ledger)
    monkeypatch.undo()
    before = bits(ledger)
    assert train(ledger) == {"trials": 2, "failed": 0}
    assert bits(ledger) == before
    assert len(ledger.done()) == 2


def test_an_error_of_the_code_is_a_state_with_its_traceback(tmp_path, monkeypatch):
    ledger = stored(tmp_path)

    def broken(self: GanPack, *, diagnose: bool) -> Any:
        raise ZeroDivisionError("the loss has no denominator")

    monkeypatch.setattr(GanPack, "period", broken)
    assert train(ledger) == {"trials": 2, "failed": 2}
    for outcome in ledger.read_outcomes().values():
        assert outcome["state"] == "failed"
        assert "ZeroDivisionError: the loss has no denominator" in outcome["error"]


def test_divergence_is_an_outcome_not_an_error(tmp_path):
    configs = [gan(seed=0, evaluations=4), gan(seed=1, evaluations=4, g_lr=1e30, d_lr=1e30)]
    ledger = stored(tmp_path, configs)
    train(ledger)
    outcomes = ledger.read_outcomes()
    assert {o["state"] for o in outcomes.values()} == {"complete"}
    per_trial = [sum(t == c.trial_id() for t, _, _ in bits(ledger)) for c in configs]
    assert per_trial == [5, 2]


def test_errors_of_the_store_are_the_machines(tmp_path, monkeypatch):
    ledger = stored(tmp_path)
    monkeypatch.setattr("study.journal.Attempt.append", lambda *_: (_ for _ in ()).throw(OSError("stale handle")))
    with pytest.raises(OSError, match="stale handle"):
        train(ledger)
    assert ledger.done() == set()
