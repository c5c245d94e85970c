"""Metrics' tests leave the user's cache and weights alone, and train classifiers for a second."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from vistudy.trainables.metrics.features import image_classifier


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the session: what one test made another may use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_places(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUDY_CACHE", str(shared_cache))
    monkeypatch.delenv("VISTUDY_INCEPTION_WEIGHTS", raising=False)


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_classifier, "train", functools.partial(image_classifier.train, steps=60))
