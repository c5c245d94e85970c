"""METRICS, the metrics of each suite, and the Evaluator, which applies the suite of a data set to samples of a pack."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data import Dataset
from vistudy.trainables.data.data_root import DATA_ROOT_VARIABLE, DataError
from vistudy.trainables.data.images.image_dataset import KEYED_TRAIN_SHARE, ImageData
from vistudy.trainables.data.images.polygons import Polygons
from vistudy.trainables.data.images.prepared_images import cache_root
from vistudy.trainables.metrics.coverage.classes import ClassCoverage, Confidence
from vistudy.trainables.metrics.coverage.modes import Modes
from vistudy.trainables.metrics.coverage.pixels import PixelPrecision
from vistudy.trainables.metrics.coverage.prdc import Prdc, PrdcWithoutPrec
from vistudy.trainables.metrics.coverage.stacked_modes import StackedModes
from vistudy.trainables.metrics.coverage.triangles import TriangleShare
from vistudy.trainables.metrics.distances.energy_distance import EnergyDistance
from vistudy.trainables.metrics.distances.frechet import Frechet
from vistudy.trainables.metrics.distances.kid import Kid
from vistudy.trainables.metrics.distances.mmd import Mmd
from vistudy.trainables.metrics.distances.pggan_swd import PgganSwd
from vistudy.trainables.metrics.distances.sliced_w2 import SlicedW2
from vistudy.trainables.metrics.exact import Exact
from vistudy.trainables.metrics.features.feature_spaces import feature_space
from vistudy.trainables.metrics.features.inception import inception_weights
from vistudy.trainables.metrics.inception_metrics import InceptionMetrics
from vistudy.trainables.metrics.views import view_images, view_points, view_stacked

Suite = Literal["points", "digits", "images", "labelled_images", "triangles", "stacked", "exact"]

METRICS: dict[Suite, tuple[Any, ...]] = {
    "points": (SlicedW2, Modes, EnergyDistance),
    "digits": (Frechet, Prdc, PixelPrecision, ClassCoverage),
    "images": (Frechet, Prdc, PixelPrecision, Kid, Mmd, PgganSwd),
    "labelled_images": (Frechet, Prdc, PixelPrecision, Kid, Mmd, PgganSwd, ClassCoverage, Confidence),
    "triangles": (Frechet, PrdcWithoutPrec, TriangleShare, Kid, Mmd, PgganSwd),
    "stacked": (Frechet, StackedModes),
    "exact": (Exact,),
}
"""Suite -> metrics. Each is a class with `names`; `Metric(dataset, reference_view)(view)` gives their values.

