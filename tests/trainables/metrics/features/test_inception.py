from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.metrics import inception_metrics
from vistudy.trainables.metrics.distances.frechet import frechet_distance, moments
from vistudy.trainables.metrics.distances.kid import kid_of_subsets
from vistudy.trainables.metrics.features import inception as module
from vistudy.trainables.metrics.features.feature_spaces import feature_space
from vistudy.trainables.metrics.features.inception import SHA256, as_bytes, checked_weights, inception
from vistudy.trainables.metrics.inception_metrics import InceptionMetrics
from vistudy.trainables.metrics.views import view_images


def test_no_weights_no_features() -> None:
    with pytest.raises(DataError, match="--inception-weights or set VISTUDY_INCEPTION_WEIGHTS"):
        inception()


def test_missing_and_other_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    monkeypatch.setenv("VISTUDY_INCEPTION_WEIGHTS", str(path))
    with pytest.raises(DataError, match=f"{path}: no such file"):
        inception()
    path.write_bytes(b"other weights")
    found = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(DataError, match=f"{path}: these are not the weights.*{found}, expected 6726825d0af5"):
        feature_space(PLAIN, "inception")


def test_bytes_are_rounded_cut_off_and_tiled() -> None:
    row = torch.tensor([-1.0, -0.999, 0.0, 0.003, 1.0, 1.5, -7.0]).reshape(1, 1, 1, 7)
    pixels = as_bytes(row)
    assert pixels.shape == (1, 3, 1, 7)
    assert pixels.dtype == torch.uint8
    assert pixels[0, 0, 0].tolist() == pixels[0, 2, 0].tolist() == [0, 0, 128, 128, 255, 255, 0]
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(as_bytes(levels.float() / 127.5 - 1)[:, :1], levels)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        as_bytes(torch.zeros(1, 2, 4, 4))


def test_verified_weights_are_seen_through_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "weights.pth"
    with monkeypatch.context() as patch:  # the published file is not ours to have: random weights stand in for it
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        net = fidelity.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(net.state_dict(), path)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("VISTUDY_INCEPTION_WEIGHTS", str(path))
    assert checked_weights(path) == path
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    space = feature_space(BARS, "inception")
    features, logits = space.transform(images)
    expected = net(as_bytes(images))[0]
    assert logits is None
    assert features.shape == (3, 2048)
    assert torch.allclose(features, expected, atol=1e-6)
    assert float(features.std(dim=0).max()) > 0
    assert space.provenance["library"] == f"torch-fidelity {version('torch-fidelity')}"
    assert space.provenance["weights_sha256"] == module.SHA256
    assert "299" in str(space.provenance["resize"])
    assert "tiled" in str(space.provenance["channels"])


def test_one_thread_looks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = 0, 0

    def net(images: torch.Tensor) -> tuple[torch.Tensor]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        return (images.float().flatten(1),)

    monkeypatch.setattr(module, "checked_weights", lambda path: path)
    monkeypatch.setattr(module, "extractor", lambda path, device: net)
    look = inception()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, [torch.zeros(2, 1, 4, 4)] * 4))
    assert most == 1


def test_its_metrics_are_those_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :5].double().float()

    monkeypatch.setattr(inception_metrics, "inception", lambda: look)
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(60, 1, 4, 4, generator=generator) + shift for shift in (0.0, 0.4))
    views = [view_images(images, lambda images: (images, None)) for images in (real, fake)]
    values = InceptionMetrics(BARS, views[0])(views[1])
    assert set(values) == set(InceptionMetrics.names)
    assert values["inception_fd"] == pytest.approx(frechet_distance(moments(look(real)), moments(look(fake))))
    assert values["inception_kid"] == pytest.approx(kid_of_subsets(look(fake), look(real), size=60)[0])
    assert values["inception_precision"] != values["inception_recall"]
    assert 0 < values["inception_coverage"] <= 1


def test_the_checksum_is_that_of_the_published_file() -> None:
    assert SHA256.startswith("6726825d")  # the name of torch-fidelity's file ends so
    assert len(SHA256) == 64
