from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images import digits
from vistudy.trainables.data.images.digits import DIGITS, load
from vistudy.trainables.random_streams import BLOCK

TRAIN = 997


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_pixels_fill_minus_one_to_one_in_sixteenths() -> None:
    images, labels = load()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert np.array_equal((images + 1) * 8, np.round((images + 1) * 8))
    assert np.bincount(labels).min() >= 174


def test_content_is_the_one_that_the_classifier_was_trained_on() -> None:
    images, labels = load()
    content = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert content == "314b97e8b73b7a469ab137a8e1c41298c092513ab5645ba0ad0efb54b9367ab7"


def test_fingerprint_holds_the_division(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DIGITS.fingerprint
    monkeypatch.setattr(digits, "REFERENCE_IMAGES", 801)
    assert DIGITS.fingerprint != before


def test_reference_and_training_images_share_nothing_and_leave_none() -> None:
    reference, train = rows(DIGITS.real(800, "reference")), rows(DIGITS.real(TRAIN, "held_out"))
    assert len(reference) == 800
    assert not reference & train
    assert reference | train == rows(load()[0])


@pytest.mark.parametrize("pair", [0, 7])
def test_numbered_pairs_are_disjoint_and_differ_from_other_pairs(pair: int) -> None:
    one, other = rows(DIGITS.real(898, 2 * pair)), rows(DIGITS.real(898, 2 * pair + 1))
    assert len(one) == len(other) == 898
    assert not one & other
    assert rows(DIGITS.real(898, 2 * pair + 2)) != one


@pytest.mark.parametrize(("n", "split", "has"), [(801, "reference", 800), (998, "held_out", 997), (899, 3, 898)])
def test_more_images_than_there_are_is_refused(n: int, split: str | int, has: int) -> None:
    with pytest.raises(ValueError, match=f"has {has} images, {n} were asked for"):
        DIGITS.real(n, split)  # type: ignore[arg-type]


def test_returned_images_can_be_written_to_without_changing_the_data() -> None:
    first = DIGITS.real(3, "held_out")
    first[:] = 7
    assert DIGITS.real(3, "held_out").max() <= 1


def test_an_epoch_shows_every_training_image_once_whatever_the_batch() -> None:
    stream = np.concatenate([DIGITS.block(5, block, 10).reshape(-1, 64) for block in range(4)])
    assert len(stream) == 4 * BLOCK * 10
    train = rows(DIGITS.real(TRAIN, "held_out"))
    epochs = [stream[:TRAIN], stream[TRAIN : 2 * TRAIN]]
    assert all(rows(epoch) == train and len(rows(epoch)) == TRAIN for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    small = np.concatenate([DIGITS.block(5, block, 16).reshape(-1, 64) for block in range(4)])
    assert np.array_equal(DIGITS.block(5, 0, 64).reshape(-1, 64), small)


def test_a_block_is_a_function_of_its_arguments() -> None:
    block = DIGITS.block(1, 9, 64)
    assert block.shape == (BLOCK, 64, 1, 8, 8)
    assert block.dtype == np.float32
    assert np.array_equal(DIGITS.block(1, 9, 64), block)
    assert not np.array_equal(DIGITS.block(2, 9, 64), block)


def test_both_families_of_nets_have_defaults() -> None:
    assert DIGITS.net_defaults(None) == {"net": "dcgan", "width": 16, "depth": 0, "z_dim": 32}
    assert DIGITS.net_defaults("mlp") == {"net": "mlp", "width": 128, "depth": 2, "z_dim": 32}
    with pytest.raises(ValueError, match="'resnet' is not a family of nets"):
        DIGITS.net_defaults("resnet")


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load.__wrapped__()
