"""Metrics of toys whose sample is the exact quantity: the data set has a formula for the distance from the solution."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vistudy.trainables.data.base import Dataset


class Exact:
    """`dist`, `cov`, `prec` by the data set's own `exact_metrics`, or `dist` by its `exact_distance` and 1, 1.

    `exact_metrics(samples (n, *shape)) -> {"dist": ..., "cov": ..., "prec": ...}`; `cov` and `prec` default
    to 1, as a toy without modes cannot lose any.
    """

    names: ClassVar[tuple[str, ...]] = ("dist", "cov", "prec")

    def __init__(self, dataset: Dataset, reference: Tensor) -> None:
        self._metrics = getattr(dataset, "exact_metrics", None)
        self._distance = getattr(dataset, "exact_distance", None)
        if self._metrics is None and self._distance is None:
            raise TypeError(f"data {dataset.name!r} is evaluated exactly, and has no exact_metrics or exact_distance")

    def __call__(self, samples: Tensor) -> dict[str, float]:
        """Return the exact values. The reference is implied by the formula."""
        exact = self._metrics(samples) if self._metrics else {"dist": self._distance(samples)}  # type: ignore[misc]
        values = {"cov": 1.0, "prec": 1.0} | {name: float(value) for name, value in exact.items()}
        return {name: values[name] for name in self.names}
