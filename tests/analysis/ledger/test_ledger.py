"""The ledger: nothing torn, nothing lost, nothing twice, and every damage named."""

from __future__ import annotations

import math
import multiprocessing
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.study.stored import outcome, pack, record
from vistudy.analysis.ledger.errors import StoreError, StudyBusyError
from vistudy.analysis.ledger.ledger import Ledger

# -- studies, packs, references ------------------------------------------------------------------------------------


def test_study_round_trip_and_history(store: Ledger) -> None:
    for text in ("study: ring\n", "study: ring\nseeds: [0]\n"):
        store.write_study(
            "ring", text, {"study": "ring", "hash": "x", "factors": {}, "trials": []}, {"git": {"sha": "abc"}}
        )
    assert store.study_names() == ["ring"]
    assert store.read_plan("ring")["trials"] == []
    assert store.read_meta("ring") == {"git": {"sha": "abc"}}
    assert store.read_study_text("ring") == "study: ring\nseeds: [0]\n"
    assert len(store._files.list("studies/ring/history")) == 2


def test_unknown_study_names_the_known_and_the_nearest(store: Ledger) -> None:
    store.write_study("ring-quickstart", "", {}, {})
    with pytest.raises(StoreError, match=r"Did you mean 'ring-quickstart'\?.*Studies there: ring-quickstart"):
        store.read_plan("ring-quikstart")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\\b"])
def test_names_cannot_climb_out_of_the_store(store: Ledger, name: str) -> None:
    with pytest.raises(StoreError, match="use letters, digits"):
        store.write_study(name, "", {}, {})


def test_pack_is_written_once(store: Ledger) -> None:
    store.write_pack(pack(created_ms=1))
    store.write_pack(pack(created_ms=2))
    assert store.packs()["p1"]["created_ms"] == 1
    with pytest.raises(StoreError, match=r"p1.*other trials"):
        store.write_pack(pack(trials=[{"seed": 1}]))


def test_reference_round_trip(store: Ledger) -> None:
    assert store.read_reference("ring8") is None
    store.write_reference("ring8", {"dist_floor": 0.1 + 0.2})
    assert store.read_reference("ring8") == {"dist_floor": 0.1 + 0.2}


# -- records -------------------------------------------------------------------------------------------------------


def test_values_keep_every_bit_and_non_finite_ones(store: Ledger) -> None:
    store.write_pack(pack())
    values = {"a": 0.1 + 0.2, "b": math.nan, "c": math.inf, "d": -math.inf, "e": 5e-324, "f": -0.0}
    store.open_attempt("p1").append([record(3, **values)], unix_ms=17)
    (found,) = store.records()
    assert {k: np.float64(v).tobytes() for k, v in found["values"].items()} == {
        k: np.float64(v).tobytes() for k, v in values.items()
    }
    assert (found["trial_id"], found["evaluation"], found["step"], found["wall_s"], found["unix_ms"]) == (
        "a",
        3,
        120,
        0.5,
        17,
    )


def test_an_evaluation_is_appended_once_and_alone(store: Ledger) -> None:
    store.write_pack(pack())
    attempt = store.open_attempt("p1")
    attempt.append([], 0)
    attempt.append([record(0)], 0)
    with pytest.raises(ValueError, match="one evaluation at a time"):
        attempt.append([record(0, dist=2.0)], 0)
    with pytest.raises(ValueError, match="one evaluation at a time"):
        attempt.append([record(1), record(2)], 0)
    assert [r["values"] for r in store.records()] == [{"dist": 1.0}]


def test_zombie_changes_nothing(store: Ledger) -> None:
    store.write_pack(pack())
    first, second = store.open_attempt("p1"), store.open_attempt("p1")
    assert (first.number, second.number) == (1, 2)
    second.append([record(1, dist=2.0)], 20)
    store.finish_trial(outcome(attempt=2))
    first.append([record(1, dist=1.0)], 30)  # thawed: it writes after its successor
    first.append([record(2, dist=1.0)], 31)
    store.finish_trial(outcome(attempt=1))
    assert store.read_outcomes()["a"]["attempt"] == 2
    assert [(r["evaluation"], r["values"]["dist"]) for r in store.records()] == [(1, 2.0)]


