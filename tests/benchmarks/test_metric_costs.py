from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.metric_costs import Task, of_packs, of_suite, run
from vistudy.trainables.data.mixtures import RING8
from vistudy.trainables.metrics.evaluate import evaluator

FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def busy(seconds: float) -> None:
    """Use the processor."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@FORKS
def test_time_and_memory_are_those_of_the_metric_alone() -> None:
    ours = np.ones(40_000_000)  # 305 MiB of the parent's

    def make() -> Callable[[], object]:
        busy(0.2)

        def evaluate() -> None:
            np.ones(8_000_000)  # 61 MiB
            busy(0.05)

        return evaluate

    row = run(Task(suite="s", metric="m", n=7, make=make))
    assert (row["suite"], row["metric"], row["n"]) == ("s", "m", 7)
    assert row["made_s"] >= 0.2  # processor time: what else the machine does is not in it
    assert row["seconds"] >= 0.05
    assert 55 < row["mib"] < 120
    assert ours.nbytes > 300 * 2**20


@FORKS
def test_a_metric_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="s, m: the process ended without an answer"):
        run(Task(suite="s", metric="m", n=1, make=lambda: 1 / 0))  # type: ignore[arg-type, return-value]


def test_every_metric_of_a_suite_has_its_row() -> None:
    rows = list(of_suite(RING8))
    assert rows[0].metric == "looking"
    assert {name for row in rows[1:] for name in row.metric.split(", ")} == set(evaluator(RING8).names)
    for row in (*rows, *of_packs()):
        row.make()()
