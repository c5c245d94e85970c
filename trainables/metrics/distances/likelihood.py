"""Likelihood of held-out data: Gaussians, Gaussian mixtures, and a bound by importance sampling.

Packs with a likelihood call these from `Pack.measures`. Values are in nats, float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_nll(x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """-log N(x; mean, sd^2), summed over the last dimension: (..., d) -> (...)."""
    x, mean, sd = x.double(), mean.double(), sd.double()
    return (0.5 * ((x - mean) / sd).square() + sd.log() + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def mixture_nll(points: Tensor, weights: Tensor, means: Tensor, covs: Tensor) -> Tensor:
    """Mean negative log-likelihood (K,) of (n, d) points under K Gaussian mixtures.

    Args:
        points: (n, d), held out.
        weights: (K, c), each row of sum 1. Components of weight 0 have no effect.
        means: (K, c, d).
        covs: (K, c, d, d), positive definite.

    Raises:
        torch.linalg.LinAlgError: a covariance is not positive definite.
    """
    points, weights, means, covs = (t.double() for t in (points, weights, means, covs))
    root = torch.linalg.cholesky(covs)
    centred = (points - means[..., None, :]).mT  # (K, c, d, n)
    squares = torch.linalg.solve_triangular(root, centred, upper=False).square().sum(dim=-2)
    logdet = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constant = points.shape[1] * math.log(2 * math.pi)
    logs = weights.log()[..., None] - 0.5 * (squares + (logdet + constant)[..., None])
    nll: Tensor = -logs.logsumexp(dim=-2).mean(dim=-1)
    return nll


def importance_nll(log_weights: Tensor) -> Tensor:
    """-log of the mean weight over the first dimension: (S, ...) -> (...).

    With weights q(x, z_s) / p(z_s | x) it bounds -log q(x) from above in expectation; S = 1 is the negative ELBO.
    Source: Burda et al. 2016 (arXiv:1509.00519).
    """
    return math.log(len(log_weights)) - log_weights.double().logsumexp(dim=0)
