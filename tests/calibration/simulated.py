"""Simulated studies whose truth is known: what `calibration.py` draws and what the estimates should find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from vistudy.analysis.estimates.pairs import Pairs
from vistudy.analysis.estimates.power import intercepts

Floats = NDArray[np.float64]
Generator = np.random.Generator
T, B = "A1", "A0"
BOX = (1e-4, 1e-1)
BUDGET = 100.0
TAU_OK = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """A study of E1: `vistudy.analysis.estimates.power` describes the model."""

    n_configs: int
    n_seeds: int
    difference: float = 0.0
    base: float = 0.5
    config_sd: float = 2.0
    interaction_sd: float = 1.0


def stable_pairs(design: Design, rng: Generator) -> Pairs:
    """Draw the stable trials of one study."""
    a, b = intercepts(design.difference, design.base, design.config_sd, design.interaction_sd)
    u = rng.normal(0, design.config_sd, design.n_configs)
    v = rng.normal(0, design.interaction_sd, design.n_configs)
    shape = (design.n_configs, design.n_seeds)
    t, of_b = (rng.random(shape) < expit(p)[:, None] for p in (b + u + v, a + u))
    return Pairs(
        treatment=T,
        baseline=B,
        value="stable",
        configs=tuple(map(str, range(design.n_configs))),
        seeds=tuple(map(str, range(design.n_seeds))),
        t=t.astype(float),
        b=of_b.astype(float),
        excluded={},
    )


def table(columns: dict[str, tuple[Floats, Floats]], shared: dict[str, Floats | float]) -> pd.DataFrame:
    """Arm table from (treatment, baseline) values, (configs, seeds) each; `shared`: one a configuration, or for all."""
    n, s = next(iter(columns.values()))[0].shape
    config, seed = np.repeat(np.arange(n), s), np.tile(np.arange(s), n)
    parts = []
    for side, arm in enumerate((T, B)):
        part = pd.DataFrame({"arm": arm, "config": np.char.mod("c%05d", config), "seed": seed, "state": "complete"})
        part = part.assign(**{name: values[side].ravel() for name, values in columns.items()})
        parts.append(part.assign(**{k: v[config] if isinstance(v, np.ndarray) else v for k, v in shared.items()}))
    return pd.concat(parts, ignore_index=True)


# -- E2 ----------------------------------------------------------------------------------------------------------------


def _range(x: Floats, norm: Floats, low: float, high: float) -> Floats:
    """P(stable | log10 lr, norm): a plateau of .95 between two soft edges, half a decade higher with norm."""
    return np.asarray(0.95 * expit((x - low - 0.5 * norm) / 0.1) * expit((high + 0.5 * norm - x) / 0.1))


EDGES = ((-3.4, -2.1), (-3.2, -2.4))
"""Stable range of treatment and baseline, log10 lr."""


def width_truth() -> dict[str, float]:
    """Difference of widths and shift of centroids, decades."""
    x = np.linspace(-4, -1, 30_001)
    widths, centroids = [], []
    for low, high in EDGES:
        p = (_range(x, np.array(0.0), low, high) + _range(x, np.array(1.0), low, high)) / 2
        widths.append(3 * float(p.mean()))
        centroids.append(float((p * x).sum() / p.sum()))
    return {"width": widths[0] - widths[1], "shift": centroids[0] - centroids[1]}


def width_study(n: int, rng: Generator) -> pd.DataFrame:
    """n configurations drawn from the box, two seeds."""
    x, norm = rng.uniform(-4, -1, n), rng.integers(0, 2, n).astype(float)
    sides = [(rng.random((n, 2)) < _range(x, norm, *edges)[:, None]).astype(float) for edges in EDGES]
    return table({"stable": (sides[0], sides[1])}, {"lr": 10**x})


# -- E3 and E8 --------------------------------------------------------------------------------------------------------


def q_study(n: int, rng: Generator, n_seeds: int = 2) -> pd.DataFrame:
    """Q of n configurations: a third are good to some degree, a fifth of the trials diverge and get the cap 1."""
    c = rng.random((n, 1))
    base = np.where(c < 0.3, 0.1 + 0.3 * c, np.minimum(1, 0.2 + 1.2 * c))
    both = []
    for gain in (0.03, 0.0):
        q = np.clip(base - gain + rng.normal(0, 0.05, (n, n_seeds)), 0, 1)
        both.append(np.where(rng.random((n, n_seeds)) < 0.2, 1.0, q))
    return table({"q": (both[0], both[1]), "stable": ((both[0] <= TAU_OK) * 1.0, (both[1] <= TAU_OK) * 1.0)}, {})


def q_truth(k_max: int, size: int, rng: Generator) -> tuple[Floats, Floats]:
    """Expected best of k = 1 ... k_max trials of the treatment and of the baseline, from `size` draws."""
    found = []
    big = q_study(size, rng, 1)
    for arm in (T, B):
        v = np.sort(big.loc[big["arm"] == arm, "q"].to_numpy())
        above = 1 - np.arange(len(v) + 1) / len(v)
        found.append(np.array([v @ (above[:-1] ** k - above[1:] ** k) for k in range(1, k_max + 1)]))
    return found[0], found[1]


# -- E6, E7 ------------------------------------------------------------------------------------------------------------


def time_study(n: int, rng: Generator, n_seeds: int = 2) -> pd.DataFrame:
    """Times to the threshold, to collapse and to divergence."""
    ease = rng.normal(0, 0.5, (n, 1))
    shape = (n, n_seeds)

    def times(scale: float) -> Floats:
        drawn = np.ceil(2 * scale * np.exp(ease + rng.normal(0, 0.7, shape))) / 2  # evaluations every half unit
        return np.where(drawn < BUDGET, drawn, np.nan)

    columns = {name: (times(t), times(b)) for name, t, b in (
        ("t_thr", 45, 60), ("t_coll", 140, 90), ("t_div", 200, 200)
    )}  # fmt: skip
    return table(columns | {"stable": (np.ones(shape), np.ones(shape))}, {"d_updates": BUDGET})


def time_truth(size: int, rng: Generator) -> dict[str, float]:
    """Differences in mean time to the threshold, incidence of collapse and free time, from `size` pairs."""
    drawn = time_study(size, rng, n_seeds=1)
    found: dict[str, dict[str, float]] = {}
    for arm, part in drawn.groupby("arm"):
        first = np.fmin(part["t_coll"], part["t_div"])
        found[str(arm)] = {
            "time": float(part["t_thr"].fillna(BUDGET).mean()),
            "collapse": float((part["t_coll"] < part["t_div"].fillna(np.inf)).mean()),
            "free": float(first.fillna(BUDGET).mean()),
        }
    return {name: found[T][name] - found[B][name] for name in found[T]}
