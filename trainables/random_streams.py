"""Random streams keyed by (seed, role, step): the same numbers in every pack, arm, node and resume.

Numbers are drawn on the CPU in blocks of BLOCK steps by numpy's counter-based Philox generator and then moved to the
device, so a stream is the same on every device and costs one call per BLOCK steps. A seed that several trials of a pack
share is drawn once. For a GPU the next block is drawn in a thread while the current one is in use.
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
"""Steps per block. Part of the definition of the streams: another value gives other numbers."""

Draw = Callable[[int, int], np.ndarray]
"""(seed, block) -> float32 array (BLOCK, *shape)."""


def generator(seed: int, role: str, block: int = 0) -> np.random.Generator:
    """Return the generator of one block of the stream `role` of `seed`."""
    key = np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(role.encode()), block))
    return np.random.Generator(np.random.Philox(key))


def normal(role: str, shape: tuple[int, ...]) -> Draw:
    """Return a draw of standard normal numbers, `shape` per step."""

    def draw(seed: int, block: int) -> np.ndarray:
        return generator(seed, role, block).standard_normal((BLOCK, *shape), dtype=np.float32)

    return draw


class Tape(Protocol):
    """Intercepts what a pack reads from its sources, to record or replay the inputs of a period (`cuda_graphs`)."""

    def at(self, source: Source, step: int) -> Tensor:
        """Return what the pack gets for `source.at(step)`."""


_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)


@contextmanager
def taped(tape: Tape) -> Iterator[None]:
    """Route every `Source.at` through `tape` inside the block."""
    token = _tape.set(tape)
    try:
        yield
    finally:
        _tape.reset(token)


class Source(ABC):
    """Source of the inputs of a pack, step by step."""

    def at(self, step: int) -> Tensor:
        """Return the numbers of `step` for every trial, (K, *shape), through the current tape."""
        tape = _tape.get()
        return self.draw(step) if tape is None else tape.at(self, step)

    @abstractmethod
    def draw(self, step: int) -> Tensor:
        """Return the numbers of `step` without a tape."""


@functools.cache
def _thread_pool(_name: str) -> ThreadPoolExecutor:
    """Thread pool by name. Threads that prefetch blocks wait for those that draw seeds, so there are two pools."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


class Stream(Source):
    """The random numbers of one role for the trials of a pack."""

    def __init__(self, draw: Draw, seeds: Sequence[int], device: torch.device) -> None:
        self._draw = draw
        self._unique = sorted(set(seeds))
        place = {seed: i for i, seed in enumerate(self._unique)}
        self._rows = torch.tensor([place[seed] for seed in seeds], device=device)
        self._device = device
        self._block = -1
        self._values: Tensor | None = None
        self._ahead: tuple[int, Future[Tensor]] | None = None
        """Number of the block that is being prefetched, and its future."""

    def draw(self, step: int) -> Tensor:
        """See `Source`."""
        block, offset = divmod(step, BLOCK)
        if self._values is None or block != self._block:
            self._values, self._block = self._next(block), block
        return self._values[offset].index_select(0, self._rows)

    def _next(self, block: int) -> Tensor:
        if self._device.type != "cuda":
            return self._draw_block(block)
        ready = self._ahead is not None and self._ahead[0] == block
        values = self._ahead[1].result() if self._ahead and ready else self._draw_block(block)
        self._ahead = block + 1, _thread_pool("blocks").submit(self._draw_block, block + 1)
        return values.to(self._device, non_blocking=True)

    def _draw_block(self, block: int) -> Tensor:
        """Draw a block, (BLOCK, seeds, *shape); for a GPU in pinned memory."""
        first, cuda = self._draw(self._unique[0], block), self._device.type == "cuda"
        shape = (BLOCK, len(self._unique), *first.shape[1:])
        values = torch.empty(shape, dtype=torch.from_numpy(first).dtype, pin_memory=cuda)
        array = values.numpy()

        def put(i: int) -> None:
            array[:, i] = self._draw(self._unique[i], block) if i else first

        each = _thread_pool("seeds").map if cuda else map
        for _ in each(put, range(len(self._unique))):
            pass
        return values
