"""FEATURES: the feature spaces in which images are compared. Values are comparable within one space only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.metrics.cache import cached
from vistudy.trainables.metrics.features import digits_classifier, image_classifier
from vistudy.trainables.metrics.features.image_classifier import ImageClassifier
from vistudy.trainables.metrics.features.inception import inception, inception_provenance
from vistudy.trainables.metrics.features.random_conv import random_conv

Transform = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Images (N, C, H, W) in [-1, 1] -> features (N, D), and logits (N, classes) where the space has classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpace:
    """A map from images to features, and what has to be known to compare values with others."""

    name: str
    """Key in FEATURES."""
    transform: Transform
    provenance: Mapping[str, str | float]
    """What the numbers depend on: checksum of the weights, library, resize, accuracy."""


def digits(dataset: Dataset) -> FeatureSpace:
    """64 features of the committed classifier of the 8x8 digits."""
    look = digits_classifier.classifier()
    return FeatureSpace(name="digits", transform=look, provenance={"weights_sha256": digits_classifier.SHA256})


def classifier(dataset: Dataset) -> FeatureSpace:
    """64 features of a classifier, which is trained on the labelled images of the data set on first use.

    Raises:
        DataError: the data set has no labels.
    """
    if not dataset.classes:
        raise DataError(
            f"data {dataset.name!r} has no labels, and feature space 'classifier' is trained on labelled images; "
            "use 'random_conv', or data with labels"
        )
    net, checksum = trained_classifier(dataset)
    provenance: dict[str, str | float] = {"weights_sha256": checksum, "accuracy": net.accuracy}
    return FeatureSpace(name="classifier", transform=net, provenance=provenance)


def trained_classifier(dataset: Dataset) -> tuple[ImageClassifier, str]:
    """Return the classifier of a labelled data set and its SHA-256; if it is not cached, train it first.

    Raises:
        DataError: the data set has no labels, or the file in the cache is damaged.
    """

    def make() -> bytes:
        parts = [dataset.labelled(split) for split in ("held_out", "reference")]
        pixels, labels = (np.concatenate([part[i] for part in parts]) for i in range(2))
        return image_classifier.to_bytes(image_classifier.train(pixels, labels, dataset.classes))

    # By content, not by name: MNIST and its stacked form have the same labelled images.
    name = f"classifiers/{dataset.fingerprint[:16]}-{image_classifier.RECIPE}.npz"
    content = cached(name, make)
    return image_classifier.from_bytes(content), hashlib.sha256(content).hexdigest()


def random_convolutions(dataset: Dataset) -> FeatureSpace:
    """64 features of fixed random convolutions."""
    return FeatureSpace(name="random_conv", transform=lambda images: (random_conv(images), None), provenance={})


def inception_v3(dataset: Dataset) -> FeatureSpace:
    """2,048 features of Inception-v3, with weights that the user provides.

    Raises:
        DataError: the weights are missing or wrong, or torch-fidelity is not installed.
    """
    features = inception()
    return FeatureSpace(
        name="inception", transform=lambda images: (features(images), None), provenance=inception_provenance()
    )


FEATURES: dict[str, Callable[[Dataset], FeatureSpace]] = {
    "digits": digits,
    "classifier": classifier,
    "random_conv": random_convolutions,
    "inception": inception_v3,
}
"""Name -> function that makes the space for a data set. `Dataset.features` names the default space."""


def feature_space(dataset: Dataset, name: str | None = None) -> FeatureSpace:
    """Return the feature space `name`, by default that of the data set.

    Raises:
        DataError: there is no such space, or it needs labels that the data set lacks.
    """
    name = name or dataset.features
    if name not in FEATURES:
        raise DataError(f"data {dataset.name!r}: no feature space {name!r}; there are {', '.join(FEATURES)}")
    return FEATURES[name](dataset)
