"""The 10,000 MNIST test digits, where they are: VISTUDY_TEST_MNIST, or ../shared/data/mnist beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vistudy.trainables.data.images.idx import MNIST
from vistudy.trainables.data.images.stacked import STACKED_MNIST

BESIDE = Path(__file__).resolve().parents[5] / "shared" / "data" / "mnist"
DIGITS = Path(os.environ.get("VISTUDY_TEST_MNIST", BESIDE))

pytestmark = pytest.mark.skipif(
    not (DIGITS / "t10k-images-idx3-ubyte.gz").is_file(),
    reason=f"no MNIST test digits in {DIGITS} (VISTUDY_TEST_MNIST names their folder)",
)


@pytest.fixture(autouse=True)
def _root(root: Path) -> None:
    (root / "mnist").symlink_to(DIGITS)


def test_the_test_digits_are_the_published_ones() -> None:
    learn, reference = MNIST.labelled("held_out"), MNIST.labelled("reference")
    images, labels = (np.concatenate([learn[i], reference[i]]) for i in range(2))
    assert images.shape == (10_000, 1, 28, 28)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.mean() / 255 == pytest.approx(0.1325, abs=1e-4)


def test_they_are_divided_alike_for_every_class() -> None:
    assert MNIST.prepared.split == "keyed shuffle: 8000 of 10000 to learn (only the part t10k was there)"
    learn, reference = MNIST.labelled("held_out")[1], MNIST.labelled("reference")[1]
    assert (len(learn), len(reference)) == (8000, 2000)
    assert np.bincount(learn) / 8000 == pytest.approx(np.bincount(reference) / 2000, abs=0.03)


def test_their_fingerprint_is_the_same_on_every_machine() -> None:
    assert MNIST.fingerprint == "12f08144dc96be50633d7098f2f0d84a3617253f1181a2d32d1c4ab74efe1ab5"


def test_stacked_digits_reach_the_modes_that_chance_reaches() -> None:
    labels = {image.tobytes(): label for image, label in zip(*MNIST.labelled("reference"), strict=True)}
    pixels = np.rint((STACKED_MNIST.real(5000, "reference") + 1) * 127.5).astype(np.uint8)
    digits = np.array([labels[channel.tobytes()] for channel in pixels.reshape(-1, 1, 28, 28)]).reshape(-1, 3)
    modes = len(np.unique(digits @ np.array([100, 10, 1])))
    assert 980 <= modes <= 1000  # with equal shares 1000 (1 - exp(-5)) = 993
