"""Equal mixtures of round Gaussians in the plane: the ring of 8 and the grid of 25.

Coordinates and scale are those of PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.1). They are not rescaled to
[-1, 1], which would be another experiment. The sd of the ring is .05 as in the code of VEEGAN and of the grid; PacGAN
has .01.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from vistudy.trainables.data.gaussians import GaussianMixture


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture(GaussianMixture):
    """Points of an equal mixture of Gaussians of standard deviation `sd` around `modes`."""

    modes: tuple[tuple[float, float], ...]
    """Centres of the components, in data units."""
    sd: float
    """Standard deviation of each component, in data units, the same in every direction."""

    @property
    def means(self) -> np.ndarray:
        """Centres as float32 (M, 2)."""
        return np.array(self.modes, dtype=np.float32)

    @property
    def weights(self) -> np.ndarray:
        """Equal."""
        return np.full(len(self.modes), 1 / len(self.modes))

    @property
    def covariances(self) -> np.ndarray:
        """Round: sd^2 times the identity."""
        return np.tile(self.sd**2 * np.eye(2), (len(self.modes), 1, 1))

    @property
    def max_abs(self) -> float:
        """Largest centre plus four sd, as the tails are unbounded."""
        return float(np.abs(self.means).max()) + 4 * self.sd

    @property
    def fingerprint(self) -> str:
        """SHA-256 of centres and sd."""
        return hashlib.sha256(repr((self.modes, self.sd)).encode()).hexdigest()

    def _draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        points: np.ndarray = self.means[rng.integers(len(self.modes), size=size)]
        points += np.float32(self.sd) * rng.standard_normal((*size, 2), dtype=np.float32)
        return points


def ring(name: str, *, modes: int, radius: float, sd: float) -> Mixture:
    """Make a mixture with `modes` distinct centres on a circle. (A linspace including 2 pi would repeat one.)"""
    angles = [2 * math.pi * i / modes for i in range(modes)]
    # Rounded, so that no bit depends on the machine's cosine.
    centres = tuple((round(radius * math.cos(a), 9), round(radius * math.sin(a), 9)) for a in angles)
    return Mixture(name=name, modes=centres, sd=sd)


def grid(name: str, *, ticks: tuple[float, ...], sd: float) -> Mixture:
    """Make a mixture with centres at every pair of `ticks`."""
    return Mixture(name=name, modes=tuple((x, y) for x in ticks for y in ticks), sd=sd)


RING8 = ring("ring8", modes=8, radius=1.0, sd=0.05)
GRID25 = grid("grid25", ticks=(-4.0, -2.0, 0.0, 2.0, 4.0), sd=0.05)
