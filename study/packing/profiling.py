"""Measure what packs of a structure cost on this hardware, in a second or two; results are cached per user."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

import torch

from vistudy.study.packing.packs import PackCost, Structure, cost_key
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.prepared_images import cache_root
from vistudy.trainables.device import flush_denormals, limit_memory, precision_context
from vistudy.trainables.engine import make_warm_period
from vistudy.trainables.metrics import cache
from vistudy.trainables.models import make_pack

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
SIZES_GPU = (1, 4, 16, 64, 256, 512)
"""Pack sizes that are measured. On a GPU each size is captured as a CUDA graph, which takes a second."""
SEEDS = 8
"""Number of distinct seeds among the trials: in studies, arms share seeds."""
BUDGET_S = 1.5
BUDGET_GPU_S = 15.0
"""No further size is measured after this many seconds."""
POINT_S = 0.05
"""Seconds for which periods of one size are timed; at least three periods."""
STOP_RATIO = 1.1
"""Stop once two sizes in a row cost more than this multiple of the best cost per trial."""
SATURATION_RATIO = 0.95
"""On a GPU, also stop once the cost per trial improves by less than 5 %: the device is saturated."""
MEMORY_SHARE = 0.9
EVAL_SAMPLES = 10_000
"""Samples per trial whose memory is measured: the number that image metrics use."""
WORTH_UPDATES = 1_000_000
"""Structures with fewer updates in total are not measured."""
MIN_TRAINING_S = 200 * BUDGET_S
"""Structures whose training takes less than this on one core or GPU are not measured further."""

_log = logging.getLogger("vistudy.probe")


class DeviceMeter(Protocol):
    """Clock and memory of a device."""

    total_bytes: int | None
    """Bytes of memory of the device; None if memory does not limit packs."""

    def now(self) -> float:
        """Current time in seconds, after all started work has finished."""

    def reset(self) -> None:
        """Reset the peak memory."""

    def peak_bytes(self) -> int:
        """Peak bytes since `reset`."""


class CpuMeter:
    """A core."""

    total_bytes: int | None = None

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def reset(self) -> None:
        """Nothing."""

    def peak_bytes(self) -> int:
        """Not measured."""
        return 0


class CudaMeter:
    """A GPU."""

    def __init__(self, gpu_share: float) -> None:
        self.total_bytes: int | None = limit_memory(torch.device("cuda:0"), gpu_share)

    def now(self) -> float:
        """Current time in seconds, after the GPU has finished its queue."""
        torch.cuda.synchronize()
        return time.perf_counter()

    def reset(self) -> None:
        """Release cached memory and reset the peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Peak bytes held by tensors."""
        return torch.cuda.max_memory_allocated()


def worth_profiling(configs: Sequence[TrainConfig]) -> dict[Structure, list[TrainConfig]]:
    """Group trials by structure, for structures that train long enough to be worth profiling."""
    groups: dict[Structure, list[TrainConfig]] = {}
    for config in configs:
        groups.setdefault(cost_key(config), []).append(config)
    return {key: group for key, group in groups.items() if sum(map(_updates, group)) >= WORTH_UPDATES}


def periods(group: Sequence[TrainConfig]) -> int:
    """Total number of periods of a group's trials."""
    return sum(map(_periods, group))


def _updates(config: TrainConfig) -> int:
    return _periods(config) * sum(config.steps_of_period())


