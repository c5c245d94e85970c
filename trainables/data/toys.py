"""Data of the exact toys. A sample of a toy is the generated distribution itself, not a draw from it."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data.base import Dataset, Kind, Split
from vistudy.trainables.random_streams import BLOCK, generator

COVERED = 0.1
"""A state is covered if it is generated with at least this share of its probability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Toy(Dataset):
    """A data set whose every real sample is the exact solution, so the distance of real from real is 0."""

    kind: ClassVar[Kind] = "exact"
    learner: str
    """The model that learns it."""

    @property
    @abstractmethod
    def solution(self) -> tuple[float, ...]:
        """The sample of a generator that has learned the data, of length `shape[0]`."""

    @abstractmethod
    def exact_metrics(self, samples: Tensor) -> dict[str, float]:
        """Return `dist`, and `cov` if there are states to cover, of a sample (1, *shape)."""

    @property
    def max_abs(self) -> float:
        """Scale of the data; at least 1, since a point at 0 has no scale."""
        return max(1.0, *map(abs, self.solution))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of name and solution."""
        return hashlib.sha256(repr((self.name, self.solution)).encode()).hexdigest()

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """The solution, repeated."""
        return np.tile(np.array(self.solution, dtype=np.float32), (BLOCK, batch_size, 1))

    def real(self, n: int, split: Split) -> np.ndarray:
        """The solution, repeated n times; all splits are equal."""
        return np.tile(np.array(self.solution, dtype=np.float32), (n, 1))

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """Raise: nets cannot learn exact data.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"data: {self.name!r} is exact and can be learnt by model {self.learner} only")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point(Toy):
    """All data at one point of the line; a sample is the generated point."""

    shape: tuple[int, ...] = (1,)
    at: float
    """Position of the data."""

    @property
    def solution(self) -> tuple[float, ...]:
        """The position."""
        return (self.at,)

    def exact_metrics(self, samples: Tensor) -> dict[str, float]:
        """The distance from the position, which is the Wasserstein distance of any order."""
        return {"dist": abs(samples[0].item() - self.at)}


@dataclass(frozen=True, kw_only=True, slots=True)
class States(Toy):
    """A finite sample space; a sample is the vector of generated probabilities."""

    odds: tuple[int, ...]
    """Probabilities of the states up to a factor; whole numbers, so that no machine rounds them."""

    @property
    def solution(self) -> tuple[float, ...]:
        """Probabilities that add up to 1."""
        return tuple(odds / sum(self.odds) for odds in self.odds)

    def exact_metrics(self, samples: Tensor) -> dict[str, float]:
        """KL(p||q) in nats (infinite where q lacks a state), and the share of states that q covers."""
        p = torch.tensor(self.solution, dtype=torch.float64)
        q = samples[0].double()
        q = q / q.sum()  # in single precision, the sum may differ from 1
        return {"dist": (p * (p / q).log()).sum().item(), "cov": (q >= COVERED * p).double().mean().item()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Normal(Toy):
    """A Gaussian on the line; a sample is the mean and standard deviation of the generated one."""

    shape: tuple[int, ...] = (2,)
    mean: float
    """In data units."""
    sd: float
    """In data units, above 0."""

    @property
    def solution(self) -> tuple[float, ...]:
        """mean, sd."""
        return (self.mean, self.sd)

    def exact_metrics(self, samples: Tensor) -> dict[str, float]:
        """Wasserstein-2 distance of two Gaussians: root of the squared differences of means and of sds."""
        mean, sd = samples[0].tolist()
        return {"dist": math.hypot(mean - self.mean, sd - self.sd)}

    def points(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Fresh minibatches of points for the steps of a block, float32 (BLOCK, batch_size)."""
        noise = generator(seed, "data", block).standard_normal((BLOCK, batch_size), dtype=np.float32)
        return np.float32(self.mean) + np.float32(self.sd) * noise


def states(name: str, count: int) -> States:
    """Make `count` states with odds between 5 and 100, keyed by the name."""
    odds = tuple(map(int, generator(0, name).integers(5, 101, size=count)))
    return States(name=name, learner="finite_gan", shape=(count,), odds=odds)


POINT0 = Point(name="point0", learner="dirac_gan", at=0.0)
STATES8 = states("states8", 8)
NORMAL1D = Normal(name="normal1d", learner="gauss_gan", mean=0.0, sd=1.0)
