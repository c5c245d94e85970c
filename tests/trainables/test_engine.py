"""The loop: isolation of trials, packing, resuming, counting of evaluations."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainables.configs import gan, train, values
from vistudy.trainables.engine import Engine, reference, reference_key
from vistudy.trainables.models.gan import GanConfig

NETS = [("ring8", "none"), ("ring8", "bn"), ("digits", "none"), ("digits", "bn"), ("digits", "none_ref_nobias")]


def of(data: str, norm: str, **fields: object) -> GanConfig:
    return gan(data=data, norm=norm, **({"width": 4} if data == "digits" else {}), **fields)


@pytest.mark.parametrize("rate", [1e3, 1e30])
@pytest.mark.parametrize(("data", "norm"), NETS)
def test_a_diverging_trial_changes_no_bit_of_its_neighbours(data, norm, rate):
    seeds = (0, 1, 2)
    healthy = [of(data, norm, seed=s, reg_weight=5.0) for s in seeds]
    calm = train(healthy[0], of(data, norm, seed=9, reg_weight=5.0), *healthy[1:])
    wild = of(data, norm, seed=9, reg_weight=5.0, g_lr=rate, d_lr=rate)
    beside = train(healthy[0], wild, *healthy[1:])
    for config in healthy:
        assert values(calm[config.trial_id()]) == values(beside[config.trial_id()])
    last = beside[wild.trial_id()][-1]
    if rate == 1e30:
        assert last.values["finite"] == 0.0
        assert last.evaluation == 1  # decided at the first evaluation after training began, then no more records
    else:  # NaN, or far away
        norm = calm[healthy[0].trial_id()][-1].values["d_param_norm"]
        assert not last.values["d_param_norm"] <= 1e3 * norm


@pytest.mark.parametrize(("data", "norm"), NETS)
def test_a_pack_of_one_equals_a_pack_of_eight(data, norm):
    """Over the first 20 updates, within float tolerance."""
    configs = [of(data, norm, seed=s, g_lr=lr, d_lr=lr) for s in range(4) for lr in (1e-4, 1e-3)]
    packed = train(*configs)
    for config in configs[::3]:
        (alone,) = train(config).values()
        for one, eight in zip(alone, packed[config.trial_id()], strict=True):
            for name in ("g_param_norm", "d_param_norm", "max_abs_sample"):
                assert one.values[name] == pytest.approx(eight.values[name], rel=2e-3), name
            if one.evaluation:
                for name in ("d_loss", "g_loss", "d_grad_norm"):
                    assert one.values[name] == pytest.approx(eight.values[name], rel=2e-2, abs=1e-5), name


@pytest.mark.parametrize("anchor", ["period_start", "previous_period", "lag", "ema"])
@pytest.mark.parametrize(("data", "norm"), [("ring8", "bn"), ("digits", "none")])
def test_resuming_is_bitwise_the_same(data, norm, anchor):
    configs = [of(data, norm, seed=s, anchor=anchor, reg_weight=5.0, evaluations=4) for s in (0, 1)]
    through = [r for item in Engine(configs).evaluations() for r in item.records]
    first, records = Engine(configs), []
    for item in first.evaluations():
        records += item.records
        if item.index == 2:
            break
    second = Engine(configs)
    second.restore(first.checkpoint())
    records += [r for item in second.evaluations() for r in item.records]
    assert values(records) == values(through)


def test_a_process_carries_nothing_from_pack_to_pack():
    config = gan(norm="bn")
    fresh = train(config)
    train(gan(seed=3, g_lr=1e30), gan(seed=4, g_lr=0.1))
    assert values(train(config)[config.trial_id()]) == values(fresh[config.trial_id()])


def test_denormals_are_as_before_between_evaluations():
    for _ in Engine([gan()]).evaluations():
        assert (torch.tensor(1e-40) * 1).item() > 0


def test_checkpoint_of_another_pack_is_refused():
    with pytest.raises(ValueError, match="not of this pack"):
        Engine([gan(seed=1)]).restore(Engine([gan(seed=2)]).checkpoint())


@pytest.mark.parametrize(("d_updates", "evaluations", "d_steps"), [(20, 2, 1), (21, 4, 5), (50, 50, 1), (7, 3, 2)])
def test_evaluations_are_spread_over_the_budget(d_updates, evaluations, d_steps):
    config = gan(d_updates=d_updates, evaluations=evaluations, d_steps=d_steps)
    (records,) = train(config).values()
    assert [r.evaluation for r in records] == list(range(evaluations + 1))
    for r in records:
        target = d_updates * r.evaluation / evaluations
        assert target <= r.step < target + d_steps
    assert records[0].step == 0
    assert records[-1].step == math.ceil(d_updates / d_steps) * d_steps


def test_records_hold_the_diagnostics():
    (records,) = train(gan(norm="bn", g_steps=3, reg_weight=5.0)).values()
    trained = {
        "d_loss", "g_loss", "g_grad_norm_adv", "g_grad_norm_reg", "rho", "d_grad_norm", "drift", "d_acc_real",
        "d_acc_fake",
    }  # fmt: skip
    always = {
        "dist", "cov", "prec", "dist_running", "cov_running", "prec_running", "g_param_norm", "d_param_norm",
        "max_abs_sample", "finite", "modes", "robust_modes", "mode_spread", "hq_share", "reverse_kl",
        "energy_distance",
    }  # fmt: skip
    assert set(records[0].values) == always
    assert set(records[1].values) == always | trained
    assert records[1].wall_s > records[0].wall_s > 0


def test_a_pack_in_which_all_are_decided_ends():
    configs = [gan(seed=s, g_lr=1e30, d_lr=1e30, evaluations=10) for s in (0, 1)]
    assert [item.index for item in Engine(configs).evaluations()] == [0, 1]


def test_samples_are_kept_where_asked():
    config = gan()
    kept = {item.index: item.samples for item in Engine([config], keep_samples=[2]).evaluations()}
    assert kept[0] == kept[1] == {}
    assert kept[2][config.trial_id()].shape == (2500, 2)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([gan(), gan(g_steps=3)], "structural"),
        ([gan(), gan()], "once"),
        ([GanConfig()], "resolved"),
    ],
)
def test_what_is_no_pack(configs, message):
    with pytest.raises(ValueError, match=message):
        Engine(configs)


def test_reference_depends_on_structure_not_on_training():
    a, b = gan(norm="bn"), gan(norm="bn", seed=5, g_lr=0.1, d_steps=3)
    assert reference_key(a) == reference_key(b) != reference_key(gan())
    assert reference(a) == reference(b)


@pytest.mark.gpu
@pytest.mark.parametrize(("data", "norm"), NETS)
def test_cuda_equals_cpu(data, norm):
    config = of(data, norm, reg_weight=5.0)
    on_cpu, on_gpu = (
        [r for item in Engine([config], device=device).evaluations() for r in item.records]
        for device in ("cpu", "cuda")
    )
    for a, b in zip(on_cpu, on_gpu, strict=True):
        for name in ("g_param_norm", "d_param_norm"):
            assert a.values[name] == pytest.approx(b.values[name], rel=1e-2)
