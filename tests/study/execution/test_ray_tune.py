"""The parts of the executor that need no Ray: who is taken to hang, and what a signal does."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.remote_function import RemoteFunction

from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution import ray_tune
from vistudy.study.execution.interrupts import listening
from vistudy.study.execution.ray_tune import _StopRequested
from vistudy.study.execution.supervisor import Supervisor


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_asks_the_workers_to_stop_and_starts_no_more(disk: Ledger) -> None:
    supervisor = Supervisor([], disk, clock=time.monotonic, now_ms=lambda: 1)
    asked = _StopRequested(supervisor, disk, "run-1")
    with listening(lambda line: None) as stop, asked, stop.patient("here", asked.stop):
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: disk.stop_requested("run-1"))
        assert stop.terminated
        assert supervisor.stopping
        assert not asked.stop_all()


def test_workers_that_do_not_stop_in_time_are_left(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_tune, "GRACE_S", 0.05)
    asked = _StopRequested(Supervisor([], disk, clock=time.monotonic, now_ms=lambda: 1), disk, "run-1")
    with listening(lambda line: None) as stop, asked, stop.patient("here", asked.stop):
        signal.raise_signal(signal.SIGINT)
        wait_until(asked.stop_all)


def test_a_store_that_cannot_ask_is_not_waited_for(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Ledger, run: str) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(Ledger, "request_stop", full)
    asked = _StopRequested(Supervisor([], disk, clock=time.monotonic, now_ms=lambda: 1), disk, "run-1")
    asked.stop()
    assert asked.stop_all()


def test_what_kills_a_process_is_something_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses builtins such as os.kill. Here the task runs in this process."""

    def run(self: RemoteFunction, args: Any = (), kwargs: Any = None, **options: Any) -> None:
        assert options["scheduling_strategy"].node_id == "ab" * 28
        self._function(*args)

    monkeypatch.setattr(RemoteFunction, "_remote", run)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        ray_tune._kill("ab" * 28, sleeper.pid)
        assert sleeper.wait(10) == -signal.SIGKILL


NOT_LOADED = """\
Failure # 1 (occurred at 2026-11-30_23-57-36)
The actor died unexpectedly before finishing this task.
	ip: 10.0.0.7
The actor is dead because its worker process has died. Worker exits with an exit code None. Traceback (most recent call last):
  File "ray/function_manager.py", line 657, in temporary_actor_method
    raise RuntimeError(
RuntimeError: The actor with name ImplicitFunc failed to import on the worker. This may be because needed library dependencies are not installed in the worker environment:

Traceback (most recent call last):
  File "ray/function_manager.py", line 696, in _load_actor_class_from_gcs
    actor_class = pickle.loads(pickled_class)
  File "/code/vistudy/study/execution/ray_tune.py", line 28, in <module>
    from vistudy.analysis.outcomes.rules import deficiency
ModuleNotFoundError: No module named 'vistudy.analysis.outcomes.rules'

An unexpected internal error occurred while the worker was executing a task.
"""  # noqa: E501


@pytest.mark.parametrize("shadow", [None, "vistudy.py", "vistudy/__init__.py"])
def test_code_that_a_worker_cannot_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shadow: str | None
) -> None:
    """As Ray 2.60 told it. Workers of this machine look for modules where it was started, first."""
    monkeypatch.chdir(tmp_path)
    if shadow:
        (tmp_path / shadow).parent.mkdir(exist_ok=True)
        (tmp_path / shadow).touch()
    said = ray_tune.import_failure(NOT_LOADED)
    assert said is not None
    assert (
        "10.0.0.7 cannot load this code: ModuleNotFoundError: No module named 'vistudy.analysis.outcomes.rules'" in said
    )
    assert 'by File "/code/vistudy/study/execution/ray_tune.py", line 28' in said
    mend = f"{tmp_path / shadow} is found in place of vistudy's" if shadow else "Install vistudy and requirements.lock"
    assert mend in said


def test_another_death_is_a_death() -> None:
    assert ray_tune.import_failure("The actor is dead because its node has died.") is None
