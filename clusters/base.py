"""Cluster and Node: what every backend yields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `vistudy` as it was imported. Workers need a copy of it."""


class ClusterError(Exception):
    """A cluster cannot be reached or used. The message says what is wrong, where, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One machine of a cluster."""

    name: str
    cpus: int
    gpus: int
    node_id: str = ""
    """Id of the node in Ray; empty without Ray."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A connected cluster as slots for packs: a slot is a GPU or a share of one, or a CPU if there are no GPUs."""

    name: str
    nodes: tuple[Node, ...]
    local: bool
    """Whether it is this machine only, started for this run."""
    in_process: bool = False
    """Whether packs are trained one after another in this process, without Ray."""
    packs_per_gpu: int = 1
    """Packs per GPU, each in its own process."""
    min_gpus: int = 0
    """Least number of GPUs that the user requires."""

    @property
    def gpus(self) -> int:
        """Number of GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def slots(self) -> int:
        """Packs that can run at once. Besides its share of a GPU, each needs its CPUs."""
        if not self.gpus:
            return sum(node.cpus for node in self.nodes)
        return sum(min(node.cpus // self.cpus, node.gpus * self.packs_per_gpu) for node in self.nodes)

    @property
    def cpus(self) -> int:
        """CPUs per pack: one, or with GPUs an equal share of a node's CPUs, since metrics take longer than training.

        The number is the same on every node: the smallest share among the nodes with GPUs.
        """
        return max(1, min((n.cpus // (n.gpus * self.packs_per_gpu) for n in self.nodes if n.gpus), default=1))

    @property
    def gpu_share(self) -> float:
        """Share of a GPU per pack, rounded down to Ray's unit of 1/10,000 so that the last pack fits."""
        return math.floor(1e4 / self.packs_per_gpu) / 1e4

    @property
    def resources(self) -> dict[str, float]:
        """Ray resources of one pack."""
        return {"cpu": self.cpus, "gpu": self.gpu_share} if self.gpus else {"cpu": 1}

    def check(self) -> None:
        """Require a node that can hold one pack (otherwise Ray would wait forever), and enough GPUs.

        Raises:
            ClusterError: the message lists what each node has.
        """
        need = self.resources
        if not any(node.cpus >= need["cpu"] and node.gpus >= need.get("gpu", 0) for node in self.nodes):
            has = "; ".join(f"{node.name}: {node.cpus} CPU, {node.gpus} GPU" for node in self.nodes) or "no live node"
            wants = ", ".join(f"{amount:g} {kind.upper()}" for kind, amount in need.items())
            raise ClusterError(
                f"cluster {self.name}: no node can hold a pack, which needs {wants} on one node. Nodes: {has}. "
                "Add a node with that much, or start its Ray with --num-cpus of at least 1."
            )
        if self.gpus < self.min_gpus:
            raise ClusterError(
                f"cluster {self.name} has {self.gpus} GPUs; --gpus asks for {self.min_gpus}. Add nodes with GPUs "
                "(`ray start --num-gpus` says how many a node has), or ask for fewer."
            )


def nodes() -> tuple[Node, ...]:
    """Return the live nodes of the connected cluster."""
    import ray

    alive: list[dict[str, Any]] = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    return tuple(
        Node(
            name=node["NodeManagerAddress"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            node_id=node["NodeID"],
        )
        for node in alive
    )
