"""Maximum mean discrepancy with a Gaussian kernel: a distance of features that needs no covariance.

Source: Gretton et al. 2012, "A kernel two-sample test", JMLR 13: the unbiased U-statistic (their equation 3).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.views import ImageView

ROWS = 256
"""Rows of a kernel matrix that are in memory at once."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 (N, M) of float64 (N, d) and (M, d), at least 0."""
    products = torch.addmm(y.square().sum(dim=1)[None], x, y.T, alpha=-2)
    return products.add_(x.square().sum(dim=1)[:, None]).clamp_(min=0)  # rounding may give less than 0


def rbf_sum(x: Tensor, y: Tensor, variance: float) -> float:
    """Sum over all pairs of exp(-|x_i - y_j|^2 / (2 variance))."""
    sums = [float(squared_distances(rows, y).mul_(-0.5 / variance).exp_().sum()) for rows in torch.split(x, ROWS)]
    return math.fsum(sums)


def rbf_within(x: Tensor, variance: float) -> float:
    """Mean of the kernel over the ordered pairs of two different points of x (N, d)."""
    n = len(x)
    return (rbf_sum(x, x, variance) - n) / (n * (n - 1))


def median_variance(real: Tensor, points: int = 1000) -> float:
    """The kernel's variance by the median heuristic: half the median squared distance among the first `points`.

    It is computed once, from real data only: a width that depends on the samples would make runs incomparable.

    Raises:
        ValueError: the median is 0, as half of the pairs coincide.
    """
    first = real[:points].double()
    pairs = torch.triu_indices(len(first), len(first), offset=1)
    variance = float(squared_distances(first, first)[pairs[0], pairs[1]].median()) / 2
    if not variance > 0:
        raise ValueError("the median distance of real data is 0: there is no width for the kernel")
    return variance


class Mmd:
    """`mmd2`: unbiased MMD^2 between samples and as many real images, Gaussian kernel of real data's median width."""

    names: ClassVar[tuple[str, ...]] = ("mmd2",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._real = reference.features.double()
        self._variance = median_variance(self._real)
        self._within = rbf_within(self._real, self._variance)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Discrepancy from the reference."""
        fake = view.features.double()
        between = rbf_sum(fake, self._real, self._variance) / (len(fake) * len(self._real))
        return {"mmd2": rbf_within(fake, self._variance) + self._within - 2 * between}
