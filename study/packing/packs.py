"""Group trials into packs: trials of equal structure train fused in one process, and all slots finish together.

Pure function of the trials and of the cost of packs, which is measured (`profiling`) or else `default_cost`.
"""

from __future__ import annotations

import bisect
import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vistudy.trainables.config import TrainConfig
from vistudy.trainables.models import config_from_dict

MAX_TRIALS_CPU = 24
"""Larger packs of small nets overflow a core's cache, and throughput falls (`make bench`)."""
MAX_TRIALS_GPU = 512
"""For small nets, packs four times as large are one eighth faster (`make bench-gpu`)."""
OVERHEAD_TRIALS = 5
"""Fixed cost of a pack (dispatch of operations), in units of one trial: a pack of K trials costs 5 + K."""
MAX_CANDIDATES = 64
"""Maximum number of pack lengths that are tried."""
STEP_S = 6e-5
"""Seconds per update and trial, for the ring's nets in a full pack on one core: the scale of `default_cost`."""

_COSTS_NOTHING = ("d_updates", "evaluations", "data_fingerprint")

Structure = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackCost:
    """Cost of one period of a pack of one structure, by its number of trials."""

    sizes: tuple[int, ...]
    """Numbers of trials: at least two, ascending, starting at 1."""
    period_s: tuple[float, ...]
    """Seconds per period, for each of `sizes`."""
    max_trials: int
    """Largest pack: more trials do not fit into memory, or are not known to be faster."""
    measured: bool = True

    def seconds(self, trials: int) -> float:
        """Seconds per period, by linear interpolation between the measured sizes and extrapolation beyond the last."""
        i = min(max(bisect.bisect_left(self.sizes, trials), 1), len(self.sizes) - 1)
        (a, b), (low, high) = self.sizes[i - 1 : i + 1], self.period_s[i - 1 : i + 1]
        return low + (high - low) * (trials - a) / (b - a)

    @property
    def best(self) -> int:
        """Size up to `max_trials` with the lowest cost per trial."""
        return min(range(1, self.max_trials + 1), key=lambda trials: self.seconds(trials) / trials)


