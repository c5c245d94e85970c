"""Call a function on every node of a connected cluster at the same time."""

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
    """Result of one node."""

    node: Node
    value: T | None
    error: str | None
    """Why there is no value."""
    departed: bool = False
    """Whether there is no value because the node has left the cluster."""


def on_every_node(function: Callable[..., T], *args: object, nodes: Sequence[Node], within_s: float) -> list[Answer[T]]:
    """Call `function(*args)` once on each node, alongside any training: it reserves no CPU in Ray.

    The function must be importable on the nodes, as is the package that `clusters.existing` sends. Ray still lists a
    dead machine for some seconds; its answer is marked as departed.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    places = [NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False) for node in nodes]
    references = [remote.options(scheduling_strategy=place).remote(*args) for place in places]
    ready, _ = ray.wait(references, num_returns=len(references), timeout=within_s)
    answers: list[Answer[T]] = []
    for node, reference in zip(nodes, references, strict=True):
        if reference not in ready:
            answers.append(Answer(node=node, value=None, error=f"no answer within {within_s:.0f} s"))
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
            continue
        try:
            answers.append(Answer(node=node, value=ray.get(reference), error=None))
        except ray.exceptions.RayError as error:
            answers.append(Answer(node=node, value=None, error=last_line(str(error))))
    if all(answer.error is None for answer in answers):
        return answers
    alive = {node.node_id for node in living()}
    return [replace(a, departed=a.error is not None and a.node.node_id not in alive) for a in answers]


def in_this_process(
    function: Callable[..., T], *args: object, nodes: Sequence[Node], within_s: float
) -> list[Answer[T]]:
    """Do the same as `on_every_node` without Ray: every node is this process."""
    return [Answer(node=node, value=function(*args), error=None) for node in nodes]


def last_line(text: str) -> str:
    """Return the error at the end of a traceback that a worker sent."""
    return ([line for line in text.strip().splitlines() if line.strip()] or ["no reason given"])[-1].strip()[:500]
