"""The GAN: known answers of the term, counts of steps, and that every hyperparameter does something."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from tests.trainables.configs import gan, train, updates, values
from vistudy.trainables import regularizer
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.gan import GanConfig, GanPack

CPU = torch.device("cpu")


def pack(*configs: GanConfig) -> GanPack:
    return GanPack(configs, CPU)


def regulariser_gradients(config: GanConfig, periods: int = 1) -> list[float]:
    """Norm of the term's gradient at each generator step of the last period."""
    p, norms = pack(config), []
    inner = p._g_step

    def spy(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        out = inner(*args, **{**kwargs, "diagnose": True})
        norms.append(out["g_grad_norm_reg"].item())
        return out

    for _ in range(periods - 1):
        p.period(diagnose=False)
    p._g_step = spy  # type: ignore[method-assign]
    p.period(diagnose=False)
    return norms


@pytest.mark.parametrize("data", ["ring8", "digits"])
@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_gradient_of_the_term_by_anchor(data, norm, anchor):
    """Exactly zero on the first step of a period for anchors at its start, and for no other step or anchor."""
    width = {"width": 4} if data == "digits" else {}
    norms = regulariser_gradients(gan(data=data, norm=norm, anchor=anchor, g_steps=3, reg_weight=5.0, **width), 3)
    assert (norms[0] == 0.0) == (anchor in ("period_start", "param_space"))
    assert all(norm > 0 for norm in norms[1:])


@pytest.mark.parametrize("z_use", ["same", "fresh", "pool"])
def test_first_step_is_zero_for_every_use_of_z(z_use):
    norms = regulariser_gradients(gan(z_use=z_use, g_steps=4, reg_weight=5.0), 2)
    assert norms[0] == 0.0
    assert all(norm > 0 for norm in norms[1:])


def test_gradient_of_the_term_on_a_linear_generator():
    """G(z) = W z: gradient of lambda mean ||(W1 - W0) z||^2 is (2 lambda / d) (W1 - W0) E[z z^T]."""
    w0, w1, z = torch.randn(3, 4), torch.randn(3, 4, requires_grad=True), torch.randn(1, 50, 4)
    term = 5.0 * regularizer.sample_distance(z @ w1.T, z @ w0.T)
    (gradient,) = torch.autograd.grad(term.sum(), w1)
    second_moment = z[0].T @ z[0] / 50
    torch.testing.assert_close(gradient, 2 * 5.0 / 3 * (w1 - w0).detach() @ second_moment, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"r1_weight": 10.0}, {"norm": "bn"}, {"g_loss": "saturating"}], ids=str)
def test_every_update_descends_16_and_26(fields):
    """The gradients of a period's updates are those of both losses written out, by autograd."""
    p = pack(gan(reg_weight=3.0, d_steps=2, g_steps=3, **fields))
    d_updates, g_updates = updates(p.d_optimizer), updates(p.g_optimizer)
    x, z_d, z_g = ([stream.at(i).clone() for i in range(2)] for stream in (p._real, p._z_d, p._z_g))
    p.period(diagnose=False)
    g_old, d_now = g_updates[0][0], p.d.flat.detach()

    def g(flat: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return p.g(z, p.g.views(flat))

    def d(flat: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        return p.d(batch, p.d.views(flat)).squeeze(2)

    for i, (flat, gradient) in enumerate(d_updates):
        flat.requires_grad_()
        real, fake = d(flat, points := x[i].requires_grad_()), d(flat, g(g_old, z_d[i]))
        (slope,) = torch.autograd.grad(real.sum(), points, create_graph=True)
        r1 = slope.flatten(2).square().sum(2).mean()
        loss = (softplus(-real) + softplus(fake)).mean() + fields.get("r1_weight", 0.0) / 2 * r1
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, flat)[0], rtol=1e-3, atol=1e-5)
    for i, (flat, gradient) in enumerate(g_updates):
        made, z = g(flat.requires_grad_(), z_g[i // 2]), z_g[i // 2]
        logits = d(d_now, made)
        adversarial = -softplus(logits).mean() if "g_loss" in fields else softplus(-logits).mean()
        loss = adversarial + 3.0 * (made - g(g_old, z)).square().mean()
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, flat)[0], rtol=1e-3, atol=1e-5)
    assert (len(d_updates), len(g_updates)) == (2, 3)


