"""How many classes of images the samples fall into, by the committed classifier."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from trainables.data.base import Dataset
from trainables.metrics.digits_classifier import CLASSES
from trainables.metrics.modes import ROBUST_SHARE
from trainables.metrics.views import ImageView


def class_coverage(labels: Tensor, classes: int) -> float:
    """Share of classes that at least a tenth of their fair number of the (N,) labels fall into."""
    counts = torch.bincount(labels, minlength=classes)
    return int((counts >= max(1.0, ROBUST_SHARE * len(labels) / classes)).sum()) / classes


class ClassCoverage:
    """`class_coverage`: robustly covered digits / 10. Noise has classes too: read it beside a precision."""

    names: ClassVar[tuple[str, ...]] = ("class_coverage",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        pass

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Coverage of the ten digits."""
        return {"class_coverage": class_coverage(view.labels, CLASSES)}
