"""Feature extractor for the metrics of the 8x8 digits: a small classifier with committed weights.

`python -m vistudy.trainables.metrics.features.digits_classifier` trains it again and prints the accuracies of the new
and the committed weights on 500 images that neither has seen; `--write FILE` saves the new weights. Metrics with
different weights are not comparable, so the checksum is part of the code.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vistudy.trainables.data.images.digits import load
from vistudy.trainables.random_streams import generator

CLASSES = 10
FEATURES = 64
HIDDEN = 128
WEIGHTS = Path(__file__).with_name("digits_classifier.npz")
SHA256 = "c1feaf3b63aec5b94528edc2ad74df9adc0aa21e0d5da5baa65dc8cb2a30d19f"
"""SHA-256 of the file of weights."""

TEST_IMAGES = 500
EPOCHS = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsClassifier:
    """64 pixels -> 128 ReLU -> 64 ReLU (the features) -> 10 logits. Weights (out, in), float32."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and logits (N, 10) of images (N, 1, 8, 8) in [-1, 1]."""
        hidden = F.relu(F.linear(images.flatten(1), self.w1, self.b1))
        features = F.relu(F.linear(hidden, self.w2, self.b2))
        return features, F.linear(features, self.w3, self.b3)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images whose most likely class is the label."""
        return float((self(images)[1].argmax(dim=1) == labels).double().mean())


@functools.cache
def classifier() -> DigitsClassifier:
    """Return the committed classifier.

    Raises:
        RuntimeError: the checksum of the file of weights is wrong.
    """
    return read(WEIGHTS, SHA256)


def read(path: Path, sha256: str) -> DigitsClassifier:
    """Read a classifier from a file of weights, after verifying its checksum."""
    content = path.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise RuntimeError(f"{path}: weights are damaged or foreign: SHA-256 {actual}, expected {sha256}; reinstall")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return DigitsClassifier(**{name: torch.from_numpy(arrays[name]) for name in arrays.files})


def split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(images, labels) to train the classifier with, 1,297, and to test it with, 500.

    The split is independent of that of trials, so that their training and reference images are equally familiar to the
    classifier.
    """
    images, labels = load()
    order = generator(0, "split/classifier").permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return (
        (torch.from_numpy(images[train]), torch.from_numpy(labels[train])),
        (torch.from_numpy(images[test]), torch.from_numpy(labels[test])),
    )


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift (N, 1, 8, 8) images by a pixel in one of four directions, one time in three, and add noise of sd .1."""
    shift = int(rng.integers(12))
    if shift < 4:
        background = F.pad(images, (1, 1, 1, 1), value=-1.0)
        dx, dy = ((0, 1), (2, 1), (1, 0), (1, 2))[shift]
        images = background[:, :, dy : dy + 8, dx : dx + 8]
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return images + 0.1 * noise


def train(images: Tensor, labels: Tensor, epochs: int = EPOCHS) -> DigitsClassifier:
    """Train by AdamW with a linearly decaying rate and batches of 64; deterministic on one machine."""
    rng = generator(0, "train/classifier")
    sizes = ((HIDDEN, 64), (FEATURES, HIDDEN), (CLASSES, FEATURES))
    parameters: dict[str, Tensor] = {}
    for i, (out, inputs) in enumerate(sizes, start=1):
        scale = np.float32((2 / inputs) ** 0.5)
        weight = scale * rng.standard_normal((out, inputs), dtype=np.float32)
        parameters[f"w{i}"] = torch.from_numpy(weight).requires_grad_()
        parameters[f"b{i}"] = torch.zeros(out, requires_grad=True)
    net = DigitsClassifier(**parameters)
    optimizer = torch.optim.AdamW(parameters.values(), lr=2e-3, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=epochs)
    for _ in range(epochs):
        for batch in torch.split(torch.from_numpy(rng.permutation(len(images))), 64):
            loss = F.cross_entropy(net(augment(images[batch], rng))[1], labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        decay.step()
    return DigitsClassifier(**{name: p.detach() for name, p in parameters.items()})


def main() -> None:
    """Train again, print accuracies, and write the weights if a file is given."""
    parser = argparse.ArgumentParser(
        prog="python -m vistudy.trainables.metrics.features.digits_classifier", description=__doc__
    )
    parser.add_argument("--write", type=Path, metavar="FILE.npz", help="keep the new weights in this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen, unseen = split()
    net = train(*seen)
    print(f"trained anew: accuracy {net.accuracy(*unseen):.4f} on {TEST_IMAGES} unseen images")
    if arguments.write:
        content = io.BytesIO()
        np.savez(content, **{name: getattr(net, name).numpy() for name in ("w1", "b1", "w2", "b2", "w3", "b3")})
        arguments.write.write_bytes(content.getvalue())
        print(f"wrote {arguments.write}: SHA256 = {hashlib.sha256(content.getvalue()).hexdigest()!r}")
    else:
        print(f"committed:    accuracy {classifier().accuracy(*unseen):.4f}")


if __name__ == "__main__":
    main()
