"""Seconds and peak memory of each metric at its stated N: `python -m benchmarks.metric_costs` prints a table.

The suites evaluate real data (MNIST's with --data-root or VISTUDY_DATA_ROOT), the protocols of the literature noise,
whose cost is the same. One thread. Each metric is measured in a process of its own, forked when its reference and
samples
are there:

    made_s     its side of the reference, once for a data set and process
    seconds    one trial's evaluation: least of three processor times (of one, if that takes over five seconds)
    mib        memory above that of the process before, at the peak of both

`looking` is what all metrics of a suite share: features, or sorted projections. --write keeps the result as
benchmarks/results/metrics-<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistudy.study.execution.provenance import git_state, versions
from vistudy.trainables.data import DATASETS, DataError, Dataset
from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.metrics.coverage.prdc import prdc, radii
from vistudy.trainables.metrics.distances.codes import code_fd, code_mmd2
from vistudy.trainables.metrics.distances.frechet import frechet_distance, moments
from vistudy.trainables.metrics.distances.kid import kid_of_subsets
from vistudy.trainables.metrics.distances.likelihood import mixture_nll
from vistudy.trainables.metrics.distances.pggan_swd import (
    directions,
    laplacian_pyramid,
    patches,
    projections,
    sliced_w1,
)
from vistudy.trainables.metrics.evaluate import METRICS, N_SAMPLES, feature_view, suite_of
from vistudy.trainables.metrics.features.inception import FEATURES as INCEPTION_FEATURES
from vistudy.trainables.metrics.features.inception import inception, inception_weights
from vistudy.trainables.metrics.features.random_conv import random_conv
from vistudy.trainables.random_streams import generator

RESULTS = Path(__file__).parent / "results"
REPEATS, LONG = 3, 5.0
"""Evaluations a row; one where that takes so many seconds."""
SUITES = ("ring8", "grid25", "mog_full", "digits", "polygons", "mnist", "stacked_mnist")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One row of the table."""

    suite: str
    metric: str
    n: int
    make: Callable[[], Callable[[], object]]
    """Prepares the reference's side and returns one evaluation."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_suite(data: Dataset) -> Iterator[Task]:
    """Looking, and every metric of the suite of `data`."""
    suite = suite_of(data)
    n, look = N_SAMPLES[suite], feature_view(data).transform
    reference, samples = (torch.from_numpy(data.real(n, split)) for split in ("reference", "held_out"))
    title = f"{suite}: {data.name}, " + "x".join(map(str, data.shape))
    yield Task(suite=title, metric="looking", n=n, make=lambda: lambda: look(samples))
    of_real, of_samples = look(reference), look(samples)
    for metric in METRICS[suite]:

        def make(metric: Any = metric) -> Callable[[], object]:
            made = metric(data, of_real)
            return lambda: made(of_samples)

        yield Task(suite=title, metric=", ".join(metric.names), n=n, make=make)


def of_packs() -> Iterator[Task]:
    """What packs call for themselves, for one trial."""
    codes, points = noise(1, 2000, 64), noise(2500, 2)
    means, covs = noise(1, 25, 2), torch.eye(2).expand(1, 25, 2, 2)
    title = "called by packs"
    yield Task(suite=title, metric="code_mmd2, 64-d", n=2000, make=lambda: lambda: code_mmd2(codes))
    yield Task(suite=title, metric="code_fd, 64-d", n=2000, make=lambda: lambda: code_fd(codes))
    yield Task(
        suite=title,
        metric="mixture_nll, 25 Gaussians",
        n=2500,
        make=lambda: lambda: mixture_nll(points, torch.full((1, 25), 0.04), means, covs),
    )


def as_published() -> Iterator[Task]:
    """The protocols of the literature, at their N, on noise."""
    title = "as published, on noise"

    def swd() -> Callable[[], object]:
        onto, rng = directions(49 * 3, 512), generator(0, "benchmark")

        def sides(seed: int) -> list[Any]:
            levels = laplacian_pyramid(noise(1000, 3, 64, 64, seed=seed))
            return [projections(patches(level, 128, rng), onto) for level in levels]

        real = sides(0)
        return lambda: [sliced_w1(*pair) for pair in zip(sides(1), real, strict=True)]

    def shares(n: int) -> Callable[[], object]:
        real, fake = noise(n, 64), noise(n, 64, seed=1)
        own = radii(real)
        return lambda: prdc(real, fake, own)

    def fid() -> Callable[[], object]:
        real, fake = moments(noise(10_000, INCEPTION_FEATURES)), noise(10_000, INCEPTION_FEATURES, seed=1)
        return lambda: frechet_distance(real, moments(fake))

    def kid() -> Callable[[], object]:
        real, fake = noise(10_000, INCEPTION_FEATURES), noise(10_000, INCEPTION_FEATURES, seed=1)
        return lambda: kid_of_subsets(fake, real)

    def random_features() -> Callable[[], object]:
        images = noise(2000, 3, 64, 64)
        return lambda: random_conv(images)

    yield Task(suite=title, metric="random_conv, 3x64x64", n=2000, make=random_features)
    yield Task(suite=title, metric="PGGAN SWD, 3x64x64, 128 patches, 512 directions", n=1000, make=swd)
    yield Task(suite=title, metric="precision, recall, density, coverage, 64-d", n=5000, make=lambda: shares(5000))
    yield Task(suite=title, metric="precision, recall, density, coverage, 64-d", n=10_000, make=lambda: shares(10_000))
    yield Task(suite=title, metric="Frechet distance, 2048-d", n=10_000, make=fid)
    yield Task(suite=title, metric="KID, 2048-d, 100 subsets of 1000", n=10_000, make=kid)
    if inception_weights() is not None:
        look, images = inception(), noise(50, 3, 64, 64).clamp(-1, 1)
        yield Task(suite=title, metric="Inception-v3 features", n=50, make=lambda: lambda: look(images))


def memory_mib(field: str) -> float:
    """VmRSS or VmHWM of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def measure(task: Task, answer: Any) -> None:
    """In the child: make, evaluate REPEATS times, send (made_s, seconds, mib)."""
    with torch.no_grad():
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is the parent's
        before, start = memory_mib("VmRSS"), time.process_time()
        evaluate = task.make()
        made, seconds = time.process_time() - start, math.inf
        for _ in range(REPEATS):
            start = time.process_time()
            evaluate()
            seconds = min(seconds, time.process_time() - start)
            if seconds > LONG:
                break
    answer.send((made, seconds, memory_mib("VmHWM") - before))