def _periods(config: TrainConfig) -> int:
    return -(-config.d_updates // config.steps_of_period()[0])


def costs(configs: Sequence[TrainConfig], most: int, gpu_share: float) -> dict[Structure, PackCost]:
    """Measure the costs of the structures that are worth it, of at most `most` structures, on this machine."""
    profiles = {
        key: profile_structure(group[0], periods(group), gpu_share)
        for key, group in list(worth_profiling(configs).items())[:most]
    }
    return {key: cost for key, cost in profiles.items() if cost is not None}


def profile_structure(config: TrainConfig, of_all: int, gpu_share: float) -> PackCost | None:
    """Return the cost of a structure from this machine's cache, or measure it and cache it.

    `of_all`: number of periods of all trials together; if they would take less than MIN_TRAINING_S, profiling stops and
    returns None. So does an error of the training code, which the trials will report. `gpu_share`: share of a GPU's
    memory into which packs must fit. Speed is measured with the whole GPU.
    """
    torch.set_num_threads(1)  # as a pack's process
    gpu = torch.cuda.is_available()
    path = f"probes/{_key(config, gpu, gpu_share)}.json"
    try:
        cached = cache.read(cache_root() / path)
        if cached is not None:
            return from_json(cached)
    except (DataError, ValueError, KeyError, TypeError, OSError) as error:
        _log.info("a probe in the cache cannot be used, and is made anew: %s", error)
    meter: DeviceMeter = CudaMeter(gpu_share) if gpu else CpuMeter()
    try:
        cost = measure(config, of_all, meter, torch.device("cuda" if gpu else "cpu"))
    except Exception as error:  # any error of a model: its trials will report it
        _log.warning("packs of %s on %s are not measured: %s", config.model, config.data, error)
        return None
    if cost is not None:
        try:
            (cache_root() / path).parent.mkdir(parents=True, exist_ok=True)
            cache.write(cache_root() / path, to_json(cost))
        except (DataError, OSError) as error:
            _log.info("the probe is not kept: %s", error)
    return cost


def measure(config: TrainConfig, of_all: int, meter: DeviceMeter, device: torch.device) -> PackCost | None:
    """Time packs of growing size until the budget is spent, the cost per trial rises, or memory is short."""
    started, sizes, period_s, peaks = meter.now(), list[int](), list[float](), list[int]()
    gpu = meter.total_bytes is not None
    candidates, budget_s = (SIZES_GPU, BUDGET_GPU_S) if gpu else (SIZES, BUDGET_S)
    largest = candidates[-1]
    for size in candidates:
        if size > _fitting(sizes, peaks, meter.total_bytes, largest):
            break
        try:
            seconds, peak = _time(config, size, meter, device)
        except torch.OutOfMemoryError:
            if not sizes:
                raise
            largest = sizes[-1]
            break
        sizes, period_s, peaks = [*sizes, size], [*period_s, seconds], [*peaks, peak]
        if seconds / size * of_all < MIN_TRAINING_S:
            return None
        each = [s / n for s, n in zip(period_s, sizes, strict=True)]
        full = gpu and len(each) > 1 and each[-1] > SATURATION_RATIO * each[-2]
        if full or meter.now() - started > budget_s or min(each[-2:]) > STOP_RATIO * min(each):
            break
    if len(sizes) < 2:  # one trial takes the whole budget: such nets saturate the device alone
        return PackCost(sizes=(1, 2), period_s=(period_s[0], 2 * period_s[0]), max_trials=1)
    most = min(sizes[-1], _fitting(sizes, peaks, meter.total_bytes, largest))
    return PackCost(sizes=tuple(sizes), period_s=tuple(period_s), max_trials=max(1, most))


def _time(config: TrainConfig, size: int, meter: DeviceMeter, device: torch.device) -> tuple[float, int]:
    """Return seconds per period of a pack of `size` trials, and its peak memory in training and evaluation."""
    meter.reset()
    pack = make_pack([dataclasses.replace(config, seed=i % SEEDS) for i in range(size)], device)
    with flush_denormals(), precision_context(config.precision, device):
        if meter.total_bytes:
            pack.evaluation_samples(EVAL_SAMPLES, 0)
        period = make_warm_period(pack, device)
        count, started = 0, meter.now()
        while count < 3 or meter.now() - started < POINT_S:
            period(diagnose=False)
            count += 1
        return (meter.now() - started) / count, meter.peak_bytes()


def _fitting(sizes: Sequence[int], peaks: Sequence[int], total: int | None, largest: int) -> int:
    """Number of trials that fit, extrapolating memory linearly from the last two sizes."""
    if total is None or len(sizes) < 2:
        return largest
    (a, b), (low, high) = sizes[-2:], peaks[-2:]
    each = (high - low) / (b - a)
    return largest if each <= 0 else min(largest, int(b + (MEMORY_SHARE * total - high) / each))


def _key(config: TrainConfig, gpu: bool, gpu_share: float) -> str:
    """Cache key of a measurement: machine, versions, structure, memory."""
    device = torch.cuda.get_device_name(0) if gpu else _cpu()
    versions = {name: version(name) for name in ("vistudy", "torch")} | {"python": platform.python_version()}
    what = [
        device,
        os.cpu_count(),
        versions,
        cost_key(config),
        SIZES_GPU if gpu else SIZES,
        gpu_share if gpu else 1.0,
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.node()} {platform.machine()} {platform.processor()}"


def to_json(cost: PackCost) -> bytes:
    """Serialize a cost."""
    return json.dumps(dataclasses.asdict(cost)).encode()


def from_json(data: bytes) -> PackCost:
    """Inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
    content: Mapping[str, object] = json.loads(data)
    cost = PackCost(**{**content, "sizes": tuple(content["sizes"]), "period_s": tuple(content["period_s"])})  # type: ignore[arg-type]
    if len(cost.sizes) < 2 or len(cost.sizes) != len(cost.period_s) or cost.max_trials < 1:
        raise ValueError(f"no cost of packs: {content}")
    return cost
