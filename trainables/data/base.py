"""What every data set offers to the engine and to the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.random_streams import Stream

Kind = Literal["points", "images", "stacked", "exact"]
"""points of the plane; images; images whose channels are a digit each; toys, whose sample is the exact quantity."""
Split = int | Literal["reference", "held_out"]
"""Which fixed set of real data. See `Dataset.real`."""

NETS = ("mlp", "dcgan")


class Batches(Protocol):
    """The minibatches of a pack's trials, step by step."""

    def at(self, step: int) -> Tensor:
        """The minibatch of `step` for every trial, float32 (K, B, *shape). A function of the step only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(ABC):
    """One data set: minibatches keyed by (seed, step), and fixed real sets for evaluation. Equal fields, equal data."""

    kind: ClassVar[Kind]
    """Which suite of metrics judges it: `METRICS[kind]`."""
    classes: ClassVar[int] = 0
    """Number of classes of `labelled()`; 0 for data without labels."""
    name: str
    """The key in DATASETS, and what a study file calls it."""
    shape: tuple[int, ...]
    """Shape of one sample: (2,) for points, (channels, height, width) for images."""

    @property
    def features(self) -> str:
        """Name of the feature space in which images are judged (of no meaning for points and toys)."""
        return "classifier" if self.classes else "random_conv"

    @property
    @abstractmethod
    def max_abs(self) -> float:
        """Largest |component| of real data, in data units."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides which arrays are learnt and compared with: values, order and division.

        Not of places, names and times of files. A part of every trial's identity, and of the keys of what is cached.
        """

    @property
    def from_files(self) -> bool:
        """Whether it is read from files, which may change without anybody changing the code."""
        return False

    @property
    def division(self) -> str:
        """How many samples there are and who divided them, in words; empty for data without an end."""
        return ""

    @property
    def to_learn(self) -> int | None:
        """Images in an epoch, of which none is in two minibatches; None where every minibatch is drawn anew."""
        return None

    def missing_reason(self) -> str | None:
        """Why it cannot be had here, where its files are missing; None for data that are there, or need no files.

        Raises:
            DataError: files are there, but not all of them, or not in their form.
        """
        return None

    @abstractmethod
    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Minibatches of steps block * BLOCK ... (block + 1) * BLOCK - 1, float32 (BLOCK, batch_size, *shape).

        A function of the arguments only, so that any block can be drawn alone (resume) and arms see equal data.
        """

    def batches(self, seeds: Sequence[int], batch_size: int, device: torch.device) -> Batches:
        """The minibatches of the trials with these `seeds` (K of them) on `device`: the numbers of `block`."""
        return Stream(lambda seed, block: self.block(seed, block, batch_size), seeds, device)

    @abstractmethod
    def real(self, n: int, split: Split) -> np.ndarray:
        """`n` fixed real samples, float32 (n, *shape), the same for every trial.

        `reference` is what generators are compared with. `held_out` is disjoint from it. The numbered splits 2i and
        2i + 1 are disjoint from each other: pairs for real-against-real floors.

        Raises:
            ValueError: the data set has not that many.
        """

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """All images of `held_out` (the ones to learn) or `reference`: uint8 (N, C, H, W), and labels int64 (N,).

        Labels are 0 ... classes - 1. A pixel u is u / 127.5 - 1 in `real`.

        Raises:
            DataError: the data set has no labels.
            ValueError: there is no such split.
        """
        raise DataError(
            f"data {self.name!r} has no labels: a metric that needs classes cannot judge it; "
            f"use metrics of the feature space {self.features!r}, or labelled data"
        )

    @abstractmethod
    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """`net`, `width`, `depth` and `z_dim` for this data; `net=None` means the data set's own choice of family.

        Raises:
            ValueError: no net of that family fits the data.
        """


def check_net(name: str, net: str | None, allowed: tuple[str, ...]) -> None:
    """Refuse a family of nets that does not fit the data set `name`."""
    if net is not None and net not in allowed:
        why = "makes images, and this data set has none" if net in NETS else "is not a family of nets"
        raise ValueError(f"net: {net!r} {why}: data {name!r} can be learnt with net {' or '.join(allowed)}")
