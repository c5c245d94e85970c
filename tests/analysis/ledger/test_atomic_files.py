"""Two processes at one study, or at trials that two studies share: refused, or at least never wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.study.api.test_doctor import bits, trained
from vistudy.analysis.ledger import liveness as signs
from vistudy.analysis.ledger.errors import StudyBusyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.ledger.liveness import HEARTBEAT_TIMEOUT_MS
from vistudy.study.api.doctor import examine

HOLD = (
    "import sys, time\n"
    "from vistudy.analysis.ledger.ledger import Ledger\n"
    "with Ledger(sys.argv[1]).lock('small', 'run'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)
TRAIN = (
    "import sys\n"
    "from vistudy.analysis.ledger.ledger import Ledger\n"
    "from vistudy.trainables.worker import train_pack\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "print(train_pack({'pack_id': 'p-1'}, journal=lambda: Ledger(sys.argv[1]), checkpoint_every_s=0)['status'])\n"
)


def python(code: str, store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_lock_ends_with_its_holder_even_by_sigkill(disk: Ledger) -> None:
    holder = python(HOLD, Path(disk.uri))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(StudyBusyError, match=rf"run is being done by process {holder.pid} on .*Wait for it, or stop it"),
        disk.lock("small", "run"),
    ):
        pass
    holder.kill()
    holder.communicate()
    with disk.lock("small", "run"):  # the file with the holder's name is still there, and means nothing
        pass


def test_a_trial_is_live_while_its_pack_gives_signs_of_life(store: Ledger) -> None:
    """On any store: by the sign's age, and on this machine by its process."""
    store.write_pack({"pack_id": "p-1", "trials": [], "trial_ids": ["a", "b"], "created_ms": 1})
    attempt, now = store.open_attempt("p-1"), time.time_ns() // 1_000_000

    def live(**said: object) -> set[str]:
        attempt.write_heartbeat({"host": socket.gethostname(), "pid": os.getpid(), "unix_ms": now} | said)
        return Ledger(store.uri).live("small", ["a", "elsewhere"])

    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert live() == {"a"}
    assert live(over=True) == set()
    assert live(pid=gone.pid) == set()
    assert live(pid=gone.pid, host="another") == {"a"}
    assert live(host="another", unix_ms=now - HEARTBEAT_TIMEOUT_MS) == set()
    store.mark_stopped("p-1")
    assert (store.heartbeat("p-1") or {})["over"]
    assert store.runner("small") is None


def test_while_a_run_holds_its_lock_what_it_has_begun_is_live(disk: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "HEARTBEAT_TIMEOUT_MS", 0)  # no sign is fresh
    disk.write_pack({"pack_id": "p-1", "trials": [], "trial_ids": ["a"], "created_ms": 1})
    attempt = disk.open_attempt("p-1")
    attempt.write_heartbeat({"host": "another", "pid": 7, "unix_ms": 0})
    holder = python(HOLD, Path(disk.uri))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    runner = disk.runner("small")
    assert runner is not None
    assert f"process {holder.pid} on" in runner.who
    assert disk.live("small", ["a"]) == set()  # it has begun with others first
    attempt.write_heartbeat({"host": "another", "pid": 7, "unix_ms": int(runner.since_s * 1000)})  # silent since
    assert disk.live("small", ["a"]) == {"a"}
    holder.kill()
    holder.communicate()
    assert disk.runner("small") is None
    files = sorted(Path(disk.uri).rglob("*"))
    assert disk.live("small", ["a"]) == set()
    assert sorted(Path(disk.uri).rglob("*")) == files  # whoever looks writes nothing


def test_a_pack_that_two_runs_train_at_once_is_never_wrong(tmp_path: Path) -> None:
    """Two studies share its trials: each run opens an attempt of its own, and the higher one counts."""
    whole = bits(trained(tmp_path / "whole"))
    both = trained(tmp_path / "both")
    for path in (*(tmp_path / "both/trials").iterdir(), *(tmp_path / "both/packs/p-1/attempt-001").iterdir()):
        path.unlink()
    runs = [python(TRAIN, tmp_path / "both") for _ in range(2)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    ends = []
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    for run in runs:
        ends.append(run.communicate(timeout=120)[0])
    assert ends == ["complete\n", "complete\n"]
    assert Ledger(both.uri).attempts("p-1") == [1, 2, 3]
    assert bits(both) == whole
    assert examine("small", Ledger(both.uri), None, repairing=False, stamp="t") == ([], None)
