from __future__ import annotations

import math

import pytest
import torch

from vistudy.trainables.data.mixtures import GRID25
from vistudy.trainables.metrics.distances.sliced_w2 import sliced_w2
from vistudy.trainables.metrics.views import DIRECTIONS, half_circle, sorted_projections


def distance(x: torch.Tensor, y: torch.Tensor, directions: torch.Tensor) -> float:
    return sliced_w2(sorted_projections(x, directions), sorted_projections(y, directions))


def test_a_shift_in_the_plane_costs_its_length_over_root_two() -> None:
    x = torch.from_numpy(GRID25.real(500, 0))
    shift = torch.tensor([0.3, -0.4])
    assert distance(x, x + shift, half_circle(DIRECTIONS)) == pytest.approx(0.5 / math.sqrt(2), rel=1e-5)


def test_a_shift_by_two_in_sixteen_dimensions_costs_a_quarter_squared() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(512, 16, generator=generator), dim=1)
    x = torch.randn(100, 16, generator=generator)
    shift = 2 * torch.eye(16)[3]
    assert distance(x, x + shift, directions) ** 2 == pytest.approx(4 / 16, rel=0.1)


def test_doubling_a_standard_normal_costs_one() -> None:
    x = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    y = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1))
    assert distance(x, 2 * y, half_circle(DIRECTIONS)) == pytest.approx(1.0, rel=0.02)


def test_a_few_equal_directions_stand_for_all() -> None:
    x, y = torch.from_numpy(GRID25.real(2500, 0)), torch.randn(2500, 2, generator=torch.Generator().manual_seed(0))
    exact = distance(x, y, half_circle(4096))
    assert distance(x, y, half_circle(DIRECTIONS)) == pytest.approx(exact, rel=2e-3)


def test_directions_are_distinct_unit_vectors_and_none_is_anothers_opposite() -> None:
    directions = half_circle(DIRECTIONS).double()
    products = (directions @ directions.T).abs() - torch.eye(DIRECTIONS, dtype=torch.float64)
    assert products.diagonal().abs().max() < 1e-6
    assert products.max() == pytest.approx(math.cos(math.pi / DIRECTIONS), abs=1e-6)


def test_samples_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match="equal size"):
        sliced_w2(torch.zeros(64, 10), torch.zeros(64, 9))


def test_it_is_pots() -> None:
    ot = pytest.importorskip("ot")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 2, generator=generator), 1 + 2 * torch.randn(400, 2, generator=generator)
    directions = half_circle(DIRECTIONS)
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=directions.T.numpy(), p=2)
    assert distance(x, y, directions) == pytest.approx(float(expected), abs=1e-6)
