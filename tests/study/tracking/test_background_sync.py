"""The background sync: an outage of MLflow costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.study.mlflow_study import LABELS, STUDY, closed_port, content, finish, records, wait_until
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror as tracking
from vistudy.study.tracking.background_sync import BackgroundSync
from vistudy.study.tracking.mirror import sync

# MLflow leaves its SQLite connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_mirror_survives_an_outage_and_catches_up(
    study: tuple[Ledger, Attempt], new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, attempt = study
    uri, undisturbed = new_uri(), new_uri()
    connect, down = tracking.connect, True

    def flaky(uri: str) -> Any:
        if down:
            raise ConnectionError("nobody there")
        return connect(uri)

    monkeypatch.setattr(tracking, "connect", flaky)
    mirror = BackgroundSync(
        ledger, STUDY, uri, lambda records, _: ({i: LABELS[i] for i in records if i in LABELS}, {}), every_s=0.01
    )
    mirror.start()
    wait_until(lambda: mirror.status.failures >= 2)
    assert "nobody there" in str(mirror.status.error)
    assert mirror.status.behind == 4
    attempt.append(records(4, "c"), unix_ms=3000)
    down = False
    wait_until(lambda: mirror.status.error is None)
    finish(ledger, "c")
    status = mirror.stop()
    assert (status.error, status.behind, status.failures) == (None, 0, 0)
    monkeypatch.setattr(tracking, "connect", connect)
    sync(ledger, STUDY, undisturbed, outcomes=LABELS)
    assert content(uri) == content(undisturbed)
    assert "RUNNING" not in {run["info"][1] for run in content(uri).values()}


def test_mirror_stops_while_mlflow_is_down(study: tuple[Ledger, Attempt]) -> None:
    mirror = BackgroundSync(study[0], STUDY, f"http://127.0.0.1:{closed_port()}", every_s=0.01)
    mirror.start()
    wait_until(lambda: mirror.status.failures >= 1)
    status = mirror.stop()
    assert "does not answer" in str(status.error)
