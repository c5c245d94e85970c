"""Which of the thousand modes of stacked MNIST the samples reach. A mode is a triple of digits, one per channel.

Source: Srivastava et al. 2017 (VEEGAN, arXiv:1705.07761); Lin et al. 2018 (PacGAN, arXiv:1712.04086): 26,000 samples,
reverse KL in nats over all bins.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.coverage.classes import CONFIDENT, require_classes
from vistudy.trainables.metrics.coverage.modes import ROBUST_SHARE
from vistudy.trainables.metrics.views import StackedView


def stacked_statistics(labels: Tensor, classes: int) -> dict[str, float]:
    """Modes with a sample, modes with a tenth of their proportional number, reverse KL in nats, of labels (N, C)."""
    n, channels = labels.shape
    k = classes**channels
    places = classes ** torch.arange(channels - 1, -1, -1)
    counts = torch.bincount((labels * places).sum(dim=1), minlength=k)
    shares = counts.double() / n
    return {
        "modes": float((counts >= 1).sum()),
        "robust_modes": float((counts >= max(1.0, ROBUST_SHARE * n / k)).sum()),
        "reverse_kl": float(torch.xlogy(shares, shares).sum()) + math.log(k),
    }


class StackedModes:
    """`cov`: robustly covered modes / all; `prec`: share of samples whose every channel is confidently a digit."""

    names: ClassVar[tuple[str, ...]] = ("cov", "prec", "modes", "robust_modes", "reverse_kl", "confident_share")

    def __init__(self, dataset: Dataset, reference: StackedView) -> None:
        self._classes = require_classes(dataset, "modes")
        self._modes = self._classes ** reference.labels.shape[1]

    def __call__(self, view: StackedView) -> dict[str, float]:
        """Statistics against equal shares; the reference sample is not needed."""
        values = stacked_statistics(view.labels, self._classes)
        confident = int((view.confidence >= CONFIDENT).sum()) / len(view.confidence)
        decisive = {"cov": values["robust_modes"] / self._modes, "prec": confident, "confident_share": confident}
        return values | decisive
