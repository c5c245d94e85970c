"""Random streams keyed by (seed, role, step): the same numbers in every pack, arm, node and resume.

Numbers are drawn on the CPU in blocks of BLOCK steps by numpy's counter-based Philox and then moved to the device,
so that a stream is the same on every device and costs one call in BLOCK steps. Seeds that several trials of a pack
share are drawn once. For a GPU the next block is drawn in a thread while the present one is used.
"""

from __future__ import annotations

import functools
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Tape(Protocol):
    """Stands between sources and a pack, while a period's inputs are noted or replaced (`graphs`)."""

    def at(self, source: Source, step: int) -> Tensor:
        """What the pack gets for `source.at(step)`."""


_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)


@contextmanager
def taped(tape: Tape) -> Iterator[None]:
    """Inside, every `Source.at` goes through `tape`."""
    token = _tape.set(tape)
    try:
        yield
    finally:
        _tape.reset(token)


class Source(ABC):
    """What a pack takes its inputs from, step by step."""

    def at(self, step: int) -> Tensor:
        """The numbers of `step` for every trial, shape (K, *shape)."""
        tape = _tape.get()
        return self.draw(step) if tape is None else tape.at(self, step)

    @abstractmethod
    def draw(self, step: int) -> Tensor:
        """`at`, always from the source itself."""


@functools.cache
def _threads(_of: str) -> ThreadPoolExecutor:
    """Those that draw blocks ahead wait for those that draw a seed's part: they are others."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


class Stream(Source):
    """The draws of one role for the trials of a pack."""

    def __init__(self, draw: Draw, seeds: Sequence[int], device: torch.device) -> None:
        self._draw = draw
        self._unique = sorted(set(seeds))
        place = {seed: i for i, seed in enumerate(self._unique)}
        self._rows = torch.tensor([place[seed] for seed in seeds], device=device)
        self._device = device
        self._block = -1
        self._values: Tensor | None = None
        self._ahead: tuple[int, Future[Tensor]] | None = None
        """A block that is being drawn."""

    def draw(self, step: int) -> Tensor:
        """See `Source`."""
        block, offset = divmod(step, BLOCK)
        if self._values is None or block != self._block:
            self._values, self._block = self._next(block), block
        return self._values[offset].index_select(0, self._rows)

    def _next(self, block: int) -> Tensor:
        if self._device.type != "cuda":
            return self._drawn(block)
        ready = self._ahead is not None and self._ahead[0] == block
        values = self._ahead[1].result() if self._ahead and ready else self._drawn(block)
        self._ahead = block + 1, _threads("blocks").submit(self._drawn, block + 1)
        return values.to(self._device, non_blocking=True)

    def _drawn(self, block: int) -> Tensor:
        """(BLOCK, seeds, *shape); for a GPU in pinned memory."""
        first, cuda = self._draw(self._unique[0], block), self._device.type == "cuda"
        shape = (BLOCK, len(self._unique), *first.shape[1:])
        values = torch.empty(shape, dtype=torch.from_numpy(first).dtype, pin_memory=cuda)
        array = values.numpy()

        def put(i: int) -> None:
            array[:, i] = self._draw(self._unique[i], block) if i else first

        each = _threads("seeds").map if cuda else map
        for _ in each(put, range(len(self._unique))):
            pass
        return values
