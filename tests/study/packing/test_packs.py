from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.configs import gan
from vistudy.study.packing.packs import Pack, PackCost, cost_key, default_cost, make_packs, makespan, resumable


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


# -- costs -------------------------------------------------------------------------------------------------------------


def test_costs_lie_on_straight_lines_between_what_was_measured():
    cost = PackCost(sizes=(1, 4, 8), period_s=(1.0, 4.0, 6.0), max_trials=64)
    assert [cost.seconds(k) for k in (1, 2, 4, 6, 8, 10)] == [1, 2, 4, 5, 6, 7]


def test_default_costs_are_overhead_and_trials():
    cost = default_cost(gan(d_steps=1, g_steps=2), most=24)
    assert cost.seconds(19) / cost.seconds(1) == pytest.approx(24 / 6)
    assert cost.best == 24


def test_measured_costs_set_the_size_of_their_structure_alone():
    trials = [gan(seed=s) for s in range(48)] + [gan(seed=s, norm="bn") for s in range(48)]
    costs = {cost_key(gan(norm="bn")): PackCost(sizes=(1, 6, 12), period_s=(1e-4, 2e-4, 8e-4), max_trials=12)}
    packs = make_packs(trials, slots=2, max_trials=24, costs=costs)
    sizes = {norm: [len(p.configs) for p in packs if p.configs[0].norm == norm] for norm in ("none", "bn")}
    assert sizes == {"none": [24, 24], "bn": [6] * 8}
    assert ids(packs) == sorted(c.trial_id() for c in trials)


def test_cost_of_a_pack_is_its_training_in_seconds():
    costs = {cost_key(gan()): PackCost(sizes=(1, 2), period_s=(1e-3, 2e-3), max_trials=2)}
    packs = make_packs([gan(seed=s, d_updates=100) for s in range(2)], slots=2, max_trials=24, costs=costs)
    assert [(len(p.configs), p.cost) for p in packs] == [(1, pytest.approx(0.1)), (1, pytest.approx(0.1))]


@pytest.mark.parametrize(
    ("trials", "slots", "expected"), [(50, 2, 4), (26, 2, 2), (10_000, 2, 418), (7, 8, 7), (25, 1, 2)]
)
def test_packs_are_balanced_over_the_slots(trials, slots, expected):
    """50 trials on two slots in packs of at most 24: three packs would leave a slot idle for half of the time."""
    packs = make_packs([gan(seed=s) for s in range(trials)], slots=slots, max_trials=24)
    sizes = [len(pack.configs) for pack in packs]
    assert len(packs) == expected
    assert max(sizes) - min(sizes) <= 1


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), slots=st.integers(1, 5), most=st.integers(1, 24))
@settings(max_examples=30, deadline=None)
def test_no_single_size_for_all_ends_sooner(sizes, slots, most):
    structures = [{"g_steps": 2}, {"g_steps": 10}, {"g_steps": 2, "norm": "bn"}, {"g_steps": 5}]
    groups = [[gan(seed=s, **more) for s in range(n)] for n, more in zip(sizes, structures, strict=False)]
    packs = make_packs([c for g in groups for c in g], slots=slots, max_trials=most)
    ends = makespan([p.cost for p in packs], slots)
    for size in range(1, most + 1):
        costs = []
        for group in groups:
            n = -(-len(group) // size)
            chunks = [(i + 1) * len(group) // n - i * len(group) // n for i in range(n)]
            periods = -(-group[0].d_updates // group[0].d_steps)
            costs += [periods * default_cost(group[0], most).seconds(k) for k in chunks]
        assert ends <= makespan(costs, slots) * (1 + 1e-12)


def test_nothing_to_pack_is_no_pack() -> None:
    assert make_packs([], slots=2, max_trials=24) == []
