"""Kernel distance of features (KID): MMD^2 with the kernel (<x, y>/d + 1)^3, which has no width to choose.

Source: Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv:1801.01401).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.distances.mmd import ROWS
from vistudy.trainables.metrics.views import ImageView


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """Kernel matrix (N, M) of float64 (N, d) and (M, d) features."""
    base = torch.addmm(x.new_ones(1), x, y.T, alpha=1 / x.shape[1])
    return (base * base).mul_(base)


def cubic_sum(x: Tensor, y: Tensor) -> float:
    """Sum of the kernel over all pairs."""
    return math.fsum(float(cubic(rows, y).sum()) for rows in torch.split(x, ROWS))


def cubic_within(x: Tensor) -> float:
    """Mean of the kernel over the ordered pairs of two different points."""
    n, own = len(x), (x.square().sum(dim=1) / x.shape[1] + 1) ** 3
    return (cubic_sum(x, x) - float(own.sum())) / (n * (n - 1))


def cubic_between(x: Tensor, y: Tensor) -> float:
    """Mean of the kernel over all pairs."""
    return cubic_sum(x, y) / (len(x) * len(y))


def kid_of_subsets(
    x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and sd of KID over random subsets, with torch-fidelity's defaults: how KID is published.

    Raises:
        ValueError: there are fewer than `size` features.
    """
    if min(len(x), len(y)) < size:
        raise ValueError(f"KID over subsets of {size} needs as many samples: got {len(x)} and {len(y)}")
    random = np.random.RandomState(seed)  # the generator behind published values
    chosen = [[random.choice(len(features), size, replace=False) for features in (x, y)] for _ in range(subsets)]
    of_x, of_y = (torch.from_numpy(np.stack(part)) for part in zip(*chosen, strict=True))
    x, y = x.double(), y.double()
    within_x, within_y = (_means(features, features, of, of) for features, of in ((x, of_x), (y, of_y)))
    values = (within_x + within_y - 2 * _means(x, y, of_x, of_y)).numpy()
    return float(values.mean()), float(values.std())


def _means(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
    """Mean of the kernel over the pairs of each subset of x and of y; without the diagonal, where they are one set."""
    subsets, size = of_x.shape
    # Subsets overlap: while all pairs are fewer than those of the subsets, they are computed once.
    whole = cubic(x, y) if len(x) * len(y) <= subsets * size**2 else None
    means = torch.empty(subsets, dtype=torch.float64)
    for i, (rows, columns) in enumerate(zip(of_x, of_y, strict=True)):
        kernel = cubic(x[rows], y[columns]) if whole is None else whole[rows[:, None], columns]
        if x is y:
            means[i] = (kernel.sum() - kernel.trace()) / (size * (size - 1))
        else:
            means[i] = kernel.mean()
    return means


class Kid:
    """`kid`: KID between all samples and as many real images, in the data's feature space, without subsets."""

    names: ClassVar[tuple[str, ...]] = ("kid",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._real = reference.features.double()
        self._within = cubic_within(self._real)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Distance to the reference."""
        fake = view.features.double()
        return {"kid": cubic_within(fake) + self._within - 2 * cubic_between(fake, self._real)}
