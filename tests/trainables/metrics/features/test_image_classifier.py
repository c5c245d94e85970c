from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS
from vistudy.trainables.data.images.idx import MNIST
from vistudy.trainables.metrics.features import image_classifier
from vistudy.trainables.metrics.features.feature_spaces import trained_classifier
from vistudy.trainables.metrics.features.image_classifier import augment, from_bytes, shapes, to_bytes, train

DATA_ROOT = Path(__file__).resolve().parents[5] / "shared" / "data"


def test_training_learns_and_repeats_itself_whatever_the_threads() -> None:
    pixels, labels = BARS.labelled("held_out")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        once = train(pixels, labels, 4, steps=40)
        torch.set_num_threads(2)
        twice = train(pixels, labels, 4, steps=40)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert once.accuracy > 0.9
    assert to_bytes(once) == to_bytes(twice)


def test_features_are_the_64_outputs_of_the_last_relu() -> None:
    net = train(*BARS.labelled("held_out"), 4, steps=2)
    features, logits = net(torch.from_numpy(BARS.real(1003, "reference")))  # more than are seen at once
    assert features.shape == (1003, 64)
    assert bool((features >= 0).all())
    weight, bias = net.layers[-1]
    assert torch.allclose(features @ weight.T + bias, logits, atol=1e-5)
    again = net(torch.from_numpy(BARS.real(1003, "reference"))[:3])[1]
    assert torch.allclose(again, logits[:3], atol=1e-4)
    assert not features.requires_grad


@pytest.mark.parametrize(
    ("shape", "convolutions", "inputs"),
    [((1, 28, 28), 2, 64 * 49), ((3, 32, 32), 3, 64 * 16), ((3, 64, 64), 4, 64 * 16), ((2, 5, 9), 1, 32 * 3 * 5)],
)
def test_layers_fit_every_shape(shape: tuple[int, ...], convolutions: int, inputs: int) -> None:
    *convs, hidden, head = shapes(shape, 7)
    assert len(convs) == convolutions
    assert convs[0][1] == shape[0]
    assert hidden == (64, inputs)
    assert head == (7, 64)
    labels = np.arange(40) % 7
    net = train(np.zeros((40, *shape), dtype=np.uint8), labels, 7, steps=1)
    assert net(torch.zeros(2, *shape))[1].shape == (2, 7)


def test_it_is_written_and_read() -> None:
    net = train(*BARS.labelled("held_out"), 4, steps=2)
    again = from_bytes(to_bytes(net))
    assert again.accuracy == net.accuracy
    assert len(again.layers) == len(net.layers)
    for old, new in zip(net.layers, again.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_augmenting_moves_by_at_most_two_pixels_and_adds_noise() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 8, 8] = 50
    found = [augment(image, np.random.default_rng(seed)) for seed in range(60)]
    places = {divmod(int(moved.argmax()), 16) for moved in found}
    assert places <= {(y, x) for y in range(6, 11) for x in range(6, 11)}
    assert len(places) > 18  # of 25
    noise = torch.cat([moved.flatten().sort().values[:-1] for moved in found])
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA_ROOT / "mnist").is_dir(), reason="the MNIST test digits are not there")
def test_it_knows_handwritten_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(DATA_ROOT))
    monkeypatch.setattr(image_classifier, "train", train)  # in full
    assert trained_classifier(MNIST)[0].accuracy > 0.975
