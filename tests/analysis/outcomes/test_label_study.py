"""Cached outcomes are those of the records, are never trusted where the store has changed, and readers do not write."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.series import cut, series
from tests.analysis.store import entry, make_store, train
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes import label_study as labelling
from vistudy.analysis.outcomes.histories import label_trial
from vistudy.analysis.outcomes.label_study import StudyTrials, label_study, read_trials, update_outcome_cache
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.outcomes.rules import Outcome
from vistudy.analysis.tables.trials import export, load_frame
from vistudy.study.api.doctor import doctor
from vistudy.study.api.status import status

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
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials whose records have been labelled, in order."""
    trial_ids: list[str] = []
    label_trial = labelling.label_trial

    def recorded(trial_id: str, *args: Any) -> Outcome:
        trial_ids.append(trial_id)
        return label_trial(trial_id, *args)

    monkeypatch.setattr(labelling, "label_trial", recorded)
    return trial_ids


def files_of(store: Ledger) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()}


def from_records(trials: StudyTrials, trial_id: str) -> Outcome:
    return label_trial(trial_id, trials.series[trial_id], trials.entries, trials.ends, trials.packs, Thresholds())


def test_cached_outcomes_are_those_of_the_records(store: Ledger, read: list[str]) -> None:
    for _ in range(2):
        trials = update_outcome_cache(Ledger(store.uri), "demo")
        assert trials.outcomes == {name: from_records(trials, name) for name in ("good", "wild", "endless", "blank")}
        assert trials.first_ms == 1_000
    assert sorted(read) == ["blank", "endless", "good", "wild"]  # the second time nothing was labelled
    assert trials.outcomes["endless"].q_best == math.inf
    first, again = load_frame(store, "demo"), load_frame(trials)
    pd.testing.assert_frame_equal(first, again)


def test_states_and_progress(store: Ledger) -> None:
    trials = label_study(store, "demo")
    states = {name: trials.state(name) for name in trials.entries}
    assert states == {
        "good": "complete", "wild": "complete", "endless": "complete", "broken": "failed", "live": "interrupted",
        "later": "planned", "blank": "complete",
    }  # fmt: skip
    assert trials.in_progress == {"live": labelling.InProgress(evaluations=(0, 2), unix_ms=(1_000, 1_002))}


def test_readers_change_no_file(store: Ledger, tmp_path: Path, read: list[str]) -> None:
    for cached in (False, True):
        if cached:
            update_outcome_cache(store, "demo")
        before = files_of(store)
        assert label_study(store, "demo").uncached == ({*()} if cached else {"good", "wild", "endless", "blank"})
        load_frame(store, "demo")
        status("demo", store=store.uri)
        export(store, "demo", tmp_path / "trials.csv")
        assert files_of(store) == before
    read.clear()
    update_outcome_cache(store, "demo")
    assert read == []


def test_a_cache_of_an_earlier_version_is_ignored(store: Ledger, read: list[str]) -> None:
    update_outcome_cache(store, "demo")
    folder = Path(store.uri, "studies", "demo")
    (folder / "outcome-cache.json").rename(folder / "judged.json")
    read.clear()
    load_frame(store, "demo")
    assert sorted(read) == ["blank", "endless", "good", "wild"]
    assert not any("judged.json" in finding.where for finding in doctor("demo", store=store.uri)[0])


def test_a_later_attempt_is_labelled_anew(store: Ledger, read: list[str]) -> None:
    assert update_outcome_cache(store, "demo").outcomes["good"].label == "converged"
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


def test_a_cache_of_other_rules_or_a_damaged_one_is_not_used(store: Ledger, read: list[str]) -> None:
    good = update_outcome_cache(store, "demo").outcomes
    cache = json.loads(store.read_outcome_cache("demo") or b"")
    for name in cache["trials"]:
        cache["trials"][name][2] = "oscillating"
    for broken in (
        json.dumps(cache | {"rules": "0-of-long-ago"}).encode(),
        json.dumps(cache | {"rules": "1" + cache["rules"][1:]}).encode(),  # the version before
        json.dumps(cache | {"format": 0}).encode(),
        json.dumps(cache)[:-40].encode(),
        json.dumps(cache | {"trials": {"good": [0, 1_000, "oscillating"]}}).encode(),
        json.dumps(cache).replace("oscillating", "unheard of").encode(),
        b"[]",
        b"\xff",
    ):
        store.write_outcome_cache("demo", broken)
        read.clear()
        assert label_study(store, "demo").outcomes == good
        assert sorted(read) == sorted(good)
    store.write_outcome_cache("demo", json.dumps(cache).encode())
    assert label_study(store, "demo").outcomes["good"].label == "oscillating"  # what was tried above would have shown


def test_a_store_that_cannot_be_written_is_labelled_all_the_same(
    store: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(Ledger, "write_outcome_cache", refuse)
    assert update_outcome_cache(store, "demo").outcomes["good"].label == "converged"
    assert store.read_outcome_cache("demo") is None


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
