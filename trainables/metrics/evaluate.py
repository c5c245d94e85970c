"""METRICS, the metrics of each suite, and the Evaluator that applies a data set's suite to the samples of a pack."""

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
from vistudy.trainables.metrics.features.inception_metrics import InceptionMetrics
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

To add one: a file here, and its class in this table. Among the names of a suite are `dist`, `cov` and `prec`, once
each: what outcomes are judged by. `InceptionMetrics` joins the suites of images where the user gave its weights.
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
"""Samples in one evaluation, and real ones in the reference. Metrics at another N are other metrics."""

VERSION = 2
"""Of the suites of images: changes with anything that changes their values. Part of the key of kept floors."""

OF_FILES: tuple[Suite, ...] = ("images", "labelled_images", "triangles")
"""Suites that Inception's metrics may join."""

LEAST_IMAGES = 640
"""Ten for each of 64 features: of fewer images a covariance says nothing."""


def suite_of(dataset: Dataset, features: str | None = None) -> Suite:
    """Which suite judges a data set: its kind's; that of images is larger where more is known of them."""
    if dataset.kind != "images":
        return dataset.kind
    if isinstance(dataset, Polygons) and dataset.corners == 3:
        return "triangles"
    space = features or dataset.features
    return "digits" if space == "digits" else "labelled_images" if space == "classifier" else "images"


def n_samples(dataset: Dataset, features: str | None = None) -> int:
    """N of a data set: its suite's, or as many images as both parts of the data have where that is less.

    Raises:
        DataError: there are too few.
    """
    wanted = N_SAMPLES[suite_of(dataset, features)]
    if not isinstance(dataset, ImageData) or dataset.kind != "images":
        return wanted
    return min(wanted, *check_enough(dataset))


def check_enough(dataset: ImageData) -> tuple[int, int]:
    """Images to learn, from which baselines are drawn, and images that samples are compared with.

    Raises:
        DataError: there are too few of either. (Stacks can be drawn without end, but of as few single images.)
    """
    prepared = dataset.prepared
    learnt, kept = prepared.train, len(prepared.images) - prepared.train
    if min(learnt, kept) < LEAST_IMAGES:
        where = dataset.source().base or f"data {dataset.name!r}"
        keyed = prepared.split.startswith("keyed shuffle")
        in_all = f", {round(LEAST_IMAGES / (1 - KEYED_TRAIN_SHARE)):,} in all" if keyed else ""
        raise DataError(
            f"{where} has {learnt + kept:,} images, {learnt:,} to learn and {kept:,} to compare with; the metrics need "
            f"at least {LEAST_IMAGES} of each{in_all}: add images, or take data that need no files, such as digits"
        )
    return learnt, kept


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureView:
    """How samples are looked at, and what has to stand beside the numbers."""

    transform: Callable[[Tensor], Any]
    """Samples (N, *shape) -> the view that the suite's metrics take."""
    provenance: Mapping[str, str | float] = field(default_factory=dict)


def feature_view(dataset: Dataset, features: str | None = None) -> FeatureView:
    """The way to look at a data set; `features` names another feature space than its own.

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

    Samples are judged on the CPU, one trial after the other, whatever device made them. So a trial's values depend on
    its own samples only, bit by bit: not on the pack, its size, or a neighbour's NaN. (Inception's features alone are
    computed on a GPU, where there is one.)
    """

    def __init__(self, dataset: Dataset, reference: np.ndarray, features: str | None = None) -> None:
        """Judge by `reference` (n_samples, *shape), in the data set's feature space or in another.

        Raises:
            ValueError: the reference has another shape.
            DataError: the data set lacks what a metric needs.
        """
        self.dataset = dataset
        self.suite = suite_of(dataset, features)
        self.n_samples = n_samples(dataset, features)
        self._check(reference.shape)
        seen_by = feature_view(dataset, features)
        self._view = seen_by.transform
        metrics = METRICS[self.suite]
        if self.suite in OF_FILES and inception_weights() is not None:
            metrics = (*metrics, InceptionMetrics)
        with torch.no_grad():
            view = self._view(torch.from_numpy(reference))
            self._metrics = [metric(dataset, view) for metric in metrics]
        self.names = tuple(name for metric in self._metrics for name in metric.names)
        self._provenance = seen_by.provenance

    def provenance(self) -> dict[str, str | float]:
        """Suite, N, feature space, and the weights and libraries that the values depend on."""
        out = {"suite": self.suite, "suite_version": VERSION, "n_samples": self.n_samples} | dict(self._provenance)
        for metric in self._metrics:
            if isinstance(metric, InceptionMetrics):
                out |= {f"inception_{name}": value for name, value in metric.provenance.items()}
        return out

    def __call__(self, samples: Tensor, threads: int = 1) -> list[dict[str, float]]:
        """Judge float32 samples (K, N, *shape): one dict of metric -> value for each trial.

        Samples that are not finite have no metrics: all values of their trial are NaN. With `threads`, so many trials
        are judged at once.

        Raises:
            ValueError: N is not `n_samples`, or the shape is not the data set's.
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
        # A copy of its own: the linear algebra may round by how memory is aligned, which differs along a pack.
        view = self._view(row.clone())
        return {name: value for metric in self._metrics for name, value in metric(view).items()}

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != (self.n_samples, *self.dataset.shape):
            expected = (self.n_samples, *self.dataset.shape)
            raise ValueError(f"data {self.dataset.name!r} is judged by samples of shape {expected}, got {shape}")


def _as_one_thread() -> None:
    """What the thread that trains has set for itself: these are settings of threads, and values depend on them."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def evaluator(dataset: Dataset) -> Evaluator:
    """The evaluator against the data set's fixed reference; made once a process."""
    places = (inception_weights(), cache_root(), os.environ.get(DATA_ROOT_VARIABLE), dataset.fingerprint)
    return _evaluator(dataset, n_samples(dataset), places)


@functools.cache
def _evaluator(dataset: Dataset, n: int, places: tuple[Path | str | None, ...]) -> Evaluator:
    """Keyed by places and content too: a process may be pointed at others, and files may change while it lives."""
    return Evaluator(dataset, dataset.real(n, "reference"))
