from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.contingency_tables import Table2x2

from tests.analysis.arm_tables import arm_table
from vistudy.analysis.estimates.effect_sizes import hodges_lehmann, odds_ratio, q_shift
from vistudy.analysis.estimates.risk_difference import pair

T, B = "A1", "A0"


def test_the_odds_ratio_is_that_of_the_table() -> None:
    rng = np.random.default_rng(0)
    t, b = (rng.random((80, 2)) < share for share in (0.6, 0.4))
    found = odds_ratio(pair(arm_table({T: t.astype(float), B: b.astype(float)}), T, B))
    theirs = Table2x2([[t.sum(), (~t).sum()], [b.sum(), (~b).sum()]])
    assert not found.haldane
    assert found.estimate == pytest.approx(theirs.oddsratio)
    # independent trials: the interval over configurations is about that of independent trials
    assert (found.low, found.high) == pytest.approx(theirs.oddsratio_confint(), rel=0.1)


def test_haldane_where_an_arm_is_never_stable() -> None:
    t = np.zeros((30, 2))
    t[:10] = 1
    found = odds_ratio(pair(arm_table({T: t, B: np.zeros((30, 2))}), T, B))
    theirs = Table2x2(np.array([[20, 40], [0, 60]]) + 0.5)
    assert found.haldane
    assert found.estimate == pytest.approx(theirs.oddsratio, rel=0.02)
    assert 1 < found.low < found.estimate < found.high


def test_hodges_lehmann_by_hand_and_its_interval() -> None:
    assert hodges_lehmann(np.array([1.0, 2.0, 6.0]))[0] == 2.75  # 1, 1.5, 2, 3.5, 4, 6
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        estimate, low, high = hodges_lehmann(rng.standard_t(3, 40) + 0.7)
        assert low <= estimate <= high
        covered += low <= 0.7 <= high
    assert 0.92 < covered / 300 < 0.98


def test_the_interval_holds_what_the_test_does_not_reject() -> None:
    d = np.random.default_rng(2).normal(0.3, 1, 60)
    _, low, high = hodges_lehmann(d)
    for shift, rejected in ((low - 0.02, True), (low + 0.02, False), (high - 0.02, False), (high + 0.02, True)):
        assert (wilcoxon(d - shift, method="approx").pvalue < 0.05) == rejected


def test_the_shift_of_q_is_paired_by_configuration() -> None:
    rng = np.random.default_rng(3)
    base = rng.uniform(0.2, 0.9, (50, 2))
    found = q_shift(arm_table({T: base - 0.1, B: base}, "q"), T, B)
    assert found is not None
    assert (found.estimate, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.p < 1e-6
    same = q_shift(arm_table({T: base, B: base}, "q"), T, B)
    assert same is not None
    assert (same.estimate, same.p) == (0.0, 1.0)
    assert q_shift(arm_table({T: base[:1], B: base[:1]}, "q"), T, B) is None
