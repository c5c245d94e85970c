from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.calibration import rule as calibrated_rule
from tests.calibration.estimates import E1_DESIGNS, NULLS, coverage, decisions, null, powers, run, share, text
from tests.calibration.simulated import Design, stable_pairs
from vistudy.analysis.verdict.results import VERDICTS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_share_has_its_exact_interval() -> None:
    found = share(0, 36)
    assert (found["share"], found["low"]) == (0, 0)
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 36), abs=1e-4)


def test_simulated_studies_have_the_shares_they_say() -> None:
    pairs = stable_pairs(Design(n_configs=100_000, n_seeds=1, difference=0.1, base=0.3), rng())
    assert (pairs.b.mean(), pairs.t.mean()) == pytest.approx((0.3, 0.4), abs=0.006)


def test_null_studies_are_seldom_supported() -> None:
    rows = list(null(60, rng()))
    assert len(rows) == len(NULLS)
    for row in rows:
        assert row["false_supported"]["low"] < 0.05  # exact interval: not shown to be above
        assert row["p_below_alpha"]["low"] < 0.05
    assert rows[6]["design"] == "20 x 20"
    assert rows[6]["mcnemar_below_alpha"]["share"] > 0.05  # pairs of one configuration are not independent


def test_an_effect_is_found_about_as_often_as_promised() -> None:
    rows = list(powers(60, rng(1)))
    assert len(rows) == 8
    assert max(abs(row["difference_in_errors"]) for row in rows) < 4
    assert rows[3]["supported"]["share"] <= rows[3]["simulated"]["share"]


def test_intervals_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.calibration.estimates.SIZES", (60,))
    rows = list(coverage(30, 200, 5_000, rng(2)))
    names = {row["estimate"] for row in rows}
    assert {"E1", "E2 width", "E2 shift", "E3 k = 20", "E8 k = 20", "E6", "E7 incidence"} <= names
    assert sum(row["estimate"] == "E1" for row in rows) == len(E1_DESIGNS)
    for row in rows:
        n = row["studies"]
        assert binomtest(round(row["share"] * n), n, 0.95, alternative="less").pvalue > 1e-3, row
    assert np.mean([row["share"] for row in rows]) > 0.91


def test_a_broken_interval_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from vistudy.analysis.estimates import risk_difference as paired

    half = paired.mean_interval

    def halved(values: np.ndarray, **options: object) -> tuple[float, float, str]:
        low, high, method = half(values, **options)  # type: ignore[arg-type]
        middle = values.mean()
        return (low + middle) / 2, (high + middle) / 2, method

    monkeypatch.setattr(paired, "mean_interval", halved)
    count = decisions(Design(n_configs=60, n_seeds=2), 100, rng())
    assert share(count["covered"], 100)["high"] < 0.93


def test_the_result_is_json_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.calibration.estimates.NULLS", NULLS[:1])
    monkeypatch.setattr("tests.calibration.estimates.DESIGNS", ((20, 1),))
    monkeypatch.setattr("tests.calibration.estimates.SIZES", (60,))
    monkeypatch.setattr("tests.calibration.estimates.E1_DESIGNS", E1_DESIGNS[:1])
    parts = run(5, 20, 2000, 0)
    assert json.loads(json.dumps(parts)) == parts
    assert "100 x 2, 50% stable, interaction sd 0" in text(parts)


def test_the_rule_is_judged_as_a_whole() -> None:
    (row,) = calibrated_rule.run(3, 0, [9])
    assert row["case"] == "+14 points from 50%, and two blocks at 2%"
    assert sum(row["verdicts"].values()) == sum(row["verdicts_before"].values()) == 3
    assert row["verdicts"].keys() <= {*VERDICTS} | {v for v in row["verdicts"] if v.startswith("depends on ")}
    assert calibrated_rule.line(row).count("|") == 6
