"""A pack of ALI: the directions of (38) and (41) to (43), T3 and T4 of (40) in training, joint discriminators.

The terms by themselves, and the game in which D is exactly that of (39), are in `test_ali_exact.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from tests.trainables.configs import updates
from vistudy.trainables import losses
from vistudy.trainables.models import ali
from vistudy.trainables.models.ali import AliConfig, AliPack
from vistudy.trainables.nets.architectures import Mlp, Sizes, joint_discriminator_arch
from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.regularizer import AnchorSamples

CPU = torch.device("cpu")


def pack(**fields: Any) -> AliPack:
    defaults = {"width": 16, "z_dim": 3, "batch_size": 64, "optimizer": "sgd", "g_lr": 0.1, "d_lr": 0.1}
    return AliPack([AliConfig(**(defaults | fields)).resolve()], CPU)


def test_the_four_losses_by_hand():
    encoded, generated = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    enc, gen = (1 / (1 + torch.exp(-logits[0])) for logits in (encoded, generated))
    expected = {
        "eq40": -enc.log().mean() - gen.log().mean(),
        "eq41": -enc.log().mean() - gen.log().mean(),
        "eq42": enc.log().mean() + (1 - gen).log().mean(),
        "eq43": -(1 - enc).log().mean() - gen.log().mean(),
    }
    for name, loss in losses.ALI_LOSSES.items():
        assert loss(encoded, generated).item() == pytest.approx(expected[name].item(), rel=1e-5), name
    assert losses.ALI_LOSSES["eq42"](encoded, generated).item() == pytest.approx(
        -losses.discriminator(encoded, generated).item()
    )


def mean_logits(p: AliPack) -> tuple[float, float]:
    """D's mean logit at pairs of the encoder and of the generator."""
    b = p._batch("d", 0, 0)
    codes = p._codes(p.e(b.x, p.e.frozen), b.z_noise)
    x = p._samples(p.g(b.z, p.g.frozen), b.x_noise)
    return tuple(p.d(ali._pairs(*pair), p.d.frozen).mean().item() for pair in ((b.x, codes), (x, b.z)))  # type: ignore[return-value]


SIGNS = {"eq41": (1, 1), "eq42": (-1, 1), "eq43": (-1, 1)}
"""Which way a step of encoder and generator moves D's logit at pairs of the encoder, and of the generator."""


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("name", SIGNS)
def test_labels_of_38_and_directions_of_the_losses(name, stochastic):
    p = pack(ali_loss=name, stochastic=stochastic, g_lr=0.3)
    before = mean_logits(p)
    for step in range(50):
        p._d_step(p._batch("d", step, 0), diagnose=False)
    trained = mean_logits(p)
    assert trained[0] - before[0] > 0.1 > -0.1 > trained[1] - before[1]
    p._g_step(0, 0, p._batch("d", 0, 0), AnchorSamples(p.g, p.anchor), diagnose=False)
    stepped = mean_logits(p)
    for sign, now, then in zip(SIGNS[name], stepped, trained, strict=True):
        assert sign * (now - then) > 1e-3


def after(**fields: Any) -> AliPack:
    p = pack(**fields)
    p.period(diagnose=False)
    return p


@pytest.mark.parametrize("stochastic", [True, False])
def test_t4_moves_the_first_step_and_t3_does_not(stochastic):
    """At one step a period (41) with and without T3 are one program; (40) is another, in its encoder only."""
    own, with_t3, full = (
        after(ali_loss=name, reg_weight=weight, stochastic=stochastic)
        for name, weight in (("eq41", 0.0), ("eq41", 1.0), ("eq40", 1.0))
    )
    for net in "eg":
        assert torch.equal(own.nets[net].flat, with_t3.nets[net].flat)
    assert (own.e.flat - full.e.flat).norm() > 1e-3
    torch.testing.assert_close(own.g.flat, full.g.flat)  # through x both densities of T4 change alike


