from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from vistudy.analysis.outcomes.labels import LABELS
from vistudy.analysis.tables.rates import RATE_COLUMNS, cell_rates, wilson


def trials(*rows: tuple[str, str | None], lr: float = 1e-3, inert: bool = False) -> pd.DataFrame:
    return pd.DataFrame([{"lr": lr, "state": s, "outcome": o, "inert": inert} for s, o in rows])


def test_wilson_by_its_formula() -> None:
    z, k, n = 1.959963984540054, 3, 4
    centre = (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))
    assert all(map(math.isnan, wilson(0, 0)))
    with pytest.raises(ValueError, match="k"):
        wilson(3, 2)


def test_counts_of_one_cell() -> None:
    frame = trials(
        ("complete", "converged"), ("complete", "converged"), ("complete", "slow"), ("complete", "undetermined"),
        ("failed", None), ("planned", None), ("running", None),
    )  # fmt: skip
    row = cell_rates(frame, ["lr"]).iloc[0].to_dict()
    low, high = wilson(2, 3)
    assert row == {
        "lr": 1e-3, "k": 2, "n": 3, "planned": 7, "failed": 1, "missing": 2, "undetermined": 1,
        "inert": False, "share": 2 / 3, "ci_low": low, "ci_high": high, "most_common_failure": "slow",
    }  # fmt: skip
    assert list(row)[1:] == list(RATE_COLUMNS)


def test_a_cell_without_a_finished_trial_has_no_share() -> None:
    row = cell_rates(trials(("planned", None), ("failed", None)), ["lr"]).iloc[0]
    assert math.isnan(row["share"])
    assert math.isnan(row["ci_low"])
    assert row["most_common_failure"] is None


def test_ties_name_the_more_severe_failure() -> None:
    frame = trials(("complete", "plateau"), ("complete", "diverged"), ("complete", "slow"), ("complete", "slow"))
    assert cell_rates(frame, ["lr"])["most_common_failure"].tolist() == ["slow"]
    assert cell_rates(frame[:3], ["lr"])["most_common_failure"].tolist() == ["diverged"]


def test_cells_keep_their_order_and_absent_levels() -> None:
    parts = [trials(("complete", "converged"), lr=lr, inert=lr == 2) for lr in (3.0, 1.0, float("nan"), 2.0)]
    rates = cell_rates(pd.concat(parts), ["lr"])
    assert rates["lr"].tolist() == pytest.approx([3, 1, float("nan"), 2], nan_ok=True)
    assert rates["inert"].tolist() == [False, False, False, True]
    assert cell_rates(pd.concat(parts), [])["planned"].tolist() == [4]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["complete", "failed", "interrupted", "planned", "running"]),
                  st.sampled_from([*LABELS, None])), min_size=1)
)  # fmt: skip
def test_no_trial_is_dropped(rows: list[tuple[str, str, str | None]]) -> None:
    frame = pd.DataFrame([{"c": c, "state": s, "outcome": o, "inert": False} for c, s, o in rows])
    rates = cell_rates(frame, ["c"])
    parts = rates[["n", "failed", "missing", "undetermined"]].sum(axis=1)
    assert (parts == rates["planned"]).all()
    assert rates["planned"].sum() == len(rows)
    assert rates["k"].sum() == sum(s == "complete" and o == "converged" for _, s, o in rows)
    assert (rates["ci_low"].isna() == (rates["n"] == 0)).all()
    known = rates.dropna(subset="share")
    assert (known["ci_low"] <= known["share"] + 1e-9).all()
    assert (known["share"] <= known["ci_high"] + 1e-9).all()


def test_wilson_is_statsmodels() -> None:
    for k, n in ((0, 4), (1, 4), (4, 4), (50, 100)):
        assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
