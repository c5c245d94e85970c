"""Ctrl-C, SIGTERM and SIGKILL at every moment of a run: what is said, and that the same command goes on."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.ledger import Ledger
from tests.study.held import environment
from tests.study.runs import VISTUDY, Spoken, mlflow_runs, records, vistudy, write

STUDY: dict[str, Any] = {
    "study": "s", "model": "gan", "data": "ring8", "seeds": [0, 1], "budget": {"d_updates": 40, "evaluations": 10},
    "factors": {"lr": [1e-3], "reg_weight": [0, 5]}, "fixed": {"ratio": "1:2", "batch_size": 16},
}  # fmt: skip
LONG = STUDY | {"budget": {"d_updates": 400_000, "evaluations": 100}}
TRIALS = 4
HELD = {
    "start-up": ("clusters.debug:Node", "no pack is in training yet"),
    "baselines": ("study.launch:references", "no pack is in training yet"),
    "drawing": ("study.commands:draw", "heatmaps are left out"),
    "sync": ("study.trainer:Trainer._finish_mirror", "MLflow gets some seconds more"),
}
"""Moment -> function that is held at it, and what the first signal says."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


def trained(store: Path, evaluation: int = 2) -> Callable[[], bool]:
    return lambda: bool(list(store.glob(f"packs/*/attempt-*/records-{evaluation:05d}.jsonl")))