@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize(("data", "batch_size"), [("ring8", 64), ("ring8", 16), ("ring8", 10), ("digits", 10)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_placebo_is_bitwise_equal(norm, optimizer, data, batch_size):
    """Ratio 1:1 with anchor period_start: lambda 0, 5 and 5e6 are the same program, also in one pack."""
    same = {"norm": norm, "optimizer": optimizer, "data": data, "batch_size": batch_size}
    width = {"width": 4} if data == "digits" else {}
    configs = [gan(g_steps=1, reg_weight=w, **same, **width) for w in (0.0, 5.0, 5e6)]
    runs = [values(records) for records in train(*configs).values()]
    assert runs[0] == runs[1] == runs[2]
    assert all(config.inert() == ("reg_weight",) for config in configs)


def test_the_term_is_not_inert_at_1_to_2():
    configs = [gan(reg_weight=w) for w in (0.0, 5.0)]
    runs = [values(records) for records in train(*configs).values()]
    assert runs[0] != runs[1]


@pytest.mark.parametrize(("d_steps", "g_steps"), [(1, 1), (5, 5), (1, 10), (5, 2)])
def test_steps_are_counted(d_steps, g_steps):
    p = pack(gan(d_steps=d_steps, g_steps=g_steps))
    steps = {"d": 0, "g": 0}
    for name, optimizer in (("d", p.d_optimizer), ("g", p.g_optimizer)):
        inner = optimizer.step

        def counted(flat: torch.Tensor, gradient: torch.Tensor, inner: Any = inner, name: str = name) -> None:
            steps[name] += 1
            inner(flat, gradient)

        optimizer.step = counted  # type: ignore[method-assign]
    for _ in range(3):
        p.period(diagnose=False)
    assert steps == {"d": 3 * d_steps, "g": 3 * g_steps}
    assert (p.d_updates, p.g_updates) == (3 * d_steps, 3 * g_steps)


@pytest.mark.parametrize(
    ("z_use", "batches"), [("same", [0, 0, 0, 0, 0]), ("fresh", [0, 1, 2, 3, 4]), ("pool", [0, 0, 1, 1, 2])]
)
def test_z_of_the_generator_phase(z_use, batches):
    p, seen = pack(gan(z_use=z_use, g_steps=5)), []
    inner = p._z_g.at
    p._z_g.at = lambda step: (seen.append(step), inner(step))[1]  # type: ignore[method-assign]
    for _ in range(2):
        p.period(diagnose=False)
    n = max(batches) + 1
    assert seen == batches + [n + b for b in batches]


def test_diagnosing_does_not_change_training():
    quiet, loud = pack(gan(g_steps=3, reg_weight=5.0)), pack(gan(g_steps=3, reg_weight=5.0))
    for _ in range(4):
        quiet.period(diagnose=False)
        out = loud.period(diagnose=True)
    assert torch.equal(quiet.g.flat, loud.g.flat)
    assert torch.equal(quiet.d.flat, loud.d.flat)
    assert out["rho"].item() == pytest.approx((out["g_grad_norm_reg"] / out["g_grad_norm_adv"]).item())
    assert out["drift"].item() > 0


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "data": ({}, "grid25"),
    "seed": ({}, 1),
    "d_updates": ({}, 22),
    "evaluations": ({}, 4),
    "batch_size": ({}, 8),
    "g_lr": ({}, 2e-3),
    "d_lr": ({}, 2e-3),
    "optimizer": ({}, "sgd"),
    "beta1": ({}, 0.6),
    "beta2": ({}, 0.9),
    "d_steps": ({}, 2),
    "g_steps": ({}, 3),
    "g_loss": ({}, "saturating"),
    "reg_weight": ({}, 5.0),
    "anchor": ({"reg_weight": 5.0}, "previous_update"),
    "anchor_lag": ({"reg_weight": 5.0, "anchor": "lag"}, 3),
    "anchor_decay": ({"reg_weight": 5.0, "anchor": "ema"}, 0.5),
    "z_use": ({"g_steps": 4}, "fresh"),
    "r1_weight": ({}, 1.0),
    "norm": ({}, "bn"),
    "net": ({"data": "digits", "batch_size": 8}, "mlp"),
    "width": ({}, 32),
    "depth": ({}, 3),
    "init": ({}, "xavier"),
    "z_dim": ({}, 4),
    "bn_recalibration_images": ({"norm": "bn"}, 4096),
    "precision": ({}, "bf16"),
}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) == set(hyperparameters(GanConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    context, value = CHANGES[field]
    before = GanConfig(**{"d_updates": 20, "evaluations": 2, "g_steps": 2, "batch_size": 16} | context)
    after = dataclasses.replace(before, **{field: value})
    assert getattr(before, field) != value
    (a,), (b,) = (train(c.resolve()).values() for c in (before, after))
    assert values(a) != values(b)


def test_unread_fields_do_not_make_another_trial():
    assert gan(anchor_lag=7).trial_id() == gan().trial_id()
    assert gan(anchor="lag", anchor_lag=7).trial_id() != gan(anchor="lag").trial_id()


def test_a_config_survives_json():
    config = gan(norm="bn")
    assert GanConfig.from_dict(config.to_dict()) == config
    with pytest.raises(TypeError, match="g_lrr"):
        GanConfig.from_dict(config.to_dict() | {"g_lrr": 1.0})
