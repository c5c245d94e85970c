"""Real runs of `vistudy` as a user starts them, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from vistudy.analysis.ledger.ledger import Ledger

VISTUDY = [sys.executable, "-W", "ignore", "-c", "from vistudy.study.cli.entry import main; main()"]
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


class Spoken:
    """A command that runs, and its lines as they come. To be left by its `with`, which ends it."""

    def __init__(self, *args: str | Path, env: dict[str, str] | None = None, command: Sequence[str] = VISTUDY) -> None:
        self.process = subprocess.Popen(
            [*command, *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT | (env or {}),
        )  # fmt: skip
        self._lines, self._news, self._over = list[str](), threading.Condition(), False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.end()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        """What it has said so far."""
        return "".join(self._lines)

    def until(self, text: str, timeout_s: float = 120) -> None:
        """Wait for a line with a text. Fails if the command ends without one."""
        with self._news:
            found = self._news.wait_for(lambda: text in self.output or self._over, timeout_s)
        assert found, f"{text!r} has not come:\n{self.output}"
        assert text in self.output, self.output

    def end(self, timeout_s: float = 120) -> int:
        """Wait for its end. Returns its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code


def start(*args: str | Path) -> subprocess.Popen[bytes]:
    """Start a command and return at once."""
    return subprocess.Popen(
        [*VISTUDY, *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
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
    from vistudy.study.tracking.mirror import connect

    client = connect(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    runs, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], f"tags.vistudy.kind = '{kind}'", page_token=token)
        runs += list(page)
        token = page.token
        if not token:
            return runs
