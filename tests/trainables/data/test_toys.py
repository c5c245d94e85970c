from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.toys import NORMAL1D, POINT0, STATES8, Normal, Point, Toy, states
from vistudy.trainables.metrics.evaluate import evaluator
from vistudy.trainables.metrics.reference import reference
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.random_streams import BLOCK

TOYS = [POINT0, STATES8, NORMAL1D]


def judged(toy: Toy, *values: float) -> dict[str, float]:
    return evaluator(toy)(torch.tensor([[values]]))[0]


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
class TestEveryToy:
    def test_can_be_named(self, toy):
        assert DATASETS[toy.name] is toy
        assert toy.kind == "exact"

    def test_the_solution_is_real(self, toy):
        assert toy.real(1, "reference").tolist() == [np.float32(toy.solution).tolist()]
        assert toy.real(3, 5).shape == (3, *toy.shape)
        values = judged(toy, *toy.solution)
        assert values["dist"] == pytest.approx(0, abs=1e-13)
        assert values["cov"] == values["prec"] == 1

    def test_blocks_hold_the_solution(self, toy):
        block = toy.block(0, 3, 4)
        assert block.shape == (BLOCK, 4, *toy.shape)
        assert block.dtype == np.float32
        assert (block == np.float32(toy.solution)).all()

    def test_scale(self, toy):
        assert toy.max_abs == 1
        found = reference(toy, lambda seed: torch.tensor([[0.5 + seed] * toy.shape[0]]))
        assert (found["dist_floor"], found["cov_real"], found["max_abs_data"]) == (0, 1, 1)

    def test_nets_are_refused(self, toy):
        with pytest.raises(ValueError, match=f"^data: '{toy.name}' is exact .* model {toy.learner} only"):
            GanConfig(data=toy.name).resolve()


def test_fingerprints_differ():
    others = [Point(name="point0", learner="", at=1.0), Normal(name="normal1d", learner="", mean=0.0, sd=2.0)]
    assert len({toy.fingerprint for toy in [*TOYS, *others]}) == 5


def test_distance_of_a_point():
    assert judged(POINT0, -0.75)["dist"] == 0.75
    assert Point(name="", learner="", at=2.0).exact_metrics(torch.tensor([[0.5]])) == {"dist": 1.5}


def test_states_are_keyed_by_their_name():
    assert sum(STATES8.solution) == pytest.approx(1, abs=1e-15)
    assert states("states8", 8) == STATES8
    assert states("others", 8).solution != STATES8.solution
    assert len(set(STATES8.solution)) == 8


def test_kl_and_coverage_of_states():
    p, q = np.array(STATES8.solution), np.full(8, 1 / 8)
    values = judged(STATES8, *q)
    assert values["dist"] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-6)
    assert values["cov"] == 1
    vertex = judged(STATES8, *np.eye(8)[2])
    assert (vertex["dist"], vertex["cov"]) == (math.inf, 1 / 8)
    odd = p.copy()
    odd[0], odd[1], odd[2] = 0.09 * p[0], 0.11 * p[1], p[2] + 0.91 * p[0] + 0.89 * p[1]
    assert judged(STATES8, *odd)["cov"] == 7 / 8


def test_distance_of_gaussians():
    """W2 of two Gaussians, also by their quantile functions."""
    assert judged(NORMAL1D, 0.3, 1.4)["dist"] == pytest.approx(0.5, rel=1e-6)
    u = torch.special.ndtri((torch.arange(200_000) + 0.5) / 200_000)
    coupled = ((0.3 + 1.4 * u) - u).square().mean().sqrt()
    assert coupled.item() == pytest.approx(0.5, abs=1e-4)
    assert Normal(name="", learner="", mean=3.0, sd=2.0).exact_metrics(torch.tensor([[0.0, 6.0]])) == {"dist": 5.0}


def test_points_of_a_gaussian():
    toy = Normal(name="", learner="", mean=3.0, sd=2.0)
    points = toy.points(1, 0, 500)
    assert points.shape == (BLOCK, 500)
    assert points.dtype == np.float32
    assert points.mean() == pytest.approx(3, abs=0.05)
    assert points.std() == pytest.approx(2, abs=0.05)
    assert np.array_equal(toy.points(1, 0, 500), points)
    assert not np.array_equal(toy.points(2, 0, 500), points)
    assert not np.array_equal(toy.points(1, 1, 500), points)


def test_the_unit_of_wide_data():
    assert Normal(name="", learner="", mean=-7.0, sd=2.0).max_abs == 7
