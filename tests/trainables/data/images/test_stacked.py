from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.data.files import write_idx
from vistudy.trainables.data.images.idx import MNIST
from vistudy.trainables.data.images.stacked import STACKED_MNIST, Stacked
from vistudy.trainables.random_streams import BLOCK

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _digits(root: Path) -> None:
    write_idx(root / "mnist", "train", 40)
    write_idx(root / "mnist", "t10k", 30)


def singles(samples: np.ndarray) -> list[bytes]:
    """Every channel of every sample."""
    return [channel.tobytes() for channel in samples.reshape(-1, 28 * 28)]


def test_every_channel_is_a_single_image_to_learn() -> None:
    block = STACKED_MNIST.block(1, 0, 8)
    assert block.shape == (BLOCK, 8, 3, 28, 28)
    assert block.dtype == np.float32
    assert set(singles(block)) == set(singles(MNIST.real(40, "held_out")))


def test_channels_and_samples_are_independent() -> None:
    place = {image: i for i, image in enumerate(singles(MNIST.real(40, "held_out")))}
    drawn = np.array([place[image] for image in singles(STACKED_MNIST.block(1, 0, 64))]).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 0.95 * 40**3 * (1 - np.exp(-len(drawn) / 40**3))  # as many as chance has
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (drawn[:, a] == drawn[:, b]).mean() == pytest.approx(1 / 40, abs=0.015)
    counts = np.bincount(drawn.ravel(), minlength=40)
    assert counts.min() > 0.7 * counts.mean()


def test_batches_are_the_blocks_numbers() -> None:
    batches = STACKED_MNIST.batches([4, 9, 4], 8, CPU)
    for step in (0, 70):
        got = batches.at(step).numpy()
        for row, seed in enumerate((4, 9, 4)):
            assert np.array_equal(got[row], STACKED_MNIST.block(seed, step // BLOCK, 8)[step % BLOCK])


def test_real_sets_are_fixed_and_their_single_images_disjoint() -> None:
    sets = {split: STACKED_MNIST.real(500, split) for split in ("reference", "held_out", 0, 1, 2)}
    assert sets["reference"].shape == (500, 3, 28, 28)
    assert np.array_equal(STACKED_MNIST.real(500, "reference"), sets["reference"])
    assert set(singles(sets["reference"])) == set(singles(MNIST.real(30, "reference")))
    assert set(singles(sets["held_out"])) == set(singles(MNIST.real(40, "held_out")))
    assert not set(singles(sets[0])) & set(singles(sets[1]))
    assert set(singles(sets[0])) != set(singles(sets[2]))


def test_there_are_a_thousand_modes_of_ten_classes() -> None:
    assert (STACKED_MNIST.modes, STACKED_MNIST.classes, STACKED_MNIST.kind) == (1000, 10, "stacked")
    images, labels = STACKED_MNIST.labelled("held_out")
    expected = MNIST.labelled("held_out")
    assert images.shape == (40, 1, 28, 28)
    assert np.array_equal(images, expected[0])
    assert np.array_equal(labels, expected[1])


def test_triples_are_not_stored(cache: Path) -> None:
    STACKED_MNIST.real(5, "reference")
    MNIST.real(5, "reference")
    folders = [path.name for path in cache.iterdir() if path.name not in ("locks", "known")]
    assert [name.split("-")[0] for name in folders] == ["mnist"]


def test_fingerprint_is_of_the_single_images_and_how_many_are_stacked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Stacked(name="stacked_mnist", shape=(2, 28, 28), digits=MNIST)
    found = [STACKED_MNIST.fingerprint, pairs.fingerprint, MNIST.fingerprint]
    write_idx(tmp_path / "other" / "mnist", "train", 50)
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "other"))
    assert len({*found, STACKED_MNIST.fingerprint}) == 4
