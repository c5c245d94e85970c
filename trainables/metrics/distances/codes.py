"""Distance of an encoder's codes from the prior N(0, I), against the prior itself rather than a sample of it.

Packs with an encoder call these from `Pack.measures`. Codes are (K, n, z_dim), or (n, z_dim) for one trial; values are
float64 (K,). Trials are computed one by one on the CPU, so that values do not depend on the pack.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vistudy.trainables.metrics.distances.frechet import Moments, frechet_distance, moments
from vistudy.trainables.metrics.distances.mmd import rbf_within


def code_fd(codes: Tensor) -> Tensor:
    """Frechet distance of each trial's codes to N(0, I): |m|^2 + tr(S) + z_dim - 2 tr(S^1/2). See `code_fd_floor`."""
    prior = Moments(
        mean=torch.zeros(codes.shape[-1], dtype=torch.float64), cov=torch.eye(codes.shape[-1], dtype=torch.float64)
    )
    return torch.tensor([_fd(own, prior) for own in _each(codes)], dtype=torch.float64)


def code_fd_floor(n: int, z_dim: int) -> float:
    """Expected `code_fd` of n draws from the prior itself, to first order in 1/n: what a perfect encoder scores."""
    return z_dim / n + z_dim * (z_dim + 1) / (4 * n)


def code_mmd2(codes: Tensor) -> Tensor:
    """Unbiased MMD^2 of each trial's codes to N(0, I), Gaussian kernel of variance z_dim. Never clipped.

    Half the median squared distance of two draws from the prior is about z_dim, hence the width. The prior's side is
    integrated: E k(x, Z) = (v/(v+1))^(d/2) exp(-|x|^2/(2(v+1))) and E k(Z, Z') = (v/(v+2))^(d/2).
    """
    return torch.tensor([_mmd2(own) for own in _each(codes)], dtype=torch.float64)


def _each(codes: Tensor) -> list[Tensor]:
    if codes.dim() not in (2, 3):
        raise ValueError(f"codes are (K, n, z_dim) or (n, z_dim), got {tuple(codes.shape)}")
    packed = codes if codes.dim() == 3 else codes[None]
    # Copies, because rounding in linear algebra may depend on memory alignment, which differs along a pack.
    return [own.clone() for own in packed.detach().to("cpu", torch.float64)]


def _fd(codes: Tensor, prior: Moments) -> float:
    if not bool(codes.isfinite().all()):
        return float("nan")
    return frechet_distance(prior, moments(codes))


def _mmd2(codes: Tensor) -> float:
    dim = codes.shape[1]
    variance = float(dim)
    kernel = (codes.square().sum(dim=1) / (-2 * (variance + 1))).exp().mean()
    with_prior = math.pow(variance / (variance + 1), dim / 2) * float(kernel)
    return rbf_within(codes, variance) - 2 * with_prior + math.pow(variance / (variance + 2), dim / 2)
