from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS
from vistudy.trainables.metrics.distances.kid import Kid, cubic_between, cubic_within, kid_of_subsets
from vistudy.trainables.metrics.views import ImageView


def cubic_mmd2(x: torch.Tensor, y: torch.Tensor) -> float:
    """Unbiased estimate from all of (N, d) and (M, d) features. It can be negative, and is never clipped."""
    x, y = x.double(), y.double()
    return cubic_within(x) + cubic_within(y) - 2 * cubic_between(x, y)


def features(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    drawn = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn + shift).relu()


def view(features: torch.Tensor) -> ImageView:
    return ImageView(images=torch.zeros(len(features), 1, 2, 2), features=features, logits=None)


@pytest.mark.parametrize(("shift", "subsets"), [(0.0, 20), (0.3, 20), (1.0, 20), (0.3, 4)])  # of 4, pairs are few
def test_it_is_torch_fidelitys_published_protocol(shift: float, subsets: int) -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(400, 0, shift), features(400, 1)
    expected = fidelity.kid_features_to_metric(
        x, y, kid_subsets=subsets, kid_subset_size=150, rng_seed=2020, verbose=False
    )
    mean, sd = kid_of_subsets(x, y, subsets=subsets, size=150)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-9)
    assert sd == pytest.approx(expected["kernel_inception_distance_std"], abs=1e-9)


def test_it_is_scikit_learns_kernel_of_all_pairs() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x, y = features(300, 0), features(280, 1, 0.2)
    kxx, kyy, kxy = (pairwise.polynomial_kernel(a, b, degree=3, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kxx, kyy)]
    assert cubic_mmd2(x, y) == pytest.approx(sum(within) - 2 * kxy.mean(), abs=1e-10)


def test_it_is_unbiased_and_never_clipped() -> None:
    draws = [cubic_mmd2(features(30, 2 * seed), features(30, 2 * seed + 1)) for seed in range(300)]
    assert min(draws) < -0.01
    assert np.mean(draws) == pytest.approx(0, abs=4 * np.std(draws) / 300**0.5)


def test_the_metric_uses_all_pairs_in_any_order() -> None:
    real, fake = features(200, 0), features(200, 1, 0.5)
    metric = Kid(BARS, view(real))
    assert metric(view(fake))["kid"] == pytest.approx(cubic_mmd2(fake, real), rel=1e-9)
    assert metric(view(fake[torch.randperm(200)]))["kid"] == pytest.approx(cubic_mmd2(fake, real), rel=1e-9)
    assert metric(view(real))["kid"] < 0  # a set against itself: no diagonal within, one between


def test_too_few_for_a_subset_are_refused() -> None:
    with pytest.raises(ValueError, match="subsets of 1000 needs as many samples: got 50 and 1200"):
        kid_of_subsets(features(50, 0), features(1200, 1))
