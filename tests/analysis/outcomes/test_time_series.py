from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from vistudy.analysis.outcomes.time_series import (
    capped,
    centred_medians,
    first_run_of,
    mann_kendall_z,
    runs,
    tail_length,
    turning_points,
)


def test_stretches() -> None:
    mask = np.array([1, 1, 0, 1, 0, 1, 1, 1], dtype=bool)
    assert runs(mask) == [(0, 2), (3, 4), (5, 8)]
    assert (first_run_of(mask, 3), first_run_of(mask, 4)) == (5, None)
    assert (tail_length(mask), tail_length(mask[:5]), tail_length(mask[:0])) == (3, 0, 0)


@pytest.mark.parametrize("length", [3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 20])
def test_centred_medians_equal_the_plain_loop(length: int, size: int) -> None:
    values = np.random.default_rng(size).normal(size=size)
    half = length // 2
    expected = [np.median(values[max(0, i - half) : i + half + 1]) for i in range(size)]
    np.testing.assert_array_equal(centred_medians(values, length), expected)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([], 0),
        ([0, 1, 2], 0),
        ([0, 1, 0], 1),
        ([0, 1, 0, 1], 2),
        ([0, 1, 0, 1, 0], 3),
        ([0, 0.2, 0, 0.2, 0], 0),
        ([0, 0.5, 1, 0.9, 1, 0.5, 0], 1),
        ([1, 0, 1], 1),
        ([0, np.inf, np.inf, 0], 1),
        ([np.inf, np.inf, np.inf], 0),
    ],
)
def test_turning_points(values: list[float], count: int) -> None:
    assert turning_points(np.array(values, dtype=float), 0.25) == count


def test_mann_kendall_by_hand_and_against_kendall() -> None:
    # n = 4, strictly falling: S = -6, variance 4*3*13/18
    assert mann_kendall_z(np.array([4.0, 3, 2, 1])) == pytest.approx(-5 / np.sqrt(156 / 18))
    assert mann_kendall_z(np.ones(9)) == 0.0
    values = np.random.default_rng(1).normal(size=30)
    score = kendalltau(np.arange(30), values).statistic * 30 * 29 / 2
    assert mann_kendall_z(values) == pytest.approx((score - np.sign(score)) / np.sqrt(30 * 29 * 65 / 18))


def test_capped_keeps_order() -> None:
    assert capped(np.array([1.0, np.inf])).tolist() == [1.0, 1e9]
