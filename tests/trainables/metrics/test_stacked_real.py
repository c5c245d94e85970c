"""Floors of stacked images by way of single images are those of the images themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.data.files import write_idx
from vistudy.trainables.data.images.stacked import STACKED_MNIST
from vistudy.trainables.metrics import reference as module
from vistudy.trainables.metrics.evaluate import N_SAMPLES, evaluator, feature_view
from vistudy.trainables.metrics.reference import moment_matched, real_pair, reference
from vistudy.trainables.metrics.stacked_real import assemble_stacks, stacked_pair, view_singles


@pytest.fixture(autouse=True)
def _few_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "mnist", "train", 900)
    write_idx(tmp_path / "mnist", "t10k", 60)
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path))
    monkeypatch.setitem(N_SAMPLES, "stacked", 400)


def test_a_view_that_is_assemble_stacks_is_that_of_the_images() -> None:
    singles = view_singles(STACKED_MNIST)
    for split in ("reference", 3):
        drawn = STACKED_MNIST.image_indices(400, split)  # type: ignore[arg-type]
        view = assemble_stacks(singles, drawn)
        seen = feature_view(STACKED_MNIST).transform(torch.from_numpy(STACKED_MNIST.real(400, split)))  # type: ignore[arg-type]
        assert torch.allclose(view.features, seen.features, rtol=1e-5, atol=1e-5)
        assert torch.allclose(view.confidence, seen.confidence, rtol=1e-5, atol=1e-6)
        assert torch.equal(view.labels, seen.labels)


def test_pairs_are_those_of_the_images() -> None:
    singles = view_singles(STACKED_MNIST)
    for pair in (0, 1):
        expected = real_pair(STACKED_MNIST, pair)
        found = stacked_pair(STACKED_MNIST, singles, pair)
        assert found.keys() == expected.keys() == set(evaluator(STACKED_MNIST).names)
        assert found == pytest.approx(expected, rel=1e-5)
    assert stacked_pair(STACKED_MNIST, singles, 0)["dist"] != stacked_pair(STACKED_MNIST, singles, 1)["dist"]


def test_the_floor_is_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOOR_PAIRS", 3)
    noise = torch.Generator().manual_seed(0)
    real = reference(STACKED_MNIST, lambda seed: 0.1 * torch.randn(400, 3, 28, 28, generator=noise))
    dist = [real_pair(STACKED_MNIST, pair)["dist"] for pair in range(3)]
    assert real["dist_floor"] == pytest.approx(np.mean(dist), rel=1e-5)
    assert real["dist_floor_sd"] == pytest.approx(np.std(dist, ddof=1), rel=1e-3)
    assert real["dist_floor"] < real["dist_trivial"]


def test_the_trivial_baseline_has_the_single_images_moments_in_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(STACKED_MNIST), "max_abs", 100.0)  # nothing is clipped
    monkeypatch.setitem(N_SAMPLES, "stacked", 2000)
    singles = STACKED_MNIST.digits.real(900, "held_out").reshape(900, -1)
    drawn = moment_matched(STACKED_MNIST, 0).reshape(2000, 3, -1)
    expected = np.cov(singles.T)
    for channel in range(3):
        own = drawn[:, channel]
        assert np.abs(own.mean(axis=0) - singles.mean(axis=0)).max() < 5 * singles.std(axis=0).max() / 2000**0.5
        assert np.abs(np.cov(own.T) - expected).max() < 6 * expected.max() / 2000**0.5
        assert np.trace(np.cov(own.T)) == pytest.approx(np.trace(expected), rel=0.02)
    between = np.corrcoef(drawn[:, 0, 300], drawn[:, 1, 300])[0, 1]
    assert abs(between) < 5 / 2000**0.5
