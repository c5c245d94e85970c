"""Trials -> Packs: trials of equal structure, trained fused in one process, sized so that all slots end together."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.config import TrainConfig
from trainables.models import config_from_dict

MAX_TRIALS_CPU = 24
"""Beyond it, the activations of a pack of small nets leave a core's cache and throughput falls (`make bench`)."""
MAX_TRIALS_GPU = 256
OVERHEAD_TRIALS = 5
"""What a pack costs besides its trials (dispatch of operations), in trials: a pack of K costs 5 + K."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """Trials that train in one process."""

    pack_id: str
    """`p-<12 hex digits>`: hash of its trial ids in order."""
    configs: tuple[TrainConfig, ...]
    resumed: bool = False
    """Begun by an earlier run: it goes on from its checkpoint, as it was composed then."""

    @property
    def cost(self) -> float:
        """Relative seconds."""
        return _cost(self.configs[0], len(self.configs))


def pack_id(trial_ids: Iterable[str]) -> str:
    """Content hash of a pack's trials in slot order."""
    return "p-" + hashlib.sha256(",".join(trial_ids).encode()).hexdigest()[:12]


def _cost(config: TrainConfig, trials: int) -> float:
    d_steps, g_steps = config.steps_of_period()
    return config.d_updates / d_steps * (d_steps + g_steps) * (OVERHEAD_TRIALS + trials)


def make_packs(configs: Sequence[TrainConfig], *, slots: int, max_trials: int) -> list[Pack]:
    """Split the configurations into packs, costliest first.

    Of all sizes up to `max_trials`, the one with which `slots` processes are estimated to end first.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[TrainConfig]] = {}
    for config in configs:
        groups.setdefault(config.structure(), []).append(config)
    candidates = (_split(groups.values(), size) for size in range(max_trials, 0, -1))
    best = min(candidates, key=lambda packs: makespan([p.cost for p in packs], slots))
    return sorted(best, key=lambda pack: -pack.cost)


def _split(groups: Iterable[Sequence[TrainConfig]], size: int) -> list[Pack]:
    packs = []
    for group in groups:
        n = -(-len(group) // size)
        for i in range(n):
            chunk = tuple(group[i * len(group) // n : (i + 1) * len(group) // n])
            packs.append(Pack(pack_id=pack_id(c.trial_id() for c in chunk), configs=chunk))
    return packs


def makespan(costs: Iterable[float], slots: int) -> float:
    """When the last of `slots` processes ends if each takes the costliest pack that is left."""
    ends = [0.0] * slots
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def resumable(packs: Mapping[str, Mapping[str, Any]], pending: Mapping[str, TrainConfig], done: set[str]) -> list[Pack]:
    """Packs of earlier runs whose unfinished trials are all wanted now: composed as then, for the same numbers."""
    found, taken = [], set[str]()
    for name, stored in sorted(packs.items(), key=lambda item: (-item[1]["created_ms"], item[0])):
        configs = tuple(config_from_dict(trial) for trial in stored["trials"])
        left = {c.trial_id() for c in configs} - done
        if left and left <= pending.keys() and not left & taken:
            taken |= left
            found.append(Pack(pack_id=name, configs=configs, resumed=True))
    return sorted(found, key=lambda pack: -pack.cost)
