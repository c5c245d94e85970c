"""Train the trials of a pack in parallel CUDA streams: each is a pack of its own, on a branch of one CUDA graph.

A convolution with groups=K is a single call, but its kernels are slow if one trial alone keeps many multiprocessors
busy. In that case kernels of single trials in channels-last layout, on branches that overlap, are faster. For small
nets it is the other way round. The faster form is determined by timing, once per structure and process (for figures see
docs/engine.md).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vistudy.trainables.cuda_graphs import WARM, GraphedPeriod, HasCounters
from vistudy.trainables.device import precision_context
from vistudy.trainables.models.base import NetConfig, TrainedNet
from vistudy.trainables.nets.architectures import Params

BRANCHES = 8
"""Branches of the graph, over which the trials of a pack are distributed."""
TIMED_SIZES = (2, 8, 32)
"""Pack sizes that are timed, each for packs of at least that size: many small nets gain less from branches."""
REPLAYS = 3
ROUNDS = 2

Build = Callable[[Sequence[Any], torch.device], Any]
"""Makes a pack of nets (`NetPack`)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConcatenatedNet:
    """One net of all trials, concatenated when it is read. See `TrainedNet`."""

    each: Sequence[TrainedNet]

    @property
    def flat(self) -> Tensor:
        """(K, P)."""
        return torch.cat([net.flat for net in self.each])

    @property
    def frozen(self) -> Params:
        """Parameter -> (K, *shape)."""
        return {name: torch.cat([net.frozen[name] for net in self.each]) for name in self.each[0].frozen}


class StreamParallelPack:
    """A pack of K trials that consists of K packs of one; same numbers as the pack that groups its operations."""

    def __init__(self, build: Build, configs: Sequence[Any], device: torch.device) -> None:
        self.packs, self._device = [build([config], device) for config in configs], device

    @property
    def d_updates(self) -> int:
        """As in every pack, see `Pack`."""
        done: int = self.packs[0].d_updates
        return done

    def get_counters(self) -> list[int]:
        """See `cuda_graphs.HasCounters`."""
        counters: list[int] = self.packs[0].get_counters()
        return counters

    def set_counters(self, values: Sequence[int]) -> None:
        """See `cuda_graphs.HasCounters`."""
        for pack in self.packs:
            pack.set_counters(values)

    @property
    def nets(self) -> Mapping[str, ConcatenatedNet]:
        """As in every pack, see `Pack`."""
        return {name: ConcatenatedNet(each=[pack.nets[name] for pack in self.packs]) for name in self.packs[0].nets}

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period, each trial on one branch, so that trials need not wait for each other."""
        outs = []
        with _branches(self._device) as branch:
            for i, pack in enumerate(self.packs):
                with branch(i):
                    outs.append(pack.period(diagnose=diagnose))
        return _concatenate(outs)

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """As in every pack, see `Pack`."""
        each = [pack.evaluation_samples(n, evaluation) for pack in self.packs]
        running = [r for _, r in each if r is not None]
        return torch.cat([samples for samples, _ in each]), torch.cat(running) if running else None

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """As in every pack, see `Pack`."""
        return _concatenate([pack.measures(evaluation) for pack in self.packs])

    def state(self) -> dict[str, Tensor]:
        """State of a pack of K trials."""
        states = [pack.state() for pack in self.packs]
        return {
            name: torch.cat([state[name] for state in states], _trial_dim(name)) if first.dim() else first
            for name, first in states[0].items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the state of a pack of K trials."""
        for i, pack in enumerate(self.packs):
            pack.load({n: t.narrow(_trial_dim(n), i, 1) if t.dim() else t for n, t in state.items()})


def _concatenate(outs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([out[name] for out in outs]) for name in outs[0]}


def _trial_dim(name: str) -> int:
    """Dimension of the trials in a tensor of the state: an anchor has a stack of (K, P)."""
    return 1 if name.endswith(".past") else 0


@functools.cache
def _cuda_streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(BRANCHES)]  # type: ignore[no-untyped-call]


@contextmanager
def _branches(device: torch.device) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
    """Yield a function from trial i to a context: its branch while a graph is captured, else a null context."""
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        yield lambda i: nullcontext()
        return
    main, side = torch.cuda.current_stream(device), _cuda_streams(device)
    for stream in side:
        stream.wait_stream(main)
    yield lambda i: torch.cuda.stream(side[i % BRANCHES])
    for stream in side:
        main.wait_stream(stream)


_timings: dict[tuple[object, ...], bool] = {}


def streams_are_faster(build: Build, config: NetConfig, k: int, device: torch.device) -> bool:
    """Whether `k` trials of the structure of `config` train faster in streams than grouped. Timed once per process."""
    k = max(size for size in TIMED_SIZES if size <= k)
    key = (build, config.structure(), k, device)
    if key not in _timings:
        _timings[key] = _time_both(build, config, k, device)
        torch.cuda.empty_cache()
    return _timings[key]


def _time_both(build: Build, config: NetConfig, k: int, device: torch.device) -> bool:
    configs = [dataclasses.replace(config, seed=seed) for seed in range(k)]
    ways = (functools.partial(StreamParallelPack, build), build)
    try:
        in_streams, grouped = (_period_s(way(configs, device), config.precision, device) for way in ways)
    except torch.OutOfMemoryError:
        return k == TIMED_SIZES[0] or streams_are_faster(build, config, k // 2, device)
    return in_streams < grouped


def _period_s(pack: HasCounters, precision: str, device: torch.device) -> float:
    """Seconds per replayed period, least of ROUNDS, with inputs prepared while the previous period runs."""
    period, durations_s = GraphedPeriod(pack), []
    with precision_context(precision, device):
        for _ in range(WARM + 1):
            period(diagnose=False)
        for _ in range(ROUNDS):
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            for _ in range(REPLAYS):
                period(diagnose=False)
            torch.cuda.synchronize(device)
            durations_s.append((time.perf_counter() - started) / REPLAYS)
    return min(durations_s)
