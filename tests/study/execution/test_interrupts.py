"""Ctrl-C, SIGTERM and SIGKILL at every moment of a run: what is said, and that the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import vistudy as vs
from tests.study.held_run import environment
from tests.study.runs import VISTUDY, Spoken, mlflow_runs, records, vistudy, write
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.maps.atlas_page import atlas
from vistudy.analysis.tables.trials import load_frame
from vistudy.study.api.run import RunReport
from vistudy.study.cli.printing import state_sentence
from vistudy.study.execution.interrupts import listening

STUDY: dict[str, Any] = {
    "study": "s", "model": "gan", "data": "ring8", "seeds": [0, 1], "budget": {"d_updates": 40, "evaluations": 10},
    "factors": {"lr": [1e-3], "reg_weight": [0, 5]}, "fixed": {"ratio": "1:2", "batch_size": 16},
}  # fmt: skip
LONG = STUDY | {"budget": {"d_updates": 400_000, "evaluations": 1000}, "seeds": [0], "factors": {"lr": [1e-3]}}
"""One trial: how many share a pack is measured."""
HELD = {
    "start-up": ("vistudy.clusters.debug:Node", "no pack is in training yet"),
    "baselines": ("vistudy.study.execution.prepare:references", "no pack is in training yet"),
    "training": ("vistudy.trainables.engine:Engine._evaluate", "writing checkpoints"),
    "drawing": ("vistudy.study.api.heatmap:draw_heatmaps", "heatmaps are left out"),
    "sync": ("vistudy.study.execution.runner:StudyRunner._finish_mirror", "MLflow gets some seconds more"),
}
"""Moment -> function that is held at it, and what the first signal says."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def in_training(run: Spoken, store: Path) -> None:
    """Wait for the records of evaluation 2."""
    deadline = time.monotonic() + 120
    while not list(store.glob("packs/*/attempt-*/records-00002.jsonl")):
        assert run.process.poll() is None, run.output
        assert time.monotonic() < deadline, run.output
        time.sleep(0.02)


def status(store: Path) -> tuple[dict[str, int], str]:
    """Counts of states, and what is said of them."""
    found = vs.status("s", store=str(store))
    return found.states, state_sentence(found)


def run_again(file: Path, store: Path) -> RunReport:
    """The same command, to its end."""
    report = vs.run(file, store=str(store), cluster="debug")
    assert (report.interrupted, report.n_unfinished, report.tracking_error) == (False, 0, None)
    assert {run.info.status for run in mlflow_runs(store, "s")} == {"FINISHED"}
    return report


