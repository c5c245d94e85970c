"""Made-up frames of trials for the tests of figures and pages."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.outcomes.labels import LABELS
from vistudy.analysis.tables.trials import COLUMNS, cell_tag


def _trial_id(*content: Any) -> str:
    return f"t1-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"


def make_frame(
    factors: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 3,
    study: str = "ring-quickstart",
    data: str = "ring8",
    gaps: bool = True,
) -> pd.DataFrame:
    """A grid of trials, stable in the middle of the learning rates; with `gaps`, some cells failed or have not run."""
    rng = np.random.default_rng(7)
    rows = []
    rates = list(factors.get("lr", [1e-3]))
    for number, levels in enumerate(itertools.product(*factors.values())):
        cell = dict(zip(factors, levels, strict=True))
        d_steps, g_steps = map(int, cell.get("ratio", "1:2").split(":"))
        place = rates.index(cell.get("lr", rates[0])) / max(1, len(rates) - 1)
        for seed in range(seeds):
            p = max(0.02, 0.97 - 6 * (place - 0.5) ** 2 + 0.02 * np.log1p(cell.get("reg_weight", 0)))
            failure = "slow" if place < 0.4 else ("mode_collapse_late", "diverged", "stalled_d_won")[number % 3]
            row = dict.fromkeys(COLUMNS) | {
                "trial_id": _trial_id(study, data, cell, seed), "study": study, "cell": cell_tag(cell), "model": "gan",
                "data": data, "g_lr": cell.get("lr", 1e-3), "d_lr": cell.get("lr", 1e-3),
                "reg_weight": float(cell.get("reg_weight", 0)), "norm": "bn" if cell.get("batch_norm") else "none",
                "batch_norm": bool(cell.get("batch_norm")), "d_steps": d_steps, "g_steps": g_steps,
                "anchor": cell.get("anchor", "period_start"), "z_use": "pool", "seed": seed, "state": "complete",
                "outcome": "converged" if rng.random() < p else failure, "flags": "", "q_final": rng.random(),
                "q_best": 0.1, "t_thr": 400.0, "wall_s": 3.0, "device": "cpu", "pack_id": "p1", "attempt": 1,
                "outcome_version": 1, "inert": g_steps == 1 and cell.get("reg_weight", 0) > 0, "optimizer": "adam",
            }  # fmt: skip
            if gaps and number % 11 == 7:
                row |= {"state": "planned", "outcome": None}
            elif gaps and (number % 13 == 5 or (number % 5 == 1 and seed == 0)):
                row |= {"state": "failed", "outcome": None, "error": "CUDA error: out of memory"}
            elif gaps and number % 9 == 4 and seed == 1:
                row |= {"outcome": "undetermined"}
            rows.append(row)
    assert {row["outcome"] for row in rows} <= {*LABELS, None}
    return pd.DataFrame(rows)


LR5, LR9 = [1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.56e-2], [10 ** (-4 + 3 * i / 8) for i in range(9)]
REG4, REG6 = [0, 0.5, 5, 50], [0, 0.05, 0.5, 5, 50, 500]
