from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from trainables.data import DATASETS
from trainables.data.mixtures import GRID25, RING8, Mixture
from trainables.metrics.calibrate import untrained
from trainables.metrics.evaluate import evaluator
from trainables.metrics.reference import moment_matched, reference

KEYS = {"dist_floor", "dist_floor_sd", "dist_ceiling", "dist_trivial", "cov_real", "prec_real", "max_abs_data"}


@functools.cache
def scale(name: str) -> dict[str, float]:
    return reference(DATASETS[name], lambda seed: untrained(DATASETS[name], seed))


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
