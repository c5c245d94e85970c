"""How well packs fill slots is measured through Ray Tune and the ledger, as the documentation says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.cluster
def test_sleeping_packs_fill_two_slots() -> None:
    command = "-m benchmarks.scaling --slots 2 --packs-each 2 --pack-s 6 --dry"
    run = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    row = json.loads(run.stdout.splitlines()[0])
    assert (row["slots"], row["packs"]) == (2, 4)
    assert 0.5 < row["efficiency"] <= 1
