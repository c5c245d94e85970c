"""Record of where and with which versions a study was run."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import Ledger

RECORDED_PACKAGES = ("vistudy", "torch", "torchvision", "numpy", "ray", "mlflow", "optuna", "pandas", "scipy")


def now_ms() -> int:
    """Return the time in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


def provenance(
    name: str, ledger: Ledger, data: Mapping[str, str], metrics: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return machine, versions and commit of a study's latest run, and the time of its first.

    `data`: data set -> its fingerprint; `metrics`: how each data set's samples were evaluated.
    """
    from vistudy.trainables.data import DATASETS  # here: it takes torch

    now = now_ms()
    try:
        before = ledger.read_meta(name)
    except StoreError:
        before = {"created_ms": now}
    return {
        "created_ms": before["created_ms"],
        "last_run_ms": now,
        "git": git_state(),
        "versions": versions(),
        "data": {of: {"fingerprint": print_, "division": DATASETS[of].division} for of, print_ in data.items()},
        "metrics": metrics or before.get("metrics", {}),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in RECORDED_PACKAGES}


def git_state() -> dict[str, str | bool | None]:
    """Return the commit of vistudy's checkout, and whether it has uncommitted changes; None outside a checkout.

    A repository that only happens to hold the folder in which vistudy is installed is not its checkout.
    """
    file = Path(__file__).resolve()
    root = file.parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", file.name) is None:
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
