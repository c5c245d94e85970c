"""Metrics of known failures, as shown in docs/metrics.md.

    python -m vistudy.trainables.metrics.known_failures [DATA ...]

For each data set it prints the metrics and composite deficiency of real data, of parts of it and of distortions of it;
the error of sliced distances by directions; and the CPU time of an evaluation.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data import DATASETS, Dataset
from vistudy.trainables.data.images.idx import MNIST, IdxImages
from vistudy.trainables.data.images.prepared_images import Prepared
from vistudy.trainables.data.mixtures import Mixture
from vistudy.trainables.metrics.distances.pggan_swd import SMALLEST, blur
from vistudy.trainables.metrics.distances.sliced_w2 import sliced_w2
from vistudy.trainables.metrics.evaluate import evaluator, feature_view
from vistudy.trainables.metrics.reference import moment_matched, reference
from vistudy.trainables.metrics.views import DIRECTIONS, half_circle, sorted_projections
from vistudy.trainables.random_streams import generator


def untrained(data: Dataset, seed: int) -> Tensor:
    """Samples (n_samples, *shape) of a random MLP 64-64 on 8 normal numbers, uniform +-1/sqrt(inputs) weights."""
    rng = generator(seed, "calibrate/untrained")
    x = rng.standard_normal((evaluator(data).n_samples, 8))
    for inputs, outputs in ((8, 64), (64, 64), (64, math.prod(data.shape))):
        x = np.maximum(x, 0) if inputs == 64 else x
        weight, bias = rng.uniform(-1, 1, (inputs, outputs)), rng.uniform(-1, 1, outputs)
        x = (x @ weight + bias) / inputs**0.5
    x = np.tanh(x) if data.kind in ("images", "stacked") else x
    return torch.from_numpy(x.astype(np.float32).reshape(-1, *data.shape))


def deficiency(values: dict[str, float], real: dict[str, float]) -> float:
    """Composite deficiency: the worst of its parts; 0 is real data, 1 the untrained net. Source: docs/outcomes.md."""
    distance = (values["dist"] - real["dist_floor"]) / (real["dist_ceiling"] - real["dist_floor"])
    relative = [values[name] / real[f"{name}_real"] for name in ("cov", "prec", "prec_pixels") if name in values]
    classes, spread = values.get("class_coverage", 1.0), values.get("mode_spread", 1.0)
    return max(0.0, distance, *(1 - share for share in relative), 1 - classes**2, (1 - spread) ** 2)


def point_failures(data: Mixture) -> dict[str, np.ndarray]:
    """Map the name of each typical failure of a mixture to samples (2500, 2)."""
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
        "sd half as large": mix(modes, data.sd / 2),
        "every mode a point": mix(modes, 0.0),
        "moment-matched Gaussian": moment_matched(data, 0),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Unlabelled(IdxImages):
    """MNIST without labels: it is evaluated by random convolutions, while failures still drop whole classes."""

    classes: ClassVar[int] = 0

    @property
    def prepared(self) -> Prepared:
        """MNIST's images."""
        return MNIST.prepared


UNLABELLED = Unlabelled(name="mnist_unlabelled", folders=MNIST.folders)


def classes_of(data: Dataset, images: Tensor) -> tuple[np.ndarray, int]:
    """Class of each image by the classifier, and the number of classes; (0, ...) and 1 without labels."""
    labelled = MNIST if isinstance(data, Unlabelled) else data
    if not labelled.classes:
        return np.zeros(len(images), dtype=np.int64), 1
    labels: np.ndarray = feature_view(labelled).transform(images).labels.numpy()
    return labels, labelled.classes


def image_failures(data: Dataset) -> dict[str, np.ndarray]:
    """Map the name of each typical failure on images to samples (n_samples, C, H, W)."""
    rng = generator(0, f"calibrate/{data.name}")
    real = data.real(evaluator(data).n_samples, "held_out")
    labels, count = classes_of(data, torch.from_numpy(real))

    def noisy(sd: float) -> np.ndarray:
        return (real + sd * rng.standard_normal(real.shape)).clip(-1, 1).astype(np.float32)

    def classes(n: int) -> np.ndarray:
        pool: np.ndarray = real[labels < n]
        chosen: np.ndarray = pool[rng.integers(len(pool), size=len(real))]
        return chosen

    def blurred(times: int) -> np.ndarray:
        images = torch.from_numpy(real)
        for _ in range(times):
            images = blur(images)
        return images.numpy()

    parts = (round(0.8 * count), round(0.5 * count)) if count > 1 else ()
    dropped = {f"{n} of {count} classes": classes(n) for n in parts}
    if count > 1:
        dropped["one class"] = classes(1)
    sets = {"real, held out": real} | dropped
    sets |= {
        "100 images repeated": real[rng.integers(100, size=len(real))],
        "25 images repeated": real[rng.integers(25, size=len(real))],
        "a blank image": np.full_like(real, -1.0),
        "pixel noise of sd .2": noisy(0.2),
        "pixel noise of sd .5": noisy(0.5),
        "pixel noise of sd 1": noisy(1.0),
    }
    if min(data.shape[1:]) >= SMALLEST:
        sets |= {"blurred, sd 1": blurred(1), "blurred, sd 2": blurred(4)}
    return sets | {"moment-matched Gaussian": moment_matched(data, 0)}


def failures(data: Dataset) -> dict[str, np.ndarray]:
    """Map the name of each typical failure to samples (n_samples, *shape)."""
    return point_failures(data) if isinstance(data, Mixture) else image_failures(data)


def direction_errors(data: Mixture, draws: int = 20) -> dict[str, tuple[float, float]]:
    """Map each failure to relative errors of sliced W2: by 64 equal directions, and rms by 256 random ones."""
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
    """Least CPU time of an evaluation of one trial, in ms on one thread."""
    evaluate, best = evaluator(data), math.inf
    samples = torch.from_numpy(data.real(evaluate.n_samples, "held_out"))[None]
    for _ in range(repeats):
        start = time.process_time()
        evaluate(samples)
        best = min(best, time.process_time() - start)
    return 1000 * best


def main() -> None:
    """Print the tables of the data sets that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m vistudy.trainables.metrics.known_failures", description=__doc__)
    datasets = {name: data for name, data in DATASETS.items() if isinstance(data, Mixture) or data.kind == "images"}
    datasets[UNLABELLED.name] = UNLABELLED
    names = parser.add_argument("data", nargs="*", default=["ring8", "grid25", "digits"], metavar="DATA")
    names.help = f"of {', '.join(datasets)}; default: {' '.join(names.default)}"
    torch.set_num_threads(1)
    for data in [datasets[name] for name in parser.parse_args().data]:
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
