"""What every model must do, whatever it is: a new line in MODELS inherits these tests (and needs one in SMALL)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from tests.trainables.configs import SMALL, small, train, values
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.engine import Engine, reference, reference_key
from vistudy.trainables.models import MODELS, config_from_dict

WILD: dict[str, dict[str, Any]] = {"em": {"relaxation": 1e6}, "finite_gan": {"reg_weight": 1e-12}}
"""What makes a trial diverge, or with exact steps collapse at once; elsewhere a learning rate of 1000."""


def wild(model: str) -> dict[str, Any]:
    return WILD.get(model) or dict.fromkeys(MODELS[model].config.lr, 1e3)


def test_every_model_is_tried():
    assert SMALL.keys() == MODELS.keys()


@pytest.mark.parametrize("model", MODELS)
def test_a_wild_trial_changes_no_bit_of_its_neighbours(model):
    healthy = [small(model, seed=s) for s in (0, 1, 2)]
    calm = train(healthy[0], small(model, seed=9), *healthy[1:])
    beside = train(healthy[0], small(model, seed=9, **wild(model)), *healthy[1:])
    for config in healthy:
        assert values(calm[config.trial_id()]) == values(beside[config.trial_id()])
    assert len(beside) == 4


@pytest.mark.parametrize("model", MODELS)
def test_a_pack_of_one_equals_a_pack_of_eight(model):
    configs = [small(model, seed=s) for s in range(8)]
    packed = train(*configs)
    for config in configs[::3]:
        (alone,) = train(config).values()
        for one, eight in zip(alone, packed[config.trial_id()], strict=True):
            assert one.values.keys() == eight.values.keys()
            for name in one.values:
                if name.endswith("param_norm"):
                    assert one.values[name] == pytest.approx(eight.values[name], rel=2e-3), name


@pytest.mark.parametrize("model", MODELS)
def test_resuming_is_bitwise_the_same(model):
    configs = [small(model, seed=s) for s in (0, 1)]
    through = [r for item in Engine(configs).evaluations() for r in item.records]
    first, records = Engine(configs), []
    for item in first.evaluations():
        records += item.records
        if item.index == 1:
            break
    second = Engine(configs)
    second.restore(first.checkpoint())
    records += [r for item in second.evaluations() for r in item.records]
    assert values(records) == values(through)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ratio", [(1, 1), (5, 5), (1, 10), (5, 2)])
def test_updates_are_counted(model, ratio):
    fields = hyperparameters(MODELS[model].config)
    steps = {name: n for name, n in zip(("d_steps", "g_steps"), ratio, strict=True) if name in fields}
    config = small(model, **steps)
    counted, _ = config.steps_of_period()
    (records,) = train(config).values()
    assert [r.step for r in records] == [
        math.ceil(config.d_updates * r.evaluation / config.evaluations / counted) * counted for r in records
    ]


@pytest.mark.parametrize("model", MODELS)
def test_seeds_and_rates_change_the_run_or_are_not_read(model):
    base = small(model)
    (records,) = train(base).values()
    changed = [small(model, seed=7), *(small(model, **{name: 3e-3}) for name in base.lr)]
    read = [config for config in changed if config.trial_id() != base.trial_id()]
    assert len(read) >= min(len(changed), 2)
    for config in read:
        (other,) = train(config).values()
        assert values(other) != values(records), config


@pytest.mark.parametrize("model", MODELS)
def test_a_configuration_survives_json_and_its_id_with_it(model):
    config = small(model, seed=3)
    again = config_from_dict(config.to_dict())
    assert again == config
    assert again.trial_id() == config.trial_id() != dataclasses.replace(config, seed=4).trial_id()


@pytest.mark.parametrize("model", MODELS)
def test_it_is_judged_on_a_scale(model):
    config = small(model)
    scale = reference(config)
    assert scale["dist_floor"] < scale["dist_ceiling"]
    assert reference_key(config) == reference_key(dataclasses.replace(config, seed=5))
