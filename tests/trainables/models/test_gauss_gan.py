"""Gaussians on the line: D of (18), what it gives G, and the rates that follow near the match."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from tests.trainables.configs import values
from tests.trainables.models.exact import check_isolation, check_pack_of_one, check_resuming, outcome, train
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.engine import reference, reference_key
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.gauss_gan import GaussConfig, GaussPack, d_gradient, generated, optimal_logit, quadratic
from vistudy.trainables.random_streams import generator

CPU = torch.device("cpu")
P, Q = norm(0, 1), norm(1, 1.5)
"""Data, and what G generates at the start: a = 1.5, b = 1."""
OPTIMUM = [0.6277, -0.4444, -0.2778]


def config(**fields: Any) -> GaussConfig:
    return GaussConfig(**({"start_sd": 0.0} | fields)).resolve()


def small(**fields: Any) -> GaussConfig:
    defaults: dict[str, Any] = {"d_updates": 24, "evaluations": 4, "g_steps": 2, "d_steps": 3, "reg_weight": 0.5}
    return GaussConfig(**(defaults | {"discriminator": "learnt", "batch_size": 16} | fields)).resolve()


def start(**fields: Any) -> GaussPack:
    return GaussPack([config(**fields)], CPU)


def ab(a: float, b: float) -> torch.Tensor:
    return torch.tensor([[a, b]], dtype=torch.float64)


def integral(function: Any) -> float:
    return float(quad(function, -15, 15, epsabs=1e-12, limit=200)[0])


def test_exact_coefficients():
    found = optimal_logit(ab(1.5, 1.0), 0.0, 1.0)[0]
    assert found.tolist() == pytest.approx(OPTIMUM, abs=5e-5)
    x = torch.linspace(-3, 4, 9, dtype=torch.float64)
    for a, b, mean, sd in ((1.5, 1.0, 0.0, 1.0), (-0.3, 2.0, 1.0, 0.7)):
        expected = norm(mean, sd).logpdf(x) - norm(b, abs(a)).logpdf(x)
        logit = quadratic(optimal_logit(ab(a, b), mean, sd), x[None])[0]
        np.testing.assert_allclose(logit.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_coefficients_learnt_from_points():
    """Newton's method on the gradient that the learnt D descends, over 400,000 points of each kind."""
    rng = generator(0, "test")
    real, z = (torch.from_numpy(rng.standard_normal((1, 400_000))) for _ in range(2))
    fake, w = generated(ab(1.5, 1.0), z), torch.zeros(1, 3, dtype=torch.float64)
    for _ in range(8):
        hessian = torch.zeros(3, 3, dtype=torch.float64)
        for x in (real, fake):
            features = torch.stack((torch.ones_like(x), x, x.square()), 2)[0]
            slope = torch.sigmoid(quadratic(w, x))[0]
            hessian += (features * (slope * (1 - slope))[:, None]).T @ features / len(features)
        w -= torch.linalg.solve(hessian, d_gradient(w, real, fake)[0])
    assert d_gradient(w, real, fake).norm() < 1e-10
    assert w[0].tolist() == pytest.approx(OPTIMUM, abs=0.008)  # three standard errors


def test_a_learnt_discriminator_comes_to_the_exact_one():
    pack = start(discriminator="learnt", batch_size=512, d_steps=800, d_lr=0.1, g_lr=1e-9)
    pack.period(diagnose=False)
    assert pack.nets["d"].flat[0].tolist() == pytest.approx(OPTIMUM, abs=0.05)
    assert pack.d_updates == 800


def test_a_gradient_step_of_the_discriminator():
    """Descent on (16) over the minibatch of the step: at D = 1/2, half the difference of the features' means."""
    pack = start(discriminator="learnt", batch_size=4, g_lr=1e-9, d_lr=0.3)
    real, z = pack._real.at(0)[0].double(), pack._z_d.at(0)[0].double()
    pack.period(diagnose=False)
    fake = 1.5 * z + 1
    expected = [0.0, (real.mean() - fake.mean()) / 2, (real.square().mean() - fake.square().mean()) / 2]
    assert pack.nets["d"].flat[0].tolist() == pytest.approx([0.3 * float(v) for v in expected])


def test_loss_of_the_exact_discriminator():
    """(16) at D of (18) is 2 log 2 - 2 JSD."""
    out = start().period(diagnose=True)
    jsd = 0.5 * sum(
        integral(lambda x, r=r: r.pdf(x) * (r.logpdf(x) - math.log((P.pdf(x) + Q.pdf(x)) / 2))) for r in (P, Q)
    )
    assert out["d_loss"].item() == pytest.approx(1.187714, abs=5e-7)
    assert out["d_loss"].item() == pytest.approx(2 * math.log(2) - 2 * jsd, abs=1e-9)


