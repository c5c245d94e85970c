"""Files that torchvision reads are read alike: names, folders, splits, order, pixels and labels are those it expects.

(CIFAR-10's pickled files are read by torchvision itself: test_cifar.py.)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from tests.trainables.data.files import write_faces, write_idx
from vistudy.trainables.data.images.celeba import CELEBA
from vistudy.trainables.data.images.idx import FASHION_MNIST, MNIST, IdxImages
from vistudy.trainables.data.images.image_files import resized

PARTITION = [0, 2, 0, 1, 0, 2, 0]


@pytest.mark.parametrize(("data", "theirs"), [(MNIST, "MNIST"), (FASHION_MNIST, "FashionMNIST")])
def test_idx_files_below_raw(root: Path, data: IdxImages, theirs: str) -> None:
    for part, n in (("train", 30), ("t10k", 20)):
        write_idx(root / theirs / "raw", part, n)
    for train, split in ((True, "held_out"), (False, "reference")):
        expected = getattr(torchvision.datasets, theirs)(root, train=train)
        images, labels = data.labelled(split)  # type: ignore[arg-type]
        assert np.array_equal(images[:, 0], expected.data.numpy())
        assert np.array_equal(labels, expected.targets.numpy())


def test_faces_and_their_partition(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_faces(root, PARTITION)
    rows = [f"{i + 1:06}.jpg" for i in range(len(PARTITION))]
    for name, header, values in (
        ("list_attr_celeba.txt", [str(len(rows)), "Smiling Young"], "1 -1"),
        ("identity_CelebA.txt", [], "7"),
        ("list_bbox_celeba.txt", [str(len(rows)), "image_id x_1 y_1 width height"], "1 2 3 4"),
        ("list_landmarks_align_celeba.txt", [str(len(rows)), "x y"], "1 2"),
    ):
        (base / name).write_text("\n".join([*header, *(f"{row} {values}" for row in rows)]) + "\n")
    ours = [  # the published files' names, with the sums of ours
        (drive, hashlib.md5((base / name).read_bytes()).hexdigest() if (base / name).is_file() else md5, name)
        for drive, md5, name in torchvision.datasets.CelebA.file_list
    ]
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", ours)
    learnt = torchvision.datasets.CelebA(str(root), split="train").filename
    others = [n for n in torchvision.datasets.CelebA(str(root), split="all").filename if n not in learnt]
    assert CELEBA.prepared.train == len(learnt) == 4
    for image, name in zip(CELEBA.prepared.images, [*learnt, *others], strict=True):
        again = resized(base / "img_align_celeba" / name, channels=3, crop=108, size=64)
        assert np.array_equal(image, again)