def default_cost(config: TrainConfig, most: int) -> PackCost:
    """Cost of packs of small nets on one core, used where nothing was measured."""
    unit = sum(config.steps_of_period()) * STEP_S
    period_s = (unit * (OVERHEAD_TRIALS + 1), unit * (OVERHEAD_TRIALS + 2))
    return PackCost(sizes=(1, 2), period_s=period_s, max_trials=most, measured=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """Trials that train in one process."""

    pack_id: str
    """`p-<12 hex digits>`: hash of its trial ids in order."""
    configs: tuple[TrainConfig, ...]
    resumed: bool = False
    """Started by an earlier run: it resumes from its checkpoint with the same trials."""
    cost: float = field(compare=False)
    """Estimated seconds of training; where nothing was measured, good for comparisons only."""


def pack_id(trial_ids: Iterable[str]) -> str:
    """Content hash of a pack's trials in slot order."""
    return "p-" + hashlib.sha256(",".join(trial_ids).encode()).hexdigest()[:12]


def cost_key(config: TrainConfig) -> Structure:
    """Key of a measured cost: the structure without the length of the run and without the data's fingerprint."""
    return tuple(item for item in config.structure() if item[0] not in _COSTS_NOTHING)


def _periods(config: TrainConfig) -> int:
    return -(-config.d_updates // config.steps_of_period()[0])


def make_packs(
    configs: Sequence[TrainConfig], *, slots: int, max_trials: int, costs: Mapping[Structure, PackCost] | None = None
) -> list[Pack]:
    """Split configurations into packs, costliest first, to minimise the estimated makespan of `slots` processes.

    Args:
        configs: resolved configurations without duplicates.
        slots: number of concurrent processes.
        max_trials: largest pack of a structure without a measured cost.
        costs: measured costs by `cost_key(config)`.
    """
    if not configs:  # a resumed study whose packs have all begun
        return []
    groups: dict[Structure, list[TrainConfig]] = {}
    for config in configs:
        groups.setdefault(config.structure(), []).append(config)
    group_costs = [_cost(group[0], costs, max_trials) for group in groups.values()]
    counts = _counts([(group, c, c.best) for group, c in zip(groups.values(), group_costs, strict=True)], slots)
    packs = []
    for group, cost, n in zip(groups.values(), group_costs, counts, strict=True):
        for i in range(n):
            chunk = tuple(group[i * len(group) // n : (i + 1) * len(group) // n])
            seconds = _periods(chunk[0]) * cost.seconds(len(chunk))
            packs.append(Pack(pack_id=pack_id(c.trial_id() for c in chunk), configs=chunk, cost=seconds))
    return sorted(packs, key=lambda pack: -pack.cost)


def _cost(config: TrainConfig, costs: Mapping[Structure, PackCost] | None, max_trials: int) -> PackCost:
    return (costs or {}).get(cost_key(config)) or default_cost(config, max_trials)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Option:
    """One way to split a group."""

    packs: int
    seconds: tuple[tuple[float, int], ...]
    """(seconds, number of packs), longest first: pack sizes differ by at most one."""

    @property
    def longest(self) -> float:
        return self.seconds[0][0]

    @property
    def total(self) -> float:
        return sum(seconds * count for seconds, count in self.seconds)


StructureGroup = tuple[Sequence[TrainConfig], PackCost, int]
"""Trials of one structure, their cost and the best pack size."""


def _split(group: StructureGroup, packs: int) -> _Option:
    (configs, cost, _), periods = group, _periods(group[0][0])
    small, larger = divmod(len(configs), packs)
    parts = [(size, count) for size, count in ((small + 1, larger), (small, packs - larger)) if count]
    return _Option(packs=packs, seconds=tuple((periods * cost.seconds(size), count) for size, count in parts))


def _options(group: StructureGroup, multiple: int) -> list[_Option]:
    """Splits of a group, fewest packs first: every size up to the best, with a multiple of `of` packs."""
    trials, best = len(group[0]), group[2]
    return [
        _split(group, packs)
        for packs in sorted({min(trials, -(-trials // size // multiple) * multiple) for size in range(1, best + 1)})
    ]


def _candidate_splits(groups: Sequence[StructureGroup], slots: int) -> Iterator[list[_Option]]:
    """Candidate splits of all groups.

    No pack takes longer than T, for (some of) the values of T that matter, longest first; the same with a multiple of
    `slots` packs in every group, so that slots share evenly; and one size for all.
    """
    for multiple in (1, slots):
        options = [_options(group, multiple) for group in groups]
        limits = sorted({option.longest for of_group in options for option in of_group}, reverse=True)
        for limit in limits[:: -(-len(limits) // MAX_CANDIDATES)]:
            yield [next((o for o in of_group if o.longest <= limit), of_group[-1]) for of_group in options]
    for size in range(max((best for _, _, best in groups), default=0), 0, -1):
        yield [_split(group, -(-len(group[0]) // min(size, group[2]))) for group in groups]


def _counts(groups: Sequence[StructureGroup], slots: int) -> list[int]:
    """Number of packs per group that minimises the makespan."""
    best, chosen = float("inf"), list[_Option]()
    for plan in _candidate_splits(groups, slots):
        if sum(option.total for option in plan) / slots >= best:
            continue  # it cannot be sooner
        ends = makespan((s for option in plan for s, count in option.seconds for _ in range(count)), slots)
        if ends < best:
            best, chosen = ends, plan
    return [option.packs for option in chosen]


def makespan(costs: Iterable[float], slots: int) -> float:
    """Time at which the last of `slots` processes finishes if each always takes the costliest pending pack."""
    ends = [0.0] * slots
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def resumable(
    packs: Mapping[str, Mapping[str, Any]],
    pending: Mapping[str, TrainConfig],
    done: set[str],
    costs: Mapping[Structure, PackCost] | None = None,
) -> list[Pack]:
    """Packs of earlier runs whose unfinished trials are all pending now, with the same trials for the same numbers."""
    resumed, taken = [], set[str]()
    for name, stored in sorted(packs.items(), key=lambda item: (-item[1]["created_ms"], item[0])):
        remaining = set(_trial_ids(stored)) - done
        if remaining and remaining <= pending.keys() and not remaining & taken:
            taken |= remaining
            configs = tuple(config_from_dict(trial) for trial in stored["trials"])
            cost = _cost(configs[0], costs, len(configs)).seconds(len(configs)) * _periods(configs[0])
            resumed.append(Pack(pack_id=name, configs=configs, resumed=True, cost=cost))
    return sorted(resumed, key=lambda pack: -pack.cost)


def _trial_ids(stored: Mapping[str, Any]) -> Iterable[str]:
    """Trial ids of a stored pack; hashed anew for packs that were written without ids."""
    return stored.get("trial_ids") or (config_from_dict(trial).trial_id() for trial in stored["trials"])
