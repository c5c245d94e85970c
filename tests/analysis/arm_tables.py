"""Made-up arm tables: one row for each arm, configuration and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

NAN = float("nan")


def arm_table(arms: Mapping[str, Sequence[Sequence[float]]], column: str = "stable", **more: Any) -> pd.DataFrame:
    """Values (configs, seeds) of each arm in `column`. Others: `q` = .1 if stable else 1 (and back), state complete.

    `more`: column -> one value a configuration, or one for all.
    """
    rows: list[dict[str, Any]] = []
    for arm, values in arms.items():
        for config, line in enumerate(values):
            for seed, value in enumerate(line):
                stable = value if column == "stable" else NAN if np.isnan(value) else float(value <= 0.25)
                q = value if column == "q" else NAN if np.isnan(value) else 0.1 if value else 1.0
                row = {"block": "b", "arm": arm, "config": f"c{config:04}", "seed": seed, "state": "complete"}
                row |= {
                    "stable": stable,
                    "q": q,
                    "outcome": None if np.isnan(stable) else "converged" if stable else "slow",
                }
                row |= {name: v[config] if isinstance(v, list | np.ndarray) else v for name, v in more.items()}
                rows.append(row)
    return pd.DataFrame(rows)


def at(table: pd.DataFrame, arm: str, config: int, seed: int) -> pd.Series:
    """Mask of one trial."""
    return (table["arm"] == arm) & (table["config"] == f"c{config:04}") & (table["seed"] == seed)
