from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.files import leftovers
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.cifar import BINARY, PICKLED, TEST, TRAIN, Cifar10
from vistudy.trainables.random_streams import generator

SMALL = Cifar10(per_file=4)
NAMES = (*TRAIN, TEST)


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (4, 3, 32, 32) and labels (4,) of one file."""
    rng = generator(2, f"test/{name}")
    return rng.integers(256, size=(4, 3, 32, 32)).astype(np.uint8), rng.integers(10, size=4)


def write_binary(root: Path) -> None:
    (root / BINARY).mkdir()
    for name in NAMES:
        images, labels = part(name)
        records = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(4, -1)], axis=1)
        (root / BINARY / f"{name}.bin").write_bytes(records.tobytes())


def write_pickled(root: Path) -> dict[str, str]:
    """Returns the MD5 sum of each file."""
    (root / PICKLED).mkdir()
    contents: dict[str, object] = {"batches.meta": {"label_names": list("abcdefghij")}}
    for name in NAMES:
        images, labels = part(name)
        contents[name] = {"data": images.reshape(4, -1), "labels": labels.tolist()}
    for name, content in contents.items():
        (root / PICKLED / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((root / PICKLED / name).read_bytes()).hexdigest() for name in contents}


def publish(sums: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torchvision believe that files with these sums are the published ones."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [[TEST, sums[TEST]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})


def check_content() -> None:
    for split, names in (("held_out", TRAIN), ("reference", (TEST,))):
        images, labels = SMALL.labelled(split)  # type: ignore[arg-type]
        assert np.array_equal(images, np.concatenate([part(name)[0] for name in names]))
        assert np.array_equal(labels, np.concatenate([part(name)[1] for name in names]))
        assert labels.dtype == np.int64
    assert SMALL.real(4, "reference").shape == (4, 3, 32, 32)


def test_binary_files_are_read(root: Path) -> None:
    write_binary(root)
    check_content()
    assert SMALL.prepared.split == "as published: 20 to learn, 4 test images as reference"


def test_pickled_files_are_read_when_their_sums_are_the_published_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(write_pickled(root), monkeypatch)
    check_content()


def test_the_fingerprint_does_not_depend_on_the_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(write_pickled(root), monkeypatch)
    pickled = SMALL.prepared.fingerprint
    write_binary(root)
    monkeypatch.setenv("VISTUDY_CACHE", str(root.parent / "cache2"))
    assert SMALL.prepared.fingerprint == pickled


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["VISTUDY_TEST_MARK"],)


def test_a_file_with_another_sum_is_not_unpickled(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(write_pickled(root), monkeypatch)
    monkeypatch.setenv("VISTUDY_TEST_MARK", str(tmp_path / "ran"))
    (root / PICKLED / TRAIN[0]).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=f"{root / PICKLED}: MD5 sums are not those of the published files"):
        SMALL.real(1, "reference")
    assert not (tmp_path / "ran").exists()
    assert leftovers(cache) == []
    pickle.loads((root / PICKLED / TRAIN[0]).read_bytes())
    assert (tmp_path / "ran").exists()  # it would have


@pytest.mark.parametrize(("cut", "what"), [(-1, "truncated"), (-3073, "truncated"), (None, "too long")])
def test_files_of_another_size(root: Path, cache: Path, cut: int | None, what: str) -> None:
    write_binary(root)
    path = root / BINARY / "data_batch_3.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:cut] if cut else raw + b"\0")
    with pytest.raises(DataError, match=rf"{path}: {what}: 4 images take 12292 bytes, it has \d+; copy"):
        SMALL.real(1, "reference")
    assert leftovers(cache) == []


def test_labels_out_of_range(root: Path, cache: Path) -> None:
    write_binary(root)
    path = root / BINARY / "test_batch.bin"
    path.write_bytes(b"\x0b" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=f"{path}: has label 11, the largest is 9"):
        SMALL.real(1, "reference")
    assert leftovers(cache) == []


@pytest.mark.parametrize(("folder", "name"), [(BINARY, "data_batch_2.bin"), (PICKLED, "batches.meta")])
def test_one_missing_file_is_named(root: Path, folder: str, name: str) -> None:
    write_binary(root) if folder == BINARY else write_pickled(root)
    (root / folder / name).unlink()
    with pytest.raises(DataError, match=f"{root / folder / name}: is not there, though others of its kind are"):
        SMALL.source()
