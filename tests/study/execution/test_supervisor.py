"""What follows when a try at a pack has ended. No Ray, no training: tries are told to the supervisor by hand."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainables.configs import gan
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.supervisor import MAX_INFRASTRUCTURE_FAILURES, MAX_STALLED_DEATHS, Supervisor
from vistudy.study.packing.packs import Pack, pack_id, resumable
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.models.gan import GanPack
from vistudy.trainables.worker import train_pack

CONFIGS = [gan(seed=s) for s in range(8)]
IDS = [config.trial_id() for config in CONFIGS]


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def stored(ledger: Ledger, configs: list[Any] = CONFIGS) -> Pack:
    ids = [config.trial_id() for config in configs]
    pack = Pack(pack_id=pack_id(ids), configs=tuple(configs), cost=1.0)
    ledger.write_pack(
        {
            "pack_id": pack.pack_id,
            "trial_ids": ids,
            "trials": [config.to_dict() for config in configs],
            "reference": {},
            "samples": [2],
            "keep_checkpoints": "final",
            "created_ms": 5,
        }
    )
    return pack


def supervisor(ledger: Ledger, *packs: Pack, now_ms: int = 100) -> tuple[Supervisor, Clock]:
    clock = Clock()
    return Supervisor(packs, ledger, clock=clock, now_ms=lambda: now_ms), clock


def train(ledger: Ledger, name: str) -> dict[str, Any]:
    return train_pack({"pack_id": name}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=0.0)


def records(ledger: Ledger) -> dict[tuple[str, int], dict[str, str]]:
    return {(r["trial_id"], r["evaluation"]): {n: v.hex() for n, v in r["values"].items()} for r in ledger.records()}


def next_due(s: Supervisor, clock: Clock) -> Pack:
    for _ in range(100):
        if (pack := s.next()) is not None:
            return pack
        clock.s += 1.0
    raise AssertionError("no pack is due within 100 s")


def outcome(trial_id: str, pack: Pack, state: str = "complete") -> dict[str, Any]:
    return {"trial_id": trial_id, "state": state, "pack_id": pack.pack_id, "attempt": 1, "unix_ms": 1, "error": None}


def play(s: Supervisor, clock: Clock, ledger: Ledger, try_: Callable[[Pack, list[TrainConfig]], Any]) -> int:
    """Run to the end: `try_` gives a result, or the text of a death. Returns the number of tries."""
    tries = 0
    while not s.finished:
        pack = next_due(s, clock)
        tries += 1
        left = [c for c in pack.configs if c.trial_id() not in ledger.finished_trials()]
        found = try_(pack, left)
        if isinstance(found, str):
            s.died(pack.pack_id, found)
            continue
        if found["status"] == "complete":
            for trial_id in {c.trial_id() for c in left} - ledger.finished_trials():
                ledger.finish_trial(outcome(trial_id, pack))
        s.ended(pack.pack_id, found)
    return tries


COMPLETE = {"status": "complete"}


def error(text: str, end: str = "error") -> dict[str, Any]:
    return {"status": end, "text": f"Traceback\n{text}", "errno": 0}


def states(ledger: Ledger) -> dict[str, str]:
    return {trial_id: found["state"] for trial_id, found in ledger.read_outcomes().items()}


def test_an_undisturbed_run_hands_out_each_pack_once_in_order(disk: Ledger) -> None:
    packs = [stored(disk, CONFIGS[:3]), stored(disk, CONFIGS[3:])]
    s, clock = supervisor(disk, *packs)
    seen: list[Pack] = []
    play(s, clock, disk, lambda pack, _: seen.append(pack) or COMPLETE)
    assert seen == packs
    assert (s.n_unfinished, s.splits, s.retries, s.fatal_error) == (0, 0, 0, None)


def test_deaths_are_retried_with_growing_delay_as_long_as_the_pack_gets_further(disk: Ledger) -> None:
    pack = stored(disk)
    s, clock = supervisor(disk, pack)
    delays = []
    for evaluation in range(8):
        began = clock.s
        assert next_due(s, clock) == pack
        delays.append(clock.s - began)
        disk.open_attempt(pack.pack_id).append(
            [{"trial_id": IDS[0], "evaluation": evaluation, "step": evaluation, "wall_s": 0.0, "values": {}}], 1
        )
        s.died(pack.pack_id, "the node is gone")
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60]
    assert disk.finished_trials() == set()


def test_a_checkpoint_between_evaluations_is_getting_further_too(disk: Ledger) -> None:
    pack = stored(disk)
    s, clock = supervisor(disk, pack)
    for saved in range(2 * MAX_STALLED_DEATHS):
        assert next_due(s, clock) == pack
        disk.open_attempt(pack.pack_id).write_heartbeat({"d_updates": 99, "saved_updates": saved})
        s.died(pack.pack_id, "the node is gone")
    assert s.splits == 0


@pytest.mark.parametrize("guilty", [[0], [7], [2, 5]])
def test_a_poisoned_pack_gives_up_its_guilty_trials_only(disk: Ledger, guilty: list[int]) -> None:
    culprits = {IDS[i] for i in guilty}
    s, clock = supervisor(disk, stored(disk))
    play(s, clock, disk, lambda _, left: "killed" if culprits & {c.trial_id() for c in left} else COMPLETE)
    assert states(disk) == {i: "failed" if i in culprits else "complete" for i in IDS}
    for trial_id in culprits:
        assert f"died {MAX_STALLED_DEATHS} times" in disk.read_outcomes()[trial_id]["error"]


def test_trials_that_ended_before_are_in_no_half(disk: Ledger) -> None:
    pack = stored(disk)
    disk.finish_trial(outcome(IDS[1], pack))
    s, clock = supervisor(disk, pack)
    seen: list[set[str]] = []

    def try_(pack: Pack, left: list[TrainConfig]) -> Any:
        seen.append({c.trial_id() for c in pack.configs})
        return error("ValueError: x") if len(seen) == 1 else COMPLETE

    play(s, clock, disk, try_)
    assert seen[1:] == [{IDS[0], IDS[2], IDS[3], IDS[4]}, {IDS[5], IDS[6], IDS[7]}]


@pytest.mark.parametrize("end", ["error", "memory"])
def test_an_error_is_followed_to_the_trial_that_makes_it(disk: Ledger, end: str) -> None:
    """As `train_pack` does it: alone in its pack, the trial fails there."""
    s, clock = supervisor(disk, stored(disk))

    def try_(pack: Pack, left: list[TrainConfig]) -> Any:
        if IDS[3] not in {c.trial_id() for c in left}:
            return COMPLETE
        if len(left) > 1:
            return error("ValueError: this one", end)
        disk.finish_trial(outcome(IDS[3], pack, "failed"))
        return COMPLETE

    tries = play(s, clock, disk, try_)
    assert states(disk) == {i: "failed" if i == IDS[3] else "complete" for i in IDS}
    assert tries == 7


def test_halves_are_stored_and_preferred_by_a_later_run_even_if_the_clock_jumped_back(disk: Ledger) -> None:
    pack = stored(disk)
    s, clock = supervisor(disk, pack, now_ms=-3_600_000)
    next_due(s, clock)
    s.ended(pack.pack_id, error("ValueError: x"))
    halves = [next_due(s, clock), next_due(s, clock)]
    pending = {config.trial_id(): config for config in CONFIGS}
    found = resumable(Ledger(disk.uri).packs(), pending, done=set())
    assert {p.pack_id for p in found} == {p.pack_id for p in halves}
    assert disk.read_pack(halves[0].pack_id)["samples"] == disk.read_pack(pack.pack_id)["samples"]


def test_a_full_store_stops_the_run_at_once_and_fails_no_trial(disk: Ledger) -> None:
    packs = [stored(disk, CONFIGS[:3]), stored(disk, CONFIGS[3:])]
    s, clock = supervisor(disk, *packs)
    next_due(s, clock)
    s.ended(packs[0].pack_id, error("OSError: no space", "store") | {"errno": errno.ENOSPC})
    assert s.finished
    assert s.n_unfinished == 2
    assert "No space left on device" in str(s.fatal_error)
    assert disk.finished_trials() == set()


def test_a_store_that_fails_now_and_then_is_tried_again_and_one_that_always_does_is_not(disk: Ledger) -> None:
    pack = stored(disk)
    s, clock = supervisor(disk, pack)
    for _ in range(MAX_INFRASTRUCTURE_FAILURES):
        assert not s.finished
        next_due(s, clock)
        s.ended(pack.pack_id, error("OSError: stale handle", "store") | {"errno": errno.ESTALE})
    assert s.finished
    assert f"store {disk.uri}: OSError: stale handle" in str(s.fatal_error)
    assert disk.finished_trials() == set()


def test_a_node_with_other_versions_stops_the_run_if_nothing_else_trains(disk: Ledger) -> None:
    packs = [stored(disk, CONFIGS[:3]), stored(disk, CONFIGS[3:])]
    s, clock = supervisor(disk, *packs)
    other = error("n7 has torch 2.0.1 (the run: 2.14.1)", "node")
    assert [next_due(s, clock), next_due(s, clock)] == packs
    for _ in range(MAX_INFRASTRUCTURE_FAILURES - 1):
        s.ended(packs[0].pack_id, other)
        assert next_due(s, clock) == packs[0]
    s.ended(packs[1].pack_id, error("", "complete"))  # elsewhere, meanwhile
    for _ in range(MAX_INFRASTRUCTURE_FAILURES - 1):
        s.ended(packs[0].pack_id, other)
        assert next_due(s, clock) == packs[0]
    assert not s.finished
    s.ended(packs[0].pack_id, other)
    assert s.finished
    assert "cluster: n7 has torch 2.0.1 (the run: 2.14.1)" in str(s.fatal_error)
    assert disk.finished_trials() == set()


def test_what_the_only_machine_lacks_stops_the_run_at_once(disk: Ledger) -> None:
    packs = [stored(disk, CONFIGS[:3]), stored(disk, CONFIGS[3:])]
    s = Supervisor(packs, disk, clock=Clock(), now_ms=lambda: 100, one_machine=True)
    assert s.next() == packs[0]
    s.ended(packs[0].pack_id, error("n7 cannot build it: model 'mine' is unknown. Add it there", "node"))
    assert s.finished
    assert s.n_unfinished == 2
    assert "cluster: n7 cannot build it: model 'mine' is unknown. Add it there. The run has stopped" in str(
        s.fatal_error
    )
    assert disk.finished_trials() == set()


def test_stopped_packs_are_left_for_the_next_run(disk: Ledger) -> None:
    packs = [stored(disk, CONFIGS[:3]), stored(disk, CONFIGS[3:])]
    s, clock = supervisor(disk, *packs)
    next_due(s, clock)
    s.stop()
    assert s.next() is None
    s.ended(packs[0].pack_id, {"status": "stopped"})
    assert s.finished
    assert s.n_unfinished == 2


def test_a_pack_that_dies_after_its_last_outcome_is_done(disk: Ledger) -> None:
    pack = stored(disk, CONFIGS[:2])
    s, clock = supervisor(disk, pack)
    next_due(s, clock)
    for trial_id in IDS[:2]:
        disk.finish_trial(outcome(trial_id, pack))
    s.died(pack.pack_id, "killed")
    assert s.finished
    assert s.n_unfinished == 0


def test_halves_keep_the_bits_of_their_trials_by_stand_ins_and_give_them_up_for_memory(tmp_path, monkeypatch):
    """Trained for real: the second half of a pack of five, of which one trial raises."""
    configs = [gan(seed=s, evaluations=4) for s in range(5)]
    whole, ledger = Ledger(tmp_path / "whole"), Ledger(tmp_path / "split")
    for each in (whole, ledger):
        each.create()
    train(whole, stored(whole, configs).pack_id)
    inner = GanPack.period

    def period(self: GanPack, *, diagnose: bool) -> Any:
        if 3 in self.seeds and self.d_updates == 7:
            raise ZeroDivisionError("seed 3")
        return inner(self, diagnose=diagnose)

    monkeypatch.setattr(GanPack, "period", period)
    s, clock = supervisor(ledger, stored(ledger, configs))
    while not s.finished:
        pack = next_due(s, clock)
        s.ended(pack.pack_id, train(ledger, pack.pack_id))
    assert [i for i, state in states(ledger).items() if state == "failed"] == [configs[3].trial_id()]
    assert "ZeroDivisionError: seed 3" in ledger.read_outcomes()[configs[3].trial_id()]["error"]
    assert {len(pack.get("slots", pack["trials"])) for pack in ledger.packs().values()} == {5}
    others = {key: bits for key, bits in records(whole).items() if key[0] != configs[3].trial_id()}
    found = {key: bits for key, bits in records(ledger).items() if key[0] != configs[3].trial_id()}
    assert found == others
    assert all(set(ledger.samples(config.trial_id())) == {2} for config in configs if config != configs[3])
    assert len(ledger.weights(configs[4].trial_id())) == len(whole.weights(configs[4].trial_id())) > 0


def test_halves_for_memory_have_fewer_slots(disk: Ledger) -> None:
    s, clock = supervisor(disk, stored(disk))
    pack = next_due(s, clock)
    s.ended(pack.pack_id, error("ValueError: x"))
    half = next_due(s, clock)
    assert len(disk.read_pack(half.pack_id)["slots"]) == 8
    s.ended(half.pack_id, error("CUDA out of memory", "memory"))
    next_due(s, clock)
    quarter = next_due(s, clock)
    assert "slots" not in disk.read_pack(quarter.pack_id)
    assert len(disk.read_pack(quarter.pack_id)["trials"]) == 2
