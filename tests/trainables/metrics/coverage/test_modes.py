from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vistudy.trainables.data.gaussians import MOG_FULL
from vistudy.trainables.data.images.digits import DIGITS
from vistudy.trainables.data.mixtures import GRID25, RING8, Mixture
from vistudy.trainables.metrics.coverage.modes import Modes, gaussian_mode_statistics, mode_statistics
from vistudy.trainables.metrics.reference import moment_matched
from vistudy.trainables.metrics.views import view_points

N = 2500
BOTH = pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)


def statistics(data: Mixture, points: np.ndarray) -> dict[str, float]:
    return mode_statistics(torch.from_numpy(points), torch.from_numpy(data.means), data.sd)


@BOTH
def test_real_points_are_of_high_quality_as_often_as_a_gaussian_is_within_three_sd(data: Mixture) -> None:
    share = statistics(data, data.real(200_000, 0))["hq_share"]
    assert share == pytest.approx(1 - math.exp(-4.5), abs=1e-3)  # 4 sd


@BOTH
def test_reverse_kl_of_real_points_is_its_finite_sample_bias(data: Mixture) -> None:
    values = [statistics(data, data.real(N, split))["reverse_kl"] for split in range(200)]
    assert np.mean(values) == pytest.approx((len(data.modes) - 1) / (2 * N), rel=0.15)  # sd of the mean: < 4 %


@pytest.mark.parametrize(("reached", "expected"), [(99, 2.3126), (150, 1.8971)])
def test_reverse_kl_of_an_even_part_of_the_modes(reached: int, expected: float) -> None:
    means = torch.stack([torch.arange(1000.0), torch.zeros(1000)], dim=1)
    values = mode_statistics(means[:reached].repeat(5, 1), means, 0.01)
    assert values["reverse_kl"] == pytest.approx(expected, abs=5e-5)
    assert values["modes"] == reached


def test_reverse_kl_counts_samples_of_low_quality_too() -> None:
    off = RING8.means + np.float32(4 * RING8.sd) * RING8.means  # outwards, beyond 3 sd of each centre
    values = statistics(RING8, off)
    assert values["hq_share"] == 0
    assert values["modes"] == 0
    assert values["reverse_kl"] == pytest.approx(0, abs=1e-9)


@BOTH
def test_one_mode_is_one_mode(data: Mixture) -> None:
    points = data.means[3] + np.float32(data.sd / 10) * data.real(N, 0)
    view = view_points(torch.from_numpy(points))
    values = Modes(data, view)(view)
    assert values["cov"] == 1 / len(data.modes)
    assert values["modes"] == values["robust_modes"] == 1
    assert values["prec"] == values["hq_share"]
    assert values["reverse_kl"] == pytest.approx(math.log(len(data.modes)))


def test_a_mode_is_robust_from_a_tenth_of_its_fair_share() -> None:
    # 2,500 points on 25 modes: fair is 100 each, robust from 10.
    counts = np.full(25, 9)
    counts[:5] = 10
    counts[24] = N - counts[:24].sum()
    values = statistics(GRID25, np.repeat(GRID25.means, counts, axis=0))
    assert values["modes"] == 25
    assert values["robust_modes"] == 6


def spread(data: Mixture, points: np.ndarray) -> float:
    view = view_points(torch.from_numpy(points.astype(np.float32)))
    return Modes(data, view)(view)["mode_spread"]


@BOTH
def test_spread_of_real_points_is_one_and_of_narrow_modes_their_share(data: Mixture) -> None:
    real = [spread(data, data.real(N, split)) for split in range(20)]
    assert np.mean(real) == pytest.approx(0.985, abs=0.01)  # a little less: modes that are wider by chance count as 1
    assert (1 - min(real)) ** 2 < 2e-3  # of Q
    rng, centres = np.random.default_rng(0), data.means[np.arange(N) % len(data.modes)]
    for share in (0.2, 0.5, 0.8):
        narrow = centres + share * data.sd * rng.standard_normal((N, 2))
        assert spread(data, narrow) == pytest.approx(share / 0.9744, abs=0.02)  # no narrow mode is cut off at 3 sd
    assert spread(data, centres) == 0
    assert spread(data, centres + data.sd * rng.choice([-2.0, 2.0], (N, 2))) == 1  # wider than real: no more than 1


