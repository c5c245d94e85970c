"""Random streams keyed by (seed, role, step): the same numbers in every pack, arm, node and resume.

Numbers are drawn on the CPU in blocks of BLOCK steps by numpy's counter-based Philox and then moved to the device,
so that a stream is the same on every device and costs one call in BLOCK steps. Seeds that several trials of a pack
share are drawn once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 64
"""Steps drawn at once. Part of the streams' definition: another value gives other numbers."""

Draw = Callable[[int, int], np.ndarray]
"""(seed, block) -> float32 array (BLOCK, *shape)."""


def generator(seed: int, role: str, block: int = 0) -> np.random.Generator:
    """The generator of one block of the stream `role` of `seed`."""
    key = np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(role.encode()), block))
    return np.random.Generator(np.random.Philox(key))


def normal(role: str, shape: tuple[int, ...]) -> Draw:
    """Standard normal numbers of `shape` a step."""

    def draw(seed: int, block: int) -> np.ndarray:
        return generator(seed, role, block).standard_normal((BLOCK, *shape), dtype=np.float32)

    return draw


class Stream:
    """The draws of one role for the trials of a pack, step by step."""

    def __init__(self, draw: Draw, seeds: Sequence[int], device: torch.device) -> None:
        self._draw = draw
        self._unique = sorted(set(seeds))
        place = {seed: i for i, seed in enumerate(self._unique)}
        self._rows = torch.tensor([place[seed] for seed in seeds], device=device)
        self._device = device
        self._block = -1
        self._values: Tensor | None = None

    def at(self, step: int) -> Tensor:
        """The numbers of `step` for every trial, shape (K, *shape)."""
        block, offset = divmod(step, BLOCK)
        if self._values is None or block != self._block:
            values = np.stack([self._draw(seed, block) for seed in self._unique], axis=1)
            self._values, self._block = torch.from_numpy(values).to(self._device), block
        return self._values[offset].index_select(0, self._rows)
