from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainables.data.files import leftovers, picture
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.folder import IMAGE_FOLDER, ImageFolder
from vistudy.trainables.data.images.image_files import CHUNK, read_all, resized

TINY = ImageFolder(name="tiny", shape=(3, 16, 16), folder="tiny")


def write(root: Path, names: list[str], *, width: int = 20, height: int = 24) -> Path:
    """Pictures of one colour each: (10 i, 5, 250 - 10 i)."""
    base = root / "tiny"
    for i, name in enumerate(names):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (10 * i, 5, 250 - 10 * i)).save(path)
    return base


def refused(path: Path, cache: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        TINY.real(1, "reference")
    assert str(path) in str(caught.value)
    assert leftovers(cache) == []


def reds(images: np.ndarray) -> list[int]:
    return sorted(int(value) for value in np.rint((images[:, 0, 8, 8] + 1) * 127.5))


def test_pictures_below_the_folder_are_divided_by_a_keyed_shuffle(root: Path) -> None:
    base = write(root, [f"{'ab'[i % 2]}/{i}.png" for i in range(10)])
    learn, reference = reds(TINY.real(8, "held_out")), reds(TINY.real(2, "reference"))
    assert sorted(learn + reference) == list(range(0, 100, 10))
    assert TINY.prepared.split == "keyed shuffle: 8 of 10 to learn"
    assert base.is_dir()


def test_only_visible_pictures_count(root: Path) -> None:
    base = write(root, ["1.png", "2.PNG", "3.bmp", ".4.png", ".hidden/5.png"])
    (base / "notes.txt").write_text("6")
    (base / "Thumbs.db").write_bytes(b"7")
    assert [path.name for path in TINY.source().files] == ["1.png", "2.PNG", "3.bmp"]


def test_linked_folders_count_and_circles_are_refused(root: Path, tmp_path: Path, cache: Path) -> None:
    base = write(root, ["1.png", "2.png"])
    (tmp_path / "other").mkdir()
    (base / "2.png").rename(tmp_path / "other" / "2.png")
    (base / "linked").symlink_to(tmp_path / "other")
    assert [path.relative_to(base).as_posix() for path in TINY.source().files] == ["1.png", "linked/2.png"]
    (tmp_path / "other" / "back").symlink_to(base)
    refused(base / "linked" / "back", cache, "leads to a folder that holds it")


def test_equal_pictures_in_another_place_are_the_same_data(
    root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, ["1.png", "2.png", "3.png"])
    here = TINY.prepared
    write(tmp_path / "there", ["1.png", "2.png", "3.png"])
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "there"))
    assert TINY.fingerprint == here.fingerprint
    assert len(leftovers(cache)) == 1
    write(tmp_path / "order", ["3.png", "2.png", "1.png"])  # other pictures under the same names
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "order"))
    assert TINY.fingerprint != here.fingerprint
    assert len(leftovers(cache)) == 2


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 40)])
def test_the_middle_square_is_kept(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.full((height, width, 3), 10, np.uint8)
    pixels[(height - 30) // 2 :][:30, (width - 30) // 2 :][:, :30] = 90
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = resized(tmp_path / "a.png", 3, None, 15)
    assert image.shape == (3, 15, 15)
    assert (image == 90).all()


def test_pictures_of_the_right_size_are_left_alone(tmp_path: Path) -> None:
    original = picture(1, 16, 16)
    original.save(tmp_path / "a.png")
    assert np.array_equal(resized(tmp_path / "a.png", 3, None, 16), np.asarray(original).transpose(2, 0, 1))


def test_grey_folders_are_read_where_grey_is_expected(root: Path) -> None:
    grey = ImageFolder(name="tiny", shape=(1, 16, 16), folder="tiny")
    (root / "tiny").mkdir()
    for i in range(5):
        picture(i, 16, 16, channels=1).save(root / "tiny" / f"{i}.png")
    assert grey.real(1, "reference").shape == (1, 1, 16, 16)
    assert grey.batches([1], 2, torch.device("cpu")).at(0).shape == (1, 2, 1, 16, 16)
    with pytest.raises(DataError, match="greyscale"):
        TINY.real(1, "reference")


def test_many_pictures_keep_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(CHUNK + 3)]
    chunks = list(read_all(paths, lambda path: np.array([int(path.name)])))
    assert [len(chunk) for chunk in chunks] == [CHUNK, 3]
    assert np.concatenate(chunks).ravel().tolist() == list(range(CHUNK + 3))


def test_an_empty_folder(root: Path, cache: Path) -> None:
    base = root / "tiny"
    base.mkdir()
    (base / "notes.txt").write_text("no pictures")
    refused(base, cache, r"no picture \(\.bmp, \.jpeg, \.jpg, \.png, \.webp\) in this folder or below")
    write(root, ["1.png"])
    refused(base, cache, "one picture")


def test_no_folder(root: Path, cache: Path) -> None:
    refused(root / "tiny", cache, "data 'tiny' is not there")


def test_the_listed_folder_is_64_wide_colour() -> None:
    assert IMAGE_FOLDER.shape == (3, 64, 64)
    assert IMAGE_FOLDER.folder == "image_folder"


def test_pictures_smaller_than_what_is_learnt(root: Path, cache: Path) -> None:
    base = write(root, ["1.png", "2.png", "3.png"])
    Image.new("RGB", (15, 90)).save(base / "2.png")
    refused(base / "2.png", cache, "15 x 90 pixels are less than the 16 x 16 pixels that are learnt")


@pytest.mark.parametrize(("mode", "words"), [("L", "greyscale"), ("RGBA", "transparency"), ("P", "a palette")])
def test_pictures_of_another_kind(root: Path, cache: Path, mode: str, words: str) -> None:
    base = write(root, ["1.png", "2.png", "3.png"])
    Image.new("RGB", (20, 20)).convert(mode).save(base / "3.png")
    refused(base / "3.png", cache, rf"pixels are .*{words}.*\(mode {mode}\), where colour \(mode RGB\) is expected")


@pytest.mark.parametrize("damage", ["cut", "header", "text"])
def test_damaged_pictures(root: Path, cache: Path, damage: str) -> None:
    base = write(root, ["1.png", "2.png", "3.png"])
    picture(1, 60, 60).save(base / "2.png")
    raw = (base / "2.png").read_bytes()
    bad = {"cut": raw[: len(raw) // 2], "header": raw[:20] + b"\xff" * 8 + raw[28:], "text": b"hello"}[damage]
    (base / "2.png").write_bytes(bad)
    refused(base / "2.png", cache, "cannot be decoded, the picture is damaged")
