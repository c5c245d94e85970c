"""What AAE and ALI must both show: the term's zero gradient, placebos, steps, packs, and that every field is read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch

from tests.trainables.configs import train, values
from vistudy.trainables.config import TrainConfig, hyperparameters
from vistudy.trainables.data import DATASETS
from vistudy.trainables.engine import Engine
from vistudy.trainables.metrics.distances.codes import code_fd_floor
from vistudy.trainables.models.aae import AaeConfig, AaePack
from vistudy.trainables.models.ali import AliConfig, AliPack
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.encoders import encoder_measures
from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.old_generator import Anchor

CPU = torch.device("cpu")
NETS = [("ring8", "bn"), ("digits", "bn"), ("digits", "none")]
VARIANTS: dict[str, tuple[type, dict[str, Any]]] = {
    "aae-eq33": (AaeConfig, {"aae_loss": "eq33"}),
    "aae-eq34": (AaeConfig, {"aae_loss": "eq34"}),
    "ali-eq40": (AliConfig, {"ali_loss": "eq40"}),
    "ali-eq43": (AliConfig, {"ali_loss": "eq43"}),
    "bigan-eq40": (AliConfig, {"ali_loss": "eq40", "stochastic": False}),
    "bigan-eq42": (AliConfig, {"ali_loss": "eq42", "stochastic": False}),
}
MAIN = ("aae-eq34", "ali-eq40", "bigan-eq42")
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def small(variant: str, **fields: Any) -> Any:
    """A resolved trial that trains in well under a second."""
    config, own = VARIANTS[variant]
    defaults = {"d_updates": 12, "evaluations": 1, "bn_recalibration_images": 2048, "batch_size": 16, "reg_weight": 5.0}
    nets = {"width": 4, "z_dim": 5} if fields.get("data") == "digits" else {"width": 16, "z_dim": 3}
    return config(**(defaults | {"g_steps": 2, "g_lr": 1e-3, "d_lr": 1e-3} | nets | own | fields)).resolve()


def pack(*configs: Any) -> Any:
    return (AaePack if isinstance(configs[0], AaeConfig) else AliPack)(configs, CPU)


def judged(p: Any) -> dict[str, Anchor]:
    """The anchor of each net that has one."""
    return {"e": p.anchor} if isinstance(p, AaePack) else {"g": p.anchor, "e": p.e_anchor}


def term_gradients(config: TrainConfig, periods: int) -> list[float]:
    """Norm of the term's gradient at each step of the judged player in the last period."""
    p, norms = pack(config), []
    inner = p._g_step

    def spy(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        out = inner(*args, **{**kwargs, "diagnose": True})
        norms.append(out["g_grad_norm_reg"].item())
        return out  # type: ignore[no-any-return]

    for _ in range(periods - 1):
        p.period(diagnose=False)
    p._g_step = spy
    p.period(diagnose=False)
    return norms


BY_ANCHOR = [("ring8", "bn", anchor) for anchor in ANCHORS] + [("ring8", "none", "period_start")]
BY_ANCHOR += [("digits", norm, anchor) for norm in ("none", "bn") for anchor in ("period_start", "previous_update")]


@pytest.mark.parametrize(("data", "norm", "anchor"), BY_ANCHOR)
@every_variant
def test_gradient_of_the_term_by_anchor(variant, data, norm, anchor):
    """Exactly zero on the first step of a period for anchors at its start, and for no other step or anchor."""
    norms = term_gradients(small(variant, data=data, norm=norm, anchor=anchor, g_steps=3), 3)
    assert (norms[0] == 0.0) == (anchor in ("period_start", "param_space"))
    assert all(norm > 0 for norm in norms[1:])


@pytest.mark.parametrize("z_use", ["same", "fresh", "pool"])
@every_variant
def test_first_step_is_zero_for_every_use_of_batches(variant, z_use):
    norms = term_gradients(small(variant, z_use=z_use, g_steps=4), 2)
    assert norms[0] == 0.0
    assert all(norm > 0 for norm in norms[1:])


@pytest.mark.parametrize(
    ("data", "norm", "batch_size"), [("ring8", "none", 10), ("ring8", "bn", 16), ("digits", "bn", 10)]
)
@every_variant
def test_placebo_is_bitwise_equal(variant, data, norm, batch_size):
    """One step of the judged player a period, anchor period_start: weights 0, 5 and 5e6 are one program."""
    shared = {"data": data, "norm": norm, "batch_size": batch_size, "g_steps": 1}
    configs = [small(variant, reg_weight=weight, **shared) for weight in (0.0, 5.0, 5e6)]
    runs = [values(records) for records in train(*configs).values()]
    assert runs[0] == runs[1] == runs[2]
    assert all(config.inert() == ("reg_weight",) for config in configs)


@every_variant
def test_the_term_is_not_inert_at_1_to_2(variant):
    runs = [values(records) for records in train(*(small(variant, reg_weight=w) for w in (0.0, 5.0))).values()]
    assert runs[0] != runs[1]


@pytest.mark.parametrize(
    ("d_steps", "g_steps", "z_use"), [(1, 1, "pool"), (5, 10, "pool"), (1, 3, "fresh"), (5, 2, "same")]
)
@every_variant
def test_steps_and_batches_are_counted(variant, d_steps, g_steps, z_use):
    """Each net takes its updates, and no two steps of a phase share a batch of x, nor two phases."""
    p = pack(small(variant, d_steps=d_steps, g_steps=g_steps, z_use=z_use))
    steps, seen = dict.fromkeys("egd", 0), []
    for name in steps:
        optimizer = getattr(p, f"{name}_optimizer")
        inner = optimizer.step

        def counted(flat: torch.Tensor, gradient: torch.Tensor, inner: Any = inner, name: str = name) -> None:
            steps[name] += 1
            inner(flat, gradient)

        optimizer.step = counted
    at = p._real.at
    p._real.at = lambda step: (seen.append(step), at(step))[1]
    for _ in range(3):
        p.period(diagnose=False)
    assert steps == {"e": 3 * g_steps, "g": 3 * g_steps, "d": 3 * d_steps}
    assert (p.d_updates, p.g_updates, p.periods) == (3 * d_steps, 3 * g_steps, 3)
    batches = {"same": 1, "fresh": g_steps, "pool": (g_steps + 1) // 2}[z_use]
    assert sorted(set(seen)) == list(range(3 * (d_steps + batches)))
    assert len(seen) == 3 * (d_steps + g_steps)


@every_variant
def test_anchors_follow_the_updates(variant):
    """previous_update: after two steps the old net is that after one."""
    once, twice = (
        pack(small(variant, anchor="previous_update", z_use="same", reg_weight=0.0, g_steps=n)) for n in (1, 2)
    )
    for p in (once, twice):
        p.period(diagnose=False)
    for name, anchor in judged(twice).items():
        assert torch.equal(anchor.flat, once.nets[name].flat)
        assert not torch.equal(anchor.flat, twice.nets[name].flat)


@every_variant
def test_anchors_are_set_at_the_start_of_a_period(variant):
    p = pack(small(variant))
    for _ in range(2):
        start = {name: net.flat.clone() for name, net in p.nets.items()}
        p.period(diagnose=False)
    for name, anchor in judged(p).items():
        assert torch.equal(anchor.flat, start[name])
        assert not torch.equal(anchor.flat, p.nets[name].flat)


@pytest.mark.parametrize("anchor", ["period_start", "lag"])
@every_variant
def test_running_statistics_are_those_of_the_training_passes(variant, anchor, monkeypatch):
    """Batch norm is always in training mode, and only passes of the player's own inputs leave a trace."""
    p, traces, inner = (
        pack(small(variant, norm="bn", d_steps=3, g_steps=2, anchor=anchor)),
        Counter(),
        PackedNet.__call__,
    )

    def spy(net: PackedNet, x: Any, params: Any, stats: Any = None, momentum: float | None = None) -> torch.Tensor:
        assert (stats is None) == (momentum is None)
        traces[next(name for name, own in p.nets.items() if own is net)] += momentum is not None
        return inner(net, x, params, stats, momentum)

    monkeypatch.setattr(PackedNet, "__call__", spy)
    p.period(diagnose=True)
    assert traces == {"e": 5, "g": 2 if isinstance(p, AaePack) else 5, "d": 0}


@pytest.mark.parametrize("norm", ["none", "bn"])
@every_variant
def test_diagnosing_does_not_change_training(variant, norm):
    quiet, loud = pack(small(variant, norm=norm, g_steps=3)), pack(small(variant, norm=norm, g_steps=3))
    for _ in range(4):
        quiet.period(diagnose=False)
        out = loud.period(diagnose=True)
    for name, net in quiet.nets.items():
        assert torch.equal(net.flat, loud.nets[name].flat)
    assert out["rho"].item() == pytest.approx((out["g_grad_norm_reg"] / out["g_grad_norm_adv"]).item())
    assert out["drift"].item() > 0
    assert {"d_loss", "d_acc_real", "d_acc_fake", "d_grad_norm", "g_loss"} <= out.keys()


@pytest.mark.parametrize(("data", "norm"), NETS)
@pytest.mark.parametrize("variant", MAIN)
def test_a_diverging_trial_changes_no_bit_of_its_neighbours(variant, data, norm):
    healthy = [small(variant, data=data, norm=norm, seed=s) for s in (0, 1)]
    calm = train(healthy[0], small(variant, data=data, norm=norm, seed=9), healthy[1])
    wild = small(variant, data=data, norm=norm, seed=9, g_lr=1e30, d_lr=1e30)
    beside = train(healthy[0], wild, healthy[1])
    for config in healthy:
        assert values(calm[config.trial_id()]) == values(beside[config.trial_id()])
    assert beside[wild.trial_id()][-1].values["finite"] == 0.0


@pytest.mark.parametrize(("data", "norm"), NETS)
@pytest.mark.parametrize("variant", MAIN)
def test_a_pack_of_one_equals_a_pack_of_six(variant, data, norm):
    """Over six updates: a deterministic game with batch norm may amplify rounding tenfold in every further one."""
    grid = [(seed, lr) for seed in range(3) for lr in (1e-4, 1e-3)]
    configs = [small(variant, data=data, norm=norm, seed=seed, g_lr=lr, d_updates=6) for seed, lr in grid]
    packed = train(*configs)
    (alone,) = train(configs[3]).values()
    for one, six in zip(alone, packed[configs[3].trial_id()], strict=True):
        for name in ("e_param_norm", "g_param_norm", "d_param_norm", "reconstruction_mse", "code_mmd2"):
            assert one.values[name] == pytest.approx(six.values[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(
    ("data", "norm", "anchor"),
    [("ring8", "bn", "lag"), ("ring8", "none", "ema"), ("ring8", "bn", "previous_period"), ("digits", "none", "ema")],
)
@pytest.mark.parametrize("variant", MAIN)
def test_resuming_is_bitwise_the_same(variant, data, norm, anchor):
    configs = [small(variant, data=data, norm=norm, anchor=anchor, seed=s, evaluations=3) for s in (0, 1)]
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


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "aae_loss": ({}, "eq33"),
    "ae_lr": ({}, 2e-3),
    "lambda_rec": ({}, 3.0),
    "ali_loss": ({"ali_loss": "eq40", "reg_weight": 5.0}, "eq42"),
    "stochastic": ({}, False),
    "code_sd": ({"ali_loss": "eq40", "stochastic": False}, 0.5),
    "reg_weight": ({}, 1.0),
    "z_use": ({"g_steps": 4}, "fresh"),
    "r1_weight": ({}, 1.0),
    "g_lr": ({}, 2e-3),
    "d_lr": ({}, 2e-3),
    "g_steps": ({}, 3),
    "d_steps": ({}, 2),
    "anchor": ({}, "previous_update"),
    "anchor_lag": ({"anchor": "lag"}, 3),
    "anchor_decay": ({"anchor": "ema"}, 0.5),
    "norm": ({}, "bn"),
    "net": ({"data": "digits", "net": "mlp", "depth": 2, "init": "he"}, "dcgan"),
    "depth": ({}, 3),
    "init": ({}, "xavier"),
    "batch_size": ({}, 8),
    "z_dim": ({}, 4),
    "precision": ({}, "bf16"),
}
FIELDS = [(v, f) for v in ("aae-eq34", "ali-eq43") for f in CHANGES if f in hyperparameters(VARIANTS[v][0])]


def test_every_field_of_their_own_is_tried():
    inherited = {"data", "seed", "d_updates", "evaluations", "optimizer", "beta1", "beta2", "width"}
    for config in (AaeConfig, AliConfig):
        assert set(hyperparameters(config)) - inherited - {"bn_recalibration_images"} <= set(CHANGES)


@pytest.mark.parametrize(("variant", "field"), FIELDS)
def test_every_field_changes_the_run(variant, field):
    context, value = CHANGES[field]
    before = small(variant, **context)
    after = dataclasses.replace(before, **{field: value}).resolve()
    assert getattr(before, field) != value
    (a,), (b,) = (train(config).values() for config in (before, after))
    assert values(a) != values(b)


def test_measures_of_codes_that_are_the_prior_and_of_perfect_reconstruction():
    """800 draws of the prior have code_fd_floor; reconstructions off by 1/2 everywhere have an error of 1/4."""
    z = torch.randn(2, 800, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0])[:, None, None]
    out = encoder_measures(
        DATASETS["ring8"], 2, CPU, lambda x, rows: (z[:, rows], x + torch.tensor([0.0, 0.5])[:, None, None])
    )
    assert out["reconstruction_mse"].tolist() == pytest.approx([0, 0.25], abs=1e-6)
    assert out["code_fd"][0].item() == pytest.approx(code_fd_floor(800, 4), rel=0.6)
    assert out["code_fd"][1].item() == pytest.approx(4, rel=0.1)  # z_dim (2 - 1)^2
    assert out["code_mmd2"][0].abs().item() < 2e-3 < out["code_mmd2"][1].item()
