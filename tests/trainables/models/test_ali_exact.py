"""What is known of ALI: T3 and T4 of (40), and the game on the line in which D is exactly that of (39)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer

NODES = torch.special.ndtri((torch.arange(48, dtype=torch.float64) + 0.5) / 48)
NODES = NODES / NODES.square().mean().sqrt()
FIRST, SECOND = (t.reshape(1, -1) for t in torch.meshgrid(NODES, NODES, indexing="ij"))
"""Nodes of a pair of independent normal numbers; means of products of two of them are exact."""


def constant(value: float) -> Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


def test_t3_against_monte_carlo():
    """KL(N(.7, .5^2) || N(.2, .8^2)) = .36063; the mean of log q - log q_old over draws of q agrees."""
    new, old = ((constant(mean), constant(2 * math.log(sd))) for mean, sd in ((0.7, 0.5), (0.2, 0.8)))
    closed = losses.gaussian_kl(*new, *old).item()
    assert closed == pytest.approx(math.log(0.8 / 0.5) + (0.25 + 0.25) / (2 * 0.64) - 0.5, abs=1e-12)
    assert closed == pytest.approx(0.36063, abs=5e-6)
    noise = torch.randn(1, 400_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = losses.code_sample(*new, noise)
    estimate = losses.gaussian_log_density(x, *new) - losses.gaussian_log_density(x, *old)
    assert estimate.mean().item() == pytest.approx(closed, abs=4 * estimate.std().item() / math.sqrt(400_000))


def test_t3_sums_components_and_averages_the_batch():
    mean, log_variance = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    old = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    every = losses.gaussian_kl(mean, log_variance, *old)
    p, q = (torch.distributions.Normal(m, (v / 2).exp()) for m, v in ((mean, log_variance), old))
    torch.testing.assert_close(every, torch.distributions.kl_divergence(p, q).sum((2, 3)).mean(1))


def test_t3_with_one_fixed_deviation_is_the_term_of_26():
    """|G - G_old|^2 / (2 s^2): lambda = 1 / (2 s^2) in the sum convention."""
    new, old = torch.randn(1, 9, 4), torch.randn(1, 9, 4)
    fixed = torch.full((1, 9, 4), 2 * math.log(0.3))
    expected = 4 * regularizer.sample_distance(new, old) / (2 * 0.3**2)
    torch.testing.assert_close(losses.gaussian_kl(new, fixed, old, fixed), expected)


def test_t3_has_no_gradient_at_the_old_generator():
    mean, log_variance = (torch.randn(2, 7, 3, requires_grad=True) for _ in range(2))
    term = losses.gaussian_kl(mean, log_variance, mean.detach(), log_variance.detach()).sum()
    for gradient in torch.autograd.grad(term, (mean, log_variance)):
        assert not gradient.any()


def test_gradient_of_t4_at_the_old_encoder():
    """E(x) = .3 x + .1, s = 1, and x = 2 z + .5 noise: .3 E[x^2] - E[x z] = -.725 by the slope, .1 by the offset."""
    theta = torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)
    z, x = FIRST[..., None], 2 * FIRST[..., None] + 0.5 * SECOND[..., None]
    old = (theta.detach()[0] * x + theta.detach()[1], constant(0.0))
    term = losses.log_density_ratio(z, theta[0] * x + theta[1], constant(0.0), *old)
    assert term.item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(term.sum(), theta)
    assert gradient.tolist() == pytest.approx([-0.725, 0.1], abs=1e-10)


def test_t4_in_the_limit_of_bigan():
    """(|z - E(x)|^2 - |z - E_old(x)|^2) / (2 s_z^2)."""
    z, new, old = (torch.randn(2, 6, 3) for _ in range(3))
    fixed = torch.full((2, 1, 1), 2 * math.log(0.7))
    expected = ((z - new).square().sum(2) - (z - old).square().sum(2)).mean(1) / (2 * 0.7**2)
    torch.testing.assert_close(losses.log_density_ratio(z, new, fixed, old, fixed), expected)


# The exact game: x ~ N(0, 1), p(z|x) = N(e x, 1 - rho^2), z ~ N(0, 1), q(x|z) = N(g z, 1 - rho^2). Match: e = g = rho.


def exact_logit(x: Tensor, z: Tensor, old: Tensor, log_variance: float) -> Tensor:
    """Logit of the D of (39) at pairs (1, B) against the old (e, g)."""

    def density(value: Tensor, mean: Tensor, log_variance: float) -> Tensor:
        return losses.gaussian_log_density(value[..., None], mean[..., None], constant(log_variance))

    zero = torch.zeros_like(x)
    posterior_old, data = density(z, old[0] * x, log_variance), density(x, zero, 0.0)
    return posterior_old + data - density(x, old[1] * z, log_variance) - density(z, zero, 0.0)


def exact_field(name: str, theta: Tensor, rho: float, terms: tuple[str, ...] = ("T3", "T4")) -> Tensor:
    """Gradient of a loss by (e, g) where D is exact at the same (e, g): gradient descent's direction, negative."""
    log_variance, s, old = math.log(1 - rho**2), math.sqrt(1 - rho**2), theta
    new = theta.clone()
    encoded, generated = (FIRST, new[0] * FIRST + s * SECOND), (new[1] * FIRST + s * SECOND, FIRST)
    loss = losses.ALI_LOSSES[name](*(exact_logit(*pairs, old, log_variance) for pairs in (encoded, generated)))
    x, z = (t[..., None] for t in generated)
    if name == "eq40" and "T3" in terms:
        loss = loss + losses.gaussian_kl(new[1] * z, constant(log_variance), old[1] * z, constant(log_variance))
    if name == "eq40" and "T4" in terms:
        means = new[0] * x, old[0] * x
        loss = loss + losses.log_density_ratio(z, means[0], constant(log_variance), means[1], constant(log_variance))
    (gradient,) = torch.autograd.grad(loss.sum(), new, create_graph=True)
    return gradient


