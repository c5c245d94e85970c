"""This machine: a Ray of our own, started for one run and gone with it. Another Ray on the machine is left alone."""

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
"""What every worker needs: imported as it starts, while the driver still prepares."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Packs exchange no objects; Ray's default would take 30 % of the memory."""


@contextmanager
def local() -> Iterator[Cluster]:
    """Ray on all CPUs and GPUs of this machine that this process may use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("PL_DISABLE_FORK", "1")  # Tune wants it set in its workers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Unix sockets have paths of at most 107 bytes, and Ray adds about 70: not every TMPDIR will do.
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
                "worker_niceness": 0,  # Ray's 15 lets everything else on a laptop go first, our own mirror too
            },
        )
        yield Cluster(name="local", nodes=nodes(), local=True)
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
