"""Train packs one after another in this process, without Ray, so that a debugger can be attached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vistudy.clusters.base import Cluster, Node


@contextmanager
def debug() -> Iterator[Cluster]:
    """Yield one slot for packs: the first GPU if there is one, else a CPU."""
    import torch

    gpus = min(1, torch.cuda.device_count())
    node = Node(name=socket.gethostname(), cpus=1, gpus=gpus)
    yield Cluster(name="debug", nodes=(node,), local=True, in_process=True)
