"""Feature extractor for labelled images: a small convolutional classifier, trained once on this machine and cached.

It is trained on all labelled images except a test set for its accuracy, both on images that trials learn and on those
that they are compared with, so that both are equally familiar to it. Random numbers are keyed and one thread computes,
so training is deterministic on one machine; another processor may round differently. Values with different weights are
not comparable. So the nodes of a study share the cache, and the checksum of the weights is recorded with the study.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vistudy.trainables.data.images.device_batches import to_float
from vistudy.trainables.random_streams import generator

FEATURES = 64
CHANNELS = 32
"""Channels of the first layer; the other layers have twice as many."""
COARSEST = 7
"""Layers halve the image until it is no larger than this."""

RECIPE = "1"
"""Version of the training below: change it with anything that changes the weights. Part of their cache key."""
STEPS, BATCH = 1500, 128
TEST_SHARE = 0.1
"""Share of the labelled images that is held out to measure accuracy."""
SHIFT = 2
"""Largest shift of a batch in each direction, in pixels."""

IMAGES_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageClassifier:
    """3x3 convolutions of stride 2 with ReLU, 64 ReLU (the features), logits. Weights (out, in, ...), float32."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    """(weight, bias) of the convolutions, then of the features, then of the logits."""
    accuracy: float
    """Share of the test images whose most likely class is the label."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and logits (N, classes) of images (N, C, H, W) in [-1, 1]."""
        parts = [self._forward(part) for part in torch.split(images, IMAGES_AT_ONCE)]
        return torch.cat([features for features, _ in parts]), torch.cat([logits for _, logits in parts])

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        *convolutions, hidden, head = self.layers
        for weight, bias in convolutions:
            images = F.relu(F.conv2d(images, weight, bias, stride=2, padding=1))
        features = F.relu(F.linear(images.flatten(1), *hidden))
        return features, F.linear(features, *head)


def shapes(shape: tuple[int, ...], classes: int) -> list[tuple[int, ...]]:
    """Shape of each layer's weight for images of `shape` (C, H, W)."""
    channels, height, width = shape
    out: list[tuple[int, ...]] = []
    while not out or max(height, width) > COARSEST:
        wider = CHANNELS if not out else 2 * CHANNELS
        out.append((wider, channels, 3, 3))
        channels, height, width = wider, (height + 1) // 2, (width + 1) // 2
    return [*out, (FEATURES, channels * height * width), (classes, FEATURES)]


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift a batch (N, C, H, W) by up to two pixels, repeating its border, and add noise of sd .1."""
    dy, dx = (int(rng.integers(0, 2 * SHIFT + 1)) for _ in range(2))
    height, width = images.shape[2:]
    moved = F.pad(images, (SHIFT,) * 4, mode="replicate")[:, :, dy : dy + height, dx : dx + width]
    return moved + 0.1 * torch.from_numpy(rng.standard_normal(moved.shape, dtype=np.float32))


def train(pixels: np.ndarray, labels: np.ndarray, classes: int, steps: int = STEPS) -> ImageClassifier:
    """Train by AdamW with a linearly decaying rate on uint8 images (N, C, H, W) with labels (N,)."""
    rng = generator(0, "features/classifier")
    order = rng.permutation(len(pixels))
    n_test = max(1, round(TEST_SHARE * len(pixels)))
    test, train_images = order[:n_test], order[n_test:]
    layers = []
    for shape in shapes(pixels.shape[1:], classes):
        scale = np.float32((2 / math.prod(shape[1:])) ** 0.5)
        weight = torch.from_numpy(scale * rng.standard_normal(shape, dtype=np.float32)).requires_grad_()
        layers.append((weight, torch.zeros(shape[0], requires_grad=True)))
    net = ImageClassifier(layers=tuple(layers), accuracy=math.nan)
    parameters = [parameter for layer in layers for parameter in layer]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    targets = torch.from_numpy(labels)
    with one_thread(), torch.enable_grad():
        for _ in range(steps):
            batch = train_images[rng.integers(len(train_images), size=BATCH)]
            loss = F.cross_entropy(net(augment(to_float(torch.from_numpy(pixels[batch])), rng))[1], targets[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
    frozen = ImageClassifier(layers=tuple((w.detach(), b.detach()) for w, b in layers), accuracy=math.nan)
    correct = frozen(to_float(torch.from_numpy(pixels[test])))[1].argmax(dim=1) == targets[test]
    return replace(frozen, accuracy=float(correct.double().mean()))


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside the block: the number of threads changes the order of sums, and so the weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_bytes(net: ImageClassifier) -> bytes:
    """Serialise the classifier as an npz archive."""
    arrays: dict[str, Any] = {"accuracy": np.float64(net.accuracy)}
    for i, (weight, bias) in enumerate(net.layers):
        arrays |= {f"{i}.w": weight.numpy(), f"{i}.b": bias.numpy()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def from_bytes(content: bytes) -> ImageClassifier:
    """The inverse of `to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        count = len(arrays.files) // 2
        layers = [(torch.from_numpy(arrays[f"{i}.w"]), torch.from_numpy(arrays[f"{i}.b"])) for i in range(count)]
        return ImageClassifier(layers=tuple(layers), accuracy=float(arrays["accuracy"]))
