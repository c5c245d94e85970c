"""Real runs of `vistudy` as a user starts them, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.ledger import Ledger

VISTUDY = [sys.executable, "-W", "ignore", "-c", "from study.cli import main; main()"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def vistudy(
    *args: str | Path,
    timeout_s: float = 240,
    code: int = 0,
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> str:
    """Run a command to its end by `prefix`, with `env` added; its output. Fails unless it exits with `code`."""
    done = subprocess.run(
        [*prefix, *VISTUDY, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=ENVIRONMENT | (env or {}),
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def start(*args: str | Path) -> subprocess.Popen[bytes]:
    """Start a command and return at once."""
    return subprocess.Popen(
        [*VISTUDY, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )


def write(path: Path, study: dict[str, Any]) -> Path:
    """A study file (JSON is YAML)."""
    path.write_text(json.dumps(study))
    return path


def records(store: str | Path) -> dict[tuple[str, int], tuple[int, tuple[tuple[str, str], ...]]]:
    """(trial, evaluation) -> step and the bits of every value: what must be equal between two runs."""
    found = {}
    for record in Ledger(store).records():
        key = (record["trial_id"], record["evaluation"])
        assert key not in found
        found[key] = (record["step"], tuple((name, value.hex()) for name, value in sorted(record["values"].items())))
    return found


def mlflow_runs(store: Path, study: str, kind: str = "trial") -> list[Any]:
    """All runs of trials in a study's experiment, or the study's own."""
    from study.tracking import connect

    client = connect(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    runs, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], f"tags.vistudy.kind = '{kind}'", page_token=token)
        runs += list(page)
        token = page.token
        if not token:
            return runs