def test_newer_attempt_replaces_an_older_outcome(store: Ledger) -> None:
    store.write_pack(pack())
    store.finish_trial(outcome(attempt=1))
    store.finish_trial(outcome(attempt=2))
    assert store.read_outcomes()["a"]["attempt"] == 2


def test_failure_never_replaces_a_completed_trial(store: Ledger) -> None:
    store.write_pack(pack())
    store.finish_trial(outcome(attempt=1))
    store.finish_trial(outcome(attempt=2, state="failed"))
    assert store.read_outcomes()["a"]["state"] == "complete"


def test_forget_only_failed_trials(store: Ledger) -> None:
    store.write_pack(pack())
    store.finish_trial(outcome("a", state="failed"))
    store.finish_trial(outcome("b"))
    with pytest.raises(StoreError, match="cannot be removed: b"):
        store.discard_outcomes(["a", "b"])
    assert store.finished_trials() == {"a", "b"}
    store.discard_outcomes(["a", "never-heard-of"])
    assert store.finished_trials() == {"b"}
    assert set(store.read_outcomes(["a", "b"])) == {"b"}


def test_a_trial_in_two_packs_is_taken_from_one(store: Ledger) -> None:
    for number, pack_id in enumerate(["old", "new"]):
        store.write_pack(pack(pack_id, created_ms=number))
        store.open_attempt(pack_id).append([record(0, dist=float(number)), record(0, "b", dist=float(number))], 0)
    store._files.write("packs/new/attempt-001/records-00001.jsonl", b"")
    store._files.remove("packs/new/attempt-001/records-00001.jsonl")
    store.finish_trial(outcome("a", pack_id="old"))
    assert [(r["trial_id"], r["values"]["dist"]) for r in store.records()] == [("a", 0.0), ("b", 1.0)]
    for wanted in ("a", "b"):
        assert [r["trial_id"] for r in store.records([wanted])] == [wanted]


@given(
    segments=st.dictionaries(
        st.tuples(st.integers(1, 4), st.integers(0, 6)),  # (attempt, evaluation)
        st.dictionaries(st.sampled_from("abc"), st.floats(allow_subnormal=True), min_size=1),
        max_size=14,
    ),
    finished=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_are_merged_over_attempts(
    tmp_path: Path, segments: dict[tuple[int, int], dict[str, float]], finished: dict[str, int]
) -> None:
    store = Ledger(tmp_path / uuid.uuid4().hex)
    store.create()
    store.write_pack(pack())
    segments = {**segments, (1, 0): {**dict.fromkeys("abc", 0.5), **segments.get((1, 0), {})}}  # a pack begins with all
    attempts = [store.open_attempt("p1") for _ in range(4)]
    for (number, evaluation), trials in segments.items():
        attempts[number - 1].append([record(evaluation, t, dist=v) for t, v in trials.items()], unix_ms=number)
    for trial_id, number in finished.items():
        store.finish_trial(outcome(trial_id, attempt=number))

    expected = []
    for trial_id in "abc":
        mine = {(n, e): t[trial_id] for (n, e), t in segments.items() if trial_id in t}
        final = [e for n, e in mine if n >= finished.get(trial_id, 99)]
        for evaluation in sorted({e for _, e in mine}):
            if not final or evaluation <= max(final):
                best = max(n for n, e in mine if e == evaluation)
                expected.append((trial_id, evaluation, best, repr(mine[best, evaluation])))
    found = [(r["trial_id"], r["evaluation"], r["unix_ms"], repr(r["values"]["dist"])) for r in store.records()]
    assert found == expected
    assert [(r["trial_id"], r["evaluation"]) for r in store.records(["b"])] == [e[:2] for e in expected if e[0] == "b"]


# -- samples and checkpoints ---------------------------------------------------------------------------------------


def test_samples_of_the_highest_attempt(store: Ledger) -> None:
    store.write_pack(pack())
    for number in (1, 2):
        attempt = store.open_attempt("p1")
        attempt.append([record(0, "t1-a"), record(0, "t1-b")], 0)
        attempt.samples(50, {"t1-a": np.full((3, 2), number, np.float16), "t1-b": np.zeros((3, 2), np.float16)})
    attempt.samples(5, {"t1-a": np.full((3, 1, 8, 8), 7, np.uint8)})
    found = store.samples("t1-a")
    assert list(found) == [5, 50]
    assert found[50].dtype == np.float16
    assert np.all(found[50] == 2)
    assert found[5].shape == (3, 1, 8, 8)
    assert store.samples("unknown") == {}


def test_last_two_checkpoints_are_kept(store: Ledger) -> None:
    store.write_pack(pack())
    assert store.latest_checkpoint("p1") is None
    attempt = store.open_attempt("p1")
    for evaluation in (10, 20, 30):
        attempt.checkpoint(evaluation, b"state %d" % evaluation)
    assert [n for n in store._files.list("packs/p1/attempt-001") if "check" in n] == [
        "checkpoint-00020.pt",
        "checkpoint-00030.pt",
    ]
    assert store.latest_checkpoint("p1") == (30, b"state 30")
    store.open_attempt("p1")  # has none yet: its predecessor's are still good
    assert store.latest_checkpoint("p1") == (30, b"state 30")


def test_damaged_checkpoint_falls_back(disk: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    disk.write_pack(pack())
    attempt = disk.open_attempt("p1")
    attempt.checkpoint(10, b"ten")
    attempt.checkpoint(20, b"twenty")
    path = Path(disk.uri) / "packs/p1/attempt-001/checkpoint-00020.pt"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place])
        assert disk.latest_checkpoint("p1") == (10, b"ten")
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert disk.latest_checkpoint("p1") == (10, b"ten")
    assert "checkpoint-00020.pt" in caplog.text
    path.write_bytes(good)
    assert disk.latest_checkpoint("p1") == (20, b"twenty")