def test_spread_is_about_a_modes_own_mean_and_over_covered_modes_only() -> None:
    shifted = RING8.means + np.float32(2 * RING8.sd) * RING8.means  # every mode a point beside its centre
    assert spread(RING8, np.repeat(shifted, N // 8 + 1, axis=0)[:N]) == 0
    one = RING8.means[3] + np.float32(RING8.sd) * np.random.default_rng(0).standard_normal((N, 2))
    assert spread(RING8, one) == pytest.approx(1, abs=0.02)
    half = np.where(np.arange(N)[:, None] % 2 == 0, one, RING8.means[5])
    assert spread(RING8, half) == pytest.approx(0.5, abs=0.02)
    assert spread(RING8, np.full((N, 2), 9.0)) == 0  # no mode is covered


def test_spread_of_slanted_modes_is_by_their_covariance() -> None:
    root = np.linalg.cholesky(MOG_FULL.covariances)
    of_mode = np.random.default_rng(0).choice(5, N, p=MOG_FULL.weights)
    draw = np.einsum("nij,nj->ni", root[of_mode], np.random.default_rng(1).standard_normal((N, 2)))
    points = MOG_FULL.means[of_mode] + 0.5 * draw
    assert full(points.astype(np.float32))["mode_spread"] == pytest.approx(0.5 / 0.9744, abs=0.03)


def test_a_gaussian_blob_reaches_modes_by_chance_only() -> None:
    draws = [statistics(GRID25, moment_matched(GRID25, draw)) for draw in range(8)]
    variance = 8 + GRID25.sd**2
    near = math.pi * (3 * GRID25.sd) ** 2 / (2 * math.pi * variance)  # a disc's area times the density at the origin
    hits = near * np.exp(-np.square(GRID25.means).sum(axis=1) / (2 * variance))
    assert np.mean([d["hq_share"] for d in draws]) == pytest.approx(hits.sum(), abs=0.0035)  # .0153, 4 sd
    assert np.mean([d["modes"] for d in draws]) == pytest.approx((1 - np.exp(-N * hits)).sum(), abs=2.5)  # 18.4
    assert max(d["robust_modes"] for d in draws) <= 2


def full(points: np.ndarray) -> dict[str, float]:
    parts = (MOG_FULL.means, MOG_FULL.covariances, MOG_FULL.weights)
    return gaussian_mode_statistics(torch.from_numpy(points), *(torch.from_numpy(part) for part in parts))


def test_round_equal_modes_are_a_case_of_full_ones() -> None:
    points = GRID25.real(N, 0) * np.float32(1.02)
    weights = torch.full((25,), 1 / 25, dtype=torch.float64)
    covs = GRID25.sd**2 * torch.eye(2).expand(25, 2, 2)
    general = gaussian_mode_statistics(torch.from_numpy(points), torch.from_numpy(GRID25.means), covs, weights)
    assert general == pytest.approx(statistics(GRID25, points), abs=1e-7)
    assert 0.5 < general["hq_share"] < 0.95


def test_real_points_of_slanted_modes_are_of_high_quality_and_in_their_shares() -> None:
    values = full(MOG_FULL.real(200_000, 0))
    assert values["hq_share"] == pytest.approx(1 - math.exp(-4.5), abs=2e-3)  # a little more: modes overlap
    assert values["reverse_kl"] < 2e-4
    view = view_points(torch.from_numpy(MOG_FULL.real(N, 0)))
    judged = Modes(MOG_FULL, view)(view)
    assert judged["cov"] == 1
    assert judged["robust_modes"] == judged["modes"] == 5
    assert judged["prec"] == judged["hq_share"] == pytest.approx(0.989, abs=0.01)


def test_a_slanted_mode_reaches_along_its_axis_only() -> None:
    along, across = np.array([[1.0, 1.0], [1.0, -1.0]]) * 0.9  # of the first mode: variances .32 and .08
    assert full(along[None].astype(np.float32))["hq_share"] == 1
    assert full(across[None].astype(np.float32))["hq_share"] == 0


def test_shares_are_compared_with_the_modes_own() -> None:
    counts = np.array([350, 250, 200, 120, 80])
    exact = np.repeat(MOG_FULL.means, counts, axis=0)
    assert full(exact)["reverse_kl"] == pytest.approx(0, abs=1e-9)
    even = full(np.repeat(MOG_FULL.means, 200, axis=0))["reverse_kl"]
    assert even == pytest.approx(-np.log(5 * MOG_FULL.weights).mean())
    few = np.repeat(MOG_FULL.means, [937, 20, 25, 11, 7], axis=0)  # fair: 350, 250, 200, 120, 80
    assert full(few)["robust_modes"] == 2


def test_images_have_no_modes() -> None:
    with pytest.raises(TypeError, match="'digits' is none"):
        Modes(DIGITS, view_points(torch.zeros(3, 2)))
