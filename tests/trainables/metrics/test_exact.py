from __future__ import annotations

import math

import pytest
import torch

from tests.trainables.metrics.fakes import PLAIN, STATES, TOY
from vistudy.trainables.metrics.evaluate import evaluator
from vistudy.trainables.metrics.exact import Exact
from vistudy.trainables.metrics.reference import reference


def test_a_distance_of_the_data_sets_own() -> None:
    pack = torch.tensor([0.5, -2.0, math.nan]).reshape(3, 1, 1)
    values = evaluator(TOY)(pack)
    assert values[:2] == [{"dist": 0.5, "cov": 1.0, "prec": 1.0}, {"dist": 2.0, "cov": 1.0, "prec": 1.0}]
    assert all(math.isnan(value) for value in values[2].values())


def test_metrics_of_the_data_sets_own() -> None:
    pack = torch.tensor([0.5, 0.5, 0.0]).reshape(1, 1, 3)
    (values,) = evaluator(STATES)(pack)
    assert values == pytest.approx({"dist": 2 / 3, "cov": 2 / 3, "prec": 1.0})


def test_the_floor_is_zero_and_the_ceiling_the_start() -> None:
    real = reference(TOY, lambda seed: torch.full((1, 1), float(seed)))
    assert real == {
        "dist_floor": 0.0,
        "dist_floor_sd": 0.0,
        "dist_ceiling": 3.5,
        "dist_trivial": 3.5,
        "cov_real": 1.0,
        "prec_real": 1.0,
        "max_abs_data": 1.0,
    }


def test_data_that_know_no_distance_are_refused() -> None:
    with pytest.raises(TypeError, match="'plain' is evaluated exactly, and has no exact_metrics or exact_distance"):
        Exact(PLAIN, torch.zeros(1, 1))
