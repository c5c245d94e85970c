from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torchvision.datasets

from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.download import DOWNLOADS, main


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """What torchvision was asked to fetch; nothing is fetched."""
    calls: list[tuple[str, str, dict[str, Any]]] = []
    for name in set(DOWNLOADS.values()):
        monkeypatch.setattr(
            torchvision.datasets, name, lambda root, _name=name, **options: calls.append((_name, root, options))
        )
    return calls


@pytest.mark.parametrize(
    ("name", "fetched", "options"),
    [
        ("mnist", "MNIST", {"download": True}),
        ("stacked_mnist", "MNIST", {"download": True}),
        ("fashion_mnist", "FashionMNIST", {"download": True}),
        ("cifar10", "CIFAR10", {"download": True}),
        ("celeba", "CelebA", {"download": True, "split": "all"}),
    ],
)
def test_torchvision_fetches_into_the_root(
    asked: list[tuple[str, str, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    fetched: str,
    options: dict[str, Any],
) -> None:
    target = tmp_path / "new" / "data"
    assert main([name, "--data-root", str(target)]) == 0
    assert asked == [(fetched, str(target), options)]
    assert target.is_dir()
    assert f"is in {target}" in capsys.readouterr().out


def test_the_root_may_come_from_the_environment(asked: list[tuple[str, str, dict[str, Any]]], root: Path) -> None:
    assert main(["mnist"]) == 0
    assert asked[0][1] == str(root)


def test_without_a_root_nothing_is_fetched(
    asked: list[tuple[str, str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VISTUDY_DATA_ROOT")
    with pytest.raises(SystemExit) as caught:
        main(["mnist"])
    assert caught.value.code == 2
    assert "give --data-root DIR or set VISTUDY_DATA_ROOT" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("name", ["polygons", "imagenet"])
def test_what_cannot_be_fetched_is_refused(
    asked: list[tuple[str, str, dict[str, Any]]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([name]) == 2
    assert f"data '{name}' is not to be downloaded; what is: mnist, fashion_mnist" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("File not found or corrupted.")])
def test_a_failure_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(root: str, **options: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    assert main(["mnist"]) == 2
    assert f"{root}: data 'mnist' could not be downloaded" in capsys.readouterr().err


def test_every_download_is_a_data_set() -> None:
    assert set(DOWNLOADS) <= set(DATASETS)
