"""Dataset: what every data set provides to the engine and the metrics."""

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
"""Points of the plane; images; images with one digit per channel; toys, whose sample is the exact quantity."""
Split = int | Literal["reference", "held_out"]
"""Name or number of a fixed set of real data. See `Dataset.real`."""

NETS = ("mlp", "dcgan")


class Batches(Protocol):
    """The minibatches of a pack's trials, step by step."""

    def at(self, step: int) -> Tensor:
        """The minibatch of `step` for every trial, float32 (K, B, *shape), which depends on the step only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(ABC):
    """A data set: minibatches keyed by (seed, step), and fixed real sets. Equal fields give equal data."""

    kind: ClassVar[Kind]
    """Suite of metrics that evaluates it: `METRICS[kind]`."""
    classes: ClassVar[int] = 0
    """Number of classes of `labelled()`; 0 for data without labels."""
    name: str
    """Key in DATASETS, which study files use."""
    shape: tuple[int, ...]
    """Shape of one sample: (2,) for points, (channels, height, width) for images."""

    @property
    def features(self) -> str:
        """Name of the feature space in which images are evaluated; without meaning for points and toys."""
        return "classifier" if self.classes else "random_conv"

    @property
    @abstractmethod
    def max_abs(self) -> float:
        """Largest |component| of real data, in data units."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that determines the arrays: values, order and division into parts.

        Paths and times of files do not enter. It is part of every trial id and of cache keys.
        """

    @property
    def from_files(self) -> bool:
        """Whether it is read from files, which may change independently of the code."""
        return False

    @property
    def division(self) -> str:
        """Number of samples and origin of their division, in words; empty for data that are drawn without limit."""
        return ""

    @property
    def to_learn(self) -> int | None:
        """Number of images in an epoch, which uses each once; None if every minibatch is drawn anew."""
        return None

    def missing_reason(self) -> str | None:
        """Return why the data set is not available: its files are missing. None if it is available.

        Raises:
            DataError: files are present, but incomplete or of a wrong form.
        """
        return None

    @abstractmethod
    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Minibatches of steps block * BLOCK ... (block + 1) * BLOCK - 1, float32 (BLOCK, batch_size, *shape).

        The result depends on the arguments only, so training can resume at any block and arms see equal data.
        """

    def batches(self, seeds: Sequence[int], batch_size: int, device: torch.device) -> Batches:
        """Return the minibatches of K trials with these `seeds` on `device`, with the numbers of `block`."""
        return Stream(lambda seed, block: self.block(seed, block, batch_size), seeds, device)

    @abstractmethod
    def real(self, n: int, split: Split) -> np.ndarray:
        """`n` fixed real samples, float32 (n, *shape), the same for every trial.

        `reference` is what generators are compared with. `held_out` is disjoint from it. The numbered splits 2i and
        2i + 1 are disjoint from each other: pairs for real-against-real floors.

        Raises:
            ValueError: the data set has fewer samples.
        """

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """All images of `held_out` (those to learn) or `reference`, uint8 (N, C, H, W), and labels, int64 (N,).

        Labels are 0 ... classes - 1. A pixel u has the value u / 127.5 - 1 in `real`.

        Raises:
            DataError: the data set has no labels.
            ValueError: there is no such split.
        """
        raise DataError(
            f"data {self.name!r} has no labels: it cannot be evaluated by a metric that needs classes; "
            f"use metrics of the feature space {self.features!r}, or labelled data"
        )

    @abstractmethod
    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """Default `net`, `width`, `depth` and `z_dim`; with `net=None` the data set chooses the family.

        Raises:
            ValueError: nets of that family do not fit the data.
        """


def check_net(name: str, net: str | None, allowed: tuple[str, ...]) -> None:
    """Raise ValueError if a family of nets does not fit the data set `name`."""
    if net is not None and net not in allowed:
        why = "makes images, and this data set has none" if net in NETS else "is not a family of nets"
        raise ValueError(f"net: {net!r} {why}: data {name!r} can be learnt with net {' or '.join(allowed)}")
