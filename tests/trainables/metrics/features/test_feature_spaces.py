from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN, STACKED_BARS
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.digits import DIGITS
from vistudy.trainables.metrics.features import feature_spaces as features
from vistudy.trainables.metrics.features import image_classifier
from vistudy.trainables.metrics.features.digits_classifier import SHA256
from vistudy.trainables.metrics.features.digits_classifier import classifier as digits_classifier
from vistudy.trainables.metrics.features.feature_spaces import FEATURES, feature_space, trained_classifier
from vistudy.trainables.metrics.features.image_classifier import train


def test_each_data_set_names_its_space() -> None:
    assert set(FEATURES) == {"digits", "classifier", "random_conv", "inception"}
    assert [feature_space(data).name for data in (DIGITS, BARS, PLAIN)] == ["digits", "classifier", "random_conv"]
    assert feature_space(BARS, "random_conv").name == "random_conv"


def test_digits_are_seen_by_the_committed_classifier() -> None:
    images, space = torch.from_numpy(DIGITS.real(9, "reference")), feature_space(DIGITS)
    assert all(torch.equal(a, b) for a, b in zip(space.transform(images), digits_classifier()(images), strict=True))  # type: ignore[arg-type]
    assert space.provenance == {"weights_sha256": SHA256}


def test_the_classifier_is_trained_once_on_all_labelled_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    seen: list[np.ndarray] = []

    def short(pixels: np.ndarray, labels: np.ndarray, classes: int) -> image_classifier.ImageClassifier:
        seen.append(pixels)
        return train(pixels, labels, classes, steps=3)

    monkeypatch.setattr(image_classifier, "train", short)
    first, second = (feature_space(BARS) for _ in range(2))
    assert len(seen) == 1
    assert np.array_equal(seen[0], np.concatenate([BARS.labelled(s)[0] for s in ("held_out", "reference")]))
    images = torch.from_numpy(BARS.real(5, "reference"))
    assert torch.equal(first.transform(images)[0], second.transform(images)[0])
    (path,) = (tmp_path / "classifiers").glob("*.npz")
    content = path.read_bytes().partition(b"\n")[2]
    assert first.provenance["weights_sha256"] == hashlib.sha256(content).hexdigest()
    assert 0 <= float(first.provenance["accuracy"]) <= 1
    feature_space(STACKED_BARS)
    assert len(seen) == 2  # other content, other classifier
    monkeypatch.setattr(image_classifier, "RECIPE", "another")
    feature_space(BARS)
    assert len(seen) == 3


def test_other_weights_in_the_cache_are_refused_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    net = train(*BARS.labelled("held_out"), 4, steps=1)
    monkeypatch.setattr(image_classifier, "train", lambda *_: net)
    trained_classifier(BARS)
    (path,) = (tmp_path / "classifiers").glob("*.npz")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: damaged or foreign"):
        feature_space(BARS)


def test_a_classifier_of_unlabelled_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"'plain' has no labels.*'classifier'.*use 'random_conv'"):
        feature_space(PLAIN, "classifier")


def test_an_unknown_space_is_refused_with_those_there_are() -> None:
    with pytest.raises(DataError, match="'plain': no feature space 'vgg'; there are digits, classifier, random_conv"):
        feature_space(PLAIN, "vgg")


def test_a_failed_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    monkeypatch.setattr(features.image_classifier, "train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained_classifier(BARS)
    assert not list(tmp_path.rglob("*.npz"))
