"""The AAE: (30), (33), (34) and the term of (32), each against something that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.trainables.configs import updates
from vistudy.trainables import losses
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.base import Dataset, Kind, Split
from vistudy.trainables.models import aae
from vistudy.trainables.models.aae import AaeConfig, AaePack
from vistudy.trainables.nets.architectures import Mlp, Sizes, code_discriminator_arch
from vistudy.trainables.random_streams import BLOCK, generator

CPU = torch.device("cpu")


def pack(**fields: Any) -> AaePack:
    defaults = {"width": 16, "z_dim": 3, "batch_size": 64, "optimizer": "sgd", "g_lr": 0.1, "ae_lr": 0.1, "d_lr": 0.1}
    return AaePack([AaeConfig(**(defaults | fields)).resolve()], CPU)


def logits(p: AaePack) -> tuple[float, float]:
    """D's mean logit at the prior and at codes."""
    codes = p.e(p._x(0), p.e.frozen)
    return p.d(p._z.at(0), p.d.frozen).mean().item(), p.d(codes, p.d.frozen).mean().item()


def test_equations_30_and_33_have_the_labels_of_the_paper():
    """By (30) D's logit rises on the prior and falls on codes; by (33) the encoder's step raises it on codes."""
    p = pack(d_steps=50, g_lr=1e-6)
    before = logits(p)
    p.period(diagnose=False)
    after = logits(p)
    assert after[0] > before[0] + 0.1
    assert after[1] < before[1] - 0.1
    q, x = pack(d_steps=50, g_lr=1.0, aae_loss="eq33"), None
    for step in range(50):
        q._d_step(q._x(step), diagnose=False)
    x = q._x(0)
    low = q.d(q.e(x, q.e.frozen), q.d.frozen)
    q._g_step(0, 0, x, aae.AnchorSamples(q.e, q.anchor), diagnose=False)
    assert q.d(q.e(x, q.e.frozen), q.d.frozen).mean().item() > low.mean().item() + 0.01


@pytest.mark.parametrize("loss", ["eq33", "eq34"])
def test_every_update_of_the_encoder_descends_33_or_34_with_the_term(loss):
    """The gradients of a period's updates are those of the loss written out, by autograd."""
    p = pack(aae_loss=loss, reg_weight=3.0, g_steps=2, z_use="same", **({"lambda_rec": 7.0} if loss == "eq34" else {}))
    seen, decoders = updates(p.e_optimizer), updates(p.g_optimizer)
    x = p._x(1)
    p.period(diagnose=False)
    for (flat, gradient), (decoder, _) in zip(seen, decoders, strict=True):
        codes, old = (p.e(x, p.e.views(parameters)) for parameters in (flat.requires_grad_(), seen[0][0].detach()))
        error = (p.g(codes, p.g.views(decoder)) - x).square().mean() if loss == "eq34" else 0.0
        adversarial = F.softplus(-p.d(codes, p.d.frozen)).mean()
        total = adversarial + 3.0 * (codes - old).square().mean() + 7.0 * error
        torch.testing.assert_close(gradient, torch.autograd.grad(total, flat)[0], rtol=1e-3, atol=1e-5)


