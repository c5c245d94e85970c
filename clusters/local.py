"""This machine: an own Ray instance that lives for one run. Other Ray instances on the machine are not affected."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from vistudy.clusters.base import Cluster, nodes

PRELOADED = ("torch", "ray.tune", "vistudy.trainables.worker")
"""Modules that every worker imports as it starts, while the driver is still preparing."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Packs exchange no objects, so this is small; Ray's default is 30 % of the memory."""


@contextmanager
def local() -> Iterator[Cluster]:
    """Start Ray on all CPUs and GPUs that this process may use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("PL_DISABLE_FORK", "1")  # Tune wants it set in its workers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Paths of Unix sockets have at most 107 bytes, and Ray adds about 70, so TMPDIR may be too long.
    scratch = tempfile.mkdtemp(prefix="vs-", dir="/tmp" if Path("/tmp").is_dir() else None)
    try:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=scratch,
            _system_config={
                "preload_python_modules": list(PRELOADED),
                "worker_niceness": 0,  # with Ray's 15, all other processes would go first, even our own MLflow sync
            },
        )
        yield Cluster(name="local", nodes=nodes(), local=True)
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
