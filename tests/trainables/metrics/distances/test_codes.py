from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import rbf_mmd2
from vistudy.trainables.metrics.distances.codes import code_fd, code_fd_floor, code_mmd2


def prior(k: int, n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(k, n, dim, generator=torch.Generator().manual_seed(seed))


def test_shifted_and_scaled_codes_are_as_far_as_the_closed_form_says() -> None:
    standard = prior(1, 4000, 3)[0].double()
    root = torch.linalg.cholesky(torch.cov(standard.T))
    white = (standard - standard.mean(0)) @ torch.linalg.inv(root).T  # mean 0 and covariance I exactly
    assert float(code_fd(white)) == pytest.approx(0, abs=1e-9)
    assert float(code_fd(white + torch.tensor([0.3, 0.0, -0.4], dtype=torch.float64))) == pytest.approx(0.25, abs=1e-9)
    assert float(code_fd(2 * white)) == pytest.approx(3.0, abs=1e-8)
    assert float(code_fd(torch.zeros(100, 3))) == pytest.approx(3.0)  # the prior's variance: all codes are one
    assert code_fd(torch.stack([white, 2 * white])).tolist() == pytest.approx([0, 3], abs=1e-8)


@pytest.mark.parametrize(("dim", "n"), [(8, 1000), (32, 2000)])
def test_the_floor_is_what_the_prior_itself_scores(dim: int, n: int) -> None:
    assert float(code_fd(prior(24, n, dim)).mean()) == pytest.approx(code_fd_floor(n, dim), rel=0.1)


def test_the_floor_in_numbers() -> None:
    assert code_fd_floor(5000, 64) == pytest.approx(64 / 5000 + 64 * 65 / 20000)


def gaussian_mmd2(shift: float, sd: float, dim: int) -> float:
    """MMD^2 between N(m, sd^2 I) with |m| = shift and N(0, I), kernel of variance dim."""
    v = float(dim)

    def mean(spread: float, squared: float) -> float:
        return (v / (v + spread)) ** (dim / 2) * math.exp(-squared / (2 * (v + spread)))

    return mean(2 * sd**2, 0) + mean(2, 0) - 2 * mean(sd**2 + 1, shift**2)


@pytest.mark.parametrize(("shift", "sd"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.0, 2.0)])
def test_gaussian_codes_are_as_far_as_the_closed_form_says(shift: float, sd: float) -> None:
    codes = sd * prior(12, 1500, 4)
    codes[..., 0] += shift
    values = code_mmd2(codes)
    assert float(values.mean()) == pytest.approx(gaussian_mmd2(shift, sd, 4), abs=4 * float(values.std()) / 12**0.5)


def test_the_priors_side_is_the_limit_of_ever_more_draws() -> None:
    codes = 0.7 * prior(1, 60, 3)[0]
    by_draws = np.mean([rbf_mmd2(codes, prior(1, 3000, 3, seed)[0], 3.0) for seed in range(1, 9)])
    assert float(code_mmd2(codes)) == pytest.approx(float(by_draws), abs=1e-3)


def test_it_is_unbiased_and_never_clipped() -> None:
    values = code_mmd2(prior(300, 30, 4)).numpy()
    assert values.min() < -0.001
    assert values.mean() == pytest.approx(0, abs=4 * values.std() / 300**0.5)


@pytest.mark.parametrize("distance", [code_fd, code_mmd2])
def test_a_trials_value_is_bitwise_its_own(distance) -> None:  # type: ignore[no-untyped-def]
    codes = prior(3, 101, 5)
    codes[1, 7] = float("nan")
    codes = codes.requires_grad_()
    values = distance(codes)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    assert math.isnan(values[1])
    assert [float(values[k]) for k in (0, 2)] == [float(distance(codes[k])) for k in (0, 2)]
    with pytest.raises(ValueError, match=r"\(K, n, z_dim\) or \(n, z_dim\), got \(5,\)"):
        distance(torch.zeros(5))
