from __future__ import annotations

import pytest
import scipy.stats
import torch

from vistudy.trainables.data.mixtures import RING8
from vistudy.trainables.metrics.distances.energy_distance import EnergyDistance, energy_distances, pair_distances
from vistudy.trainables.metrics.views import view_points


def test_pair_distances_of_three_points() -> None:
    assert float(pair_distances(torch.tensor([[0.0, 1.0, 4.0]]))) == 2 * (1 + 4 + 3)


def test_in_one_dimension_it_is_scipys_squared() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, generator=generator), 1 + 2 * torch.rand(25, generator=generator)
    ours = energy_distances(x.sort().values[None], y.sort().values[None])
    assert float(ours) == pytest.approx(scipy.stats.energy_distance(x.numpy(), y.numpy()) ** 2, abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_in_the_plane_it_is_the_definition(scale: float) -> None:
    reference = torch.from_numpy(RING8.real(2500, "reference"))
    x = scale * torch.randn(2500, 2, generator=torch.Generator().manual_seed(0))
    wide_x, wide_y = x.double(), reference.double()
    definition = (
        2 * torch.cdist(wide_x, wide_y).mean() - torch.cdist(wide_x, wide_x).mean() - torch.cdist(wide_y, wide_y).mean()
    )
    ours = EnergyDistance(RING8, view_points(reference))(view_points(x))["energy_distance"]
    assert ours == pytest.approx(float(definition), rel=2e-3)


def test_a_sample_is_at_no_distance_from_itself() -> None:
    view = view_points(torch.from_numpy(RING8.real(2500, "reference")))
    assert EnergyDistance(RING8, view)(view)["energy_distance"] == pytest.approx(0, abs=1e-12)
