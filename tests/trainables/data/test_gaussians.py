from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal

from vistudy.trainables.data.gaussians import MOG_FULL, Component, FullMixture, GaussianMixture
from vistudy.trainables.data.mixtures import GRID25, RING8

ALL = pytest.mark.parametrize("data", [MOG_FULL, RING8, GRID25], ids=lambda data: data.name)


def posterior(data: GaussianMixture, points: np.ndarray) -> np.ndarray:
    parts = zip(data.weights, data.means, data.covariances, strict=True)
    joint = np.stack([weight * multivariate_normal(mean, cov).pdf(points) for weight, mean, cov in parts], axis=1)
    shares: np.ndarray = joint / joint.sum(axis=1, keepdims=True)
    return shares


def test_components_differ_in_weight_shape_and_direction() -> None:
    assert MOG_FULL.weights.sum() == pytest.approx(1, abs=1e-12)
    assert MOG_FULL.weights.max() / MOG_FULL.weights.min() > 4
    elongation = [values[1] / values[0] for values in np.linalg.eigvalsh(MOG_FULL.covariances)]
    assert max(elongation) > 6
    assert min(elongation) == pytest.approx(1)
    assert (MOG_FULL.covariances[:, 0, 1] != 0).sum() >= 3


@ALL
def test_density_is_scipys(data: GaussianMixture) -> None:
    points = np.concatenate([data.real(200, "reference"), np.array([[0.3, -0.7], [3.9, 4.1]], dtype=np.float32)])
    parts = zip(data.weights, data.means, data.covariances, strict=True)
    density = sum(weight * multivariate_normal(mean, cov).pdf(points) for weight, mean, cov in parts)
    near = density > 1e-200
    assert near.sum() >= 200
    assert data.log_density(points)[near] == pytest.approx(np.log(density[near]), abs=1e-9)


def test_density_far_from_every_centre_is_finite() -> None:
    far = MOG_FULL.log_density(np.array([[1e3, 0.0]]))
    assert np.isfinite(far).all()
    assert far[0] < -1e5


def test_density_integrates_to_one() -> None:
    ticks = np.linspace(-6, 6, 601)
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    assert np.exp(MOG_FULL.log_density(points)).sum() * (ticks[1] - ticks[0]) ** 2 == pytest.approx(1, abs=1e-4)


def test_points_have_the_stated_weights_means_and_covariances() -> None:
    points = MOG_FULL.real(200_000, "held_out").astype(np.float64)
    belongs = posterior(MOG_FULL, points)
    weights = belongs.mean(axis=0)
    assert weights == pytest.approx(MOG_FULL.weights, abs=0.006)  # > 5 sd of a share
    for k, mean in enumerate(MOG_FULL.means):
        share = belongs[:, k] / belongs[:, k].sum()
        centre = share @ points
        assert centre == pytest.approx(mean, abs=0.03)
        spread = (points - centre).T * share @ (points - centre)
        assert spread == pytest.approx(MOG_FULL.covariances[k], abs=0.02 * np.trace(MOG_FULL.covariances[k]))


def test_points_are_as_likely_as_the_density_says() -> None:
    # -log p of points is p's entropy: sums of n draws by independent splits agree within their own spread
    values = [-MOG_FULL.log_density(MOG_FULL.real(20_000, split)).mean() for split in range(8)]
    assert np.std(values) < 5 / math.sqrt(20_000)
    grid = np.stack(np.meshgrid(ticks := np.linspace(-6, 6, 801), ticks), axis=-1).reshape(-1, 2)
    log_p = MOG_FULL.log_density(grid)
    entropy = -(np.exp(log_p) * log_p).sum() * (ticks[1] - ticks[0]) ** 2
    assert np.mean(values) == pytest.approx(entropy, abs=0.02)


def test_distances_from_the_centre_are_chi_squared() -> None:
    one = FullMixture(name="one", components=(Component(weight=1.0, mean=(1, -1), covariance=(2.0, 0.9, 0.5)),))
    at = one.real(50_000, "reference").astype(np.float64) - one.means[0]
    squared = np.einsum("ni,ij,nj->n", at, np.linalg.inv(one.covariances[0]), at)
    for level in (0.1, 0.5, 0.9, 0.99):
        assert (squared <= chi2(2).ppf(level)).mean() == pytest.approx(level, abs=0.01)


def test_round_mixtures_state_their_parameters_too() -> None:
    assert RING8.weights == pytest.approx(np.full(8, 1 / 8))
    assert np.array_equal(RING8.covariances[3], 0.05**2 * np.eye(2))


def test_draws_are_keyed_and_float32() -> None:
    block = MOG_FULL.block(1, 2, 16)
    assert block.shape == (64, 16, 2)
    assert block.dtype == np.float32
    assert np.array_equal(block, MOG_FULL.block(1, 2, 16))
    assert not np.array_equal(block, MOG_FULL.block(2, 2, 16))
    assert MOG_FULL.real(10, "reference").dtype == np.float32
    assert np.abs(MOG_FULL.real(100_000, 0)).max() < MOG_FULL.max_abs + 0.5


def test_fingerprint_tells_components_apart() -> None:
    assert FullMixture(name="mog_full", components=MOG_FULL.components).fingerprint == MOG_FULL.fingerprint
    changed = (Component(weight=0.35, mean=(0.0, 0.0), covariance=(0.20, 0.11, 0.20)), *MOG_FULL.components[1:])
    assert FullMixture(name="mog_full", components=changed).fingerprint != MOG_FULL.fingerprint


@pytest.mark.parametrize(
    ("weight", "covariance"), [(0.0, (1.0, 0.0, 1.0)), (1.0, (1.0, 1.0, 1.0)), (1.0, (-1.0, 0.0, -1.0))]
)
def test_what_is_no_gaussian_is_refused(weight: float, covariance: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="the weight must be positive and the covariance positive definite"):
        Component(weight=weight, mean=(0, 0), covariance=covariance)


def test_weights_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must add up to 1, got 0\.9"):
        FullMixture(name="half", components=(Component(weight=0.9, mean=(0, 0), covariance=(1.0, 0.0, 1.0)),))
