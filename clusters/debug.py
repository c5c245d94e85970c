"""This process and nothing else: packs are trained one after another, without Ray. For debuggers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vistudy.clusters.base import Cluster, Node


@contextmanager
def debug() -> Iterator[Cluster]:
    """One place for packs: the first GPU, if there is one, else this process's CPU."""
    import torch

    gpus = min(1, torch.cuda.device_count())
    here = Node(name=socket.gethostname(), cpus=1, gpus=gpus)
    yield Cluster(name="debug", nodes=(here,), local=True, inline=True)
