from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from trainables.data import DATASETS, Dataset
from trainables.data.digits import DIGITS, load
from trainables.data.mixtures import GRID25, RING8, Mixture
from trainables.metrics.evaluate import evaluator
from trainables.metrics.reference import moment_matched, reference

KEYS = {"dist_floor", "dist_floor_sd", "dist_ceiling", "dist_trivial", "cov_real", "prec_real", "max_abs_data"}


@functools.cache
def scale(name: str) -> dict[str, float]:
    return reference(DATASETS[name], lambda seed: untrained(DATASETS[name], seed))


def untrained(data: Dataset, seed: int) -> torch.Tensor:
    """A random MLP 64-64 of 8-dimensional noise, as torch initialises it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(evaluator(data).n_samples, 8, generator=generator)
    for inputs, outputs in ((8, 64), (64, 64), (64, math.prod(data.shape))):
        weight, bias = torch.rand(inputs, outputs, generator=generator), torch.rand(outputs, generator=generator)
        x = torch.relu(x) if inputs == 64 else x
        x = x @ ((2 * weight - 1) / inputs**0.5) + (2 * bias - 1) / inputs**0.5
    return x.tanh().reshape(-1, *data.shape) if data.kind == "images" else x


def deficiency(name: str, samples: np.ndarray) -> float:
    """The composite Q of one set of samples, by its definition."""
    values, real = evaluator(DATASETS[name])(torch.from_numpy(samples)[None])[0], scale(name)
    distance = (values["dist"] - real["dist_floor"]) / (real["dist_ceiling"] - real["dist_floor"])
    return max(0, distance, 1 - values["cov"] / real["cov_real"], 1 - values["prec"] / real["prec_real"])


def mixture(data: Mixture, modes: list[int], sd: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = data.means[rng.choice(modes, 2500)] + sd * rng.standard_normal((2500, 2))
    return points.astype(np.float32)


@pytest.mark.parametrize("name", DATASETS)
def test_the_scale_is_in_order_and_repeats_itself(name: str) -> None:
    data, real = DATASETS[name], scale(name)
    assert set(real) == KEYS
    assert 0 < real["dist_floor_sd"] < real["dist_floor"] < real["dist_trivial"] < real["dist_ceiling"]
    assert reference(data, lambda seed: untrained(data, seed)) == real


@pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)
def test_real_points_reach_all_modes_with_the_quality_of_the_closed_form(data: Mixture) -> None:
    real = scale(data.name)
    assert real["cov_real"] == 1
    assert real["prec_real"] == pytest.approx(1 - math.exp(-4.5), abs=0.002)  # 4 sd


def test_real_digits_cover_as_the_closed_form_says() -> None:
    expected = 1 - math.prod((799 - i) / (1599 - i) for i in range(5))
    assert scale("digits")["cov_real"] == pytest.approx(expected, abs=0.005)


def test_the_ceiling_is_the_median_of_eight_seeds() -> None:
    asked: list[int] = []

    def shifted(seed: int) -> torch.Tensor:
        asked.append(seed)
        far = 1000.0 * 2**seed  # so far that the distance is the shift over root 2
        return torch.from_numpy(RING8.real(2500, "reference")) + torch.tensor([far, 0.0])

    ceiling = reference(RING8, shifted)["dist_ceiling"]
    assert asked == list(range(8))
    assert ceiling == pytest.approx(1000 * (2**3 + 2**4) / 2 / math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("name", DATASETS)
def test_the_trivial_baseline_has_real_datas_moments(name: str) -> None:
    data = DATASETS[name]
    n = evaluator(data).n_samples
    flat = moment_matched(data, 0).reshape(n, -1)
    real = data.real(n, "held_out").reshape(n, -1)
    assert np.abs(flat.mean(axis=0) - real.mean(axis=0)).max() < 0.2 * real.std()  # clipping moves an image's mean
    if data.kind == "points":
        assert np.cov(flat.T) == pytest.approx(np.cov(real.T), abs=float(0.1 * real.var()))
    assert np.abs(flat).max() <= 1 or data.kind == "points"
    assert not np.array_equal(moment_matched(data, 1), moment_matched(data, 0))


@pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)
def test_the_composite_orders_the_failures_of_points(data: Mixture) -> None:
    modes = list(range(len(data.modes)))
    assert deficiency(data.name, data.real(2500, "held_out")) < 0.1
    assert 0.2 < deficiency(data.name, mixture(data, modes[len(modes) // 5 :], data.sd)) < 0.6
    assert 0.45 < deficiency(data.name, mixture(data, modes[::2], data.sd)) < 0.6
    assert deficiency(data.name, mixture(data, modes[:1], data.sd)) > 0.85
    within = 1 - math.exp(-4.5 / 25)  # of three sd, for a sample five times as wide
    wide = deficiency(data.name, mixture(data, modes, 5 * data.sd))
    assert wide == pytest.approx(1 - within / (1 - math.exp(-4.5)), abs=0.03)
    assert deficiency(data.name, moment_matched(data, 0)) > 0.9


def test_the_composite_orders_the_failures_of_digits() -> None:
    rng = np.random.default_rng(0)
    images, labels = load()
    real = DIGITS.real(800, "held_out")
    noisy = (real + 0.8 * rng.standard_normal(real.shape)).clip(-1, 1).astype(np.float32)
    half = images[labels < 5][rng.choice((labels < 5).sum(), 800, replace=False)]
    one = images[labels == 0][rng.integers(170, size=800)]
    assert deficiency("digits", real) < 0.05
    assert 0.3 < deficiency("digits", half) < 0.6
    assert deficiency("digits", one) > 0.8
    assert deficiency("digits", real[rng.integers(25, size=800)]) > 0.75
    assert deficiency("digits", noisy) > 0.6
    assert deficiency("digits", moment_matched(DIGITS, 0)) > 0.5