def divergence(a: float, b: float) -> float:
    """KL(q||p) - 2 JSD, which is (17) for D of (18) at q = q_old, up to a constant."""
    q = norm(b, a)

    def at(x: float) -> float:
        p, old = P.pdf(x), q.pdf(x)
        log_mixture = math.log((p + old) / 2)
        gap = p * (P.logpdf(x) - log_mixture) + old * (q.logpdf(x) - log_mixture)
        return float(old * (q.logpdf(x) - P.logpdf(x)) - gap)

    return integral(at)


def test_gradient_identity():
    """At q = q_old the gradient of -E log D is that of KL(q||p) - 2 JSD: .761625 in b, for the exact D."""
    pack = start(g_lr=0.1)
    pack.period(diagnose=False)
    by_a, by_b = ((ab(1.5, 1.0) - pack.g.flat) / 0.1)[0].tolist()
    h = 1e-4
    assert by_b == pytest.approx(0.761625, abs=5e-7)
    assert by_b == pytest.approx((divergence(1.5, 1 + h) - divergence(1.5, 1 - h)) / (2 * h), abs=1e-6)
    assert by_a == pytest.approx((divergence(1.5 + h, 1) - divergence(1.5 - h, 1)) / (2 * h), abs=1e-6)


@pytest.mark.parametrize(("g_steps", "weight"), [(1, 0.0), (1, 3.0), (4, 0.0), (4, 0.4), (4, 2.0)])
@pytest.mark.parametrize("anchor", ["period_start", "param_space"])
def test_rate_near_the_match(g_steps, weight, anchor):
    """Errors of b and a are multiplied by 1 - c/2 and 1 - c: half the Fisher information, 1 and 2, times the way c.

    c = h (1 - (1 - 2 h lambda)^k) / (2 h lambda) is how far k steps of rate h under the term go for a unit gradient.
    """
    h, error = 0.2, 1e-5
    fields = {"g_lr": h, "g_steps": g_steps, "reg_weight": weight, "anchor": anchor}
    pack = start(start_a=1 + error, start_b=error, **fields)
    pack.period(diagnose=False)
    c = h * (1 - (1 - 2 * h * weight) ** g_steps) / (2 * h * weight) if weight else g_steps * h
    found = (pack.g.flat[0] - torch.tensor([1.0, 0.0])) / error
    assert found.tolist() == pytest.approx([1 - c, 1 - c / 2], abs=1e-4)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_gradient_of_the_term_by_anchor(anchor):
    """Exactly zero on the first step of a period for anchors at its start, and for no other."""
    pack, norms = start(reg_weight=2.0, g_steps=3, anchor=anchor), []
    inner = pack._g_step
    pack._g_step = lambda **_: (norms.append((out := inner(diagnose=True))["g_grad_norm_reg"].item()), out)[1]  # type: ignore[method-assign]
    for _ in range(3):
        pack.period(diagnose=False)
    assert (norms[6] == 0.0) == (anchor in ("period_start", "param_space"))
    assert all(value > 0 for value in norms[7:])


def test_the_term_and_its_gradient():
    """E (G - G_old)^2 is the squared distance of (a, b) from the anchor's: z is standard normal."""
    pack = start(reg_weight=0.7, g_steps=2, g_lr=0.1, anchor="previous_update")
    pack.period(diagnose=False)
    before, old = pack.g.flat.clone(), pack.anchor.flat.clone()
    assert not torch.equal(old, before)
    assert not torch.equal(old, ab(1.5, 1.0))  # the period had two updates
    out = pack._g_step(diagnose=True)
    assert out["g_grad_norm_reg"].item() == pytest.approx(2 * 0.7 * (before - old).norm().item())
    x = generated(before, pack._z)
    adversarial = (pack._weights * torch.log1p(torch.exp(-quadratic(pack._logit, x)))).sum()
    assert out["g_loss"].item() == pytest.approx((adversarial + 0.7 * (before - old).square().sum()).item())


def test_drift_and_samples():
    pack = start(g_steps=3)
    out = pack.period(diagnose=True)
    assert out["drift"].item() == pytest.approx((pack.g.flat - ab(1.5, 1.0)).square().sum().item())
    samples, running = pack.evaluation_samples(2, 0)
    a, b = pack.g.flat[0]
    assert running is None
    assert torch.equal(samples, torch.stack((b, a)).expand(1, 2, 2))
    pack.g.flat[0, 0] = -3.0
    assert pack.evaluation_samples(1, 0)[0][0, 0, 1] == 3.0