def wait_for(run: Spoken, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert run.process.poll() is None, run.output
        assert time.monotonic() < deadline, run.output
        time.sleep(0.02)


def status(store: Path) -> tuple[dict[str, int], str]:
    """Counts of states, and the first line."""
    found = json.loads(vistudy("status", "s", "--store", store, "--json"))
    return found["states"], vistudy("status", "s", "--store", store).splitlines()[0]


@pytest.mark.parametrize(("moment", "number"), [*((m, signal.SIGINT) for m in HELD), ("sync", signal.SIGTERM)])
def test_one_signal_outside_training(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    where, said = HELD[moment]
    file, store = write(tmp_path / "s.yaml", STUDY), tmp_path / "store"
    with Spoken("run", file, "--store", store, "--cluster", "debug", env=environment(tmp_path / "held", where)) as run:
        run.until("HELD")
        run.process.send_signal(number)
        run.until(f"stopping: {said} (again to end now)")
        assert run.end(30) == CODES[number]
        output = run.output
    assert "Traceback" not in output
    assert "nothing left to run" not in output
    how = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    if moment in ("start-up", "baselines"):
        assert f"s: stopped by {how}; 0 of 4 trials ended in this run, 0 before it, 4 are left: 4 not begun" in output
        assert "MLflow was not synced: nothing was trained in this run" in output
        assert Ledger(store).done() == set()
    else:
        assert f"s: stopped by {how}; 4 of 4 trials ended in this run, 0 before it: all are trained" in output
        assert ("heatmaps were not drawn" in output) == (moment == "drawing")
        assert ("MLflow is behind: left after 6 s" in output) == (moment == "sync")
        assert status(store) == ({"complete": 4}, "s: all 4 trials have ended")
    again = vistudy("run", file, "--store", store, "--cluster", "debug")
    assert "s: 4 trials in" in again or "nothing left to run: all 4 trials" in again
    assert {run.info.status for run in mlflow_runs(store, "s")} == {"FINISHED"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_in_training(tmp_path: Path, number: signal.Signals) -> None:
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    with Spoken("run", file, "--store", store, "--cluster", "debug") as run:
        wait_for(run, trained(store))
        assert status(store)[0] == {"running": 4}
        run.process.send_signal(number)
        run.until("stopping: writing checkpoints (again to end now)")
        assert run.end(60) == CODES[number]
    how = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    expected = (
        rf"stopped by {how}; 0 of 4 trials ended in this run, 0 before it, 4 are left: 4 with a checkpoint at \d+%"
    )
    assert re.search(expected, run.output), run.output
    assert "heatmaps were not drawn\nthe same command goes on" in run.output
    assert "MLflow is up to date" in run.output
    assert "nothing left to run" not in run.output
    assert list(store.glob("packs/*/attempt-001/checkpoint-*.pt"))
    states, line = status(store)
    assert states == {"interrupted": 4}
    assert re.fullmatch(
        r"s: interrupted: 4 of 4 trials left, at \d+%; the same `vistudy run` command resumes them", line
    )
    assert {run.data.tags["vistudy.state"] for run in mlflow_runs(store, "s")} == {"interrupted"}
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(store, "s")}
    vistudy("export", "s", "--store", store, "--out", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().count(",interrupted,") == 4
    assert "to run: 4, 4 of them begun and interrupted" in vistudy("plan", file, "--store", store, "--no-pilot")
    atlas = vistudy("atlas", "s", "--store", store, "--out", tmp_path / "a.html", code=2)
    assert "samples are kept at evaluation 50 and 100 of 100: the same `vistudy run` command goes on" in atlas
    assert "another --store" not in atlas


@pytest.mark.parametrize("moment", ["baselines", "training", "sync"])
def test_a_second_signal_ends_at_once_and_the_same_command_makes_the_same_records(tmp_path: Path, moment: str) -> None:
    study = STUDY | {"budget": {"d_updates": 2_000, "evaluations": 10}}
    file, store = write(tmp_path / "s.yaml", study), tmp_path / "store"
    where = HELD[moment][0] if moment in HELD else "trainables.engine:Engine._evaluate"
    with Spoken("run", file, "--store", store, "--cluster", "debug", env=environment(tmp_path / "held", where)) as run:
        run.until("HELD")
        run.process.send_signal(signal.SIGINT)
        run.until("stopping: ")
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.end(30) == 130
        assert time.monotonic() - began < 5
    assert "ended now." in run.output
    assert "Traceback" not in run.output
    vistudy("run", file, "--store", store, "--cluster", "debug")
    vistudy("run", file, "--store", tmp_path / "undisturbed", "--cluster", "debug")
    assert records(store) == records(tmp_path / "undisturbed")
    assert {run.info.status for run in mlflow_runs(store, "s")} == {"FINISHED"}


FROM_PYTHON = """
import signal, sys
import study

before = signal.getsignal(signal.SIGINT)
try:
    report = study.run(sys.argv[1], store=sys.argv[2], cluster="debug")
    print("REPORT", report.interrupted, report.ran, report.left, report.saved, report.states, flush=True)
except KeyboardInterrupt:
    print("RAISED", flush=True)
print("LIVE", study.status("s", store=sys.argv[2]).states, signal.getsignal(signal.SIGINT) is before, flush=True)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_from_python_returns_what_it_did_or_raises(tmp_path: Path, times: int) -> None:
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    held = environment(tmp_path / "held", "trainables.engine:Engine._evaluate", 0.5 if times == 1 else 60.0)
    with Spoken(file, store, command=[*VISTUDY[:-1], FROM_PYTHON], env=held) as run:
        wait_for(run, trained(store, 1)) if times == 1 else run.until("HELD")
        run.process.send_signal(signal.SIGINT)
        run.until("stopping: writing checkpoints (again to end now)")
        if times == 2:
            run.process.send_signal(signal.SIGINT)
        assert run.end(60) == 0, run.output
    if times == 1:
        assert "REPORT True 0 4 4 {'interrupted': 4}" in run.output
        assert "LIVE {'interrupted': 4} True" in run.output
    else:
        assert "RAISED\nLIVE {'planned': 4} True" in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_after_sigkill_nothing_is_said_to_be_running(tmp_path: Path) -> None:
    """With Ray: workers end with their driver, and until then they are running."""
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    with Spoken("run", file, "--store", store) as run:
        wait_for(run, trained(store))
        run.process.kill()
        assert run.end() == -signal.SIGKILL
        ledger = Ledger(store)
        pids = {int(beat["pid"]) for beat in filter(None, map(ledger.heartbeat, ledger.packs()))}
        assert pids
        deadline = time.monotonic() + 60
        while any(map(_exists, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    states, line = status(store)
    assert states == {"interrupted": 4}
    assert line.startswith("s: interrupted: 4 of 4 trials left, at ")
    assert "to go" not in line
    vistudy("sync", "s", "--store", store)
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(store, "s")}


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
