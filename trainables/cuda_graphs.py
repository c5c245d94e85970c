"""Run the periods of a pack as replays of one CUDA graph.

A period of small nets launches hundreds of kernels of a few microseconds each, and launching them from Python takes
longer than running them. Their number, shapes and addresses are the same in every period. Only two things change: the
inputs, which are copied into fixed buffers before each replay, and the counters, which grow by constant amounts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from vistudy.trainables import random_streams as streams
from vistudy.trainables.random_streams import Source

_log = logging.getLogger("vistudy.graphs")

WARM = 3
"""Ordinary periods before the capture: the first allocate buffers, the last two reveal how the inputs advance."""


class HasCounters(Protocol):
    """A pack whose state consists of device tensors and a few counters."""

    def get_counters(self) -> list[int]:
        """Values of the counters."""

    def set_counters(self, values: Sequence[int]) -> None:
        """Set the counters."""

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period."""


@dataclass
class RecordingTape:
    """A tape that records which steps of which sources a period reads."""

    calls: list[tuple[Source, int]] = field(default_factory=list)

    def at(self, source: Source, step: int) -> Tensor:
        """Draw the numbers of `step` and record the call."""
        self.calls.append((source, step))
        return source.draw(step)


@dataclass
class ReplayTape:
    """A tape that returns fixed buffers in order."""

    calls: list[tuple[Source, int]]
    buffers: list[Tensor]
    position: int = 0

    def at(self, source: Source, step: int) -> Tensor:
        """Return the next buffer.

        Raises:
            RuntimeError: the period reads another step than the recorded one.
        """
        expected = self.calls[self.position]
        if expected != (source, step):
            raise RuntimeError(f"a period took step {step} of its inputs where step {expected[1]} was expected")
        self.position += 1
        return self.buffers[self.position - 1]


class GraphedPeriod:
    """`pack.period` on a GPU, by replaying a CUDA graph; the updates are bitwise the same."""

    def __init__(self, pack: HasCounters) -> None:
        self._pack = pack
        self._past: list[tuple[list[tuple[Source, int]], list[int]]] = []
        """Recorded inputs and final counters of the last two ordinary periods."""
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: list[Tensor] = []
        self._growth: list[int] = []
        self._next: list[tuple[Source, int]] = []
        self._strides: list[int] = []
        self._given_up = False

    def __call__(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. A period with diagnostics runs more operations, so it is never a replay."""
        if diagnose or self._given_up:
            return self._ordinary(diagnose=diagnose)
        if self._graph is None:
            if self._warm < WARM or not self._regular():
                self._warm += 1
                return self._ordinary(diagnose=False)
            if not self._capture():
                return self._ordinary(diagnose=False)
        self._replay()
        return {}

    def _ordinary(self, *, diagnose: bool) -> dict[str, Tensor]:
        tape = RecordingTape()
        with streams.taped(tape):
            out = self._pack.period(diagnose=diagnose)
        self._past = [*self._past[-1:], (tape.calls, self._pack.get_counters())]
        if self._graph is not None:
            self._next = self._after(self._next)
        return out

    def _regular(self) -> bool:
        """Whether the last two periods read their sources in the same pattern; if so, note how steps grow."""
        (before, counters_before), (last, counters) = self._past
        if [source for source, _ in before] != [source for source, _ in last]:
            return False
        self._strides = [b - a for (_, a), (_, b) in zip(before, last, strict=True)]
        self._growth = [b - a for a, b in zip(counters_before, counters, strict=True)]
        self._next = self._after(last)
        return True

    def _after(self, calls: list[tuple[Source, int]]) -> list[tuple[Source, int]]:
        return [(source, step + stride) for (source, step), stride in zip(calls, self._strides, strict=True)]

    def _capture(self) -> bool:
        """Capture the next period without running it. Returns False if this pack cannot be captured."""
        before = self._pack.get_counters()
        self._buffers = [source.draw(step) for source, step in self._next]
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                streams.taped(ReplayTape(self._next, self._buffers)),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                self._pack.period(diagnose=False)
        except RuntimeError as error:
            _log.warning("periods of %s run without a CUDA graph: %s", type(self._pack).__name__, error)
            self._given_up = True
            return False
        finally:
            grown = [b - a for a, b in zip(before, self._pack.get_counters(), strict=True)]
            self._pack.set_counters(before)
        if grown != self._growth:
            raise RuntimeError(f"a period of {type(self._pack).__name__} does not always count {self._growth}")
        self._graph = graph
        return True

    def _replay(self) -> None:
        assert self._graph is not None
        for (source, step), buffer in zip(self._next, self._buffers, strict=True):
            buffer.copy_(source.draw(step))
        self._graph.replay()
        self._pack.set_counters([a + grown for a, grown in zip(self._pack.get_counters(), self._growth, strict=True)])
        self._next = self._after(self._next)
