"""Packs without a heartbeat: which are killed, and when."""

from __future__ import annotations

from typing import Any

import pytest

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution import watchdog
from vistudy.study.execution.watchdog import Watchdog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"s": 1000.0}
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now["s"])
    return now


@pytest.fixture
def killed() -> list[tuple[str, int]]:
    return []


def sign(at: float) -> dict[str, Any]:
    return {"pid": 7, "place": "node", "host": "h", "d_updates": at}


def test_silence_is_killed_and_told(disk: Ledger, clock: dict[str, float], killed: list[Any]) -> None:
    watch = Watchdog(disk, 300.0, lambda *process: killed.append(process))
    watch.started("p-1")
    for at in range(20):
        clock["s"] += 5.0
        watch._check_heartbeat("p-1", sign(at))
    clock["s"] += 299.0
    watch._check_heartbeat("p-1", sign(at))
    assert killed == []
    clock["s"] += 1.0
    watch._check_heartbeat("p-1", sign(at))
    assert killed == [("node", 7)]
    assert "no heartbeat for 300 s" in str(watch.ended("p-1"))
    assert watch.ended("p-1") is None


def test_a_slow_pack_is_given_ten_times_its_longest_silence(
    disk: Ledger, clock: dict[str, float], killed: list[Any]
) -> None:
    watch = Watchdog(disk, 300.0, lambda *process: killed.append(process))
    watch.started("p-1")
    for at in range(3):
        clock["s"] += 200.0
        watch._check_heartbeat("p-1", sign(at))
    clock["s"] += 1999.0
    watch._check_heartbeat("p-1", sign(at))
    assert killed == []
    clock["s"] += 1.0
    watch._check_heartbeat("p-1", sign(at))
    assert len(killed) == 1


def test_patience_doubles_each_time_and_a_pack_that_has_not_begun_is_waited_for(
    disk: Ledger, clock: dict[str, float], killed: list[Any]
) -> None:
    watch = Watchdog(disk, 100.0, lambda *process: killed.append(process))
    for times in range(3):
        watch.started("p-1")
        clock["s"] += 10_000.0  # its node is loading torch from a slow disk
        watch._check_heartbeat("p-1", None)
        watch._check_heartbeat("p-1", sign(0))
        clock["s"] += 100.0 * 2**times - 1.0
        watch._check_heartbeat("p-1", sign(0))
        assert len(killed) == times
        clock["s"] += 1.0
        watch._check_heartbeat("p-1", sign(0))
        assert len(killed) == times + 1
        watch.ended("p-1")
