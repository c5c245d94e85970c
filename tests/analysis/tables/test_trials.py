from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.series import REFERENCE, cut, series
from tests.analysis.store import entry, make_store, train
from vistudy.analysis.ledger.errors import StoreError, StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes import rules as outcome_module
from vistudy.analysis.outcomes.rules import VALUES_READ
from vistudy.analysis.tables import trials as frame_module
from vistudy.analysis.tables.trials import (
    COLUMNS,
    RECORD_COLUMNS,
    cell_tag,
    columns_markdown,
    export,
    load_frame,
    load_records,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """Seven trials: converged, diverged, failed, running, planned; one inert; one of a model without norm."""
    other = entry("vae", data="digits", model="vae", beta=2.0)
    for name in ("norm", "g_lr", "depth"):
        del other["config"][name]
    trials = [
        entry("good", {"lr": 1e-3, "batch_norm": True}, norm="bn"),
        entry("wild", {"lr": 1.0, "batch_norm": False}, g_lr=1.0, d_lr=1.0, seed=1),
        entry("broken"),
        entry("live"),
        entry("later"),
        entry("placebo", inert=("reg_weight",), reg_weight=5.0, g_steps=1),
        other,
    ]
    ledger = make_store(tmp_path / "store", trials)
    diverged = series(0.2)
    diverged["finite"][30] = 0.0
    train(ledger, "p1", {"good": series(lambda t: np.exp(-t / 5)), "wild": cut(diverged, 30)})
    train(ledger, "p2", {"broken": cut(series(0.1), 3)}, state="failed")
    train(ledger, "p3", {"live": cut(series(0.1), 2)}, state=None)
    train(ledger, "p4", {"of-another-study": series(0.1)})
    return ledger


def test_one_row_a_trial_whatever_became_of_it(store: Ledger) -> None:
    frame = load_frame(store, "demo").set_index("trial_id")
    assert frame["state"].to_dict() == {
        "good": "complete", "wild": "complete", "broken": "failed", "live": "interrupted", "later": "planned",
        "placebo": "planned", "vae": "planned",
    }  # fmt: skip
    assert frame["outcome"].dropna().to_dict() == {"good": "converged", "wild": "diverged"}
    assert frame.loc["good", ["t_thr", "attempt", "pack_id", "wall_s"]].tolist() == [70.0, 1, "p1", 25.0]
    assert frame.loc["wild", "t_div"] == 300.0
    assert pd.isna(frame.loc["wild", "q_final"])
    assert frame.loc["broken", "error"] == "boom"
    assert frame["inert"].to_dict() == {name: name == "placebo" for name in frame.index}
    assert frame.loc["good", "cell"] == "batch_norm=true,lr=0.001"


def test_columns_and_types(store: Ledger) -> None:
    frame = load_frame(store.uri, "demo")
    assert list(frame.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert list(frame.columns[len(COLUMNS) :]) == ["d_updates", "evaluations", "optimizer", "depth", "beta"]
    assert frame.dtypes[["seed", "attempt", "depth", "d_updates", "outcome_version"]].astype(str).eq("Int64").all()
    assert frame.dtypes[["g_lr", "t_thr", "q_final"]].eq("float64").all()
    assert frame["batch_norm"].tolist()[:2] == [True, False]
    assert pd.isna(frame["batch_norm"].iloc[-1])


def test_no_regularizer_is_no_placebo(tmp_path: Path) -> None:
    trials = [entry(name, inert=("reg_weight",), reg_weight=w) for name, w in (("a", 0.0), ("b", 5.0))]
    trials.append(entry("c", inert=("z_use",), reg_weight=5.0))
    assert load_frame(make_store(tmp_path, trials), "demo")["inert"].tolist() == [False, True, False]


def test_empty_study_has_all_columns(tmp_path: Path) -> None:
    assert list(load_frame(make_store(tmp_path, []), "demo").columns) == list(COLUMNS)


def test_thresholds_are_the_callers(store: Ledger) -> None:
    frame = load_frame(store, "demo", frame_module.Thresholds(tau_ok=0.5)).set_index("trial_id")
    assert frame.loc["good", "t_thr"] == 40.0  # exp(-t/5) <= 1/2 from t = 3.47 on


def test_records(store: Ledger) -> None:
    records = load_records(store, "demo")
    assert list(records.columns[:5]) == list(RECORD_COLUMNS)
    assert records.groupby("trial_id").size().to_dict() == {"broken": 4, "good": 51, "live": 3, "wild": 31}
    assert not records.duplicated(["trial_id", "evaluation"]).any()
    good = records[records["trial_id"] == "good"]
    np.testing.assert_allclose(good["dist"], np.exp(-np.arange(51) / 5))
    assert good["step"].tolist() == list(range(0, 510, 10))


def test_values_that_some_records_lack_are_nan_there(tmp_path: Path) -> None:
    ledger = make_store(tmp_path, [entry("a"), entry("b")])
    train(ledger, "p1", {"a": cut(series(0.1), 1)}, state=None)
    train(ledger, "p2", {"b": cut(series(0.1, late=7.0), 1)}, state=None)
    assert load_records(ledger, "demo")["late"].tolist() == pytest.approx([np.nan, np.nan, 7, 7], nan_ok=True)


def test_what_the_outcome_rules_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, column = set(), outcome_module._column

    def noted(values: Any, name: str, like: Any = None) -> Any:
        asked.add(name)
        return column(values, name, like)

    monkeypatch.setattr(outcome_module, "_column", noted)
    rich = dict.fromkeys([*VALUES_READ, "drift", "rho"], 0.9)
    outcome_module.label(series(**rich), REFERENCE, evaluations=50)  # stalled, so D's accuracy is looked at
    assert asked | {"hq_share", "triangle_share", "prdc_precision"} == set(VALUES_READ)  # these: whether they are there
    assert not asked & {"hq_share", "triangle_share", "prdc_precision"}


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_trial_planned_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"1 trial ids appear more than once \(a"):
        load_frame(make_store(tmp_path, [entry("a"), entry("b"), entry("a")]), "demo")


class Stranger:
    """A ledger that answers with what it was not asked for."""

    def __init__(self, ledger: Ledger, records: list[dict[str, Any]]) -> None:
        self.read_plan, self.read_outcomes, self.packs = ledger.read_plan, ledger.read_outcomes, ledger.packs
        self.segments, self.read_outcome_cache = ledger.segments, ledger.read_outcome_cache
        self.registrations, self.found = ledger.registrations, records

    def histories(self, trial_ids: Collection[str], outcomes: object = None) -> list[tuple[str, list[dict[str, Any]]]]:
        groups = itertools.groupby(self.found, key=lambda record: record["trial_id"])
        planned = {entry["trial_id"] for entry in self.read_plan("demo")["trials"]}
        return [(i, list(records)) for i, records in groups if i in trial_ids or i not in planned]


@pytest.mark.parametrize(
    ("ids", "evaluations", "message"),
    [
        (["x"], [0], "trials that its plan does not have"),
        (["a", "a"], [0, 0], "out of order or appear twice"),
        (["a", "b", "a"], [0, 0, 1], "out of order or appear twice"),
    ],
)
def test_strangers_and_duplicates_are_refused(
    tmp_path: Path, ids: list[str], evaluations: list[int], message: str
) -> None:
    ledger = make_store(tmp_path, [entry("a"), entry("b")])
    found = [
        {"trial_id": i, "evaluation": e, "step": e, "unix_ms": 0, "values": {}}
        for i, e in zip(ids, evaluations, strict=True)
    ]
    with pytest.raises(StudyError, match=message):
        load_frame(Stranger(ledger, found), "demo")  # type: ignore[arg-type]


def test_unknown_study_is_refused(store: Ledger) -> None:
    with pytest.raises(StoreError, match="demo"):
        load_frame(store, "dmeo")


def test_an_incomplete_reference_is_refused(tmp_path: Path) -> None:
    ledger = make_store(tmp_path, [entry("a")])
    train(ledger, "p1", {"a": series(0.1)}, reference={"dist_floor": 1.0})
    with pytest.raises(StudyError, match=r"trial a of pack p1 cannot be labelled: reference: .* missing"):
        load_frame(ledger, "demo")


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("records", [False, True])
def test_export_holds_the_table(store: Ledger, tmp_path: Path, ending: str, records: bool) -> None:
    out = tmp_path / f"table{ending}"
    table = load_records(store, "demo") if records else load_frame(store, "demo")
    assert export(store, "demo", out, records=records) == len(table)
    back = pd.read_csv(out) if ending == ".csv" else pd.read_parquet(out)
    assert list(back.columns) == list(table.columns)
    assert back["trial_id"].tolist() == table["trial_id"].tolist()
    value = "dist" if records else "t_div"
    np.testing.assert_allclose(back[value], table[value])
    if ending == ".parquet":
        assert back.dtypes.get("seed") == table.dtypes.get("seed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", out.name]


def test_export_refuses_other_endings_and_places(store: Ledger, tmp_path: Path) -> None:
    for name, message in (("t.xlsx", "allowed: .csv, .parquet"), ("t", "got none"), ("no/t.csv", "does not exist")):
        with pytest.raises(StudyError, match=message):
            export(store, "demo", tmp_path / name)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(StudyError, match="is a folder"):
        export(store, "demo", tmp_path / "d.csv")


def test_the_page_of_columns_is_up_to_date() -> None:
    assert (ROOT / "docs" / "export.md").read_text(encoding="utf-8") == columns_markdown()


# -- other -------------------------------------------------------------------------------------------------------------


def test_cell_tag() -> None:
    cell = {"ratio": "1:10", "lr": 1e-4, "batch_norm": False, "width": 64, "reg_weight": 5e6, "b": np.True_}
    assert cell_tag(cell) == "b=true,batch_norm=false,lr=0.0001,ratio=1:10,reg_weight=5e+06,width=64"
    assert cell_tag({}) == ""
    assert cell_tag({"lr": 5}) == cell_tag({"lr": 5.0})


def test_the_room_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, vistudy.analysis.maps.heatmap, vistudy.analysis.tables.trials;"
        "import vistudy.analysis.maps.heatmap_page, vistudy.analysis.tables.rates;"
        "print([m for m in ('torch', 'ray', 'mlflow', 'trainables', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
