"""Made-up series of evaluations for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vistudy.analysis.outcomes.labels import Reference
from vistudy.analysis.outcomes.rules import Outcome, label

REFERENCE = Reference(
    dist_floor=0.0,
    dist_floor_sd=0.01,
    dist_ceiling=1.0,
    dist_trivial=0.5,
    cov_real=1.0,
    prec_real=1.0,
    max_abs_data=1.0,
)
UPDATES = 10
"""Discriminator updates between evaluations."""


def series(dist: Any, *, cov: Any = 1.0, prec: Any = 1.0, evaluations: int = 50, **other: Any) -> dict[str, np.ndarray]:
    """A finite run; each argument is a number, an array or a function of the evaluation."""
    t = np.arange(evaluations + 1, dtype=np.float64)

    def column(value: float | np.ndarray | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.broadcast_to(np.asarray(value(t) if callable(value) else value, dtype=np.float64), t.shape).copy()

    values = {"finite": 1.0, "g_param_norm": 1.0, "d_param_norm": 1.0, "max_abs_sample": 1.0, "cov": cov, "prec": prec}
    return {
        "evaluation": t,
        "step": UPDATES * t,
        **{k: column(v) for k, v in ({"dist": dist} | values | other).items()},
    }


def label_series(run: dict[str, np.ndarray], evaluations: int = 50) -> Outcome:
    return label(run, REFERENCE, evaluations=evaluations)


def cut(run: dict[str, np.ndarray], after: int) -> dict[str, np.ndarray]:
    """The run without the evaluations after index `after`."""
    return {name: array[: after + 1] for name, array in run.items()}
