"""Where a study runs: one backend per file, behind `connect`. To add one, add a file here and a line in CLUSTERS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from vistudy.clusters.base import PACKAGE, Cluster, ClusterError
from vistudy.clusters.debug import debug

__all__ = ["CLUSTERS", "PACKAGE", "Cluster", "ClusterError", "connect", "needs_ray"]


def _local() -> AbstractContextManager[Cluster]:
    from vistudy.clusters.local import local  # imports Ray

    return local()


CLUSTERS: dict[str, Callable[[], AbstractContextManager[Cluster]]] = {"local": _local, "debug": debug}
"""Name -> backend. Any other name is the address of a running cluster."""


def connect(name: str) -> AbstractContextManager[Cluster]:
    """Start or reach the cluster `name` (a name in CLUSTERS, HOST:PORT, or auto) for the duration of a `with` block.

    Raises:
        ClusterError: it cannot be reached; the message says what to do.
    """
    if name in CLUSTERS:
        return CLUSTERS[name]()
    from vistudy.clusters.existing import existing

    return existing(name)


def needs_ray(name: str) -> bool:
    """Whether the cluster `name` runs studies on Ray."""
    return name != "debug"
