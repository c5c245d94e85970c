"""Toys whose sample is the exact quantity: their distance from the solution is a formula, which the data set knows."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vistudy.trainables.data.base import Dataset


class Exact:
    """`dist`, `cov`, `prec` by the data set's own `exact_metrics`, or `dist` by its `exact_distance` and 1, 1.

    `exact_metrics(samples (n, *shape)) -> {"dist": ..., "cov": ..., "prec": ...}`; what it leaves out of the last two
    is 1: a toy that has no modes to lose cannot lose any.
    """

    names: ClassVar[tuple[str, ...]] = ("dist", "cov", "prec")

    def __init__(self, dataset: Dataset, reference: Tensor) -> None:
        self._metrics = getattr(dataset, "exact_metrics", None)
        self._distance = getattr(dataset, "exact_distance", None)
        if self._metrics is None and self._distance is None:
            raise TypeError(f"data {dataset.name!r} is judged exactly, and has no exact_metrics or exact_distance")

    def __call__(self, samples: Tensor) -> dict[str, float]:
        """The exact values. The reference is the formula."""
        found = self._metrics(samples) if self._metrics else {"dist": self._distance(samples)}  # type: ignore[misc]
        values = {"cov": 1.0, "prec": 1.0} | {name: float(value) for name, value in found.items()}
        return {name: values[name] for name in self.names}
