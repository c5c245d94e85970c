from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks import calibrated_rule
from benchmarks.calibration import E1_DESIGNS, NULLS, censoring, coverage, decisions, null, powers, run, share, text
from benchmarks.simulated import Design, pruned_study, stable_pairs
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
    monkeypatch.setattr("benchmarks.calibration.SIZES", (60,))
    rows = list(coverage(30, 200, 5_000, rng(2)))
    names = {row["estimate"] for row in rows}
    assert {"E1", "E2 width", "E2 shift", "E3 k = 20", "E8 k = 20", "interquartile mean", "E6", "E7 incidence"} <= names
    assert sum(row["estimate"] == "E1" for row in rows) == len(E1_DESIGNS)
    for row in rows:
        n = row["studies"]
        assert binomtest(round(row["share"] * n), n, 0.95, alternative="less").pvalue > 1e-3, row
    assert np.mean([row["share"] for row in rows]) > 0.91


def test_a_broken_interval_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from vistudy.analysis.estimates import risk_difference

    half = risk_difference.mean_interval

    def halved(values: np.ndarray, **options: object) -> tuple[float, float, str]:
        low, high, method = half(values, **options)  # type: ignore[arg-type]
        middle = values.mean()
        return (low + middle) / 2, (high + middle) / 2, method

    monkeypatch.setattr(risk_difference, "mean_interval", halved)
    count = decisions(Design(n_configs=60, n_seeds=2), 100, rng())
    assert share(count["covered"], 100)["high"] < 0.93


def test_pruning_biases_what_ignores_it_and_the_bounds_hold() -> None:
    found = censoring(12, 5000, rng(3))
    means = found["mean_estimate"]
    assert -0.06 < found["truth"] < -0.02
    assert means["full"] == pytest.approx(found["truth"], abs=0.03)
    assert means["as_failures"] < found["truth"] - 0.08
    assert means["dropped"] > found["truth"] + 0.02
    for name in ("bounds_hold_truth", "bounds_hold_full", "bounds_straddle_0", "time_bounds_hold_truth"):
        assert found[name]["share"] == 1.0


def test_a_pruned_study_is_the_whole_one_with_half_of_it_unseen() -> None:
    whole, pruned = pruned_study(50, rng())
    out = pruned["state"] == "censored"
    assert out.sum() == len(whole) // 2
    assert (pruned.loc[~out, "stable"] == whole.loc[~out, "stable"]).all()
    assert pruned.loc[out, "stable"].isna().all()
    assert out[whole["arm"] == "A1"].sum() > out[whole["arm"] == "A0"].sum()


def test_the_result_is_json_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.calibration.NULLS", NULLS[:1])
    monkeypatch.setattr("benchmarks.calibration.DESIGNS", ((20, 1),))
    monkeypatch.setattr("benchmarks.calibration.SIZES", (60,))
    monkeypatch.setattr("benchmarks.calibration.E1_DESIGNS", E1_DESIGNS[:1])
    parts = run(5, 20, 2000, 0)
    assert json.loads(json.dumps(parts)) == parts
    assert "100 x 2, 50% stable, interaction sd 0" in text(parts)
    assert "E6, 30% stopped at random, 100 x 2" in text(parts)


def test_the_rule_is_judged_as_a_whole() -> None:
    (row,) = calibrated_rule.run(3, 0, [9])
    assert row["case"] == "+14 points from 50%, and two blocks at 2%"
    assert sum(row["verdicts"].values()) == sum(row["verdicts_before"].values()) == 3
    assert row["verdicts"].keys() <= {*VERDICTS} | {v for v in row["verdicts"] if v.startswith("depends on ")}
    assert calibrated_rule.line(row).count("|") == 6
