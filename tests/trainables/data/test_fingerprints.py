"""A fingerprint holds whatever decides the arrays that are learnt and compared with, and nothing else."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainables.data.files import write_idx
from vistudy.trainables.data import DATASETS, OtherData, fingerprint, forget_seen_files, refuse_other_data
from vistudy.trainables.data.gaussians import MOG_FULL
from vistudy.trainables.data.images import image_dataset as images
from vistudy.trainables.data.images import prepared_images as prepared
from vistudy.trainables.data.images.folder import ImageFolder
from vistudy.trainables.data.mixtures import RING8
from vistudy.trainables.metrics import evaluate

PICTURES = 10


@pytest.fixture
def folder(root: Path) -> Path:
    """Ten pictures of equal size in bytes, of 64 x 64 pixels."""
    folder = root / "image_folder"
    folder.mkdir()
    for i in range(PICTURES):
        write(folder / f"{i}.bmp", i)
    return folder


def write(path: Path, shade: int) -> None:
    Image.fromarray(np.full((64, 64, 3), 20 * shade, np.uint8)).save(path)


def seen() -> str:
    forget_seen_files()
    return fingerprint("image_folder")


def invert(folder: Path) -> None:
    for path in folder.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def swap(folder: Path) -> None:
    (folder / "3.bmp").rename(folder / "aside")
    (folder / "4.bmp").rename(folder / "3.bmp")
    (folder / "aside").rename(folder / "4.bmp")


def rewrite_with_the_old_time(folder: Path) -> None:
    before = (folder / "3.bmp").stat()
    write(folder / "3.bmp", 12)
    os.utime(folder / "3.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "3.bmp").stat().st_size == before.st_size


def touch(folder: Path) -> None:
    os.utime(folder / "3.bmp", ns=(5, 5))


def rewrite(folder: Path) -> None:
    (folder / "3.bmp").write_bytes((folder / "3.bmp").read_bytes())


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("pictures"))
    folder.symlink_to(folder.with_name("pictures"))


def move_root(folder: Path) -> None:
    os.environ["VISTUDY_DATA_ROOT"] = str(shutil.move(folder.parent, folder.parent.with_name("elsewhere")))


@pytest.mark.parametrize(
    "change",
    [
        invert,
        swap,
        rewrite_with_the_old_time,
        lambda folder: write(folder / "10.bmp", 11),
        lambda folder: (folder / "3.bmp").unlink(),
        lambda folder: (folder / "0.bmp").rename(folder / "z.bmp"),  # the order, and with it the division
    ],
    ids=["invert", "swap", "rewrite_with_the_old_time", "add", "remove", "order"],
)
@pytest.mark.parametrize("settled_s", [0.0, 2.0])
def test_other_pictures_are_other_data(
    folder: Path, change: Callable[[Path], None], settled_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "SETTLED_S", settled_s)
    before, arrays = seen(), DATASETS["image_folder"].real(2, "reference")
    change(folder)
    assert seen() != before
    assert DATASETS["image_folder"].real(2, "reference").shape == arrays.shape


@pytest.mark.parametrize("change", [touch, rewrite, rename, move_root])
def test_the_same_pictures_are_the_same_data_wherever_they_lie(
    folder: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(folder.parent))  # put back afterwards
    before = seen()
    change(folder)
    assert seen() == before


def test_files_swapped_under_equal_times_are_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "SETTLED_S", 0.0)
    for path in folder.iterdir():
        os.utime(path, ns=(7, 7))  # as archives leave them
    before = seen()
    swap(folder)
    assert seen() != before


def test_a_change_within_a_tick_of_the_clock_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_stamp", lambda source, recipe: ("as before", (folder / "3.bmp").stat().st_ctime))
    before = seen()
    write(folder / "3.bmp", 12)
    assert seen() != before


def test_a_change_in_the_life_of_a_process_reaches_the_judge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "LEAST_IMAGES", 1)
    monkeypatch.setattr(evaluate, "Evaluator", lambda dataset, real: real)
    before = evaluate.evaluator(DATASETS["image_folder"])
    invert(folder)
    forget_seen_files()
    assert not np.array_equal(evaluate.evaluator(DATASETS["image_folder"]), before)


def test_another_size_or_colour_is_other_data(folder: Path) -> None:
    colours = ImageFolder(shape=(3, 32, 32)).fingerprint
    assert colours != ImageFolder().fingerprint
    for path in folder.iterdir():
        Image.open(path).convert("L").save(path)
    forget_seen_files()
    assert ImageFolder(shape=(1, 32, 32)).fingerprint != colours


@pytest.mark.parametrize("name", ["image_folder", "mnist"])
def test_another_division_seed_is_other_data(
    folder: Path, root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(root / "mnist", "t10k", 20)
    before = fingerprint(name)
    monkeypatch.setattr(images, "DIVISION_SEED", 1)
    forget_seen_files()
    assert fingerprint(name) != before


def test_ten_thousand_digits_and_all_of_them_are_other_data(root: Path) -> None:
    names = ("mnist", "stacked_mnist")
    write_idx(root / "mnist", "t10k", 20)
    before = {name: fingerprint(name) for name in names}
    assert DATASETS["mnist"].division == "keyed shuffle: 16 of 20 to learn (only the part t10k was there)"
    write_idx(root / "mnist", "train", 60)
    forget_seen_files()
    assert all(fingerprint(name) != before[name] for name in names)
    assert DATASETS["mnist"].division == "as published: 60 to learn, 20 test images as reference"


def test_parameters_of_mixtures_are_their_data() -> None:
    first, *rest = MOG_FULL.components
    moved = dataclasses.replace(first, mean=(0.0, 0.1))
    found = [
        RING8,
        dataclasses.replace(RING8, sd=0.06),
        dataclasses.replace(RING8, modes=RING8.modes[1:]),
        MOG_FULL,
        dataclasses.replace(MOG_FULL, components=(moved, *rest)),
    ]
    assert len({data.fingerprint for data in found}) == len(found)


def test_other_data_are_refused_with_both_fingerprints_and_right_ones_are_found_again(folder: Path) -> None:
    recorded = seen()
    swap(folder)
    forget_seen_files()
    here = fingerprint("image_folder")
    with pytest.raises(OtherData, match=rf"here have the fingerprint {here}, .*of the fingerprint {recorded}"):
        refuse_other_data("image_folder", recorded)
    swap(folder)
    refuse_other_data("image_folder", recorded)  # put right while this process lived
