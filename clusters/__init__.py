"""Where a study runs: one backend a file, behind `connect`. To add one: a file here, and a line in CLUSTERS."""

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
"""Name -> backend. Everything else is the address of a running cluster."""


def connect(name: str) -> AbstractContextManager[Cluster]:
    """Start or reach the cluster `name` (a name in CLUSTERS, or HOST:PORT, or auto) for the time of a `with`.

    Raises:
        ClusterError: it cannot be reached, with what to do.
    """
    if name in CLUSTERS:
        return CLUSTERS[name]()
    from vistudy.clusters.existing import address

    return address(name)


def needs_ray(name: str) -> bool:
    """Whether studies run there by Ray."""
    return name != "debug"
