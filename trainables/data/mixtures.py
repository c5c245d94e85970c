"""Equal mixtures of round Gaussians in the plane: the ring of 8 and the grid of 25.

Coordinates and scale are PacGAN's (Lin et al. 2018, arXiv:1712.04086, section 4.1): they are not rescaled to [-1, 1],
since that would be another experiment. The ring's sd is .05 as in VEEGAN's and the grid's code, where PacGAN has .01.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainables.data.base import Dataset, Kind, Split, check_net
from trainables.streams import BLOCK, generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture(Dataset):
    """Points of an equal mixture of Gaussians of standard deviation `sd` around `modes`."""

    kind: ClassVar[Kind] = "points"
    shape: tuple[int, ...] = (2,)
    modes: tuple[tuple[float, float], ...]
    """Centres of the components, in data units."""
    sd: float
    """Standard deviation of each component, in data units, the same in every direction."""

    @property
    def means(self) -> np.ndarray:
        """Centres as float32 (modes, 2)."""
        return np.array(self.modes, dtype=np.float32)

    @property
    def max_abs(self) -> float:
        """Outermost centre plus four sd: the tails have no end."""
        return float(np.abs(self.means).max()) + 4 * self.sd

    @property
    def fingerprint(self) -> str:
        """SHA-256 of centres and sd."""
        return hashlib.sha256(repr((self.modes, self.sd)).encode()).hexdigest()

    def block(self, seed: int, block: int, batch_size: int) -> np.ndarray:
        """Fresh points: no two steps see the same ones."""
        return self._draw(generator(seed, "data", block), (BLOCK, batch_size))

    def real(self, n: int, split: Split) -> np.ndarray:
        """Independent draws for each split, so all splits are disjoint and `n` is free."""
        return self._draw(generator(0, f"real/{self.name}/{split}"), (n,))

    def net_defaults(self, net: str | None) -> dict[str, str | int]:
        """Two hidden layers of 64."""
        check_net(self.name, net, ("mlp",))
        return {"net": "mlp", "width": 64, "depth": 2, "z_dim": 8}

    def _draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        points: np.ndarray = self.means[rng.integers(len(self.modes), size=size)]
        points += np.float32(self.sd) * rng.standard_normal((*size, 2), dtype=np.float32)
        return points


def ring(name: str, *, modes: int, radius: float, sd: float) -> Mixture:
    """`modes` distinct centres on a circle. (A linspace that includes 2 pi would put two of them in one place.)"""
    angles = [2 * math.pi * i / modes for i in range(modes)]
    # Rounded, so that the last bit of a machine's cosine is no part of the content.
    centres = tuple((round(radius * math.cos(a), 9), round(radius * math.sin(a), 9)) for a in angles)
    return Mixture(name=name, modes=centres, sd=sd)


def grid(name: str, *, ticks: tuple[float, ...], sd: float) -> Mixture:
    """Centres at every pair of `ticks`."""
    return Mixture(name=name, modes=tuple((x, y) for x in ticks for y in ticks), sd=sd)


RING8 = ring("ring8", modes=8, radius=1.0, sd=0.05)
GRID25 = grid("grid25", ticks=(-4.0, -2.0, 0.0, 2.0, 4.0), sd=0.05)
