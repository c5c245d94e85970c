"""What every backend yields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `vistudy`, as it was imported: what workers need."""


class ClusterError(Exception):
    """A cluster cannot be reached or used. One message: what, where, what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One machine of a cluster."""

    name: str
    cpus: int
    gpus: int
    node_id: str = ""
    """Ray's name for it; empty where there is no Ray."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A connected Ray cluster, seen as places for packs: a GPU or a share of one where there are any, else a CPU."""

    name: str
    nodes: tuple[Node, ...]
    local: bool
    """On this machine only, started for this run."""
    inline: bool = False
    """No Ray: packs are trained one after another in this process."""
    packs_per_gpu: int = 1
    """Packs that share a GPU, each in a process of its own."""
    min_gpus: int = 0
    """GPUs that the study was said to need."""

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def slots(self) -> int:
        """Packs that can run at once. Beside its share of a GPU, each needs its CPUs."""
        if not self.gpus:
            return sum(node.cpus for node in self.nodes)
        return sum(min(node.cpus // self.cpus, node.gpus * self.packs_per_gpu) for node in self.nodes)

    @property
    def cpus(self) -> int:
        """CPUs of a pack: one; beside a GPU, where metrics take more time than training, an equal share of the node's.

        The same on every node, so it is the least share of all nodes with GPUs.
        """
        return max(1, min((n.cpus // (n.gpus * self.packs_per_gpu) for n in self.nodes if n.gpus), default=1))

    @property
    def gpu_share(self) -> float:
        """Of a pack. Ray counts in ten-thousandths: rounded up, the last pack would not fit."""
        return math.floor(1e4 / self.packs_per_gpu) / 1e4

    @property
    def resources(self) -> dict[str, float]:
        """What one pack asks of Ray."""
        return {"cpu": self.cpus, "gpu": self.gpu_share} if self.gpus else {"cpu": 1}

    def check(self) -> None:
        """Refuse a cluster on which no node can hold one pack (Ray would wait for ever), or with too few GPUs.

        Raises:
            ClusterError: with what each node has.
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
    """The live nodes of the connected cluster."""
    import ray

    found: list[dict[str, Any]] = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    return tuple(
        Node(
            name=node["NodeManagerAddress"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            node_id=node["NodeID"],
        )
        for node in found
    )
