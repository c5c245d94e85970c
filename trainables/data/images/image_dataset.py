"""What data sets of prepared images have in common: batches, real sets, labels, defaults of nets."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from vistudy.trainables.data.base import Batches, Dataset, Kind, Split, check_net
from vistudy.trainables.data.data_root import DATA_ROOT_VARIABLE, MissingData
from vistudy.trainables.data.images.device_batches import EpochOrder, ImageBatches, to_float
from vistudy.trainables.data.images.prepared_images import Prepared, Source, cache_root, prepare
from vistudy.trainables.random_streams import Draw, generator

KEYED_TRAIN_SHARE = 0.8
"""Share of the images to learn, where nobody has divided the data and a keyed shuffle does."""
DIVISION_SEED = 0
"""Seed of that shuffle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData(Dataset):
    """Images that are prepared once and then read from the cache. No file is opened before an image is needed.

    Within one data root, equal fields give equal data; `fingerprint` distinguishes roots.
    """

    kind: ClassVar[Kind] = "images"
    width: int = 64
    """Base channels of the DCGAN that learns it; the paper has 64."""
    z_dim: int = 100
    """Components of z; the paper has 100."""

    @abstractmethod
    def source(self) -> Source:
        """Locate the files without reading them.

        Raises:
            DataError: files are missing.
        """

    def missing_reason(self) -> str | None:
        """Check paths and names only; the contents are read when the images are prepared."""
        try:
            self.source()
        except MissingData as error:
            return str(error)
        return None

    @property
    def prepared(self) -> Prepared:
        """The prepared images, opened once per process and made on first use.

        Raises:
            DataError: files are missing or damaged, or the cache cannot be written.
        """
        return _prepared(self, os.environ.get(DATA_ROOT_VARIABLE), cache_root())

    @property
    def max_abs(self) -> float:
        """Pixels fill [-1, 1]."""
        return 1.0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and their division into images to learn and reference."""
        return self.prepared.fingerprint

    @property
    def to_learn(self) -> int | None:
        """All images to learn."""
        return self.prepared.train

    @property
    def from_files(self) -> bool:
        """True for most data sets of images."""
        return True

    @property
    def division(self) -> str:
        """The division of the prepared images."""
        return self.prepared.split

    def _draw(self, batch_size: int) -> Draw:
        """(seed, block) -> indices of images to learn."""
        return EpochOrder(self.prepared.train, batch_size)

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Batches of images to learn, each image once per epoch, in an order that is keyed by seed and epoch."""
        indices = self._draw(batch_size)(seed, block)
        return self._samples(self.prepared.images[: self.prepared.train][indices], indices.shape[:2])

    def batches(self, seeds: Sequence[int], batch_size: int, device: torch.device) -> Batches:
        """Minibatches with the numbers of `block`, gathered on the device."""
        return ImageBatches(self.prepared, self._draw(batch_size), seeds, device, self.shape)

    def _samples(self, pixels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """Uint8 pixels as float32 samples (*size, *shape)."""
        samples: np.ndarray = to_float(torch.from_numpy(np.asarray(pixels))).numpy()
        return samples.reshape(*size, *self.shape)

    def _pool(self, split: Split) -> np.ndarray:
        """Indices of the images of one split, in a fixed shuffled order.

        A numbered pair is the two halves of one shuffle of all images, so it is disjoint; different pairs overlap.
        """
        total, train = len(self.prepared.images), self.prepared.train
        if split == "reference":
            return train + generator(0, f"real/{self.name}/reference").permutation(total - train)
        if split == "held_out":
            return generator(0, f"real/{self.name}/held_out").permutation(train)
        order = generator(0, f"real/{self.name}", split // 2).permutation(total)
        return (order if split % 2 == 0 else order[::-1])[: total // 2]

    def real(self, n: int, split: Split) -> np.ndarray:
        """`held_out` are images to learn; a numbered pair is the two halves of a shuffle of all images."""
        pool = self._pool(split)
        if n > len(pool):
            raise ValueError(f"{self.name}: split {split!r} has {len(pool)} images, {n} were asked for")
        return self._samples(self.prepared.images[pool[:n]], (n,))

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels in the order of the files, memory-mapped; do not modify them."""
        if not self.classes:
            return Dataset.labelled(self, split)
        parts = {"held_out": slice(None, self.prepared.train), "reference": slice(self.prepared.train, None)}
        if split not in parts:
            raise ValueError(f"{self.name}: split {split!r} has no labels, only {' and '.join(parts)} have")
        labels = self.prepared.labels
        assert labels is not None
        return self.prepared.images[parts[str(split)]], labels[parts[str(split)]]

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """A DCGAN with the base width of the data set; an MLP of 256-256 on request."""
        check_net(self.name, net, ("dcgan", "mlp"))
        if net == "mlp":
            return {"net": "mlp", "width": 256, "depth": 2, "z_dim": self.z_dim}
        return {"net": "dcgan", "width": self.width, "depth": 0, "z_dim": self.z_dim}


@functools.cache
def _prepared(data: ImageData, root: str | None, cache: Path) -> Prepared:
    """Also keyed by the paths, since a process may switch to another root, as tests do."""
    return prepare(data.source())


def forget_seen_files() -> None:
    """Clear the cache of prepared images, so that the next access checks the files again."""
    _prepared.cache_clear()


def keyed_split(name: str, n: int) -> tuple[np.ndarray, int, str]:
    """Divide n images without a published division: order (images to learn first), number to learn, description."""
    train = int(n * KEYED_TRAIN_SHARE)
    order = generator(DIVISION_SEED, f"split/{name}").permutation(n)
    return order, train, f"keyed shuffle: {train} of {n} to learn"


def keyed_recipe() -> dict[str, float]:
    """Settings of `keyed_split`, for the recipe of images that it divides."""
    return {"keyed_train_share": KEYED_TRAIN_SHARE, "division_seed": DIVISION_SEED}
