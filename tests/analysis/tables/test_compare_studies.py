from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

import vistudy
from tests.analysis.series import cut, series
from tests.analysis.store import entry, make_store, train
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.compare_studies import CELL_COLUMNS, compare_studies


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Ledger, Ledger]:
    """Two stores that share the trials a, b, c; in the second one b has another outcome and c another Q."""
    first = make_store(tmp_path / "one", [
        entry("a", {"lr": 1.0}), entry("b", {"lr": 1.0}, seed=1), entry("c", {"lr": 2.0}), entry("d", {"lr": 3.0}),
    ])  # fmt: skip
    train(first, "p1", {"a": series(0.1), "b": series(0.1), "c": series(0.9)})
    second = make_store(tmp_path / "two", [
        entry("a", {"lr": 1.0}), entry("b", {"lr": 1.0}, seed=1), entry("c", {"lr": 2.0}), entry("e", {"lr": 4.0}),
        entry("f", {"lr": 4.0}, seed=1),
    ], study="later")  # fmt: skip
    train(second, "p1", {"a": series(0.1), "b": series(0.5), "c": series(0.8), "e": series(0.1)})
    train(second, "p2", {"f": cut(series(0.1), 3)}, state="failed")
    return first, second


def test_two_studies_side_by_side(stores: tuple[Ledger, Ledger]) -> None:
    found = compare_studies(stores[0], "demo", stores[1], "later")
    assert (found.trials_a, found.trials_b, found.shared, found.both_labelled, found.unequal) == (4, 5, 3, 3, 1)
    assert found.disagree == (("b", "converged", "plateau"),)
    assert list(found.cells.columns) == list(CELL_COLUMNS)
    cells = found.cells.set_index("cell")
    assert cells.loc["lr=1", ["k_a", "n_a", "k_b", "n_b"]].tolist() == [2, 2, 1, 2]
    assert cells.loc["lr=1", "difference"] == -0.5
    assert cells.loc["lr=3", ["n_a", "planned_a", "planned_b"]].tolist() == [0, 1, 0]
    assert cells.loc["lr=4", ["k_b", "n_b", "planned_b"]].tolist() == [1, 1, 2]
    assert cells.loc[["lr=3", "lr=4"], "difference"].isna().all()
    assert "3 trials and 2 of 4 cells are in both" in found.sentence
    assert "1 have another outcome and 1 the same with another final Q" in found.sentence


def test_newcombes_interval(tmp_path: Path) -> None:
    stores = []
    for name, (stable, n) in {"one": (1, 5), "two": (3, 4)}.items():
        stores.append(make_store(tmp_path / name, [entry(f"{name}-{i}", {"lr": 1.0}, seed=i) for i in range(n)]))
        train(stores[-1], "p1", {f"{name}-{i}": series(0.1 if i < stable else 0.9) for i in range(n)})
    row = compare_studies(stores[0], "demo", stores[1], "demo").cells.iloc[0]
    expected = confint_proportions_2indep(3, 4, 1, 5, method="newcomb", compare="diff")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected)


def test_a_study_with_itself(stores: tuple[Ledger, Ledger]) -> None:
    found = compare_studies(stores[0], "demo", stores[0], "demo")
    assert (found.a, found.b, found.shared, found.unequal, found.disagree) == ("demo (a)", "demo (b)", 4, 0, ())
    assert found.cells["difference"].dropna().eq(0).all()


def test_nothing_in_common(tmp_path: Path) -> None:
    empty = make_store(tmp_path / "one", [], study="empty")
    other = make_store(tmp_path / "two", [entry("a", {"lr": 1.0})])
    found = compare_studies(empty, "empty", other, "demo")
    assert (found.shared, len(found.cells)) == (0, 1)
    assert "Stable: 0.0 % of 0 evaluable trials" in found.sentence


def test_json_and_markdown(stores: tuple[Ledger, Ledger]) -> None:
    found = compare_studies(stores[0], "demo", stores[1], "later")
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["difference"] for row in again["cells"]] == [-0.5, 0.0, None, None]
    page = found.to_markdown()
    assert "| gan | ring8 | lr=1 | 2/2 | 1/2 | -50.0 (" in page
    assert "| gan | ring8 | lr=3 | 0/0 | – |  |" in page


def test_public_names_are_there_and_stay_what_they_are() -> None:
    assert sorted(vistudy.__all__) == vistudy.__all__ == dir(vistudy) == sorted(vistudy._NAMES)
    for _ in range(2):
        for name in vistudy.__all__:
            assert not isinstance(getattr(vistudy, name), type(importlib)), name
    assert vistudy.compare is compare_studies
