from __future__ import annotations

import math

import pytest
import torch

from vistudy.trainables import losses


def test_values_at_an_undecided_discriminator():
    zero = torch.zeros(2, 5)
    assert losses.discriminator(zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert losses.generator_non_saturating(zero).tolist() == pytest.approx([math.log(2)] * 2)
    assert losses.generator_saturating(zero).tolist() == pytest.approx([-math.log(2)] * 2)


def test_equation_16_and_20_by_hand():
    real, fake = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])

    def d(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    eq16 = -(math.log(d(2)) + math.log(d(-1))) / 2 - (math.log(1 - d(0.5)) + math.log(1 - d(3))) / 2
    assert losses.discriminator(real, fake).item() == pytest.approx(eq16, rel=1e-6)
    assert losses.generator_non_saturating(fake).item() == pytest.approx(
        -(math.log(d(0.5)) + math.log(d(3))) / 2, rel=1e-6
    )
    assert losses.generator_saturating(fake).item() == pytest.approx(
        (math.log(1 - d(0.5)) + math.log(1 - d(3))) / 2, rel=1e-6
    )


def test_extreme_logits_stay_finite():
    far = torch.tensor([[1e4, -1e4]])
    for loss in (losses.discriminator(far, far), losses.generator_non_saturating(far)):
        assert loss.isfinite().all()


def test_optimal_discriminator_of_two_gaussians_gives_2_log_2_minus_2_jsd():
    """(16) at the D of (18), N(0, 1) against N(1, 1.5^2): 1.187714 (quadrature of 2 log 2 - 2 JSD)."""
    x = torch.linspace(-12, 14, 200_001, dtype=torch.float64)
    p = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    q = torch.exp(-0.5 * ((x - 1) / 1.5) ** 2) / (1.5 * math.sqrt(2 * math.pi))
    logit, m = p.log() - q.log(), 0.5 * (p + q)
    jsd = 0.5 * torch.trapezoid(p * (p / m).log() + q * (q / m).log(), x)
    expectation = torch.trapezoid(p * torch.nn.functional.softplus(-logit) + q * torch.nn.functional.softplus(logit), x)
    assert expectation.item() == pytest.approx(2 * math.log(2) - 2 * jsd.item(), abs=1e-9)
    assert expectation.item() == pytest.approx(1.187714, abs=2e-6)


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weight():
    weight = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    x = torch.randn(2, 7, 2, requires_grad=True)
    logits = (x * weight[:, None]).sum(2)
    assert losses.r1(logits, x).tolist() == pytest.approx([25.0, 1.0])
