"""The chaos harness: ten faults on a real cluster; and that it would see it if something were lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.chaos import Harness, chaos, kinds_in_order
from tests.chaos.faults import FAULTS, SLOW, Scene
from tests.study.api.test_doctor import ATTEMPT, trained
from vistudy.analysis.ledger.ledger import Ledger

TEN = (
    "worker_killed", "raylet_killed", "node_frozen_5s", "driver_killed", "driver_sigterm", "disk_full",
    "checkpoint_truncated", "segment_torn", "clock_jump", "two_drivers",
)  # fmt: skip


def test_kinds_come_in_rounds_and_by_the_seed() -> None:
    order = kinds_in_order(40, 3, list(FAULTS))
    assert order == kinds_in_order(40, 3, list(FAULTS)) != kinds_in_order(40, 4, list(FAULTS))
    assert set(order[: len(FAULTS)]) == set(FAULTS)
    assert not set(order[len(FAULTS) : 2 * len(FAULTS) - len(SLOW)]) & set(SLOW)


def harness(folder: Path) -> Harness:
    """One that has seen the undisturbed run of `trained`."""
    from tests.chaos.chaos import bits

    made = Harness(folder, 1)
    made.whole, _ = bits(trained(folder / "whole"))
    return made


@pytest.mark.parametrize(
    ("spoil", "counted"),
    [
        (lambda store: None, {}),
        (lambda store: next(iter((store / "trials").iterdir())).unlink(), {"lost": 1}),
        (lambda store: (store / ATTEMPT / "records-00004.jsonl").unlink(), {"differing": 2}),
    ],
)
def test_what_is_lost_or_different_is_counted(tmp_path, monkeypatch, spoil, counted) -> None:
    made = harness(tmp_path)
    monkeypatch.setattr("tests.chaos.chaos.mlflow_counts", lambda *_: (0, 0))
    store = Path(trained(tmp_path / "store").uri)
    spoil(store)
    scene = Scene(nodes=None, file=Path("small.yaml"), store=store, rng=random.Random(0), codes=[0])  # type: ignore[arg-type]
    row = made._row(1, "worker_killed", scene, 0.0, "")
    assert {name: getattr(row, name) for name in counted} == counted
    assert row.verdict == ("broken" if counted else "held")
    assert Ledger(store).exists()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_ten_faults_lose_nothing() -> None:
    rows = [row for row in chaos(len(TEN), 1, TEN, 600, quick=True) if not isinstance(row, float)]
    assert {row.kind for row in rows} == set(TEN)
    injected = [row for row in rows if row.verdict != "skipped" and not row.note.startswith("no fault")]
    assert len(injected) >= 8, rows  # a mount needs root, and a study may end before its fault
    assert [(row.kind, row.note) for row in rows if row.verdict not in ("held", "skipped")] == []
