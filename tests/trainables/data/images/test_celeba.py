from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainables.data.files import leftovers, picture, write_faces
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.celeba import CELEBA, PARTITION

PARTS = [0, 0, 1, 0, 2, 0]


def refused(path: Path, cache: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        CELEBA.real(1, "reference")
    assert str(path) in str(caught.value)
    assert leftovers(cache) == []


def test_partition_decides_what_is_learnt(root: Path) -> None:
    folder = write_faces(root, PARTS) / "img_align_celeba"
    CELEBA.real(4, "held_out")
    assert CELEBA.prepared.split == "as published: 4 to learn, 2 of validation and test as reference"
    assert CELEBA.prepared.images.shape == (6, 3, 64, 64)
    for row, number in enumerate([1, 2, 4, 6, 3, 5]):  # the ones to learn first, each part in the list's order
        full = np.asarray(Image.open(folder / f"{number:06}.jpg"), dtype=np.float64)
        mean = full[55:163, 35:143].mean(axis=(0, 1))
        assert CELEBA.prepared.images[row].mean(axis=(1, 2)) == pytest.approx(mean, abs=1)


def test_the_middle_108_are_kept(root: Path) -> None:
    base = write_faces(root, [0, 1])
    marked = np.full((218, 178, 3), 40, np.uint8)
    marked[55 : 55 + 108, 35 : 35 + 108] = 200  # the paper's offsets: (218 - 108) // 2, (178 - 108) // 2
    Image.fromarray(marked).save(base / "img_align_celeba" / "000001.jpg", quality=100)
    inside = CELEBA.prepared.images[0]
    assert np.abs(inside.astype(int) - 200).max() <= 3


def test_details_finer_than_the_new_pixels_are_averaged_and_values_stay_in_range(root: Path) -> None:
    base = write_faces(root, [0, 1, 0])
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 255  # a period of 2 pixels is 1.2 of the new ones: without antialias it folds into slow waves
    Image.fromarray(stripes).save(base / "img_align_celeba" / "000001.jpg", quality=100, subsampling=0)
    edge = np.zeros((218, 178, 3), np.uint8)
    edge[:, 89:] = 255  # bicubic overshoots at an edge
    Image.fromarray(edge).save(base / "img_align_celeba" / "000003.jpg", quality=100, subsampling=0)
    grey, sharp = CELEBA.prepared.images[0, 0, 8:-8, 8:-8], CELEBA.prepared.images[1, 0]
    assert np.abs(grey.astype(int) - 127).max() < 40
    assert sharp.min() == 0
    assert sharp.max() == 255
    assert (np.diff(sharp[32].astype(int)) >= -8).all()  # a value that wrapped around would fall by 200


@pytest.mark.parametrize("gone", ["img_align_celeba", PARTITION])
def test_both_folder_and_partition_are_needed(root: Path, cache: Path, gone: str) -> None:
    base = write_faces(root, PARTS)
    (base / gone).rename(base / "elsewhere")
    refused(base / gone, cache, "python -m vistudy.trainables.data.download celeba --data-root DIR")


def test_partition_of_other_length(root: Path, cache: Path) -> None:
    base = write_faces(root, PARTS)
    (base / "img_align_celeba" / "000002.jpg").unlink()
    refused(base / PARTITION, cache, r"lists 6 pictures, .*has 5; 1 listed are not there and 0 .*such as 000002.jpg")


def test_pictures_that_are_not_listed(root: Path, cache: Path) -> None:
    base = write_faces(root, PARTS)
    picture(9, 178, 218).save(base / "img_align_celeba" / "000099.jpg")
    refused(base / PARTITION, cache, "lists 6 pictures, .*has 7; 0 listed are not there and 1 are not listed")


@pytest.mark.parametrize("line", ["000007.jpg", "000007.jpg 3", "000007.jpg 0 0", "000001.jpg 0", ""])
def test_a_line_that_is_no_entry(root: Path, cache: Path, line: str) -> None:
    path = write_faces(root, PARTS) / PARTITION
    path.write_text(path.read_text() + f"{line}\n")
    refused(path, cache, rf":7: expected the name of a picture, once, and 0, 1 or 2; got '{line}'")


@pytest.mark.parametrize("parts", [[0, 0], [1, 2]])
def test_nothing_to_learn_or_nothing_to_compare_with(root: Path, cache: Path, parts: list[int]) -> None:
    base = write_faces(root, parts)
    refused(base / PARTITION, cache, "needs images of partition 0 and of 1 or 2")


def test_a_corrupt_picture(root: Path, cache: Path) -> None:
    path = write_faces(root, PARTS) / "img_align_celeba" / "000005.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, cache, "cannot be decoded, the picture is damaged .*truncated")


def test_a_file_that_is_no_picture(root: Path, cache: Path) -> None:
    path = write_faces(root, PARTS) / "img_align_celeba" / "000005.jpg"
    path.write_bytes(b"<html>not found</html>")
    refused(path, cache, "cannot be decoded.*cannot identify image file")


def test_greyscale_where_colour_is_expected(root: Path, cache: Path) -> None:
    path = write_faces(root, PARTS) / "img_align_celeba" / "000003.jpg"
    picture(3, 178, 218, channels=1).save(path)
    refused(path, cache, r"pixels are greyscale \(mode L\), where colour \(mode RGB\) is expected")


@pytest.mark.parametrize(("width", "height"), [(107, 218), (178, 100)])
def test_pictures_smaller_than_the_crop(root: Path, cache: Path, width: int, height: int) -> None:
    path = write_faces(root, PARTS) / "img_align_celeba" / "000001.jpg"
    picture(1, width, height).save(path)
    refused(path, cache, f"{width} x {height} pixels are less than the crop of 108 x 108")
