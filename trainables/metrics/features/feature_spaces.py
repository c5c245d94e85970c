"""FEATURES: the spaces in which images are compared. What a metric of features says is true of one space only."""

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
    """A way to look at images, and what has to be known to compare values with someone else's."""

    name: str
    """Its key in FEATURES."""
    transform: Transform
    provenance: Mapping[str, str | float]
    """Weights' checksum, library, resize, accuracy: whatever the numbers depend on."""


def digits(dataset: Dataset) -> FeatureSpace:
    """64 features of the committed classifier of the 8x8 digits."""
    look = digits_classifier.classifier()
    return FeatureSpace(name="digits", transform=look, provenance={"weights_sha256": digits_classifier.SHA256})


def classifier(dataset: Dataset) -> FeatureSpace:
    """64 features of a classifier trained on the data set's labelled images, the first time they are asked for.

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
    """The classifier of a labelled data set from the cache, trained first if it is not there; and its SHA-256.

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
    """2,048 features of Inception-v3, from weights that the user gave.

    Raises:
        DataError: no weights, other weights, or no torch-fidelity.
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
"""Name -> the space, made for a data set. `Dataset.features` says which one judges a data set's images."""


def feature_space(dataset: Dataset, name: str | None = None) -> FeatureSpace:
    """The space `name`, or the data set's own.

    Raises:
        DataError: there is no such space, or the data set has none of its images' classes.
    """
    name = name or dataset.features
    if name not in FEATURES:
        raise DataError(f"data {dataset.name!r}: no feature space {name!r}; there are {', '.join(FEATURES)}")
    return FEATURES[name](dataset)
