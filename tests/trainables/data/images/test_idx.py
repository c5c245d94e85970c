from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.data.files import digits, idx_bytes, leftovers, write_idx
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.idx import FASHION_MNIST, MNIST, read_idx
from vistudy.trainables.random_streams import BLOCK

RAW = "MNIST/raw"


def pixels(samples: np.ndarray) -> np.ndarray:
    """Back to uint8 (N, 28, 28)."""
    return np.rint((samples.astype(np.float64) + 1) * 127.5).astype(np.uint8)[:, 0]


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("zipped", [False, True])
def test_bytes_and_shape_are_the_files(tmp_path: Path, zipped: bool) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    raw = idx_bytes(array)
    (tmp_path / "a").write_bytes(gzip.compress(raw) if zipped else raw)
    assert np.array_equal(read_idx(tmp_path / "a", 3), array)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("folder", [RAW, "mnist"])
def test_published_parts_are_what_is_learnt_and_the_reference(root: Path, folder: str, zipped: bool) -> None:
    train, train_labels = write_idx(root / folder, "train", 30, zipped=zipped)
    test, test_labels = write_idx(root / folder, "t10k", 20, zipped=zipped)
    assert rows(pixels(MNIST.real(30, "held_out"))) == rows(train)
    assert rows(pixels(MNIST.real(20, "reference"))) == rows(test)
    for split, images, labels in (("held_out", train, train_labels), ("reference", test, test_labels)):
        got, classes = MNIST.labelled(split)  # type: ignore[arg-type]
        assert np.array_equal(got[:, 0], images)
        assert np.array_equal(classes, labels)
        assert got.shape[1:] == (1, 28, 28)
        assert got.dtype == np.uint8
        assert classes.dtype == np.int64
    assert MNIST.prepared.split == "as published: 30 to learn, 20 test images as reference"


@pytest.mark.parametrize("part", ["t10k", "train"])
def test_one_part_alone_is_divided_and_says_so(root: Path, part: str) -> None:
    images, labels = write_idx(root / "mnist", part, 50)
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    learn, reference = rows(pixels(MNIST.real(40, "held_out"))), rows(pixels(MNIST.real(10, "reference")))
    assert (len(learn), len(reference)) == (40, 10)
    assert learn | reference == rows(images)
    assert MNIST.prepared.split == f"keyed shuffle: 40 of 50 to learn (only the part {part} was there)"
    got, classes = MNIST.labelled("reference")
    assert [label_of[image.tobytes()] for image in got[:, 0]] == classes.tolist()
    with pytest.raises(ValueError, match="split 'reference' has 10 images, 11 were asked for"):
        MNIST.real(11, "reference")


def test_fingerprint_is_of_pixels_and_division_not_of_packing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for name, parts, zipped in (
        ("plain", ("train", "t10k"), False),
        ("zipped", ("train", "t10k"), True),
        ("half", ("train",), False),
    ):
        for part in parts:
            write_idx(tmp_path / name / RAW, part, 20, zipped=zipped)
        monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / name))
        found[name] = MNIST.fingerprint
    assert found["plain"] == found["zipped"] != found["half"]


def test_division_alone_changes_the_fingerprint(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(root / "mnist", "t10k", 20)
    keyed = MNIST.fingerprint
    images, labels = MNIST.prepared.images[:, 0], MNIST.prepared.labels
    assert labels is not None
    other = tmp_path / "other" / "mnist"
    other.mkdir(parents=True)
    for part, rows_ in (("train", slice(None, 12)), ("t10k", slice(12, None))):
        (other / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images[rows_]))
        (other / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[rows_]))
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "other"))
    assert np.array_equal(MNIST.prepared.images[:, 0], images)  # the same pixels in the same order
    assert MNIST.fingerprint != keyed


def test_fashion_lies_in_its_own_folder(root: Path) -> None:
    write_idx(root / RAW, "train", 10)
    with pytest.raises(DataError, match="FashionMNIST/raw/train-images"):
        FASHION_MNIST.find()
    write_idx(root / "FashionMNIST/raw", "t10k", 10)
    assert set(FASHION_MNIST.find().images) == {"t10k"}


