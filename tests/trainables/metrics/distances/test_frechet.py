from __future__ import annotations

import math

import pytest
import torch

from vistudy.trainables.metrics.distances.frechet import Moments, frechet_distance, moments


def gaussian(mean: torch.Tensor, cov: torch.Tensor) -> Moments:
    return Moments(mean=mean.double(), cov=cov.double())


def random_cov(dim: int) -> torch.Tensor:
    root = torch.randn(dim, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)
    return root @ root.T / dim


def test_equal_gaussians_are_at_no_distance() -> None:
    same = gaussian(torch.arange(5), random_cov(5))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-10)


def test_a_shift_costs_its_squared_length() -> None:
    cov = random_cov(5)
    shifted = gaussian(torch.tensor([0, 0.3, 0.6, 0.9, 1.2], dtype=torch.float64), cov)
    assert frechet_distance(gaussian(torch.zeros(5), cov), shifted) == pytest.approx(2.7, abs=1e-10)


def test_round_gaussians_of_sd_two_and_three_in_five_dimensions_are_five_apart() -> None:
    zero = torch.zeros(5)
    assert frechet_distance(gaussian(zero, 4 * torch.eye(5)), gaussian(zero, 9 * torch.eye(5))) == pytest.approx(5)


def test_diagonal_gaussians_differ_by_their_sds() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 2.0, 1.0])
    value = frechet_distance(gaussian(torch.zeros(3), torch.diag(a**2)), gaussian(torch.zeros(3), torch.diag(b**2)))
    assert value == pytest.approx(4 + 0 + 0.25)


def test_full_collapse_is_finite_and_costs_the_real_variance() -> None:
    real = gaussian(torch.zeros(6), random_cov(6))
    collapsed = moments(torch.full((50, 6), 2.0))
    expected = 6 * 4 + float(real.cov.trace())
    assert frechet_distance(real, collapsed) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(collapsed, real) == pytest.approx(expected, rel=1e-9)


def test_it_is_symmetric() -> None:
    a, b = gaussian(torch.zeros(4), random_cov(4)), gaussian(torch.ones(4), torch.diag(torch.arange(4)))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(("dim", "n"), [(64, 5000), (16, 1000)])
def test_two_samples_of_one_gaussian_are_apart_by_the_finite_sample_bias(dim: int, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [moments(torch.randn(n, dim, generator=generator)) for _ in range(12)]
    values = [frechet_distance(a, b) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    assert sum(values) / len(values) == pytest.approx(dim * (dim + 5) / (2 * n), rel=0.1)


def two_samples(n: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return x, 0.5 + torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mixed


def test_it_is_torch_fidelitys() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = two_samples(500, 20)
    stats = [fidelity.fid_features_to_statistics(features) for features in (x, y)]
    expected = fidelity.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, abs=1e-6)


def test_it_is_pots_squared() -> None:
    gaussian_transport = pytest.importorskip("ot.gaussian")
    x, y = (moments(features) for features in two_samples(500, 20))
    arrays = [t.numpy() for t in (x.mean, y.mean, x.cov, y.cov)]
    assert frechet_distance(x, y) == pytest.approx(
        float(gaussian_transport.bures_wasserstein_distance(*arrays)) ** 2, abs=1e-6
    )


def test_what_has_overflowed_is_infinitely_far() -> None:
    features = torch.zeros(20, 3)
    features[4, 1] = math.inf
    assert frechet_distance(gaussian(torch.zeros(3), torch.eye(3)), moments(features)) == math.inf
