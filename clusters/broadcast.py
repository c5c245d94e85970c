"""Ask every node of a connected cluster the same question at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from vistudy.clusters.base import Node
from vistudy.clusters.base import nodes as living

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[T]):
    """What one node said."""

    node: Node
    value: T | None
    error: str | None
    """Why it said nothing."""
    left: bool = False
    """It said nothing because the cluster has lost it."""


def on_every_node(function: Callable[..., T], *args: object, nodes: Sequence[Node], within_s: float) -> list[Answer[T]]:
    """Call `function(*args)` once on each node, beside whatever trains there (it takes no CPU of Ray's count).

    The function must be importable on the nodes: what `clusters.existing` sends is. Ray lists a machine that died for
    some seconds more: such a one is marked as left.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    places = [NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False) for node in nodes]
    asked = [remote.options(scheduling_strategy=place).remote(*args) for place in places]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=within_s)
    found: list[Answer[T]] = []
    for node, reference in zip(nodes, asked, strict=True):
        if reference not in ready:
            found.append(Answer(node=node, value=None, error=f"no answer within {within_s:.0f} s"))
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
            continue
        try:
            found.append(Answer(node=node, value=ray.get(reference), error=None))
        except ray.exceptions.RayError as error:
            found.append(Answer(node=node, value=None, error=last_line(str(error))))
    if all(answer.error is None for answer in found):
        return found
    names = {node.node_id for node in living()}
    return [replace(answer, left=answer.error is not None and answer.node.node_id not in names) for answer in found]


def in_this_process(
    function: Callable[..., T], *args: object, nodes: Sequence[Node], within_s: float
) -> list[Answer[T]]:
    """`on_every_node` without Ray: every node is this process."""
    return [Answer(node=node, value=function(*args), error=None) for node in nodes]


def last_line(text: str) -> str:
    """Of a traceback that a worker sent: its error."""
    return ([line for line in text.strip().splitlines() if line.strip()] or ["no reason given"])[-1].strip()[:500]
