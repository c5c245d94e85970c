"""Frechet distance between Gaussians fitted to features: the primary distance of images.

Source: Heusel et al. 2017 (arXiv:1706.08500). Features are those of the feature space of the data, not of Inception,
so values are not comparable with published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import ImageView


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Mean (d,) and covariance (d, d) of a set of features, float64."""

    mean: Tensor
    cov: Tensor


def moments(features: Tensor) -> Moments:
    """Mean and covariance (N - 1 in the denominator) of (N, d) features."""
    wide = features.double()
    return Moments(mean=wide.mean(dim=0), cov=torch.cov(wide.T))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2).

    Eigenvalues of symmetric matrices are clipped at zero, so the distance is finite for a singular covariance, as that
    of a collapsed generator. Features that overflow are at infinite distance.
    """
    if not all(bool(moment.isfinite().all()) for moment in (a.mean, a.cov, b.mean, b.cov)):
        return math.inf
    values, vectors = torch.linalg.eigh(a.cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)


class Frechet:
    """`dist` = `fd`: Frechet distance between the features of the samples and of as many real images."""

    names: ClassVar[tuple[str, ...]] = ("dist", "fd")

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._reference = moments(reference.features)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Distance to the reference."""
        value = frechet_distance(self._reference, moments(view.features))
        return {"dist": value, "fd": value}
