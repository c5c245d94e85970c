from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, rbf_mmd2
from vistudy.trainables.metrics.distances.mmd import Mmd, median_variance, squared_distances
from vistudy.trainables.metrics.views import ImageView

GENERATOR = torch.Generator()


def normal(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def view(features: torch.Tensor) -> ImageView:
    return ImageView(images=torch.zeros(len(features), 1, 2, 2), features=features.float(), logits=None)


def kernel_mean(squared_shift: float, variance: float, own: float, dim: int) -> float:
    """E k(x, y) where x - y is N(shift, own I)."""
    return (variance / (variance + own)) ** (dim / 2) * math.exp(-squared_shift / (2 * (variance + own)))


def test_two_gaussians_are_apart_as_the_closed_form_says() -> None:
    shift = 0.7**2 + 0.2**2
    exact = kernel_mean(0, 1.5, 2, 2) + kernel_mean(0, 1.5, 4, 2) - 2 * kernel_mean(shift, 1.5, 3, 2)
    assert exact == pytest.approx(0.0727577, abs=5e-8)
    draws = []
    for seed in range(10):
        y = torch.tensor([0.7, -0.2]) + math.sqrt(2) * normal(2000, 2, 100 + seed)
        draws.append(rbf_mmd2(normal(2000, 2, seed), y, 1.5))
    assert np.mean(draws) == pytest.approx(exact, abs=4 * np.std(draws) / math.sqrt(10))
    assert np.std(draws) < 0.01


def test_it_is_unbiased_and_never_clipped() -> None:
    draws = [rbf_mmd2(normal(20, 3, 2 * seed), normal(25, 3, 2 * seed + 1), 3.0) for seed in range(400)]
    assert min(draws) < -0.005
    assert np.mean(draws) == pytest.approx(0, abs=4 * np.std(draws) / 20)
    biased = 1 / 20 + 1 / 25  # what the V-statistic would add, times 1 - E k
    assert np.std(draws) / 20 < biased * (1 - kernel_mean(0, 3, 2, 3)) / 8


@pytest.mark.parametrize(("n", "m"), [(300, 300), (40, 70)])
def test_it_is_scikit_learns_kernel(n: int, m: int) -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x, y = normal(n, 5, 0), normal(m, 5, 1) + 0.3
    kxx, kyy, kxy = (
        pairwise.rbf_kernel(a.numpy(), b.numpy(), gamma=1 / (2 * 2.5)) for a, b in ((x, x), (y, y), (x, y))
    )
    expected = (kxx.sum() - n) / (n * (n - 1)) + (kyy.sum() - m) / (m * (m - 1)) - 2 * kxy.mean()
    assert rbf_mmd2(x, y, 2.5) == pytest.approx(expected, abs=1e-12)


def test_it_is_torch_fidelitys() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = normal(200, 5, 0), normal(200, 5, 1) + 0.3
    kernels = [fidelity.kernel_rbf(a.numpy(), b.numpy(), kid_kernel_rbf_sigma=1.2) for a, b in ((x, x), (x, y), (y, y))]
    assert rbf_mmd2(x, y, 1.2**2) == pytest.approx(float(fidelity.mmd2(*kernels)), abs=1e-6)


def test_squared_distances_are_those_of_the_definition() -> None:
    x, y = normal(7, 3, 0), normal(4, 3, 1)
    expected = (x[:, None] - y).square().sum(dim=2)
    assert torch.allclose(squared_distances(x, y), expected, atol=1e-12)
    far = 1e6 + normal(200, 5, 2)
    assert bool((squared_distances(far, far) >= 0).all())


def test_the_width_is_half_the_median_squared_distance_of_real_data() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    assert median_variance(points) == 2
    assert median_variance(normal(1000, 50, 0)) == pytest.approx(50, rel=0.03)
    with pytest.raises(ValueError, match="median distance of real data is 0"):
        median_variance(torch.zeros(5, 2))


def test_the_metric_takes_its_width_from_the_reference() -> None:
    real, fake = normal(150, 4, 0), 3 * normal(150, 4, 1)
    metric = Mmd(BARS, view(real))
    expected = rbf_mmd2(real.float(), fake.float(), median_variance(real.float()))
    assert metric(view(fake))["mmd2"] == pytest.approx(expected, abs=1e-12)
    assert metric(view(fake[torch.randperm(150)]))["mmd2"] == pytest.approx(expected, abs=1e-12)
