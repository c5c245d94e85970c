"""Handwritten digits, 8x8 grey: the 1,797 images included in scikit-learn (UCI optical digits, test part).

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vistudy.trainables.data.base import Dataset, Kind, Split, check_net
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.device_batches import EpochOrder
from vistudy.trainables.random_streams import generator

REFERENCE_IMAGES = 800
"""Images that are held out, which generators are compared with. Trials learn the other 997."""


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """Return all images, float32 (1797, 1, 8, 8) in [-1, 1], and labels, int64 (1797,), in the order of the bundle.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("data 'digits' is read from scikit-learn: pip install scikit-learn") from error
    bundle = load_digits()
    images = (bundle.images.astype(np.float32) / 8 - 1).reshape(-1, 1, 8, 8)  # 0..16 -> [-1, 1]
    labels = bundle.target.astype(np.int64)
    for array in (images, labels):
        array.flags.writeable = False  # shared by all callers
    return images, labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits(Dataset):
    """The digits, divided once into 997 images to learn and 800 to compare with."""

    kind: ClassVar[Kind] = "images"
    classes: ClassVar[int] = 10
    name: str = "digits"
    shape: tuple[int, ...] = (1, 8, 8)

    @property
    def features(self) -> str:
        """The committed classifier, not one that is trained on first use."""
        return "digits"

    @property
    def max_abs(self) -> float:
        """Pixels fill [-1, 1]."""
        return 1.0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and their division."""
        return _fingerprint(REFERENCE_IMAGES)

    @property
    def division(self) -> str:
        """The division by the fixed shuffle."""
        return f"keyed shuffle: {len(_train())} of {len(load()[0])} to learn"

    @property
    def to_learn(self) -> int | None:
        """All images to learn."""
        return len(_train())

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Batches of training images, each image once per epoch, in an order that is keyed by seed and epoch.

        Batches continue across the end of an epoch, so every batch is full.
        """
        images = _train()
        batches: np.ndarray = images[EpochOrder(len(images), batch_size)(seed, block)]
        return batches

    def real(self, n: int, split: Split) -> np.ndarray:
        """`held_out` are the training images. Numbered pairs are the two ends of one shuffle of all images.

        So the two sets of a pair are disjoint if they have at most 898 images each, but different pairs share images.
        """
        images, _ = load()
        if split == "reference":
            pool: np.ndarray = images[_order()[:REFERENCE_IMAGES]]
        elif split == "held_out":
            pool = _train()
        else:
            order = generator(0, "real/digits", split // 2).permutation(len(images))
            pool = images[(order if split % 2 == 0 else order[::-1])[: len(images) // 2]]
        if n > len(pool):
            raise ValueError(f"digits: split {split!r} has {len(pool)} images, {n} were asked for")
        return pool[:n].copy()

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images with labels. The 17 grey levels are scaled to 0 ... 255 and rounded."""
        indices = {"reference": _order()[:REFERENCE_IMAGES], "held_out": _order()[REFERENCE_IMAGES:]}
        if split not in indices:
            raise ValueError(f"digits: split {split!r} has no labels, only {' and '.join(indices)} have")
        images, labels = load()
        chosen = indices[str(split)]
        pixels: np.ndarray = np.rint((images[chosen] + 1) * 127.5).astype(np.uint8)
        return pixels, labels[chosen]

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """DCGAN-style nets of base width 16; an MLP of 128-128 on request."""
        check_net(self.name, net, ("dcgan", "mlp"))
        if net == "mlp":
            return {"net": "mlp", "width": 128, "depth": 2, "z_dim": 32}
        return {"net": "dcgan", "width": 16, "depth": 0, "z_dim": 32}


def _order() -> np.ndarray:
    """The fixed shuffle that divides the images: neighbours in the bundle are by the same writer."""
    return generator(0, "split/digits").permutation(len(load()[0]))


@functools.cache
def _fingerprint(reference: int) -> str:
    images, labels = load()
    order = _order()
    parts = (images[order], labels[order], np.array([reference]))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@functools.cache
def _train() -> np.ndarray:
    images: np.ndarray = load()[0][_order()[REFERENCE_IMAGES:]]
    images.flags.writeable = False
    return images


DIGITS = Digits()
