"""A store of an earlier version may hold trials that a scheduler stopped: they are trained to their end."""

from __future__ import annotations

import json
from pathlib import Path

from tests.study.runs import records, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger

STUDY = {
    "study": "stopped-early",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 40, "evaluations": 2},
    "factors": {"lr": [1e-4, 1e-3]},
}


def test_trials_stopped_early_are_trained_to_their_end(tmp_path: Path) -> None:
    file, store = write(tmp_path / "study.yaml", STUDY), tmp_path / "store"
    run = ("run", file, "--store", store, "--cluster", "debug")
    vistudy(*run)
    whole, ledger = records(store), Ledger(str(store))
    stopped = min(ledger.finished_trials())
    path = store / "trials" / f"{stopped}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "censored"}))
    assert ledger.read_outcomes().keys() == ledger.finished_trials() - {stopped}
    vistudy("status", "stopped-early", "--store", store)
    assert "1 trials that an earlier version stopped early are trained to their end" in vistudy(*run)
    assert {outcome["state"] for outcome in ledger.read_outcomes().values()} == {"complete"}
    assert len(ledger.read_outcomes()) == 2
    assert records(store) == whole
