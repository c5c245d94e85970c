"""A linear VAE is probabilistic PCA, whose likelihood is known: at the optimum of (7), and by importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.models.test_vae import DIGITS, pack, vae
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.base import Dataset, Kind, Split
from vistudy.trainables.metrics.distances.likelihood import importance_nll
from vistudy.trainables.models.vae import IW_SAMPLES, VaePack


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud(Dataset):
    """200 points of one Gaussian in six dimensions."""

    kind: Kind = "points"  # type: ignore[misc]
    name: str = "cloud"
    shape: tuple[int, ...] = (6,)
    max_abs = 10.0
    fingerprint = ""

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        raise NotImplementedError

    def real(self, n: int, split: Split) -> np.ndarray:
        rng = np.random.default_rng(0)
        return 1 + rng.standard_normal((200, 6)) * np.array([3, 2, 1, 0.7, 0.5, 0.4]) @ rng.standard_normal((6, 6))

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        return {"net": "mlp", "width": 1, "depth": 0, "z_dim": 2}


def test_a_linear_vae_is_probabilistic_pca(monkeypatch):
    """Without hidden layers, at the optimum: minus (7) is pPCA's log-likelihood, sigma^2 the mean discarded eigenvalue.

    The expectation over eps is exact: (7) is quadratic in it, and +-sqrt(2) times the unit vectors have its moments.
    Sources: Tipping and Bishop 1999; Lucas et al. 2019 (arXiv:1911.02469).
    """
    monkeypatch.setitem(DATASETS, "cloud", Cloud())
    p = pack(vae(data="cloud", sigma_learned=True, sigma=1.0))
    x = torch.from_numpy(Cloud().real(200, "reference"))
    eps = math.sqrt(2) * torch.cat((torch.eye(2), -torch.eye(2))).double()
    repeated, points = x.repeat_interleave(4, 0)[None], eps.repeat(200, 1)[None]
    flats = {name: net.flat.double().requires_grad_() for name, net in p.nets.items()}

    def negative_bound() -> torch.Tensor:
        params = {name: net.views(flats[name]) for name, net in p.nets.items()}
        nll, kl = p.terms(repeated, points, params)
        return (nll + kl).mean()

    optimizer = torch.optim.LBFGS(
        list(flats.values()), max_iter=3000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = negative_bound()
        loss.backward()
        return loss

    optimizer.step(closure)
    eigenvalues, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / 200)
    variance = eigenvalues[:4].mean()
    evidence = -0.5 * (6 * math.log(2 * math.pi) + eigenvalues[4:].log().sum() + 4 * variance.log() + 6)
    assert -negative_bound().item() == pytest.approx(evidence.item(), abs=1e-8)
    sigma = p._sigma({name: net.views(flats[name]) for name, net in p.nets.items()})
    assert (sigma**2).item() == pytest.approx(variance.item(), rel=1e-6)
    weight = p.g.views(flats["g"])["out.weight"][0].detach()
    torch.testing.assert_close(weight @ torch.linalg.pinv(weight), vectors[:, 4:] @ vectors[:, 4:].T, rtol=0, atol=1e-5)
    explained = vectors[:, 4:] @ torch.diag(eigenvalues[4:] - variance) @ vectors[:, 4:].T
    torch.testing.assert_close(weight @ weight.T, explained, rtol=1e-4, atol=1e-4)


def linear_gaussian(spread: float) -> tuple[VaePack, torch.Tensor, dict[str, Any], torch.Tensor]:
    """A linear VAE of `Cloud`: its pack, the points, its nets' parameters, and the exact log q(x) of each point.

    The decoder is W z + b with sigma .5 and orthogonal columns of W, so that the posterior's covariance is diagonal;
    the encoder is the posterior with `spread` times its standard deviations.
    """
    p = pack(vae(data="cloud", sigma_learned=True, sigma=0.5))
    x = torch.from_numpy(Cloud().real(200, "reference"))
    basis = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    weight, bias = basis * torch.tensor([3.0, 0.8], dtype=torch.float64), x.mean(0)
    scale = weight.square().sum(0) + 0.25
    project, log_variance = (weight / scale).T, (0.25 * spread**2 / scale).log()
    params = {
        "e": {
            "out.weight": torch.cat((project, torch.zeros_like(project)))[None],
            "out.bias": torch.cat((-project @ bias, log_variance))[None],
        },
        "g": {"out.weight": weight[None], "out.bias": bias[None]},
        "s": {"log_ratio": torch.zeros(1, 1, dtype=torch.float64)},
    }
    cov = weight @ weight.T + 0.25 * torch.eye(6, dtype=torch.float64)
    return p, x[None], params, torch.distributions.MultivariateNormal(bias, cov).log_prob(x)


def normals(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_weight_under_the_posterior_is_the_evidence_of_probabilistic_pca(monkeypatch):
    monkeypatch.setitem(DATASETS, "cloud", Cloud())
    p, x, params, exact = linear_gaussian(spread=1.0)
    weights = p.log_weights(x, 3 * normals(4), params)
    torch.testing.assert_close(weights, exact.expand(4, 1, 200), rtol=0, atol=1e-9)


def test_more_codes_bound_the_evidence_of_probabilistic_pca_more_closely(monkeypatch):
    """Minus (7) is above it by KL(encoder || posterior) = 3 - 2 log 2; 16 codes are closer, 8,000 are there."""
    monkeypatch.setitem(DATASETS, "cloud", Cloud())
    p, x, params, exact = linear_gaussian(spread=2.0)
    weights, evidence = p.log_weights(x, normals(8000), params), exact.mean().item()
    assert (-weights.mean()).item() == pytest.approx(3 - 2 * math.log(2) - evidence, abs=0.01)
    few = torch.stack([importance_nll(part).mean() for part in weights.split(IW_SAMPLES)]).mean().item()
    assert 0.02 < few + evidence < 0.2
    assert importance_nll(weights).mean().item() == pytest.approx(-evidence, abs=0.002)


@pytest.mark.parametrize("fields", [{}, {"norm": "bn"}, DIGITS | {"net": "mlp", "decoder": "bernoulli"}], ids=str)
def test_the_measured_likelihood_is_that_of_the_weights(fields):
    """Over all samples and each of the seed's own 16 codes; below minus the bound, which is of one code."""
    p = pack(*(vae(seed=s, sigma=0.3, **fields) for s in (0, 1)))
    p.period(diagnose=False)
    x = torch.from_numpy(p.data.real(800, "reference")).expand(2, 800, *p.data.shape)
    eps = torch.stack([p.fixed_normal("eps_iw", 800, p.config.z_dim, s) for s in range(16)])
    weights = p.log_weights(x, eps, {name: net.frozen for name, net in p.nets.items()})
    found = p.measures(0)
    torch.testing.assert_close(found["nll_iw"], importance_nll(weights).mean(1), rtol=1e-5, atol=0)
    assert (found["nll_iw"] < -found["elbo_nats"]).all()
