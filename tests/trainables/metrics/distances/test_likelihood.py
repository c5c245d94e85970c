from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from vistudy.trainables.data.gaussians import MOG_FULL
from vistudy.trainables.metrics.distances.likelihood import gaussian_nll, importance_nll, mixture_nll


def test_a_gaussian_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, mean, sd = rng.standard_normal((3, 4)), rng.standard_normal(4), rng.uniform(0.1, 2, 4)
    expected = -scipy.stats.norm(mean, sd).logpdf(x).sum(axis=1)
    ours = gaussian_nll(torch.from_numpy(x), torch.from_numpy(mean), torch.from_numpy(sd))
    assert ours.numpy() == pytest.approx(expected, abs=1e-10)
    by_one_sd = gaussian_nll(torch.from_numpy(x), torch.from_numpy(mean), torch.tensor(0.7))
    assert by_one_sd.numpy() == pytest.approx(-scipy.stats.norm(mean, 0.7).logpdf(x).sum(axis=1), abs=1e-6)


def test_a_gaussians_own_nll_is_its_entropy() -> None:
    x = 2 * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    mean = float(gaussian_nll(x, torch.zeros(3), torch.tensor(2.0)).mean())
    assert mean == pytest.approx(1.5 * math.log(2 * math.pi * math.e * 4), abs=0.012)  # 4 sd


def mixture(seed: int, components: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((components, dim, dim))
    covs = roots @ roots.transpose(0, 2, 1) + 0.2 * np.eye(dim)
    return rng.dirichlet(np.ones(components)), 3 * rng.standard_normal((components, dim)), covs


def test_mixtures_are_scikit_learns_each_by_itself() -> None:
    sklearn = pytest.importorskip("sklearn.mixture")
    points = np.random.default_rng(0).standard_normal((200, 3))
    parameters = [mixture(seed, 4, 3) for seed in range(3)]
    expected = []
    for weights, means, covs in parameters:
        model = sklearn.GaussianMixture(4)
        model.weights_, model.means_, model.covariances_ = weights, means, covs
        model.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(covs))
        expected.append(-model.score(points))
    packed = (torch.from_numpy(np.stack(part)) for part in zip(*parameters, strict=True))
    assert mixture_nll(torch.from_numpy(points), *packed).numpy() == pytest.approx(np.array(expected), abs=1e-9)


def test_a_component_without_weight_counts_for_nothing() -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    weights, means, covs = (torch.from_numpy(part)[None] for part in mixture(0, 2, 2))
    more = (
        torch.cat([weights, torch.zeros(1, 1)], dim=1),
        torch.cat([means, means[:, :1]], 1),
        torch.cat([covs, covs[:, :1]], 1),
    )
    assert mixture_nll(points, *more) == pytest.approx(mixture_nll(points, weights, means, covs), abs=1e-12)


def test_data_of_a_known_mixture_have_its_density() -> None:
    points = MOG_FULL.real(500, "held_out")
    parts = (
        torch.from_numpy(np.asarray(part))[None] for part in (MOG_FULL.weights, MOG_FULL.means, MOG_FULL.covariances)
    )
    ours = mixture_nll(torch.from_numpy(points), *parts)
    assert float(ours) == pytest.approx(-MOG_FULL.log_density(points).mean(), abs=1e-9)


def test_a_singular_covariance_is_an_error_not_a_number() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        mixture_nll(torch.zeros(3, 2), torch.ones(1, 1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, 2))


def test_importance_sampling_with_the_posterior_is_exact_and_otherwise_bounds_from_above() -> None:
    # z ~ N(0, 1), x | z ~ N(z, 1): x ~ N(0, 2), and the posterior is N(x/2, 1/2).
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([0.3, -1.7, 2.5], dtype=torch.float64)
    exact = 0.5 * torch.log(torch.tensor(4 * math.pi)) + x.square() / 4

    def estimate(mean: torch.Tensor, sd: float, samples: int) -> torch.Tensor:
        z = mean + sd * torch.randn(samples, 3, generator=generator, dtype=torch.float64)
        log_joint = -gaussian_nll(x[:, None], z[..., None], torch.ones(1)) - gaussian_nll(
            z[..., None], torch.zeros(1), torch.ones(1)
        )
        log_proposal = -gaussian_nll(z[..., None], mean[:, None], torch.tensor(sd))
        return importance_nll(log_joint - log_proposal)

    assert torch.allclose(estimate(x / 2, math.sqrt(0.5), 4), exact, atol=1e-6)
    elbo, few, many = (
        torch.stack([estimate(torch.zeros(3), 1.0, samples) for _ in range(300)]).mean(0) for samples in (1, 10, 300)
    )
    assert bool((elbo > few).all() and (few > many).all())
    assert torch.allclose(many, exact, atol=0.05)
