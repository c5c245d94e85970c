"""A second process for large studies."""

from __future__ import annotations

from concurrent.futures import Executor

LARGE = 2000
"""Trials from which a second process gains more than its start takes."""


def helper_process(trials: int) -> Executor | None:
    """A process that stands ready, for work on so many trials; None if this one is better left alone.

    Unlike multiprocessing's, it does not import the caller's script, which need not guard its main part.
    """
    if trials < LARGE:
        return None
    from joblib import cpu_count  # here: small studies need not import it
    from joblib.externals.loky import get_reusable_executor

    if cpu_count() < 2:
        return None
    executor: Executor = get_reusable_executor(max_workers=1, timeout=60)
    return executor
