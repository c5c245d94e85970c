"""Which classes the samples fall into, and how confidently, by the frozen classifier of the data."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.metrics.coverage.modes import ROBUST_SHARE
from vistudy.trainables.metrics.views import ImageView

CONFIDENT = 0.9
"""Probability from which the classification of a sample is confident."""


def class_coverage(labels: Tensor, classes: int) -> float:
    """Share of classes that have at least a tenth of their proportional number of the labels (N,)."""
    counts = torch.bincount(labels, minlength=classes)
    return int((counts >= max(1.0, ROBUST_SHARE * len(labels) / classes)).sum()) / classes


def require_classes(dataset: Dataset, metric: str) -> int:
    """Return the number of classes of a data set.

    Raises:
        DataError: the data set has no labels.
    """
    if not dataset.classes:
        raise DataError(f"{metric}: data {dataset.name!r} has no labels, and this metric is one of classes")
    return dataset.classes


class ClassCoverage:
    """`class_coverage`: robustly covered classes / all. Noise has classes too, so read it together with a precision."""

    names: ClassVar[tuple[str, ...]] = ("class_coverage",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._classes = require_classes(dataset, "class_coverage")

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Coverage of the data's classes."""
        return {"class_coverage": class_coverage(view.labels, self._classes)}


class Confidence:
    """`confident_share`: share of samples that the classifier gives a class with probability .9 or more."""

    names: ClassVar[tuple[str, ...]] = ("confident_share",)

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        require_classes(dataset, "confident_share")

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Share of confident samples. Real images do not reach 1, and some noise is classified confidently."""
        assert view.logits is not None
        best = view.logits.softmax(dim=1).max(dim=1).values
        return {"confident_share": int((best >= CONFIDENT).sum()) / len(best)}
