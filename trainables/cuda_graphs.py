"""Periods of a pack as replays of one CUDA graph.

A period of small nets is hundreds of kernels of some microseconds each, and starting them one by one from Python takes
longer than running them. Their number, shapes and addresses are the same in every period; what changes is the inputs,
which are copied into fixed buffers before a replay, and the counters, which grow by the same amounts each time.
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
"""Periods that run as they are before one is captured: the first make buffers, the last two tell the steps apart."""


class HasCounters(Protocol):
    """A pack whose whole state is device tensors and some counters."""

    def get_counters(self) -> list[int]:
        """The counters."""

    def set_counters(self, values: Sequence[int]) -> None:
        """Set the counters."""

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period."""


@dataclass
class RecordingTape:
    """A tape that notes which steps of which sources a period takes."""

    calls: list[tuple[Source, int]] = field(default_factory=list)

    def at(self, source: Source, step: int) -> Tensor:
        """The numbers themselves."""
        self.calls.append((source, step))
        return source.draw(step)


@dataclass
class ReplayTape:
    """A tape that hands out fixed buffers in order."""

    calls: list[tuple[Source, int]]
    buffers: list[Tensor]
    place: int = 0

    def at(self, source: Source, step: int) -> Tensor:
        """The next buffer."""
        expected = self.calls[self.place]
        if expected != (source, step):
            raise RuntimeError(f"a period took step {step} of its inputs where step {expected[1]} was expected")
        self.place += 1
        return self.buffers[self.place - 1]


class GraphedPeriod:
    """`pack.period`, on a GPU by replaying a graph; the same updates bit by bit."""

    def __init__(self, pack: HasCounters) -> None:
        self._pack = pack
        self._past: list[tuple[list[tuple[Source, int]], list[int]]] = []
        """Inputs taken, and counters after them, of the last two ordinary periods."""
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: list[Tensor] = []
        self._growth: list[int] = []
        self._next: list[tuple[Source, int]] = []
        self._strides: list[int] = []
        self._given_up = False

    def __call__(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. One with diagnostics is never a replay: it does more."""
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
        noted = RecordingTape()
        with streams.taped(noted):
            out = self._pack.period(diagnose=diagnose)
        self._past = [*self._past[-1:], (noted.calls, self._pack.get_counters())]
        if self._graph is not None:
            self._next = self._after(self._next)
        return out

    def _regular(self) -> bool:
        """Whether the last two periods took the same steps of the same sources, counted from their start."""
        (before, counted_before), (last, counted) = self._past
        if [source for source, _ in before] != [source for source, _ in last]:
            return False
        self._strides = [b - a for (_, a), (_, b) in zip(before, last, strict=True)]
        self._growth = [b - a for a, b in zip(counted_before, counted, strict=True)]
        self._next = self._after(last)
        return True

    def _after(self, calls: list[tuple[Source, int]]) -> list[tuple[Source, int]]:
        return [(source, step + stride) for (source, step), stride in zip(calls, self._strides, strict=True)]

    def _capture(self) -> bool:
        """Capture the period that is next, without running it. False: this pack's cannot be captured."""
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
