"""Small data sets of each kind, computed on the spot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from vistudy.trainables.data.base import Dataset, Kind, Split
from vistudy.trainables.metrics.distances.mmd import rbf_sum, rbf_within
from vistudy.trainables.random_streams import generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars(Dataset):
    """Images of a bright vertical bar at one of four places, in noise. The place is the class."""

    kind: ClassVar[Kind] = "images"
    classes: ClassVar[int] = 4
    name: str = "bars"
    shape: tuple[int, ...] = (1, 16, 16)

    @property
    def max_abs(self) -> float:
        return 1.0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def draw(self, n: int, role: str) -> tuple[np.ndarray, np.ndarray]:
        rng = generator(0, f"{self.name}/{role}")
        labels = rng.integers(4, size=n)
        pixels = rng.integers(0, 60, (n, *self.shape), dtype=np.uint8)
        for place in range(4):
            pixels[labels == place, :, :, 4 * place : 4 * place + 2] += 150
        return pixels, labels

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        raise NotImplementedError

    def real(self, n: int, split: Split) -> np.ndarray:
        return (self.draw(n, f"real/{split}")[0] / 127.5 - 1).astype(np.float32)

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        return self.draw(600, f"labelled/{split}")

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain(Bars):
    """The same without labels, in colour and not square."""

    classes: ClassVar[int] = 0
    name: str = "plain"
    shape: tuple[int, ...] = (3, 18, 16)

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        return Dataset.labelled(self, split)


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedBars(Bars):
    """Two bars, each in its channel: 16 modes. Labelled are the channels."""

    kind: ClassVar[Kind] = "stacked"
    name: str = "stacked_bars"
    shape: tuple[int, ...] = (2, 16, 16)

    def real(self, n: int, split: Split) -> np.ndarray:
        pixels, _ = Bars(name=self.name).draw(2 * n, f"real/{split}")
        return (pixels / 127.5 - 1).astype(np.float32).reshape(n, *self.shape)

    def labelled(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        return Bars(name=self.name).draw(600, f"labelled/{split}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Toy(Bars):
    """A parameter that should be 0."""

    kind: ClassVar[Kind] = "exact"
    classes: ClassVar[int] = 0
    name: str = "toy"
    shape: tuple[int, ...] = (1,)

    def real(self, n: int, split: Split) -> np.ndarray:
        return np.zeros((n, *self.shape), dtype=np.float32)

    def exact_distance(self, samples: Tensor) -> float:
        return float(samples.abs().mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class States(Toy):
    """A distribution on three states, of which it knows more than the distance."""

    name: str = "states"
    shape: tuple[int, ...] = (3,)

    def exact_metrics(self, samples: Tensor) -> dict[str, float]:
        return {"dist": float((samples - 1 / 3).abs().sum()), "cov": float((samples > 0.1).double().mean())}


BARS, PLAIN, STACKED_BARS, TOY, STATES = Bars(), Plain(), StackedBars(), Toy(), States()


def rbf_mmd2(x: Tensor, y: Tensor, variance: float) -> float:
    """Unbiased estimate of MMD^2 between (N, d) and (M, d) points. It can be negative, and is never clipped."""
    x, y = x.double(), y.double()
    between = rbf_sum(x, y, variance) / (len(x) * len(y))
    return rbf_within(x, variance) + rbf_within(y, variance) - 2 * between
