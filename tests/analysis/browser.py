"""Debian's chromium without a window, for tests of pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def chromium(tmp_path: Path, *arguments: str, time_ms: int = 2000) -> subprocess.CompletedProcess[str]:
    """Run it with an empty profile; what the console says goes to stderr, with ":CONSOLE". Skips where it is absent.

    `time_ms`: the page's own time until it is looked at.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    flags += ("--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}")
    flags += ("--enable-logging=stderr", "--v=0", f"--virtual-time-budget={time_ms}")
    return subprocess.run([program, *flags, *arguments], capture_output=True, text=True, timeout=240, check=True)
