from __future__ import annotations

import numpy as np

from benchmarks.thinned import thinned
from tests.analysis.series import label_series, series


def test_thinned_evaluations_are_every_second_one_or_those_between() -> None:
    run = series(lambda t: t / 100, evaluations=40)
    half, between = thinned(run, 2), thinned(run, 2, offset=1)
    assert half["step"].tolist() == [20 * i for i in range(21)]
    assert between["step"].tolist() == [0, *(20 * i - 10 for i in range(1, 21))]
    for part in (half, between):
        np.testing.assert_array_equal(part["evaluation"], np.arange(21))
        assert label_series(part, 20).label != "undetermined"
    assert thinned(run, 4)["dist"].tolist() == (np.arange(0, 41, 4) / 100).tolist()