def test_progress_reads_listings_only(store: Ledger) -> None:
    for pack_id in ("p1", "p2"):
        store.write_pack(pack(pack_id))
    attempt = store.open_attempt("p1")
    for evaluation in range(3):
        attempt.append([record(evaluation)], 0)
    assert store.progress() == {"p1": 2, "p2": -1}


# -- many at once --------------------------------------------------------------------------------------------------


def test_lock_is_held_by_one(disk: Ledger) -> None:
    with disk.lock("ring", "run"):
        with (
            pytest.raises(StudyBusyError, match=r"ring is busy: run is being done by process \d+"),
            disk.lock("ring", "run"),
        ):
            pass
        with disk.lock("ring", "sync"):
            pass
    with disk.lock("ring", "run"):
        pass


def test_two_that_open_at_the_same_moment(store: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_pack(pack())
    monkeypatch.setattr(Ledger, "attempts", lambda self, pack_id: [])  # both have looked before either has written
    assert [Ledger(store.uri).open_attempt("p1").number for _ in range(3)] == [1, 2, 3]


def test_openers_get_different_attempts(store: Ledger) -> None:
    store.write_pack(pack())
    numbers: list[int] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        numbers.extend(Ledger(store.uri).open_attempt("p1").number for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == len(numbers) == 40


def _write_for_ever(uri: str, stop: Any) -> None:
    ledger, evaluation = Ledger(uri), 0
    attempt = ledger.open_attempt("p1")
    while not stop.is_set():
        attempt.append([record(evaluation, f"t{i}", dist=float(evaluation)) for i in range(50)], evaluation)
        ledger.finish_trial(outcome("t0", attempt=attempt.number))
        evaluation += 1


def test_reader_never_sees_half_a_write(disk: Ledger) -> None:
    disk.write_pack(pack())
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writers = [context.Process(target=_write_for_ever, args=(disk.uri, stop)) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        seen = 0
        while seen < 1500:
            by_evaluation: dict[int, int] = {}
            for found in disk.records([f"t{i}" for i in range(1, 50)]):
                assert found["values"]["dist"] == found["evaluation"]
                by_evaluation[found["evaluation"]] = by_evaluation.get(found["evaluation"], 0) + 1
            assert set(by_evaluation.values()) <= {49}
            seen += len(by_evaluation)
            assert disk.read_outcomes().keys() <= {"t0"}
    finally:
        stop.set()
        for writer in writers:
            writer.join(20)
    assert [writer.exitcode for writer in writers] == [0, 0]
