"""METRICS, the metrics of each kind of data, and the Evaluator that applies them to the samples of a pack."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.data import Dataset
from trainables.data.base import Kind
from trainables.metrics.classes import ClassCoverage
from trainables.metrics.energy_distance import EnergyDistance
from trainables.metrics.frechet import Frechet
from trainables.metrics.modes import Modes
from trainables.metrics.prdc import Prdc
from trainables.metrics.sliced_w2 import SlicedW2
from trainables.metrics.views import view_images, view_points

METRICS: dict[Kind, tuple[Any, ...]] = {
    "points": (SlicedW2, Modes, EnergyDistance),
    "images": (Frechet, Prdc, ClassCoverage),
}
"""Kind of data -> metrics. Each is a class with `names`; `Metric(dataset, reference_view)(view)` gives their values.

To add one: a file here, and its class in this table. Among the names of a kind are `dist`, `cov` and `prec`, once each:
what outcomes are judged by.
"""

VIEWS: dict[Kind, Callable[[Tensor], Any]] = {"points": view_points, "images": view_images}
"""Kind of data -> what its metrics look at."""

N_SAMPLES: dict[Kind, int] = {"points": 2500, "images": 800}
"""Samples in one evaluation, and real ones in the reference. Metrics at another N are other metrics."""


class Evaluator:
    """The metrics of one data set against one reference of `n_samples` real samples.

    Samples are judged on the CPU, one trial after the other, whatever device made them. So a trial's values depend on
    its own samples only, bit by bit: not on the pack, its size, or a neighbour's NaN.
    """

    def __init__(self, dataset: Dataset, reference: np.ndarray) -> None:
        self.dataset = dataset
        self.n_samples = N_SAMPLES[dataset.kind]
        self._check(reference.shape)
        self._view = VIEWS[dataset.kind]
        view = self._view(torch.from_numpy(reference))
        self._metrics = [metric(dataset, view) for metric in METRICS[dataset.kind]]
        self.names = tuple(name for metric in self._metrics for name in metric.names)

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> list[dict[str, float]]:
        """Judge float32 samples (K, N, *shape): one dict of metric -> value for each trial.

        Samples that are not finite have no metrics: all values of their trial are NaN.

        Raises:
            ValueError: N is not `n_samples`, or the shape is not the data set's.
        """
        self._check(tuple(samples.shape[1:]))
        on_cpu = samples.to("cpu", torch.float32)
        return [self._judge(row) for row in on_cpu]

    def _judge(self, row: Tensor) -> dict[str, float]:
        if not bool(torch.isfinite(row).all()):
            return dict.fromkeys(self.names, float("nan"))
        # A copy of its own: the linear algebra may round by how memory is aligned, which differs along a pack.
        view = self._view(row.clone())
        return {name: value for metric in self._metrics for name, value in metric(view).items()}

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != (self.n_samples, *self.dataset.shape):
            expected = (self.n_samples, *self.dataset.shape)
            raise ValueError(f"data {self.dataset.name!r} is judged by samples of shape {expected}, got {shape}")


@functools.cache
def evaluator(dataset: Dataset) -> Evaluator:
    """The evaluator against the data set's fixed reference; made once a process."""
    return Evaluator(dataset, dataset.real(N_SAMPLES[dataset.kind], "reference"))
