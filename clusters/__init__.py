"""Where a study runs: one backend a file, behind `connect`. To add one: a file here, and a line in CLUSTERS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from clusters.address import address
from clusters.base import Cluster, ClusterError
from clusters.local import local

__all__ = ["CLUSTERS", "Cluster", "ClusterError", "connect"]

CLUSTERS: dict[str, Callable[[], AbstractContextManager[Cluster]]] = {"local": local}
"""Name -> backend. Everything else is the address of a running cluster."""


def connect(name: str) -> AbstractContextManager[Cluster]:
    """Start or reach the cluster `name` (a name in CLUSTERS, or HOST:PORT, or auto) for the time of a `with`.

    Raises:
        ClusterError: it cannot be reached, with what to do.
    """
    return CLUSTERS[name]() if name in CLUSTERS else address(name)