def run(task: Task) -> dict[str, Any]:
    """Measure one task in a process of its own.

    Raises:
        RuntimeError: the process ended without an answer.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=measure, args=(task, theirs))
    child.start()
    theirs.close()
    try:
        made, seconds, mib = ours.recv()
    except EOFError:
        raise RuntimeError(f"{task.suite}, {task.metric}: the process ended without an answer") from None
    finally:
        child.join()
    times = {"made_s": round(made, 4), "seconds": round(seconds, 4), "mib": round(mib, 1)}
    return {"suite": task.suite, "metric": task.metric, "n": task.n} | times


def tasks(names: list[str]) -> Iterator[Task]:
    """All rows, one suite after the other: what a suite prepared is gone when the next one starts."""
    for name in names:
        data = DATASETS[name]
        try:
            if isinstance(data, ImageData):
                data.source()
        except DataError as error:
            print(f"{name}: left out, {str(error).splitlines()[0]}")
            continue
        yield from of_suite(data)
    yield from of_packs()
    yield from as_published()


def main() -> None:
    """Measure, print, and write the result if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=list(SUITES), help=f"Data sets; default: {' '.join(SUITES)}.")
    parser.add_argument("--data-root", type=Path, help="Folder of the data sets' files.")
    parser.add_argument("--write", action="store_true", help="Keep the result.")
    args, started = parser.parse_args(), datetime.datetime.now(datetime.UTC)
    if args.data_root:
        os.environ["VISTUDY_DATA_ROOT"] = str(args.data_root.resolve())
    torch.set_num_threads(1)
    load, rows, suite = os.getloadavg()[0], [], ""
    with tempfile.TemporaryDirectory(prefix="vistudy-bench-") as scratch:
        os.environ.setdefault("VISTUDY_CACHE", scratch)
        for task in tasks(args.data):
            row = run(task)
            rows.append(row)
            if suite != task.suite:
                suite = task.suite
                print(f"\n{suite}\n{'metric':<90} {'N':>6} {'made s':>8} {'seconds':>8} {'MiB':>7}")
            print(f"{row['metric']:<90} {row['n']:>6} {row['made_s']:>8.4f} {row['seconds']:>8.4f} {row['mib']:>7.0f}")
    result = {
        "date": started.isoformat(timespec="seconds"),
        "command": "python -m benchmarks.metric_costs",
        "machine": {"system": platform.platform(), "cpus": len(os.sched_getaffinity(0)), "load_at_start": load},
        "versions": versions(),
        "git": git_state(),
        "rows": rows,
    }
    if args.write:
        path = RESULTS / f"metrics-{started.date()}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"\nwritten: benchmarks/results/{path.name}")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
