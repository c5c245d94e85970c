"""Gaussian mixtures in the plane with weights, covariances and an exact density; one has full covariances."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vistudy.trainables.data.base import Dataset, Kind, Split, check_net
from vistudy.trainables.random_streams import BLOCK, generator


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianMixture(Dataset):
    """Fresh points of a mixture of M Gaussians with known parameters, and so with a known likelihood."""

    kind: ClassVar[Kind] = "points"
    shape: tuple[int, ...] = (2,)

    @property
    @abstractmethod
    def means(self) -> np.ndarray:
        """Centres of the components, float32 (M, 2), in data units."""

    @property
    @abstractmethod
    def weights(self) -> np.ndarray:
        """Probabilities of the components, float64 (M,)."""

    @property
    @abstractmethod
    def covariances(self) -> np.ndarray:
        """Covariance matrices of the components, float64 (M, 2, 2), in squared data units."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Independent points, float32 (*size, 2)."""

    @property
    def max_abs(self) -> float:
        """Largest centre plus four sd along an axis, as the tails are unbounded."""
        variances = np.diagonal(self.covariances, axis1=1, axis2=2)
        return float((np.abs(self.means) + 4 * np.sqrt(variances)).max())

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Logarithm of the density at points (N, 2), in nats, float64 (N,)."""
        at = np.asarray(points, dtype=np.float64)[:, None] - self.means.astype(np.float64)
        precisions = np.linalg.inv(self.covariances)
        squared = np.einsum("nmi,mij,nmj->nm", at, precisions, at)
        log_scale = np.log(self.weights) - math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(self.covariances)[1]
        exponents = log_scale - 0.5 * squared
        top = exponents.max(axis=1, keepdims=True)  # far from every centre all terms underflow
        density: np.ndarray = top[:, 0] + np.log(np.exp(exponents - top).sum(axis=1))
        return density

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Fresh points for each step."""
        return self._draw(generator(seed, "data", block), (BLOCK, batch_size))

    def real(self, n: int, split: Split) -> np.ndarray:
        """Independent draws per split, so splits are disjoint and `n` is unlimited."""
        return self._draw(generator(0, f"real/{self.name}/{split}"), (n,))

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """Two hidden layers of 64."""
        check_net(self.name, net, ("mlp",))
        return {"net": "mlp", "width": 64, "depth": 2, "z_dim": 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One Gaussian of a mixture."""

    weight: float
    """Probability of the component; those of a mixture add up to 1."""
    mean: tuple[float, float]
    """Centre, in data units."""
    covariance: tuple[float, float, float]
    """xx, xy and yy of the covariance matrix, in squared data units; positive definite."""

    def __post_init__(self) -> None:
        xx, xy, yy = self.covariance
        if self.weight <= 0 or xx <= 0 or xx * yy <= xy * xy:
            raise ValueError(f"{self}: the weight must be positive and the covariance positive definite")

    @property
    def cholesky(self) -> tuple[float, float, float]:
        """Lower factor L of the covariance (L L' = covariance): L00, L10, L11."""
        xx, xy, yy = self.covariance
        first = math.sqrt(xx)  # in closed form, so that no bit depends on the LAPACK version
        return first, xy / first, math.sqrt(yy - xy * xy / xx)


@dataclass(frozen=True, kw_only=True, slots=True)
class FullMixture(GaussianMixture):
    """A mixture of components with any weights and covariances."""

    components: tuple[Component, ...]
    """The Gaussians that are mixed."""

    def __post_init__(self) -> None:
        total = math.fsum(part.weight for part in self.components)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"mixture {self.name!r}: the weights must add up to 1, got {total}")

    @property
    def means(self) -> np.ndarray:
        """Centres as float32 (M, 2)."""
        return np.array([part.mean for part in self.components], dtype=np.float32)

    @property
    def weights(self) -> np.ndarray:
        """Weights as float64 (M,)."""
        return np.array([part.weight for part in self.components])

    @property
    def covariances(self) -> np.ndarray:
        """Covariances as float64 (M, 2, 2)."""
        return np.array([((xx, xy), (xy, yy)) for xx, xy, yy in (part.covariance for part in self.components)])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the components."""
        return hashlib.sha256(repr(self.components).encode()).hexdigest()

    def _draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], rng.random(size), side="right")
        noise = rng.standard_normal((*size, 2), dtype=np.float32)
        l00, l10, l11 = np.array([part.cholesky for part in self.components], dtype=np.float32).T
        points: np.ndarray = self.means[chosen]
        points[..., 0] += l00[chosen] * noise[..., 0]
        points[..., 1] += l10[chosen] * noise[..., 0] + l11[chosen] * noise[..., 1]
        return points


MOG_FULL = FullMixture(
    name="mog_full",
    components=(
        Component(weight=0.35, mean=(0.0, 0.0), covariance=(0.20, 0.12, 0.20)),
        Component(weight=0.25, mean=(2.5, 0.5), covariance=(0.05, -0.06, 0.30)),
        Component(weight=0.20, mean=(-2.0, 1.5), covariance=(0.30, 0.0, 0.04)),
        Component(weight=0.12, mean=(-1.0, -2.0), covariance=(0.10, 0.03, 0.06)),
        Component(weight=0.08, mean=(1.5, 2.5), covariance=(0.04, 0.0, 0.04)),
    ),
)
"""Five components, from long and slanted to small and round, with weights from .35 down to .08."""