@pytest.mark.parametrize(
    ("moment", "number"),
    [*((m, signal.SIGINT) for m in HELD if m != "training"), ("baselines", signal.SIGTERM), ("sync", signal.SIGTERM)],
)
def test_one_signal_outside_training(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    file, store, (place, said) = write(tmp_path / "s.yaml", STUDY), tmp_path / "store", HELD[moment]
    with Spoken("run", file, "--store", store, "--cluster", "debug", env=environment(tmp_path / "held", place)) as run:
        run.until("HELD")
        run.process.send_signal(number)
        run.until(f"stopping: {said} (again to end now)")
        assert run.end(30) == CODES[number]
    output, how, trained = run.output, NAMES[number], moment in ("drawing", "sync")
    assert "Traceback" not in output
    assert "nothing left to run" not in output
    if trained:
        assert f"s: stopped by {how}; 4 of 4 trials ended in this run, 0 before it: all are trained" in output
        assert ("heatmaps were not drawn" in output) == (moment == "drawing")
        assert ("MLflow is behind: left after 6 s" in output) == (moment == "sync")
        assert status(store) == ({"complete": 4}, "all 4 trials have ended")
    else:
        assert f"s: stopped by {how}; 0 of 4 trials ended in this run, 0 before it, 4 are left: 4 not begun" in output
        assert "MLflow was not synced: nothing was trained in this run" in output
        assert Ledger(store).finished_trials() == set()
    again = run_again(file, store)
    assert (again.n_trained, again.n_existing) == ((0, 4) if trained else (4, 0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_in_training(tmp_path: Path, number: signal.Signals) -> None:
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    with Spoken("run", file, "--store", store, "--cluster", "debug") as run:
        in_training(run, store)
        assert status(store)[0] == {"running": 1}
        run.process.send_signal(number)
        run.until("stopping: writing checkpoints (again to end now)")
        assert run.end(60) == CODES[number]
    done = "0 of 1 trials ended in this run, 0 before it, 1 is left: 1 with a checkpoint at"
    assert f"s: stopped by {NAMES[number]}; {done}" in run.output
    assert "heatmaps were not drawn to the end: vistudy heatmap s --store" in run.output
    up, behind = (text in run.output for text in ("MLflow is up to date", "MLflow is behind: left after 6 s"))
    assert up != behind  # a slow machine needs longer to make its database
    assert "nothing left to run" not in run.output
    assert list(store.glob("packs/*/attempt-001/checkpoint-*.pt"))
    states, said = status(store)
    assert states == {"interrupted": 1}
    assert re.fullmatch(
        r"interrupted: 1 of 1 trials left, at \d+% of their evaluations; the same `vistudy run` command resumes them",
        said,
    )
    assert f"s: {said}" in vistudy("status", "s", "--store", store)
    vs.sync("s", store=str(store))
    (mirrored,) = mlflow_runs(store, "s")
    assert (mirrored.info.status, mirrored.data.tags["vistudy.state"]) == ("KILLED", "interrupted")
    assert set(load_frame(store, "s")["state"]) == {"interrupted"}
    assert "to run: 1, 1 of them begun and interrupted" in vistudy("plan", file, "--store", store, "--no-pilot")
    with pytest.raises(
        StudyError, match="stored at evaluation 500 and 1000 of 1000: the same `vistudy run` command resumes"
    ):
        atlas(store, "s", tmp_path / "a.html")


@pytest.mark.parametrize("moment", ["training", "sync"])
def test_a_second_signal_ends_at_once_and_the_same_command_makes_the_same_records(tmp_path: Path, moment: str) -> None:
    file, store, (place, said) = write(tmp_path / "s.yaml", STUDY), tmp_path / "store", HELD[moment]
    with Spoken("run", file, "--store", store, "--cluster", "debug", env=environment(tmp_path / "held", place)) as run:
        run.until("HELD")
        run.process.send_signal(signal.SIGINT)
        run.until(f"stopping: {said}")
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.end(30) == 130
        assert time.monotonic() - began < 5
    assert "ended now." in run.output
    assert "Traceback" not in run.output
    run_again(file, store)
    run_again(file, tmp_path / "undisturbed")
    assert records(store) == records(tmp_path / "undisturbed")


def test_two_signals_that_python_handles_as_one_interrupt_a_blocking_call() -> None:
    """Under load the second signal can arrive before the main thread has handled the first."""
    main_thread = threading.get_ident()
    lines: list[str] = []

    def send(wakeup: int) -> None:
        signal.pthread_kill(main_thread, signal.SIGINT)
        os.write(wakeup, bytes([signal.SIGINT]))  # the second signal, as the listening thread sees it

    def sleep() -> None:
        with listening(lines.append) as stop, stop.patient("resting"):
            wakeup = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
            threading.Timer(0.1, send, [wakeup]).start()
            time.sleep(20)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sleep()
    assert time.monotonic() - began < 10
    assert lines == ["stopping: resting (again to end now)"]


FROM_PYTHON = """
import signal, sys
import vistudy

before = signal.getsignal(signal.SIGINT)
try:
    report = vistudy.run(sys.argv[1], store=sys.argv[2], cluster="debug")
    counts = report.n_trained, report.n_unfinished, report.n_with_checkpoint
    print("REPORT", report.interrupted, *counts, report.states, flush=True)
except KeyboardInterrupt:
    print("RAISED", flush=True)
print("LIVE", vistudy.status("s", store=sys.argv[2]).states, signal.getsignal(signal.SIGINT) is before, flush=True)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_from_python_returns_what_it_did_or_raises(tmp_path: Path, times: int) -> None:
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    held = environment(tmp_path / "held", HELD["training"][0], 0.5 if times == 1 else 60.0)
    with Spoken(file, store, command=[*VISTUDY[:-1], FROM_PYTHON], env=held) as run:
        if times == 1:
            in_training(run, store)
        else:
            run.until("HELD")
        run.process.send_signal(signal.SIGINT)
        run.until("stopping: writing checkpoints (again to end now)")
        if times == 2:
            run.process.send_signal(signal.SIGINT)
        assert run.end(60) == 0, run.output
    if times == 1:
        assert "REPORT True 0 1 1 {'interrupted': 1}\nLIVE {'interrupted': 1} True" in run.output
    else:
        assert "RAISED\nLIVE {'planned': 1} True" in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_after_sigkill_nothing_is_said_to_be_running(tmp_path: Path) -> None:
    """With Ray: workers end with their driver, and until then they are running."""
    file, store = write(tmp_path / "s.yaml", LONG), tmp_path / "store"
    with Spoken("run", file, "--store", store) as run:
        in_training(run, store)
        run.process.kill()
        assert run.end() == -signal.SIGKILL
        ledger = Ledger(store)
        pids = {int(beat["pid"]) for beat in filter(None, map(ledger.heartbeat, ledger.packs()))}
        assert pids
        deadline = time.monotonic() + 60
        while any(map(_exists, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    states, said = status(store)
    assert states == {"interrupted": 1}
    assert said.startswith("interrupted: 1 of 1 trials left")
    assert "to go" not in said
    vs.sync("s", store=str(store))
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(store, "s")}


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
