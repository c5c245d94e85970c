"""The machine that a benchmark runs on, as results name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def slots_of_this_machine() -> int:
    """The CPUs that this process may use: as many packs as `vistudy run` trains at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu,
        "cpus": slots_of_this_machine(),
        "load_at_start": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
