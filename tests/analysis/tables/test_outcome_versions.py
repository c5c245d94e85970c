"""Two versions of the rules side by side, from the same records and without a trace in the store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.analysis.armstore import CLAIM, block, share, table
from tests.analysis.series import series
from tests.analysis.store import entry, make_store, train
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.labels import RULES
from vistudy.analysis.tables.outcome_versions import relabel_study
from vistudy.analysis.tables.trials import load_frame
from vistudy.analysis.verdict.decide import decide, thresholds_of
from vistudy.study.cli.main import app
from vistudy.study.spec.claim import THRESHOLDS


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """steady is good; lapsing is but for some evaluations; points has no spread; old is from before it was recorded."""
    runs = {
        "steady": series(0.1, hq_share=1.0, mode_spread=0.9),
        "lapsing": series(lambda t: np.where(t % 4 == 0, 0.3, 0.1), hq_share=1.0, mode_spread=0.9),
        "points": series(0.1, hq_share=1.0, mode_spread=0.0),
        "old": series(0.1, hq_share=1.0),
        "late": series(0.1),
    }
    ledger = make_store(tmp_path / "store", [entry(name) for name in runs])
    del runs["late"]  # planned, and never trained
    train(ledger, "p1", runs)
    return ledger


def test_both_versions_stand_side_by_side(store: Ledger) -> None:
    found = relabel_study(store, "demo", 1)
    rows = found.trials.set_index("trial_id")
    assert dict(rows["outcome"]) == {
        "steady": "converged", "lapsing": "plateau", "points": "converged", "old": "converged",
    }  # fmt: skip
    assert dict(rows["outcome_now"]) == {
        "steady": "converged", "lapsing": "unsteady", "points": "stalled", "old": "converged",
    }  # fmt: skip
    assert rows.loc["points", ["q_final", "q_final_now"]].tolist() == pytest.approx([0.1, 1.0])
    assert (rows.loc["old", "flags_now"], rows.loc["steady", "flags_now"]) == ("recorded_before_v2", "")
    assert found.table.to_dict() == {
        "converged": {"converged": 2, "plateau": 0}, "unsteady": {"converged": 0, "plateau": 1},
        "stalled": {"converged": 1, "plateau": 0},
    }  # fmt: skip
    text = found.to_markdown()
    assert "2 of 4 trials have another outcome" in text
    assert "stable are 2 instead of 3. 1 were recorded before version 2" in text
    assert "| converged | 2 |  | 1 | 3 |" in text
    assert json.loads(json.dumps(found.to_json()))["trials"][0]["outcome"] == "converged"


def test_tables_are_by_the_version_that_they_are_asked_for(store: Ledger) -> None:
    now, then = load_frame(store, "demo"), load_frame(store, "demo", RULES[1])
    assert [set(table["outcome_version"].dropna()) for table in (now, then)] == [{2}, {1}]
    pd.testing.assert_frame_equal(load_frame(store, "demo"), now)  # not what version 1 left behind


def test_the_command_prints_both_and_changes_nothing(store: Ledger, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    out = tmp_path / "labels.csv"
    arguments = ["relabel", "demo", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*arguments, "--version", "1", "--out", str(out)])
    assert done.exit_code == 0
    assert "version 1, down; 2, across" in done.stdout
    assert list(pd.read_csv(out)["outcome"]) == ["converged", "plateau", "converged", "converged"]
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before
    with pytest.raises(StudyError, match=r"--version 3: there are no such outcome rules; allowed: 1, 2"):
        relabel_study(store, "demo", 3)


def test_a_claim_written_under_version_1_is_decided_by_it() -> None:
    added = {"end_min", "early_distance", "early_rise", "slow_quality"}  # by version 2
    written = {name: value for name, value in dataclasses.asdict(RULES[1]).items() if name not in {"version", *added}}
    assert thresholds_of({"thresholds": written | {"tau_ok": 0.3}}) == dataclasses.replace(RULES[1], tau_ok=0.3)
    assert thresholds_of({"thresholds": THRESHOLDS | {"tau_ok": 0.3}}).version == 2
    assert thresholds_of({"thresholds": {"tau_ok": 0.3}}).version == 2
    made = table(block({"A0": share(0.3), "A1": share(0.6)}))
    assert "written under version 1" in decide(made, CLAIM | {"thresholds": written}).warnings[0]
    assert not any("written under" in warning for warning in decide(made, CLAIM).warnings)
