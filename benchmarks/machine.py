"""The machine that a benchmark runs on, and results with their provenance."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from vistudy.study.execution.provenance import git_state, versions

RESULTS = Path(__file__).parent / "results"


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


def finish(name: str | None, parts: dict[str, Any], command: str, started: datetime.datetime, cpu: float) -> None:
    """Print the processor time since `cpu`, and write `parts` with their provenance into results/`name`, if given."""
    seconds = round(time.process_time() - cpu, 1)
    print(f"\n{seconds} s of processor time")
    if name is None:
        return
    about = {"date": started.isoformat(timespec="seconds"), "command": command, "machine": machine()}
    about |= {"versions": versions(), "git": git_state(), "cpu_seconds": seconds}
    (RESULTS / name).write_text(json.dumps(about | parts, indent=1) + "\n", "utf-8")
    print(f"written: benchmarks/results/{name}")
