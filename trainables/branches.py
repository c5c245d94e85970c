"""Trials of a pack side by side on a GPU: parallel branches of one CUDA graph instead of grouped operations.

A convolution with groups=K is one call, but the library's kernels for it are slow where a trial alone has work for many
multiprocessors; kernels of single trials in channels-last layout are fast, and branches of a graph overlap. Small nets
are the other way round. Which it is is measured, once for each net in a process (docs/engine.md has figures).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

BRANCHES = 8
"""Branches that the trials of a pack are spread over."""
PROBED = 32
"""Trials at most that the probe takes: with few of them, branches look better than they are for many small nets."""
REPLAYS = 5


@functools.cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(BRANCHES)]  # type: ignore[no-untyped-call]


@contextmanager
def branches(device: torch.device) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
    """Branch i of the graph that is being captured, for trial i; outside a capture nothing is gained by branches."""
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        yield lambda i: nullcontext()
        return
    main, side = torch.cuda.current_stream(device), _streams(device)
    for stream in side:
        stream.wait_stream(main)
    yield lambda i: torch.cuda.stream(side[i % BRANCHES])
    for stream in side:
        main.wait_stream(stream)


def replay_s(work: Callable[[], object]) -> float:
    """Seconds of one replay of `work` as a graph, the least of REPLAYS."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    taken = []
    for _ in range(REPLAYS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken)
