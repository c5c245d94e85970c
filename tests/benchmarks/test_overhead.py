from __future__ import annotations

import pytest

from benchmarks.overhead import Process, extrapolated_wall_s, table, walls


def test_extrapolation_charges_start_and_end_once_and_no_idle_slot() -> None:
    # Launched at 0, first start at 10; two slots: one ends at 20 and 30, the other at 40; the process ends at 45.
    done = Process(launched=0.0, ended=45.0, out="")
    found = extrapolated_wall_s(done, [10.0, 10.5, 20.5], [20.0, 30.0, 40.0], slots=2, trials=30)
    assert found["fixed_s"] == 10 + 5
    assert found["s_per_trial"] == pytest.approx((35 - 10) / 3)
    assert found["wall_s"] == pytest.approx(15 + 30 * 25 / 3)


def test_the_sample_itself_extrapolates_to_its_own_wall_time_when_the_slots_end_together() -> None:
    done = Process(launched=100.0, ended=150.0, out="")
    assert extrapolated_wall_s(done, [105.0], [140.0, 140.0], slots=2, trials=2)["wall_s"] == pytest.approx(50)


def test_rates_are_trials_a_minute_at_the_median() -> None:
    assert walls([60.0, 30.0, 600.0], 120)["trials_per_min"] == 120


def test_table_says_whether_targets_are_met() -> None:
    ratio = {"median": 16.0, "min": 15.5, "max": 17.0}
    bare = {"median": 0.7, "min": 0.65, "max": 0.75}
    plain = {"sample_wall_s": 100.0, "wall_s": 1600.0, "trials_per_min": 9.0}
    result = {
        "trials": 240, "sample": ["t"] * 16, "ours": walls([100.0], 240), "b": walls([70.0], 240), "a": plain,
        "a2": plain, "ratios": {"a": ratio, "a2": ratio, "b": bare},
    }  # fmt: skip
    lines = table(result).splitlines()
    assert "16 of 240" in lines[3]
    assert lines[-2].endswith("x (a): met, 16.00")
    assert lines[-1].endswith("x (b): MISSED, 0.70")
