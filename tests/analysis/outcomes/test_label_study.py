"""What is noted of outcomes is what judging gives, and is never trusted where the store has changed since."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.series import cut, series
from tests.analysis.store import entry, make_store, train
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes import label_study as judged
from vistudy.analysis.outcomes.histories import label_trial
from vistudy.analysis.outcomes.label_study import label_study
from vistudy.analysis.outcomes.rules import Outcome
from vistudy.analysis.outcomes.study_trials import StudyTrials, read_trials
from vistudy.analysis.tables.trials import load_frame

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """good and wild are complete, broken failed, live goes on, later is planned; blank is complete without a record."""
    names = ("good", "wild", "endless", "broken", "live", "later", "blank")
    ledger = make_store(tmp_path / "store", [entry(name) for name in names])
    diverged, endless = series(0.2), series(0.2)
    diverged["finite"][30] = 0.0
    endless["dist"][:] = math.inf  # infinitely bad, and known: q_best is infinite
    train(ledger, "p1", {"good": series(lambda t: np.exp(-t / 5)), "wild": cut(diverged, 30), "endless": endless})
    train(ledger, "p2", {"broken": cut(series(0.1), 3)}, state="failed")
    train(ledger, "p3", {"live": cut(series(0.1), 2)}, state=None)
    attempt = ledger.open_attempt("p3")
    assert attempt.number == 2
    ledger.finish_trial({
        "trial_id": "blank", "state": "complete", "pack_id": "p3", "attempt": 2, "wall_s": 0.0, "device": "cpu",
        "versions": {}, "error": None, "unix_ms": 7,
    })  # fmt: skip
    return ledger


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Trials whose records have been judged, in order."""
    found: list[str] = []
    judge = judged.label_trial

    def noted(trial_id: str, *args: Any) -> Any:
        found.append(trial_id)
        return judge(trial_id, *args)

    monkeypatch.setattr(judged, "label_trial", noted)
    return found


def from_records(trials: StudyTrials, trial_id: str) -> Outcome:
    return label_trial(
        trial_id, trials.series[trial_id], trials.entries, trials.ended, trials.packs, judged.Thresholds()
    )


def test_noted_outcomes_are_those_of_the_records(store: Ledger, read: list[str]) -> None:
    for _ in range(2):
        trials = read_trials(Ledger(store.uri), "demo")
        assert trials.outcomes == {name: from_records(trials, name) for name in ("good", "wild", "endless", "blank")}
        assert trials.first_ms == 1_000
    assert sorted(read) == ["blank", "endless", "good", "wild"]  # the second time nothing was judged
    assert trials.outcomes["endless"].q_best == math.inf
    first, again = load_frame(store, "demo"), load_frame(trials)
    pd.testing.assert_frame_equal(first, again)


def test_states_and_progress(store: Ledger) -> None:
    found = label_study(store, "demo")
    states = {name: found.state(name) for name in found.entries}
    assert states == {
        "good": "complete", "wild": "complete", "endless": "complete", "broken": "failed", "live": "interrupted",
        "later": "planned", "blank": "complete",
    }  # fmt: skip
    assert found.begun == {"live": judged.InProgress(evaluations=(0, 2), unix_ms=(1_000, 1_002))}


def test_a_later_attempt_is_judged_anew(store: Ledger, read: list[str]) -> None:
    assert label_study(store, "demo").outcomes["good"].label == "converged"
    attempt, worse = store.open_attempt("p1"), series(2.0)
    for i in range(51):
        values = {name: float(worse[name][i]) for name in worse if name not in ("evaluation", "step")}
        attempt.append([{"trial_id": "good", "evaluation": i, "step": 10 * i, "wall_s": 0.0, "values": values}], 5_000)
        if i == 25:
            middle = read_trials(Ledger(store.uri), "demo")
            assert middle.outcomes["good"] == from_records(middle, "good")
    outcome = store.read_outcomes(["good"])["good"]
    store.finish_trial(outcome | {"attempt": 2, "unix_ms": 9_000})
    read.clear()
    assert label_study(Ledger(store.uri), "demo").outcomes["good"].label == "stalled"
    assert "blank" not in read  # its pack has not changed


def test_a_note_of_other_rules_or_a_damaged_one_is_not_used(store: Ledger, read: list[str]) -> None:
    good = label_study(store, "demo").outcomes
    note = json.loads(store.read_judged("demo") or b"")
    for name in note["trials"]:
        note["trials"][name][2] = "oscillating"
    for broken in (
        json.dumps(note | {"rules": "0-of-long-ago"}).encode(),
        json.dumps(note | {"rules": "1" + note["rules"][1:]}).encode(),  # the version before
        json.dumps(note | {"format": 0}).encode(),
        json.dumps(note)[:-40].encode(),
        json.dumps(note | {"trials": {"good": [0, 1_000, "oscillating"]}}).encode(),
        b"[]",
        b"\xff",
    ):
        store.write_judged("demo", broken)
        read.clear()
        assert label_study(store, "demo").outcomes == good
        assert sorted(read) == sorted(good)
    store.write_judged("demo", json.dumps(note).encode())
    assert label_study(store, "demo").outcomes["good"].label == "oscillating"  # what was tried above would have shown


def test_a_store_that_cannot_be_written_is_judged_all_the_same(store: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(Ledger, "write_judged", refuse)
    assert label_study(store, "demo").outcomes["good"].label == "converged"
    assert store.read_judged("demo") is None


def test_a_pack_that_is_missing_is_named(tmp_path: Path) -> None:
    ledger = make_store(tmp_path / "store", [entry("a")])
    ledger.finish_trial({
        "trial_id": "a", "state": "complete", "pack_id": "p9", "attempt": 1, "wall_s": 0.0, "device": "cpu",
        "versions": {}, "error": None, "unix_ms": 7,
    })  # fmt: skip
    with pytest.raises(StudyError, match="trial a: its pack p9 is not in the store"):
        label_study(ledger, "demo")


def test_counting_needs_no_pandas(store: Ledger) -> None:
    code = (
        "import sys; from vistudy.study.api.status import status;"
        f"status('demo', store={store.uri!r});"
        "print([m for m in ('pandas', 'torch', 'ray', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