def test_an_epoch_shows_every_image_to_learn_once(root: Path) -> None:
    write_idx(root / RAW, "train", 100)
    write_idx(root / RAW, "t10k", 10)
    stream = MNIST.block(3, 0, 5).reshape(-1, 28 * 28)
    learn = rows(MNIST.real(100, "held_out"))
    assert len(stream) == BLOCK * 5 == 320
    epochs = [stream[i : i + 100] for i in (0, 100, 200)]
    assert all(rows(epoch) == learn for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(MNIST.batches([3], 5, torch.device("cpu")).at(21)[0].numpy(), MNIST.block(3, 0, 5)[21])


def test_numbered_pairs_are_disjoint(root: Path) -> None:
    write_idx(root / RAW, "train", 30)
    write_idx(root / RAW, "t10k", 10)
    pairs = [[rows(MNIST.real(20, 2 * i + side)) for side in (0, 1)] for i in (0, 4)]
    assert all(len(one) == len(other) == 20 and not one & other for one, other in pairs)
    assert pairs[0][0] != pairs[1][0]
    with pytest.raises(ValueError, match="split 3 has 20 images, 21 were asked for"):
        MNIST.real(21, 3)


def images_path(root: Path) -> Path:
    write_idx(root / RAW, "train", 20)
    return root / RAW / "train-images-idx3-ubyte"


def labels_path(root: Path) -> Path:
    write_idx(root / RAW, "train", 20)
    return root / RAW / "train-labels-idx1-ubyte"


def refused(path: Path, cache: Path, message: str) -> None:
    """The error names the file, what is wrong and what to do; nothing stays in the cache."""
    with pytest.raises(DataError, match=message) as caught:
        MNIST.real(1, "reference")
    assert str(path) in str(caught.value)
    assert leftovers(cache) == []


def test_truncated_images(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, cache, "truncated: the header says 20 x 28 x 28 bytes, 15679 follow; copy or download the file again")


def test_truncated_header(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.write_bytes(path.read_bytes()[:9])
    refused(path, cache, "truncated: it ends in the header, after 9 bytes")


def test_images_with_more_than_the_header_says(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, cache, "too long: the header says 20 x 28 x 28 bytes, 15681 follow")


def test_truncated_gzip(root: Path, cache: Path) -> None:
    write_idx(root / "mnist", "train", 20, zipped=True)
    path = root / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, cache, "truncated, the gzip stream ends early")


def test_damaged_gzip(root: Path, cache: Path) -> None:
    write_idx(root / "mnist", "train", 20, zipped=True)
    path = root / "mnist" / "train-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # the checksum
    path.write_bytes(raw)
    refused(path, cache, "cannot be read.*CRC check failed")


def test_wrong_magic_number(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.write_bytes(idx_bytes(np.zeros(20, np.uint8)))
    refused(path, cache, "the magic number is 0x00000801; that of 3-dimensional bytes in idx format is 0x00000803")


def test_empty_file(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.write_bytes(b"")
    refused(path, cache, "the magic number is missing, the file is empty")


@pytest.mark.parametrize(("shape", "says"), [((20, 32, 32), "20 x 1 x 32 x 32"), ((0, 28, 28), "0 x 1 x 28 x 28")])
def test_images_of_another_size_or_none(root: Path, cache: Path, shape: tuple[int, ...], says: str) -> None:
    path = images_path(root)
    path.write_bytes(idx_bytes(np.zeros(shape, np.uint8)))
    refused(path, cache, f"images are {says}, data 'mnist' wants N x 1 x 28 x 28")


def test_one_image_cannot_be_divided(root: Path, cache: Path) -> None:
    write_idx(root / RAW, "train", 1)
    refused(root / RAW, cache, "1 images of data 'mnist', 0 of them to learn")


def test_labels_of_other_length(root: Path, cache: Path) -> None:
    path = labels_path(root)
    path.write_bytes(idx_bytes(digits(19)[1]))
    refused(path, cache, "19 labels for the 20 images of train-images-idx3-ubyte")


def test_labels_out_of_range(root: Path, cache: Path) -> None:
    path = labels_path(root)
    path.write_bytes(idx_bytes(np.arange(20)))
    refused(path, cache, "has label 19, the largest is 9")


def test_missing_labels(root: Path, cache: Path) -> None:
    labels_path(root).unlink()
    refused(
        root / RAW / "train-images-idx3-ubyte", cache, r"its labels, train-labels-idx1-ubyte\[.gz\], are not beside it"
    )


def test_a_folder_in_place_of_a_file_is_not_one(root: Path, cache: Path) -> None:
    path = images_path(root)
    path.unlink()
    path.mkdir()
    refused(path, cache, "is not there. Looked for")
