from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.armstore import SPACE, entry, make_arm_store
from tests.analysis.series import cut, series
from tests.analysis.store import train
from vistudy import load_arms
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.label_study import read_trials
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.tables.arm_table import KEYS, config_text
from vistudy.analysis.tables.trials import COLUMNS

ARMS: dict[str, Any] = {
    "A0": {"reg_weight": 0},
    "A1": {"reg_weight": 5, "anchor": "period_start"},
    "A2": {"reg_weight": {"low": 0.05, "high": 500, "log": True}},
    "A3a": {"g_lr": {"match_drift": "A1", "scale": 0.316}},
}
SAMPLE = {"method": "sobol", "n": 2, "seed": 0, "space": SPACE}
RING = {"family": "gan_ring", "class": "P", "arms": ARMS, "sampled": ["lr", "batch_norm"], "factors": {}, "fixed": {},
        "sample": SAMPLE}  # fmt: skip
C1 = {"lr": 1e-3, "batch_norm": True}


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """One configuration in four arms, pilots of one, a failed and a diverged trial, a trial of two blocks."""
    trials = [
        entry("base", {"arm": "A0", **C1}, also=[{"block": "other", "cell": {"arm": "A0", "lr": 1e-3}}]),
        entry("term", {"arm": "A1", **C1}, config={"reg_weight": 5.0}),
        entry("drawn", {"arm": "A2", **C1, "reg_weight": 17.0}, config={"reg_weight": 17.0}),
        entry("slower", {"arm": "A3a", **C1}, config={"g_lr": 3.16e-4}),
        entry("pilot", {"arm": "A3a~0.1", **C1}, config={"g_lr": 1e-4},
              also=[{"block": "ring", "cell": {"arm": "A3a~0.0316", **C1}}]),
        entry("wild", {"arm": "A0", "lr": 1e-1, "batch_norm": False}, config={"seed": 1}),
        entry("plain", {"lr": 1e-3}, block="grid"),
    ]  # fmt: skip
    other = RING | {"class": "G", "family": "gan_other", "arms": {"A0": ARMS["A0"]}, "sampled": ["lr"]}
    grid = RING | {"arms": {}}
    ledger = make_arm_store(tmp_path / "store", trials, {"ring": RING, "other": other, "grid": grid})
    diverged = series(0.2)
    diverged["finite"][30] = 0.0
    train(ledger, "p1", {"base": series(0.1), "term": series(7.0), "wild": cut(diverged, 30)})
    train(ledger, "p2", {"drawn": series(0.1)}, state="failed")
    return ledger


def test_one_row_for_each_place_in_an_arm(store: Ledger) -> None:
    table = load_arms(store, "demo")
    assert list(table.columns[:10]) == [*KEYS, "stable", "q", "lr", "stratum"]
    assert set(COLUMNS) - {"seed"} <= set(table.columns)
    assert table[["block", "class", "arm", "trial_id"]].to_numpy().tolist() == [
        ["ring", "P", "A0", "base"], ["ring", "P", "A0", "wild"], ["ring", "P", "A1", "term"],
        ["ring", "P", "A2", "drawn"], ["ring", "P", "A3a", "slower"], ["other", "G", "A0", "base"],
    ], "in the order of the plan's blocks and arms"  # fmt: skip
    rows = table.set_index("trial_id")
    assert rows.loc[["term", "drawn", "slower"], "config"].unique().tolist() == ["batch_norm=true,lr=0.001"]
    assert rows.loc["slower", ["lr", "g_lr", "stratum"]].tolist() == [1e-3, 3.16e-4, "batch_norm=true"]
    assert rows.loc["wild", "seed"] == 1


def test_what_is_not_evaluable_is_nan_and_the_rest_is_capped(store: Ledger) -> None:
    rows = load_arms(store, "demo").drop_duplicates("trial_id").set_index("trial_id")
    assert rows["stable"].to_dict() == pytest.approx(
        {"base": 1, "term": 0, "wild": 0, "drawn": np.nan, "slower": np.nan}, nan_ok=True
    )
    assert rows["q"].to_dict() == pytest.approx(
        {"base": 0.1, "term": 1, "wild": 1, "drawn": np.nan, "slower": np.nan}, nan_ok=True
    )
    assert rows.loc["term", "q_final"] == pytest.approx(7.0)
    assert np.isnan(rows.loc["wild", "q_final"])


def test_pilots_are_counted_and_in_no_arm(store: Ledger) -> None:
    table = load_arms(store, "demo")
    assert table.attrs["pilots"] == {"ring": {"A3a~0.1": 1, "A3a~0.0316": 1}}
    assert not table["arm"].str.contains("~").any()
    assert (table.attrs["first_ms"], table.attrs["study"]) == (1_000, "demo")


def test_thresholds_and_what_was_read_already(store: Ledger) -> None:
    strict = load_arms(read_trials(store, "demo"), thresholds=Thresholds(tau_ok=0.05))
    assert strict.set_index("trial_id").loc["base", "stable"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": {"arm": "A9", **C1}}, "in arm 'A9' of block 'ring', which has no such arm; it has A0, A1"),
        ({"cell": {"arm": "A1~0.1", **C1}}, "in arm 'A1~0.1'"),
        ({"cell": {"arm": "A9~0.1", **C1}}, "in arm 'A9~0.1'"),
        ({"cell": C1}, "in arm '' of block"),
        ({"block": "elsewhere"}, "in block 'elsewhere', which the plan does not declare"),
        ({"cell": {"arm": "A0", **C1}}, "1 places are taken twice; the first: block ring, arm A0, batch_norm=true"),
    ],
)
def test_an_edited_plan_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    trials = [entry("a", {"arm": "A0", **C1}), entry("b", {"arm": "A1", **C1}) | change]
    with pytest.raises(StudyError, match=message):
        load_arms(make_arm_store(tmp_path, trials, {"ring": RING}), "demo")


def test_a_study_without_arms_is_refused(tmp_path: Path) -> None:
    ledger = make_arm_store(tmp_path, [entry("a", C1)], {"ring": RING | {"arms": {}}})
    with pytest.raises(StudyError, match="no block of its plan has arms"):
        load_arms(ledger, "demo")


def test_arms_without_a_trial_give_an_empty_table(tmp_path: Path) -> None:
    table = load_arms(make_arm_store(tmp_path, [], {"ring": RING}), "demo")
    assert len(table) == 0
    assert list(table.columns[:6]) == list(KEYS)


def test_configurations_that_differ_never_read_the_same() -> None:
    assert config_text({"lr": 0.001, "batch_norm": True}) == "batch_norm=true,lr=0.001"
    assert config_text({"lr": 0.1234567}) == "lr=0.1234567"


def test_the_sample_comes_from_the_registration_where_the_plan_does_not_say_it(tmp_path: Path) -> None:
    silent = {name: value for name, value in RING.items() if name != "sample"}
    ledger = make_arm_store(tmp_path, [entry("a", {"arm": "A0", **C1})], {"ring": silent})
    ledger.write_registration("demo", {"blocks": {"ring": {"sample": SAMPLE | {"n": 3}}}})
    assert load_arms(ledger, "demo").attrs["blocks"]["ring"]["sample"]["n"] == 3