@pytest.mark.parametrize("discriminator", ["exact", "learnt"])
def test_diagnosing_does_not_change_training(discriminator):
    quiet, loud = (GaussPack([small(discriminator=discriminator)], CPU) for _ in range(2))
    for _ in range(5):
        assert quiet.period(diagnose=False) == {}
        assert ("d_grad_norm" in loud.period(diagnose=True)) == (discriminator == "learnt")
    assert torch.equal(quiet.g.flat, loud.g.flat)


def test_an_exact_discriminator_is_no_trained_net():
    assert list(start().nets) == ["g"]
    assert list(start(discriminator="learnt").nets) == ["g", "d"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "converged"),
        ({"discriminator": "learnt", "d_steps": 5}, "converged"),
        ({"g_lr": 2.5}, "diverged"),
        ({"g_steps": 10, "g_lr": 0.5}, "stalled"),
        ({"g_steps": 10, "g_lr": 0.5, "reg_weight": 0.5}, "converged"),
    ],
)
def test_outcomes(fields, expected):
    """Also that an overtrained generator is tamed by the term: |1 - c| is 4 without it and nearly 0 with it."""
    assert outcome(GaussConfig(d_updates=100, **fields).resolve()) == expected


@pytest.mark.parametrize("discriminator", ["exact", "learnt"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_resuming_is_bitwise_the_same(anchor, discriminator):
    check_resuming([small(seed=seed, anchor=anchor, discriminator=discriminator) for seed in (0, 1)])


@pytest.mark.parametrize("discriminator", ["exact", "learnt"])
def test_a_diverging_trial_changes_no_bit_of_its_neighbours(discriminator):
    healthy = [small(seed=s, discriminator=discriminator) for s in (0, 1, 2)]
    calm = small(seed=9, discriminator=discriminator)
    check_isolation(healthy, calm, dataclasses.replace(calm, g_lr=1e30, reg_weight=1e30))


@pytest.mark.parametrize("discriminator", ["exact", "learnt"])
def test_a_pack_of_one(discriminator):
    check_pack_of_one([small(seed=s, g_lr=lr, discriminator=discriminator) for s in (0, 1) for lr in (0.1, 0.3)])


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "seed": ({}, 1),
    "d_updates": ({}, 27),
    "evaluations": ({}, 2),
    "batch_size": ({}, 8),
    "g_lr": ({}, 0.1),
    "d_lr": ({}, 0.1),
    "d_steps": ({}, 2),
    "g_steps": ({}, 3),
    "reg_weight": ({}, 0.1),
    "anchor": ({}, "ema"),
    "anchor_lag": ({"anchor": "lag"}, 3),
    "anchor_decay": ({"anchor": "ema"}, 0.5),
    "discriminator": ({}, "exact"),
    "start_a": ({}, 1.4),
    "start_b": ({}, 1.1),
    "start_sd": ({}, 0.2),
}
ONE_VALUE = {"data", "precision"}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) | ONE_VALUE == set(hyperparameters(GaussConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    context, value = CHANGES[field]
    before = small(**context)
    (a,), (b,) = (train(c).values() for c in (before, dataclasses.replace(before, **{field: value}).resolve()))
    assert values(a) != values(b)


def test_what_an_exact_discriminator_does_not_read():
    same = {"discriminator": "exact"}
    assert small(**same, d_lr=0.7, d_steps=9, batch_size=32).trial_id() == small(**same).trial_id()
    assert small(**same, d_steps=9).steps_of_period() == (1, 2)
    assert small(**same, seed=4).trial_id() != small(**same).trial_id()
    assert small(**same, seed=4, start_sd=0.0).trial_id() == small(**same, start_sd=0.0).trial_id()
    assert small(seed=4, start_sd=0.0).trial_id() != small(start_sd=0.0).trial_id()


def test_the_ceiling_is_that_of_the_start():
    keys = {reference_key(small(**fields)) for fields in ({}, {"start_a": 2.0}, {"start_b": 2.0}, {"start_sd": 0.0})}
    assert len(keys) == 4
    assert reference_key(small()) == reference_key(small(g_lr=0.7, seed=3, g_steps=4))
    assert reference(config())["dist_ceiling"] == pytest.approx(math.hypot(1, 0.5))


def test_other_data_are_refused():
    with pytest.raises(ValueError, match=r"^data: model gauss_gan learns normal1d only, got 'digits'"):
        GaussConfig(data="digits").resolve()
