from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vistudy.trainables.data import DATASETS, DataError, Dataset
from vistudy.trainables.data.images.digits import DIGITS, load
from vistudy.trainables.data.mixtures import RING8
from vistudy.trainables.random_streams import BLOCK

PROCEDURAL = ("ring8", "grid25", "mog_full", "digits", "polygons")
"""Data that need no files."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _cache_of_this_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Polygons are drawn once for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(_cache_of_this_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISTUDY_CACHE", str(_cache_of_this_file))
    return _cache_of_this_file


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUDY_DATA_ROOT", raising=False)


def test_every_data_set_is_listed_under_its_name() -> None:
    files = {"mnist", "fashion_mnist", "stacked_mnist", "cifar10", "celeba", "image_folder"}
    toys = {name for name, data in DATASETS.items() if data.kind == "exact"}
    assert set(DATASETS) == set(PROCEDURAL) | files | toys
    assert all(data.name == name for name, data in DATASETS.items())


@pytest.mark.parametrize(
    ("data", "sha256"), [(RING8, "c5f7158ada178705"), (DIGITS, "1c3d7e98306535f1")], ids=["ring8", "digits"]
)
def test_numbers_are_those_that_trials_were_recorded_with(data: Dataset, sha256: str) -> None:
    blocks = data.block(3, 7, 16).tobytes() + data.real(500, "reference").tobytes() + data.real(500, 2).tobytes()
    assert hashlib.sha256(blocks).hexdigest()[:16] == sha256


@pytest.mark.parametrize("name", PROCEDURAL)
def test_batches_are_the_blocks_numbers_for_every_trial(name: str) -> None:
    data = DATASETS[name]
    seeds = [5, 2, 5]
    batches = data.batches(seeds, 8, CPU)
    for step in (0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7, 2):
        got = batches.at(step)
        assert got.shape == (3, 8, *data.shape)
        assert got.dtype == torch.float32
        block, offset = divmod(step, BLOCK)
        for row, seed in enumerate(seeds):
            assert np.array_equal(got[row].numpy(), data.block(seed, block, 8)[offset])


@pytest.mark.parametrize("name", PROCEDURAL)
def test_a_batch_may_be_written_to(name: str) -> None:
    batches = DATASETS[name].batches([1, 2], 4, CPU)
    first = batches.at(3)
    expected = first.clone()
    first.fill_(9)
    assert torch.equal(batches.at(3), expected)


def test_features_are_the_classifiers_where_there_are_labels() -> None:
    assert {name: data.features for name, data in DATASETS.items() if data.kind in ("images", "stacked")} == {
        "digits": "digits",
        "polygons": "random_conv",
        "mnist": "classifier",
        "fashion_mnist": "classifier",
        "stacked_mnist": "classifier",
        "cifar10": "classifier",
        "celeba": "random_conv",
        "image_folder": "random_conv",
    }


def test_labels_are_refused_where_there_are_none() -> None:
    for name in ("ring8", "polygons", "celeba"):
        with pytest.raises(
            DataError, match=f"data '{name}' has no labels: it cannot be evaluated by a metric that needs classes"
        ):
            DATASETS[name].labelled("held_out")


def test_digits_are_labelled_by_split() -> None:
    images, labels = load()
    truth = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for split, n in (("held_out", 997), ("reference", 800)):
        pixels, classes = DIGITS.labelled(split)  # type: ignore[arg-type]
        assert pixels.shape == (n, 1, 8, 8)
        assert pixels.dtype == np.uint8
        assert classes.dtype == np.int64
        back = np.rint(pixels.astype(np.float64) * 16 / 255) / 8 - 1  # the 17 levels survive the rounding
        assert np.array_equal(back.astype(np.float32), DIGITS.real(n, split))  # type: ignore[arg-type]
        assert [truth[image.tobytes()] for image in back.astype(np.float32)] == classes.tolist()
    with pytest.raises(ValueError, match="split 3 has no labels, only reference and held_out have"):
        DIGITS.labelled(3)


def test_the_table_reads_no_file_and_imports_no_library_of_pictures() -> None:
    code = (
        "import sys, os; os.environ['VISTUDY_DATA_ROOT'] = '/does/not/exist'\n"
        "from vistudy.trainables.data import DATASETS\n"
        "for d in DATASETS.values():\n"
        "    d.shape, d.kind, d.features, d.classes, d.kind == 'exact' or d.net_defaults(None)\n"
        "print(sorted({'PIL', 'torchvision', 'sklearn', 'scipy', 'filelock', 'study', 'ray'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
