"""Where a Dirac-GAN is stable in theory: the spectral radius of its linearised period, by learning rate and lambda.

G(z) = theta and D(x) = psi x, so a period is a linear map near theta = psi = 0 (exactly so with Wasserstein's losses).
It is followed here as the definition has it, update by update, on every unit vector; `models/dirac_gan.py` has
the same map as products of matrices, and a test compares them. Source: Mescheder et al. 2018 (arXiv:1801.04406),
section 3, with the term of (26).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MODEL = "dirac_gan"
TOLERANCE = 1e-6
"""A radius up to 1 + TOLERANCE counts as 1: the paper's anchor keeps it at exactly 1, up to rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """What a period depends on besides the learning rate of G and lambda."""

    g_steps: int = 1
    d_steps: int = 1
    slope: float = 1.0
    """f'(0): 1 with Wasserstein's losses, 1/2 with the logistic ones."""
    d_lr: float | None = None
    """D's learning rate; None: the same as G's."""
    r1_weight: float = 0.0
    anchor: str = "period_start"
    anchor_lag: int = 2
    anchor_decay: float = 0.99
    schedule: str = "alternating"

    @classmethod
    def of(cls, config: Mapping[str, Any], *, d_lr: float | None) -> Self:
        """The game of a trial's configuration (or a row of the table of trials)."""
        names = ("g_steps", "d_steps", "r1_weight", "anchor", "anchor_lag", "anchor_decay", "schedule")
        slope = 1.0 if config["loss"] == "wgan" else 0.5
        return cls(slope=slope, d_lr=d_lr, **{name: config[name] for name in names})


def period_map(lr: ArrayLike, reg_weight: ArrayLike, game: Game) -> Floats:
    """The linearised period on (theta, psi, remembered thetas): (*shape, S, S) for rates and weights of one shape."""
    rate, weight = np.broadcast_arrays(np.asarray(lr, np.float64), np.asarray(reg_weight, np.float64))
    rate, weight = rate[..., None], weight[..., None]
    past = {"previous_update": 1, "previous_period": 1, "ema": 1, "lag": game.anchor_lag}.get(game.anchor, 0)
    rows = np.broadcast_to(np.eye(2 + past), (*rate.shape[:-1], 2 + past, 2 + past))
    theta, psi, *memory = (rows[..., i, :] for i in range(2 + past))
    started, d_rate = theta, rate if game.d_lr is None else game.d_lr
    fixed = {"period_start": [theta], "param_space": [theta], "previous_period": memory}.get(game.anchor)
    for _ in range(game.g_steps):
        old = (fixed or memory)[0]
        before, theta = theta, theta - rate * (game.slope * psi + 2 * weight * (theta - old))
        if game.anchor == "ema":
            memory = [game.anchor_decay * memory[0] + (1 - game.anchor_decay) * theta]
        elif fixed is None:
            memory = [*memory[1:], before]
    if game.anchor == "previous_period":
        memory = [started]
    answered = theta if game.schedule == "alternating" else started
    for _ in range(game.d_steps):
        psi = psi + d_rate * (game.slope * answered - game.r1_weight * psi)
    return np.stack([theta, psi, *memory], axis=-2)


def radius(lr: ArrayLike, reg_weight: ArrayLike, game: Game) -> Floats:
    """Spectral radius of the period, in the shape of the rates and weights; above 1 a small distance grows."""
    radii: Floats = np.abs(np.linalg.eigvals(period_map(lr, reg_weight, game))).max(-1)
    return radii


def boundary(lrs: ArrayLike, reg_weight: ArrayLike, game: Game) -> Floats:
    """Largest stable learning rate for each weight, in the shape of `reg_weight`.

    It is looked for on `lrs` (ascending) and then halved in to 1e-9 towards the next one. NaN: no rate of `lrs` is
    stable; infinity: the last one is. Stable rates need not be one interval: with two G steps and lambda below .27
    there is a second window, up to 1 / lambda. End `lrs` below it to find the edge of the first.
    """
    rates, weights = np.asarray(lrs, np.float64), np.asarray(reg_weight, np.float64)
    stable = radius(rates, weights[..., None], game) <= 1 + TOLERANCE
    last = rates.size - 1 - stable[..., ::-1].argmax(-1)
    low, high = rates[last], rates[np.minimum(last + 1, rates.size - 1)]
    for _ in range(math.ceil(math.log2(max(float(np.max(high - low)), 1e-9) / 1e-9))):
        middle = (low + high) / 2
        inside = radius(middle, weights, game) <= 1 + TOLERANCE
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    edge: Floats = np.where(stable[..., -1], np.inf, np.where(stable.any(-1), low, np.nan))
    return edge


def game_of(trials: pd.DataFrame) -> Game | None:
    """The game that all these trials play; None if they differ, are not Dirac-GANs, or clip D's parameter."""
    names = ["model", "loss", "g_steps", "d_steps", "r1_weight", "d_clip", "anchor", "anchor_lag", "anchor_decay"]
    names.append("schedule")
    if not set(names) <= set(trials.columns) or len(trials[names].drop_duplicates()) != 1:
        return None
    row = trials.iloc[0]
    together = bool((trials["g_lr"] == trials["d_lr"]).all())
    if row["model"] != MODEL or row["d_clip"] or not (together or trials["d_lr"].nunique() == 1):
        return None
    plain = {name: row[name].item() if isinstance(row[name], np.generic) else row[name] for name in names}
    return Game.of(plain, d_lr=None if together else float(row["d_lr"]))
