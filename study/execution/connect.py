"""Reach the cluster on which a study will run, and refuse one that cannot hold a pack."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vistudy.analysis.ledger.errors import StudyError
from vistudy.clusters import Cluster, ClusterError, connect
from vistudy.study.execution.preflight import validated


@contextmanager
def connected(name: str, packs_per_gpu: int = 1, gpus: int = 0) -> Iterator[Cluster]:
    """Connect to the cluster `name` for the time of a `with`.

    Raises:
        StudyError: it cannot be reached, can never hold a pack, or has fewer GPUs than `gpus`.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with connect(name) as reached:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray's own handler aborts the process
            yield validated(dataclasses.replace(reached, packs_per_gpu=packs_per_gpu, min_gpus=gpus))
    except ClusterError as error:
        raise StudyError(str(error)) from error
