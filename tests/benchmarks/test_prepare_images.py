from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.prepare_images import has_mnist, measure, write_faces


def test_generated_faces_are_read_as_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(tmp_path / "root", 20)
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "cache"))
    files = list((tmp_path / "root" / "celeba" / "img_align_celeba").iterdir())
    assert sum(path.stat().st_size for path in files) / 20 == pytest.approx(7000, rel=0.15)
    facts = measure("faces", 20)
    assert (facts["images"], facts["shape"]) == (20, [3, 64, 64])
    assert facts["peak_mib"] >= facts["before_mib"] > 0


def test_mnist_is_found_in_both_layouts(tmp_path: Path) -> None:
    assert not has_mnist(None)
    assert not has_mnist(tmp_path)
    for place in ("MNIST/raw", "mnist"):
        folder = tmp_path / place.replace("/", "-") / place
        folder.mkdir(parents=True)
        (folder / "t10k-images-idx3-ubyte.gz").touch()
        assert has_mnist(tmp_path / place.replace("/", "-"))