def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make encoders linear: E(x) = W x + b."""

    def arch(net: str, shape: tuple[int, ...], outputs: int, s: Sizes) -> Mlp:
        return Mlp(inputs=shape[0], outputs=outputs, width=1, depth=0, norm="none", init="he", leak=0.0)

    monkeypatch.setattr(aae, "encoder_arch", arch)


@pytest.mark.parametrize("loss", ["eq33", "eq34"])
def test_gradient_of_the_term_at_step_2_in_closed_form(monkeypatch, loss):
    """Of E(x) = W x + b, by W: (2 lambda / z_dim) ((W1 - W0) E[x x'] + (b1 - b0) E[x]')."""
    linear(monkeypatch)

    def after(g_steps: int, weight: float) -> AaePack:
        p = pack(g_steps=g_steps, reg_weight=weight, z_use="same", aae_loss=loss, g_lr=0.5)
        p.period(diagnose=False)
        return p

    start, one, free, held = pack(), after(1, 5.0), after(2, 0.0), after(2, 5.0)
    x = start._x(1)[0]
    dw, db = (one.e.frozen[name][0] - start.e.frozen[name][0] for name in ("out.weight", "out.bias"))
    assert dw.norm() > 1e-3
    found = held.e.views(held.e.gradient - free.e.gradient)  # both took the same first step
    scale = 2 * 5.0 / 3
    torch.testing.assert_close(
        found["out.weight"][0], scale * (dw @ (x.T @ x) / 64 + torch.outer(db, x.mean(0))), rtol=1e-3, atol=1e-6
    )
    torch.testing.assert_close(found["out.bias"][0], scale * (dw @ x.mean(0) + db), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("start", [(0.3, 0.7), (-0.4, -0.5), (2.5, 1.0)])
def test_a_line_encoder_ends_at_the_prior(start):
    """E(x) = a x + b of x ~ N(0, 1) by (33) with the exact D(z) = q(z) / (p_old(z) + q(z)): |a| = 1, b = 0."""
    nodes = torch.special.ndtri((torch.arange(200, dtype=torch.float64) + 0.5) / 200)
    x = (nodes / nodes.square().mean().sqrt())[None]
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        old_a, old_b = theta.detach()
        z = theta[0] * x + theta[1]
        logit = -0.5 * z.square() + 0.5 * ((z - old_b) / old_a).square() + old_a.abs().log()
        (gradient,) = torch.autograd.grad(losses.generator_non_saturating(logit).sum(), theta)
        theta = (theta - 0.2 * gradient).detach().requires_grad_()
    assert theta.abs().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def gradient(loss: torch.Tensor, theta: torch.Tensor) -> list[float]:
    return torch.autograd.grad(loss.sum(), theta)[0].tolist()


def test_31_has_the_gradient_of_33_at_the_old_encoder():
    """E(x) = 1.5 x + 1 and D exact, all densities known: (31) is (33) plus KL(p || p_old), which is flat at p_old.

    It is also the gradient of KL(p || q) - 2 JSD(p, q), .761625 by the offset.
    """
    nodes = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    x, zero = nodes[None, :, None], torch.zeros(1, 1, 1, dtype=torch.float64)

    def terms(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(31) and (33) of E(x) = a x + b, with D = q / (p_old + q) at a = 1.5, b = 1."""
        a, b = theta.view(2, 1, 1, 1)
        z = a * x + b
        prior = losses.gaussian_log_density(z, zero, zero)
        logit = prior - losses.gaussian_log_density(z, zero + 1, zero + math.log(1.5**2))
        own = losses.gaussian_log_density(z, b, a.square().log())
        return (own - F.logsigmoid(-logit) - prior).mean(1), losses.generator_non_saturating(logit)

    theta = torch.tensor([1.5, 1.0], dtype=torch.float64, requires_grad=True)
    value31, value33 = (loss.item() for loss in terms(theta))
    assert value31 == pytest.approx(value33, abs=1e-9)
    gradient31, gradient33 = gradient(terms(theta)[0], theta), gradient(terms(theta)[1], theta)
    assert gradient31 == pytest.approx(gradient33, abs=1e-3)
    assert gradient33[1] == pytest.approx(0.761625, abs=1e-4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line(Dataset):
    """One Gaussian on the line, N(1, .5^2)."""

    kind: Kind = "points"  # type: ignore[misc]
    name: str = "line"
    shape: tuple[int, ...] = (1,)
    max_abs = 4.0
    fingerprint = ""

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        noise = generator(seed, "data", block).standard_normal((BLOCK, batch_size, 1), dtype=np.float32)
        return 1 + np.float32(0.5) * noise

    def real(self, n: int, split: Split) -> np.ndarray:
        raise NotImplementedError

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        return {"net": "mlp", "width": 16, "depth": 2, "z_dim": 1}


def with_the_exact_prior(weight: float, bias: float, steps: int = 300, rate: float = 0.1) -> tuple[float, float]:
    """Deviation and mean of E(x) = weight x + bias after descent on KL(p(z) || q(z)): what (31) is without a D."""
    theta = torch.tensor([0.5 * weight, weight + bias], dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        kl = losses.code_kl(theta[1].view(1, 1, 1), theta[0].square().log().view(1, 1, 1))
        step = torch.tensor(gradient(kl, theta), dtype=torch.float64)
        theta = (theta - rate * step).detach().requires_grad_()
    deviation, mean = theta.tolist()
    return deviation, mean


def test_the_arm_with_the_exact_prior_converges_as_it_must():
    """Its gradient is (s - 1/s, m): near the prior the errors shrink by 1 - 2 rate and 1 - rate a step."""
    assert with_the_exact_prior(3.0, -0.5, steps=1) == pytest.approx((1.5 - 0.1 * (1.5 - 1 / 1.5), 2.5 - 0.1 * 2.5))
    near, nearer = (with_the_exact_prior(2.002, -1.9, steps=steps) for steps in (0, 1))
    assert (nearer[0] - 1) / (near[0] - 1) == pytest.approx(0.8, abs=1e-3)
    assert nearer[1] / near[1] == pytest.approx(0.9)
    assert with_the_exact_prior(-0.4, 0.0) == pytest.approx((-1.0, 0.0), abs=1e-9)


def test_a_learnt_discriminator_ends_where_the_exact_prior_does(monkeypatch):
    """The sanity arm of (31): linear encoders of the line, by (33) and a learnt D, and by the known prior."""
    linear(monkeypatch)
    monkeypatch.setitem(DATASETS, "line", Line())
    fields: dict[str, Any] = {"data": "line", "aae_loss": "eq33", "batch_size": 256, "beta1": 0.0}
    p = AaePack([AaeConfig(g_lr=1e-2, d_lr=2e-2, seed=s, **fields).resolve() for s in range(3)], CPU)
    weight, bias = (p.e.frozen[name].flatten() for name in ("out.weight", "out.bias"))
    exact = [with_the_exact_prior(*start) for start in zip(weight.tolist(), bias.tolist(), strict=True)]
    assert {round(deviation) for deviation, _ in exact} == {-1, 1}
    for _ in range(700):
        p.period(diagnose=False)
    found = list(zip((0.5 * weight).tolist(), (weight + bias).tolist(), strict=True))
    for learnt, known in zip(found, exact, strict=True):
        assert learnt == pytest.approx(known, abs=0.1)


def test_reconstruction_by_hand():
    x, again = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    assert losses.reconstruction(x, again).tolist() == pytest.approx([14 / 6])


def moved(**fields: Any) -> dict[str, torch.Tensor]:
    """How one period of one step moves encoder and decoder."""
    p, start = pack(**fields), pack(**fields)
    p.period(diagnose=False)
    return {name: p.nets[name].flat - start.nets[name].flat for name in "eg"}


def test_lambda_rec_weighs_the_reconstruction_and_nothing_else():
    """(34) is linear in lambda_rec: G moves by it times what (33)'s decoder moves, E by its (33) and a linear part."""
    apart, none, one, two = (
        moved(aae_loss="eq33"), *(moved(aae_loss="eq34", lambda_rec=weight) for weight in (0.0, 1.0, 2.0)),
    )  # fmt: skip
    torch.testing.assert_close(apart["e"], none["e"])
    assert not none["g"].any()
    torch.testing.assert_close(one["g"], apart["g"])
    torch.testing.assert_close(two["g"], 2 * apart["g"])
    torch.testing.assert_close(two["e"] - none["e"], 2 * (one["e"] - none["e"]), rtol=1e-3, atol=1e-6)
    assert (one["e"] - none["e"]).norm() > 1e-3


def test_the_term_is_the_encoders_alone():
    """reg_weight is no lambda_rec: over two steps it holds E back, and with (33) leaves G's loss as it was."""
    free, held = (moved(g_steps=2, z_use="same", reg_weight=w, aae_loss="eq33", g_lr=0.5) for w in (0.0, 0.3))
    assert held["e"].norm() < free["e"].norm()
    p = pack(reg_weight=5.0, g_steps=2)
    assert p.anchor.flat.shape == p.e.flat.shape
    start = p.e.flat.clone()
    p.period(diagnose=False)
    assert torch.equal(p.anchor.flat, start)


def test_eq33_does_not_read_lambda_rec():
    one, other = (AaeConfig(aae_loss="eq33", lambda_rec=weight) for weight in (1.0, 2.0))
    assert one.trial_id() == other.trial_id()
    assert AaeConfig(lambda_rec=1.0).trial_id() != AaeConfig(lambda_rec=2.0).trial_id()


@pytest.mark.parametrize(("net", "width", "depth"), [("mlp", 16, 3), ("dcgan", 32, 2)])
def test_discriminator_of_codes(net, width, depth):
    arch = code_discriminator_arch(net, 5, Sizes(width=16 if net == "mlp" else 4, depth=3, norm="bn", init="he"))
    shapes = {spec.name: spec.shape for spec in arch.params}
    assert shapes["hidden0.weight"] == (width, 5)
    assert shapes["out.weight"] == (1, width)
    assert sum(name.startswith("hidden") and name.endswith("weight") for name in shapes) == depth
    assert set(arch.norms) == {f"hidden{i}" for i in range(1, depth)}


def test_samples_are_decoded_codes_of_the_prior():
    """Not reconstructions: the same z whatever the data, through the decoder alone."""
    p = pack()
    samples, running = p.evaluation_samples(50, 0)
    assert running is None
    torch.testing.assert_close(samples, p.g(p.fixed_normal("z_eval", 50, 3), p.g.frozen))


@pytest.mark.slow
def test_codes_become_the_prior():
    """ring8, z of two components: from above .3 to below .1 in Frechet distance to N(0, I)."""
    p = pack(optimizer="adam", width=64, z_dim=2, g_lr=3e-4, ae_lr=3e-4, d_lr=3e-4)
    before = p.measures(0)
    for _ in range(1500):
        p.period(diagnose=False)
    after = p.measures(1)
    assert before["code_fd"].item() > 0.3
    assert after["code_fd"].item() < 0.1
    assert after["reconstruction_mse"].item() < 0.02
