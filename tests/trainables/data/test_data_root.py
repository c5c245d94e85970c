from __future__ import annotations

from pathlib import Path

import pytest

from vistudy.trainables.data import DATASETS, DataError
from vistudy.trainables.data.data_root import data_root

FROM_FILES = ("mnist", "fashion_mnist", "stacked_mnist", "cifar10", "celeba", "image_folder")


def test_the_root_is_the_environments(root: Path) -> None:
    assert data_root() == root


def test_no_root_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUDY_DATA_ROOT")
    with pytest.raises(DataError, match="give --data-root DIR or set VISTUDY_DATA_ROOT"):
        data_root()


@pytest.mark.parametrize(("name", "what"), [("gone", "does not exist"), ("file", "is not a folder")])
def test_a_root_that_is_none_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    (root / "file").touch()
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(root / name))
    with pytest.raises(DataError, match=f"{root / name}: {what}"):
        data_root()


@pytest.mark.parametrize("name", FROM_FILES)
def test_missing_data_say_where_they_were_looked_for_and_how_to_get_them(root: Path, cache: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        DATASETS[name].real(1, "reference")
    message = str(caught.value)
    assert str(root) in message
    assert "set another --data-root" in message
    assert ("python -m vistudy.trainables.data.download" in message) == (name != "image_folder")
    assert not cache.exists()


@pytest.mark.parametrize("name", FROM_FILES)
def test_without_a_root_nothing_but_the_content_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("VISTUDY_DATA_ROOT")
    assert DATASETS[name].net_defaults(None)["net"] == "dcgan"
    assert DATASETS[name].max_abs == 1
    with pytest.raises(DataError, match="no one said where"):
        _ = DATASETS[name].fingerprint