def test_every_update_descends_40():
    """The gradients of a period's updates of E and G are those of (40) written out, by autograd."""
    p = pack(ali_loss="eq40", reg_weight=1.5, g_steps=2, stochastic=True, z_use="same")
    of_e, of_g = updates(p.e_optimizer), updates(p.g_optimizer)
    b = p._batch("g", 0, 1)
    p.period(diagnose=False)
    starts = of_e[0][0].clone(), of_g[0][0].clone()

    def normal(moments: tuple[torch.Tensor, torch.Tensor]) -> Normal:
        return Normal(moments[0], (moments[1] / 2).exp())

    for (e, e_gradient), (g, g_gradient) in zip(of_e, of_g, strict=True):
        for flat in (e, g):
            flat.requires_grad_()
        posterior = normal(p._posterior(p.e(b.x, p.e.views(e))))
        likelihood = normal(p._likelihood(p.g(b.z, p.g.views(g))))
        codes, x = posterior.loc + posterior.scale * b.z_noise, likelihood.loc + likelihood.scale * b.x_noise
        encoded, generated = (p.d(ali._pairs(*pair), p.d.frozen) for pair in ((b.x, codes), (x, b.z)))
        now, old = (normal(p._posterior(p.e(x, p.e.views(flat)))) for flat in (e, starts[0]))
        t3 = kl_divergence(likelihood, normal(p._likelihood(p.g(b.z, p.g.views(starts[1]))))).sum(2).mean()
        t4 = (old.log_prob(b.z) - now.log_prob(b.z)).sum(2).mean()
        total = F.softplus(-encoded).mean() + F.softplus(-generated).mean() + 1.5 * t3 + t4
        for found, expected in zip((e_gradient, g_gradient), torch.autograd.grad(total, (e, g)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_gradient_of_t4_in_a_pack_is_that_of_maximum_likelihood(monkeypatch):
    """BiGAN with a linear encoder: one SGD step of (40) differs from (41)'s by -lr/s_z^2 E[(W x + b - z) x']."""

    def arch(net: str, shape: tuple[int, ...], outputs: int, s: Sizes) -> Mlp:
        return Mlp(inputs=shape[0], outputs=outputs, width=1, depth=0, norm="none", init="he", leak=0.0)

    monkeypatch.setattr(ali, "encoder_arch", arch)
    shared = {"stochastic": False, "reg_weight": 0.0}
    start = pack(**shared)
    own, full = after(ali_loss="eq41", **shared), after(ali_loss="eq40", code_sd=0.5, **shared)
    b = start._batch("g", 0, 1)
    x = start.g(b.z, start.g.frozen)[0]
    error = start.e(x[None], start.e.frozen)[0] - b.z[0]
    found = full.e.frozen["out.weight"][0] - own.e.frozen["out.weight"][0]
    torch.testing.assert_close(found, -0.1 / 0.25 * error.T @ x / 64, rtol=1e-3, atol=1e-5)


def test_gradient_of_the_term_at_step_2_in_closed_form(monkeypatch):
    """BiGAN, G(z) = W z + b: (2 lambda / d) ((W1 - W0) E[z z'] + (b1 - b0) E[z]') by W, as in the GAN."""

    def arch(net: str, shape: tuple[int, ...], z_dim: int, s: Sizes) -> Mlp:
        return Mlp(inputs=z_dim, outputs=shape[0], width=1, depth=0, norm="none", init="he", leak=0.0)

    monkeypatch.setattr(ali, "generator_arch", arch)
    shared = {"stochastic": False, "z_use": "same", "g_lr": 0.5}
    start, one = pack(**shared), after(g_steps=1, **shared)
    free, held = (after(g_steps=2, reg_weight=weight, **shared) for weight in (0.0, 5.0))
    z = start._batch("g", 0, 1).z[0]
    dw, db = (one.g.frozen[name][0] - start.g.frozen[name][0] for name in ("out.weight", "out.bias"))
    found = held.g.views(held.g.gradient - free.g.gradient)["out.weight"][0]
    expected = 2 * 5.0 / 2 * (dw @ (z.T @ z) / 64 + torch.outer(db, z.mean(0)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("data", ["ring8", "digits"])
def test_deviations_are_bounded_and_samples_are_draws(data):
    p = pack(data=data, width=4)
    b = p._batch("d", 0, 0)
    out = p.g(b.z, p.g.frozen)  # of images in [-1, 1] already
    mean, of_x = p._likelihood(out if data == "digits" else 100 * out)
    of_z = p._posterior(100 * p.e(b.x, p.e.frozen))[1]
    assert mean.shape == of_x.shape == b.x.shape
    for log_variance in (of_x, of_z):
        assert -10 <= log_variance.min() < log_variance.max() <= 2
    samples, _ = p.evaluation_samples(400, 0)
    raw, _ = p.sample(p.g, 400, 0)
    mean, log_variance = p._likelihood(raw)
    assert ((samples - mean) / (log_variance / 2).exp()).std().item() == pytest.approx(1, rel=0.05)


def test_the_papers_40_weighs_its_third_term_by_one():
    weights = {name: AliConfig(ali_loss=name).resolve().reg_weight for name in losses.ALI_LOSSES}
    assert weights == {"eq40": 1.0, "eq41": 0.0, "eq42": 0.0, "eq43": 0.0}
    assert AliConfig(ali_loss="eq40", reg_weight=0.0).resolve().reg_weight == 0.0
    assert AliConfig(code_sd=0.5).trial_id() == AliConfig().trial_id()


# Joint discriminators


def joint(net: str, norm: str, seeds: list[int]) -> PackedNet:
    sizes = Sizes(width=4 if net == "dcgan" else 16, depth=2, norm=norm, init="he")
    return PackedNet(joint_discriminator_arch(net, (1, 8, 8), 5, sizes), seeds, "discriminator", CPU)


@pytest.mark.parametrize("norm", ["none", "bn", "none_ref_nobias"])
@pytest.mark.parametrize("net", ["mlp", "dcgan"])
def test_a_pack_of_joint_discriminators_is_its_trials(net, norm):
    d, pairs = joint(net, norm, [3, 1, 4]), torch.randn(3, 7, 69)
    logits = d(pairs, d.leaves)
    assert logits.shape == (3, 7, 1)
    d.backward(logits.square().mean((1, 2)).sum())
    for i, seed in enumerate([3, 1, 4]):
        alone = joint(net, norm, [seed])
        own = alone(pairs[i : i + 1], alone.leaves)
        alone.backward(own.square().mean((1, 2)).sum())
        torch.testing.assert_close(own, logits[i : i + 1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.gradient, d.gradient[i : i + 1], rtol=1e-3, atol=1e-5)


def test_joint_dcgan_equals_plain_layers():
    d, x, z = joint("dcgan", "none", [0]), torch.randn(6, 1, 8, 8), torch.randn(6, 5)
    p = {name: view[0] for name, view in d.frozen.items()}
    h = F.leaky_relu(F.conv2d(x, p["down0.weight"], p["down0.bias"], 2, 2), 0.2)
    h = F.leaky_relu(F.conv2d(h, p["down1.weight"], p["down1.bias"], 2, 2), 0.2)
    code = F.leaky_relu(F.linear(z, p["code.weight"], p["code.bias"]), 0.2)
    h = F.leaky_relu(F.linear(torch.cat((h.flatten(1), code), 1), p["joint.weight"], p["joint.bias"]), 0.2)
    expected = F.linear(h, p["out.weight"], p["out.bias"])
    pairs = ali._pairs(x[None], z[None])
    torch.testing.assert_close(d(pairs, d.frozen)[0], expected, rtol=1e-4, atol=1e-5)
