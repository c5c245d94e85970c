"""A tracking server that is down, flaps, hangs, answers 500 or refuses the password: nothing is lost, nothing twice."""

from __future__ import annotations

import base64
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.study.mlflow_study import LABELS, STUDY, content, finish, records, wait_until
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking.background_sync import BackgroundSync
from vistudy.study.tracking.client import import_mlflow
from vistudy.study.tracking.mirror import SyncReport, TrackingError, sync

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PASSWORD = "right:horse"


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Nothing."""


class Tracker:
    """MLflow's own server on a port of loopback, behind a door that misbehaves as it is told."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.mode: str | Callable[[int], str] = "well"
        self.calls = 0
        self.awake = threading.Event()
        self._server: Any = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from mlflow.server import app

        def door(environ: dict[str, Any], respond: Any) -> Any:
            self.calls += 1
            mode = self.mode if isinstance(self.mode, str) else self.mode(self.calls)
            if mode == "password":
                given = environ.get("HTTP_AUTHORIZATION", "")
                mode = "well" if given == "Basic " + base64.b64encode(PASSWORD.encode()).decode() else "401"
            if mode == "hang":
                self.awake.wait(60)
            if mode == "lost answer":  # carried out, but nobody hears of it
                list(app(environ, lambda *_: None))
            if mode != "well":
                respond({"401": "401 Unauthorized"}.get(mode, "500 Internal Server Error"), [("Content-Length", "0")])
                return [b""]
            return app(environ, respond)

        self._server = make_server("127.0.0.1", self.port, door, threaded=True, request_handler=Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.awake.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
def tracker(new_uri: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    import_mlflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own server
        import mlflow.server.fastapi_app  # noqa: F401 (else its first request would)
        import mlflow.server.handlers as handlers

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", new_uri())
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    made = Tracker()
    yield made
    made.stop()


def judge(records: Any, _: Any) -> Any:
    return {i: LABELS[i] for i in records if i in LABELS}, {}


def expected(ledger: Ledger, uri: str) -> dict[str, Any]:
    sync(ledger, STUDY, uri, outcomes=LABELS)
    return content(uri)


FAULTS: dict[str, str | Callable[[int], str]] = {
    "hangs": "hang",
    "answers 500": "500",
    "flaps": lambda call: "500" if call // 3 % 2 else "well",
    "loses answers": lambda call: "lost answer" if call % 7 == 0 else "well",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_server_never_stops_the_mirror_and_sync_makes_it_whole(
    study: tuple[Ledger, Attempt], tracker: Tracker, new_uri: Callable[[], str], fault: str
) -> None:
    ledger, attempt = study
    tracker.start()
    tracker.mode = FAULTS[fault]
    mirror = BackgroundSync(ledger, STUDY, tracker.uri, judge, every_s=0.01)
    mirror.start()
    wait_until(lambda: tracker.calls >= (1 if fault == "hangs" else 12))
    attempt.append(records(4, "c"), unix_ms=3000)  # what training does: it waits for nobody,
    finish(ledger, "c")  # or these would not return while the tracker hangs
    if fault in ("hangs", "answers 500"):
        wait_until(lambda: mirror.status.failures >= 1)
        assert "`vistudy sync`" in str(mirror.status.error)
    tracker.awake.set()
    mirror.stop()
    tracker.mode = "well"
    sync(ledger, STUDY, tracker.uri, outcomes=LABELS)
    assert content(tracker.uri) == expected(ledger, new_uri())
    before = content(tracker.uri)
    for _ in range(3):
        report = sync(ledger, STUDY, tracker.uri, outcomes=LABELS)
        assert report == SyncReport(runs_created=0, runs_finished=0, metrics_written=0, images_written=0, behind=0)
    assert content(tracker.uri) == before


def test_a_server_that_is_down_from_the_start_and_comes_later(
    study: tuple[Ledger, Attempt], tracker: Tracker, new_uri: Callable[[], str]
) -> None:
    ledger, attempt = study
    mirror = BackgroundSync(ledger, STUDY, tracker.uri, judge, every_s=0.01)
    mirror.start()
    wait_until(lambda: mirror.status.failures >= 2)
    attempt.append(records(4, "c"), unix_ms=3000)
    finish(ledger, "c")
    tracker.start()
    wait_until(lambda: mirror.status.error is None and mirror.status.synced_at_s is not None)
    assert mirror.stop().error is None
    assert content(tracker.uri) == expected(ledger, new_uri())


def test_a_refused_password_is_one_message_without_it(
    study: tuple[Ledger, Attempt], tracker: Tracker, new_uri: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = study
    tracker.start()
    tracker.mode = "password"
    user, _, password = PASSWORD.partition(":")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-battery")
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"does not answer or refuses.*401.*Set MLFLOW_TRACKING_USERNAME") as caught:
        sync(ledger, STUDY, tracker.uri)
    assert time.monotonic() - began < 20
    assert "battery" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    sync(ledger, STUDY, tracker.uri, outcomes=LABELS)
    assert content(tracker.uri) == expected(ledger, new_uri())
