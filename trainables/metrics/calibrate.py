"""Known failures on the metrics' scale: `python -m trainables.metrics.calibrate` prints the tables of docs/metrics.md.

For each data set: real data, parts of it, and distortions of it, with their metrics and their composite deficiency; the
error of sliced distances by directions; and what an evaluation costs in time of one core.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from trainables.data import DATASETS, Dataset
from trainables.data.mixtures import Mixture
from trainables.metrics.evaluate import evaluator
from trainables.metrics.reference import moment_matched, reference
from trainables.metrics.sliced_w2 import sliced_w2
from trainables.metrics.views import DIRECTIONS, half_circle, sorted_projections, view_images
from trainables.streams import generator


def untrained(data: Dataset, seed: int) -> Tensor:
    """Samples (n_samples, *shape) of a random MLP 64-64 on 8 normal numbers, uniform +-1/sqrt(inputs) weights."""
    rng = generator(seed, "calibrate/untrained")
    x = rng.standard_normal((evaluator(data).n_samples, 8))
    for inputs, outputs in ((8, 64), (64, 64), (64, math.prod(data.shape))):
        x = np.maximum(x, 0) if inputs == 64 else x
        weight, bias = rng.uniform(-1, 1, (inputs, outputs)), rng.uniform(-1, 1, outputs)
        x = (x @ weight + bias) / inputs**0.5
    x = np.tanh(x) if data.kind == "images" else x
    return torch.from_numpy(x.astype(np.float32).reshape(-1, *data.shape))


def deficiency(values: dict[str, float], real: dict[str, float]) -> float:
    """Composite deficiency: the worst of distance, coverage and precision; 0 is real data, 1 the untrained net."""
    distance = (values["dist"] - real["dist_floor"]) / (real["dist_ceiling"] - real["dist_floor"])
    return max(0.0, distance, 1 - values["cov"] / real["cov_real"], 1 - values["prec"] / real["prec_real"])


def point_failures(data: Mixture) -> dict[str, np.ndarray]:
    """Name -> samples (2500, 2) of a mixture's typical failures."""
    rng = generator(0, "calibrate/points")

    def mix(modes: list[int], sd: float) -> np.ndarray:
        centres = data.means[rng.choice(modes, 2500)]
        points: np.ndarray = centres + sd * rng.standard_normal((2500, 2))
        return points.astype(np.float32)

    modes = list(range(len(data.modes)))
    return {
        "real, held out": data.real(2500, "held_out"),
        "a fifth of the modes dropped": mix(modes[math.ceil(len(modes) / 5) :], data.sd),
        "every other mode dropped": mix(modes[::2], data.sd),
        "neighbouring half dropped": mix(modes[: len(modes) // 2], data.sd),
        "one mode": mix(modes[:1], data.sd),
        "sd 5 times too large": mix(modes, 5 * data.sd),
        "moment-matched Gaussian": moment_matched(data, 0),
    }


def digit_failures(data: Dataset) -> dict[str, np.ndarray]:
    """Name -> samples (800, 1, 8, 8) of typical failures on digits."""
    rng = generator(0, "calibrate/digits")
    real = data.real(800, "held_out")
    labels = view_images(torch.from_numpy(real)).labels.numpy()

    def noisy(sd: float) -> np.ndarray:
        return (real + sd * rng.standard_normal(real.shape)).clip(-1, 1).astype(np.float32)

    def classes(count: int) -> np.ndarray:
        pool: np.ndarray = real[labels < count]
        chosen: np.ndarray = pool[rng.integers(len(pool), size=800)]
        return chosen

    return {
        "real, held out": real,
        "8 of 10 classes": classes(8),
        "5 of 10 classes": classes(5),
        "one class": classes(1),
        "100 images repeated": real[rng.integers(100, size=800)],
        "25 images repeated": real[rng.integers(25, size=800)],
        "pixel noise of sd .2": noisy(0.2),
        "pixel noise of sd .5": noisy(0.5),
        "pixel noise of sd 1": noisy(1.0),
        "moment-matched Gaussian": moment_matched(data, 0),
    }


def failures(data: Dataset) -> dict[str, np.ndarray]:
    """Name -> samples (n_samples, *shape)."""
    return point_failures(data) if isinstance(data, Mixture) else digit_failures(data)


def direction_errors(data: Mixture, draws: int = 20) -> dict[str, tuple[float, float]]:
    """Failure -> relative error of sliced W2 by 64 equal directions, and rms error by 256 random ones."""
    real = torch.from_numpy(data.real(2500, "reference"))

    def by(points: Tensor, directions: Tensor) -> float:
        return sliced_w2(sorted_projections(points, directions), sorted_projections(real, directions))

    errors = {}
    for name, samples in point_failures(data).items():
        points = torch.from_numpy(samples)
        exact = by(points, half_circle(4096))
        random = []
        for draw in range(draws):
            angles = torch.from_numpy(generator(draw, "calibrate/directions").uniform(0, math.pi, 256)).float()
            random.append(by(points, torch.stack([angles.cos(), angles.sin()], dim=1)) / exact - 1)
        errors[name] = (by(points, half_circle(DIRECTIONS)) / exact - 1, float(np.sqrt(np.mean(np.square(random)))))
    return errors


def cost_ms(data: Dataset, repeats: int = 30) -> float:
    """Least processor time of one trial's evaluation, in ms on one thread."""
    judge, best = evaluator(data), math.inf
    samples = torch.from_numpy(data.real(judge.n_samples, "held_out"))[None]
    for _ in range(repeats):
        start = time.process_time()
        judge(samples)
        best = min(best, time.process_time() - start)
    return 1000 * best


def main() -> None:
    """Print everything."""
    torch.set_num_threads(1)
    for data in DATASETS.values():
        real = reference(data, lambda seed, data=data: untrained(data, seed))  # type: ignore[misc]
        print(f"\n{data.name}: one evaluation {cost_ms(data):.1f} ms")
        print("  " + ", ".join(f"{name} {value:.4g}" for name, value in real.items()))
        for name, samples in failures(data).items():
            values = evaluator(data)(torch.from_numpy(samples)[None])[0]
            print(f"  {name:30} Q {deficiency(values, real):5.2f}   ", end="")
            print(", ".join(f"{key} {value:.3g}" for key, value in values.items()))
        if isinstance(data, Mixture):
            for name, (equal, random) in direction_errors(data).items():
                print(f"  {name:30} sliced W2: 64 equal directions {equal:+.1e}, 256 random {random:.1e} rms")


if __name__ == "__main__":
    main()
