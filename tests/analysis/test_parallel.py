"""A second process gives what one gives, also to a script that does not guard its main part."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Executor
from pathlib import Path

import pytest

from tests.analysis.synthetic import CLAIM, make_study
from vistudy.analysis import parallel
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes import label_study as labelling
from vistudy.analysis.outcomes.label_study import label_study
from vistudy.analysis.report import pictures as report_pictures
from vistudy.analysis.report.report import report

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys
from vistudy.analysis import parallel as workers
workers.LARGE = 1
print("script", os.getpid())
from vistudy.analysis.report.report import report
print(len(report(sys.argv[1], "synthetic", sys.argv[2], draws=50).figures))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 trials in two packs; a plan of two blocks."""
    folder = tmp_path_factory.mktemp("large") / "store"
    make_study(folder, configs=5, evaluations=12, blocks=2, claim={**CLAIM, "best_of": 3})
    return folder


@pytest.mark.skipif("parallel.helper_process(parallel.LARGE) is None", reason="needs two cores")
def test_two_processes_label_as_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = label_study(Ledger(store), "synthetic")
    monkeypatch.setattr(parallel, "LARGE", 1)
    assert label_study(Ledger(store), "synthetic") == alone


@pytest.mark.skipif("parallel.helper_process(parallel.LARGE) is None", reason="needs two cores")
def test_a_report_in_two_processes_from_a_plain_script(store: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(store), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script") == 1  # the other process has not run it
    pictures = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert len(pictures) == int(done.stdout.split()[-1])
    assert {"difference.svg", "stability-by-lr.svg"} <= set(pictures)


@pytest.mark.skipif("parallel.helper_process(parallel.LARGE) is None", reason="needs two cores")
def test_a_second_process_that_dies_costs_nothing(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = label_study(Ledger(store), "synthetic")
    whole = {path.name for path in report(store, "synthetic", tmp_path / "whole", draws=50).figures}

    def dying(_: int) -> Executor:
        found = parallel.helper_process(parallel.LARGE)
        assert found is not None
        found.submit(os._exit, 1)
        return found

    monkeypatch.setattr(labelling, "helper_process", dying)
    assert label_study(Ledger(store), "synthetic") == alone
    monkeypatch.setattr(report_pictures, "helper_process", dying)
    assert {path.name for path in report(store, "synthetic", tmp_path / "out", draws=50).figures} == whole
    for name in whole:
        assert (tmp_path / "out/figures" / name).read_bytes() == (tmp_path / "whole/figures" / name).read_bytes()
