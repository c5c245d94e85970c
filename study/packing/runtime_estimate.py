"""Estimate a study's runtime by training each of its structures briefly on the hardware that will run it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vistudy.study.packing.packs import Pack, makespan
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.device import precision_context
from vistudy.trainables.engine import Engine, make_warm_period

PILOT_STRUCTURES = 8
"""Maximum number of structures that are measured: the costliest ones."""
PERIODS_S = 0.4
"""Seconds for which periods of one pack are timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Measured cost of one pack."""

    period_s: float
    evaluation_s: float
    start_s: float
    """Building the pack."""

    def total_s(self, config: TrainConfig) -> float:
        """Seconds of the complete training."""
        periods = -(-config.d_updates // config.steps_of_period()[0])
        return self.start_s + periods * self.period_s + (config.evaluations + 1) * self.evaluation_s


def time_pack(configs: Sequence[TrainConfig], metric_threads: int) -> Timing:
    """Train a pack briefly in this process, on its GPU if any, and time it; `metric_threads` as in `Engine`."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    engine = Engine(configs, device=device, metric_threads=metric_threads)
    built = now()
    next(engine.evaluations())
    evaluated = now()
    with precision_context(configs[0].precision, device):
        period = make_warm_period(engine.pack, device)
        periods, started = 0, now()
        while now() - started < PERIODS_S:
            period(diagnose=False)
            periods += 1
        period_s = (now() - started) / periods
    return Timing(period_s=period_s, evaluation_s=evaluated - built, start_s=built - start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Estimated time for the packs of a plan."""

    slot_s: float
    """Core seconds or GPU seconds, summed over packs."""
    wall_s: float
    """Seconds until the last slot finishes."""


def estimate(packs: Sequence[Pack], timings: dict[str, Timing], slots: int) -> Estimate:
    """Sum over packs; a pack without a measurement takes that of the most similar structure, scaled by cost."""
    seconds = []
    for pack in packs:
        timing = timings.get(pack.pack_id)
        if timing is None:
            like = min((p for p in packs if p.pack_id in timings), key=lambda p: _distance(p, pack))
            seconds.append(timings[like.pack_id].total_s(like.configs[0]) * pack.cost / like.cost)
        else:
            seconds.append(timing.total_s(pack.configs[0]))
    return Estimate(slot_s=sum(seconds), wall_s=makespan(seconds, slots))


def _distance(a: Pack, b: Pack) -> tuple[int, float]:
    """Distance of two packs: number of differing fields first, then size."""
    differing = sum(x != y for x, y in zip(a.configs[0].structure(), b.configs[0].structure(), strict=False))
    return differing, abs(a.cost - b.cost)


def representatives(packs: Sequence[Pack], most: int) -> list[Pack]:
    """Largest pack of each of the `most` costliest structures."""
    best: dict[object, Pack] = {}
    for pack in packs:
        key = pack.configs[0].structure()
        if key not in best or pack.cost > best[key].cost:
            best[key] = pack
    return sorted(best.values(), key=lambda pack: -pack.cost)[:most]