def test_equation_39():
    x, z, old = torch.randn(1, 50, dtype=torch.float64), torch.randn(1, 50, dtype=torch.float64), (0.7, -0.4)
    p = torch.distributions.Normal(old[0] * x, 0.6).log_prob(z).exp() * torch.exp(-0.5 * x.square())
    q = torch.distributions.Normal(old[1] * z, 0.6).log_prob(x).exp() * torch.exp(-0.5 * z.square())
    logit = exact_logit(x, z, torch.tensor(old, dtype=torch.float64), 2 * math.log(0.6))
    torch.testing.assert_close(torch.sigmoid(logit), p / (p + q))


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", losses.ALI_LOSSES)
def test_eigenvalues_at_the_match(name, rho):
    """(41) has a saddle there, +-rho / sqrt(1 - rho^2); the others have 1 and rho^2 / (1 - rho^2), and are stable."""
    match = torch.tensor([rho, rho], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda theta: exact_field(name, theta, rho), match)
    saddle = rho / math.sqrt(1 - rho**2)
    expected = [-saddle, saddle] if name == "eq41" else sorted([1.0, saddle**2])
    found = torch.linalg.eigvals(jacobian)
    assert found.imag.abs().max().item() < 1e-6
    assert sorted(found.real.tolist()) == pytest.approx(expected, abs=1e-6)


def test_t4_is_what_stabilises():
    """Of (40)'s two terms T3 changes nothing at the match, and without T4 there is (41)'s saddle."""
    match = torch.tensor([0.5, 0.5], dtype=torch.float64)

    def eigenvalues(name: str, *terms: str) -> list[float]:
        jacobian = torch.autograd.functional.jacobian(lambda theta: exact_field(name, theta, 0.5, terms), match)
        return sorted(torch.linalg.eigvals(jacobian).real.tolist())

    assert eigenvalues("eq40", "T4") == pytest.approx(eigenvalues("eq40", "T3", "T4"), abs=1e-9)
    assert eigenvalues("eq40", "T3") == pytest.approx(eigenvalues("eq41"), abs=1e-9)


@pytest.mark.parametrize("start", [(0.1, 0.9), (-0.2, 0.4), (0.49, 0.51)])
@pytest.mark.parametrize("name", losses.ALI_LOSSES)
def test_gradient_descent_on_the_exact_game(name, start):
    """By (41) away from the match, to e = g = 0 or to infinity, even from beside it; by the others to it."""
    theta, farthest = torch.tensor(start, dtype=torch.float64), 0.0
    for _ in range(120):
        theta = (theta - 0.2 * exact_field(name, theta.requires_grad_(), 0.5)).detach()
        farthest = (theta - 0.5).abs().max().item()
        if farthest > 1:
            break
    assert farthest > 0.4 if name == "eq41" else farthest < 0.02