To add one, add a file here and its class in this table. Each suite has the names `dist`, `cov` and `prec` exactly once,
as outcome labels depend on them. `InceptionMetrics` is added to the suites of images if the user provides its weights.
"""

N_SAMPLES: dict[Suite, int] = {
    "points": 2500,
    "digits": 800,
    "images": 2000,
    "labelled_images": 2000,
    "triangles": 2000,
    "stacked": 26_000,
    "exact": 1,
}
"""Samples per evaluation, and real samples in the reference. Values at different N are not comparable."""

VERSION = 2
"""Version of the suites of images: raise it with any change of their values. Part of the key of cached baselines."""

OF_FILES: tuple[Suite, ...] = ("images", "labelled_images", "triangles")
"""Suites that the metrics of Inception may be added to."""

LEAST_IMAGES = 640
"""Ten images per feature, of 64: with fewer, a covariance is meaningless."""


def suite_of(dataset: Dataset, features: str | None = None) -> Suite:
    """Return the suite that evaluates a data set. For images it depends on what is known about them."""
    if dataset.kind != "images":
        return dataset.kind
    if isinstance(dataset, Polygons) and dataset.corners == 3:
        return "triangles"
    space = features or dataset.features
    return "digits" if space == "digits" else "labelled_images" if space == "classifier" else "images"


def n_samples(dataset: Dataset, features: str | None = None) -> int:
    """Return N of a data set: that of its suite, or the size of the smaller part of the data if that is less.

    Raises:
        DataError: there are too few images.
    """
    n = N_SAMPLES[suite_of(dataset, features)]
    if not isinstance(dataset, ImageData) or dataset.kind != "images":
        return n
    return min(n, *check_enough(dataset))


def check_enough(dataset: ImageData) -> tuple[int, int]:
    """Return the numbers of images to learn, from which baselines are drawn, and of images to compare with.

    Raises:
        DataError: there are too few of either. (Any number of stacks can be drawn, but from these single images.)
    """
    prepared = dataset.prepared
    learnt, reference = prepared.train, len(prepared.images) - prepared.train
    if min(learnt, reference) < LEAST_IMAGES:
        where = dataset.source().base or f"data {dataset.name!r}"
        keyed = prepared.split.startswith("keyed shuffle")
        in_all = f", {round(LEAST_IMAGES / (1 - KEYED_TRAIN_SHARE)):,} in all" if keyed else ""
        raise DataError(
            f"{where} has {learnt + reference:,} images, {learnt:,} to learn and {reference:,} to compare with; "
            f"the metrics need at least {LEAST_IMAGES} of each{in_all}: add images, or take data that need no "
            "files, such as digits"
        )
    return learnt, reference


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureView:
    """How samples are transformed for the metrics, and what has to be reported with the numbers."""

    transform: Callable[[Tensor], Any]
    """Samples (N, *shape) -> the view that the metrics of the suite take."""
    provenance: Mapping[str, str | float] = field(default_factory=dict)


def feature_view(dataset: Dataset, features: str | None = None) -> FeatureView:
    """Return the feature view of a data set; `features` overrides its feature space.

    Raises:
        DataError: the data set has no such feature space.
    """
    suite = suite_of(dataset, features)
    if suite == "points":
        return FeatureView(transform=view_points)
    if suite == "exact":
        return FeatureView(transform=lambda samples: samples)
    space = feature_space(dataset, features)
    provenance = {"features": space.name} | dict(space.provenance)
    if suite == "stacked":
        return FeatureView(transform=lambda samples: view_stacked(samples, space.transform), provenance=provenance)
    return FeatureView(transform=lambda samples: view_images(samples, space.transform), provenance=provenance)


class Evaluator:
    """The metrics of one data set against one reference of `n_samples` real samples.

    Samples are evaluated on the CPU, trial by trial, whatever device made them. So the values of a trial depend bitwise
    on its own samples only, not on the pack, its size, or a neighbour's NaN. (Only the features of Inception are
    computed on a GPU, if there is one.)
    """

    def __init__(self, dataset: Dataset, reference: np.ndarray, features: str | None = None) -> None:
        """Compare with `reference` (n_samples, *shape), in the feature space of the data set or in `features`.

        Raises:
            ValueError: the shape of the reference is wrong.
            DataError: the data set lacks what a metric needs.
        """
        self.dataset = dataset
        self.suite = suite_of(dataset, features)
        self.n_samples = n_samples(dataset, features)
        self._check(reference.shape)
        view_of = feature_view(dataset, features)
        self._view = view_of.transform
        metrics = METRICS[self.suite]
        if self.suite in OF_FILES and inception_weights() is not None:
            metrics = (*metrics, InceptionMetrics)
        with torch.no_grad():
            view = self._view(torch.from_numpy(reference))
            self._metrics = [metric(dataset, view) for metric in metrics]
        self.names = tuple(name for metric in self._metrics for name in metric.names)
        self._provenance = view_of.provenance

    def provenance(self) -> dict[str, str | float]:
        """Return suite, N, feature space, and the weights and libraries that the values depend on."""
        out = {"suite": self.suite, "suite_version": VERSION, "n_samples": self.n_samples} | dict(self._provenance)
        for metric in self._metrics:
            if isinstance(metric, InceptionMetrics):
                out |= {f"inception_{name}": value for name, value in metric.provenance.items()}
        return out

    def __call__(self, samples: Tensor, threads: int = 1) -> list[dict[str, float]]:
        """Evaluate float32 samples (K, N, *shape) and return a dict of metric -> value per trial.

        If samples of a trial are not finite, all its values are NaN. `threads` trials are evaluated at once.

        Raises:
            ValueError: N is not `n_samples`, or the shape is not that of the data set.
        """
        self._check(tuple(samples.shape[1:]))
        on_cpu = samples.detach().to("cpu", torch.float32)
        if threads == 1:
            return [self._evaluate(row) for row in on_cpu]
        with ThreadPoolExecutor(threads, initializer=_as_one_thread) as pool:
            return list(pool.map(self._evaluate, on_cpu))

    @torch.no_grad()
    def _evaluate(self, row: Tensor) -> dict[str, float]:
        if not bool(torch.isfinite(row).all()):
            return dict.fromkeys(self.names, math.nan)
        # A copy, because rounding in linear algebra may depend on memory alignment, which differs along a pack.
        view = self._view(row.clone())
        return {name: value for metric in self._metrics for name, value in metric(view).items()}

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != (self.n_samples, *self.dataset.shape):
            expected = (self.n_samples, *self.dataset.shape)
            raise ValueError(f"data {self.dataset.name!r} is evaluated by samples of shape {expected}, got {shape}")


def _as_one_thread() -> None:
    """Apply the settings of the training thread: they are per thread, and values depend on them."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def evaluator(dataset: Dataset) -> Evaluator:
    """Return the evaluator with the fixed reference of the data set; made once per process."""
    places = (inception_weights(), cache_root(), os.environ.get(DATA_ROOT_VARIABLE), dataset.fingerprint)
    return _evaluator(dataset, n_samples(dataset), places)


@functools.cache
def _evaluator(dataset: Dataset, n: int, places: tuple[Path | str | None, ...]) -> Evaluator:
    """Also keyed by paths and content: a process may switch between data roots, and files may change."""
    return Evaluator(dataset, dataset.real(n, "reference"))
