from __future__ import annotations

import random

import pytest

from study.packing import Pack, make_packs, makespan, resumable
from tests.trainables.configs import gan


def ids(packs: list[Pack]) -> list[str]:
    return sorted(config.trial_id() for pack in packs for config in pack.configs)


CONFIGS = [
    gan(seed=s, g_lr=lr, g_steps=g, norm=n)
    for s in range(5)
    for lr in (1e-4, 1e-3)
    for g in (2, 10)
    for n in ("none", "bn")
]


@pytest.mark.parametrize("slots", [1, 2, 7])
@pytest.mark.parametrize("max_trials", [1, 4, 24])
def test_every_trial_is_in_one_pack_of_its_structure(slots, max_trials):
    packs = make_packs(CONFIGS, slots=slots, max_trials=max_trials)
    assert ids(packs) == sorted(c.trial_id() for c in CONFIGS)
    assert all(len(pack.configs) <= max_trials for pack in packs)
    assert all(len({c.structure() for c in pack.configs}) == 1 for pack in packs)
    assert [pack.cost for pack in packs] == sorted((pack.cost for pack in packs), reverse=True)


def test_packing_depends_on_the_trials_alone():
    assert make_packs(CONFIGS, slots=2, max_trials=24) == make_packs(list(CONFIGS), slots=2, max_trials=24)
    assert make_packs(CONFIGS[:8], slots=2, max_trials=24) != make_packs(CONFIGS[8:16], slots=2, max_trials=24)


def test_one_structure_is_shared_among_all_slots():
    packs = make_packs([gan(seed=s) for s in range(24)], slots=2, max_trials=24)
    assert [len(pack.configs) for pack in packs] == [12, 12]


def test_makespan_by_hand():
    assert makespan([5, 4, 3, 3], slots=2) == 8
    assert makespan([5, 4, 3, 3], slots=1) == 15
    assert makespan([2], slots=9) == 2
    assert makespan([], slots=2) == 0


def test_a_begun_pack_goes_on_as_it_was_composed():
    configs = [gan(seed=s) for s in (3, 1, 2)]
    stored = {"p-1": {"trials": [c.to_dict() for c in configs], "created_ms": 1}}
    pending = {c.trial_id(): c for c in configs[1:]}
    (pack,) = resumable(stored, pending, done={configs[0].trial_id()})
    assert pack.resumed
    assert pack.configs == tuple(configs)


def test_a_pack_with_trials_that_are_not_wanted_is_left():
    configs = [gan(seed=s) for s in range(3)]
    stored = {"p-1": {"trials": [c.to_dict() for c in configs], "created_ms": 1}}
    assert resumable(stored, {configs[0].trial_id(): configs[0]}, done=set()) == []


def test_a_trial_goes_on_in_one_pack_only():
    a, b, c = (gan(seed=s) for s in range(3))
    stored = {
        "p-old": {"trials": [a.to_dict(), b.to_dict()], "created_ms": 1},
        "p-new": {"trials": [b.to_dict(), c.to_dict()], "created_ms": 2},
    }
    pending = {x.trial_id(): x for x in (a, b, c)}
    assert [pack.pack_id for pack in resumable(stored, pending, done=set())] == ["p-new"]


def test_order_of_the_plan_does_not_change_what_is_run():
    shuffled = CONFIGS[:]
    random.Random(1).shuffle(shuffled)
    assert ids(make_packs(shuffled, slots=2, max_trials=8)) == ids(make_packs(CONFIGS, slots=2, max_trials=8))
