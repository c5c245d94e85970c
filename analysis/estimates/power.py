"""What difference in stable share a planned study can detect, and how many configurations a wanted one needs.

The model of a study: configuration c is stable with probability expit(a + u_c) in the baseline and expit(b + u_c + v_c)
in the treatment, u_c ~ N(0, config_sd), v_c ~ N(0, interaction_sd) in logits; a is such that the mean stable share of
the baseline is `base`, b such that the treatment's is base + difference. Seeds are independent given the configuration:
in chaotic training, pairing by seed brings nothing more. The defaults are configurations from nearly always to nearly
never stable; `base` has none, since power depends on it and only a room stage (baseline and controls alone) can say it.
Where the arms seldom differ, a study finds smaller differences than these.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import nct, t

NODES = 61
"""Gauss-Hermite nodes a dimension."""


def standard_error(
    n_configs: int,
    n_seeds: int,
    difference: float = 0.0,
    *,
    base: float,
    config_sd: float = 2.0,
    interaction_sd: float = 1.0,
) -> float:
    """Return the standard error of the risk difference.

    sqrt((Var_c(p1 - p0) + E[p1 (1 - p1) + p0 (1 - p0)] / n_seeds) / n_configs).

    Raises:
        ValueError: no configurations or seeds; shares outside 0..1; negative standard deviations.
    """
    if n_configs < 1 or n_seeds < 1:
        raise ValueError(f"a study needs configurations and seeds, got {n_configs} and {n_seeds}")
    between, within = _variances(difference, base, config_sd, interaction_sd)
    return math.sqrt((between + within / n_seeds) / n_configs)


def power(
    n_configs: int,
    n_seeds: int,
    difference: float,
    *,
    base: float,
    config_sd: float = 2.0,
    interaction_sd: float = 1.0,
    alpha: float = 0.05,
) -> float:
    """Return the power of the two-sided test of the risk difference at alpha.

    Noncentral t with n_configs - 1 degrees of freedom.

    With a correction for continuity: flipping the sign of the smallest d_c, 1 / n_seeds, moves their sum by twice that,
    and a test on such a lattice rejects less often than alpha. Without it, promises are up to .05 too high.

    Raises:
        ValueError: as `standard_error`; fewer than two configurations; alpha outside 0..1.
    """
    if n_configs < 2:
        raise ValueError(f"a test needs at least two configurations, got {n_configs}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    error = standard_error(
        n_configs, n_seeds, difference, base=base, config_sd=config_sd, interaction_sd=interaction_sd
    )
    if error == 0:
        return float(difference != 0)
    df, shift = n_configs - 1, abs(difference) / error
    critical = float(t.ppf(1 - alpha / 2, df)) + 1 / (n_configs * n_seeds * error)
    wrong_side = float(nct.cdf(-critical, df, shift)) if shift < 5 else 0.0  # below 1e-8; scipy gives NaN for some
    return float(nct.sf(critical, df, shift)) + wrong_side


def detectable(
    n_configs: int,
    n_seeds: int,
    *,
    target: float = 0.8,
    base: float,
    config_sd: float = 2.0,
    interaction_sd: float = 1.0,
    alpha: float = 0.05,
) -> float:
    """Smallest increase of the stable share that is found with probability `wanted`; NaN if no increase is.

    Raises:
        ValueError: as `power`; wanted outside alpha..1.
    """
    _check_wanted(target, alpha)
    model = {"base": base, "config_sd": config_sd, "interaction_sd": interaction_sd, "alpha": alpha}

    def lacking(difference: float) -> float:
        return power(n_configs, n_seeds, difference, **model) - target

    most = (1 - base) * 0.999
    return float(brentq(lacking, 1e-6, most, xtol=1e-5)) if lacking(most) >= 0 else math.nan


def needed(
    difference: float,
    n_seeds: int,
    *,
    target: float = 0.8,
    base: float,
    config_sd: float = 2.0,
    interaction_sd: float = 1.0,
    alpha: float = 0.05,
) -> int:
    """Fewest configurations with which a difference is found with probability `wanted`.

    Raises:
        ValueError: as `power`; wanted outside alpha..1; a difference of 0.
    """
    _check_wanted(target, alpha)
    if difference == 0:
        raise ValueError("a difference of 0 cannot be found")
    model = {"base": base, "config_sd": config_sd, "interaction_sd": interaction_sd, "alpha": alpha}
    few, many = 1, 2
    while power(many, n_seeds, difference, **model) < target:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power(middle, n_seeds, difference, **model) >= target else (middle, many)
    return many


def intercepts(difference: float, base: float, config_sd: float, interaction_sd: float) -> tuple[float, float]:
    """Logits (a, b) of the model at which the mean stable shares are base and base + difference.

    Raises:
        ValueError: shares not between 0 and 1; negative standard deviations.
    """
    if not (0 < base < 1 and 0 < base + difference < 1):
        raise ValueError(f"stable shares must lie between 0 and 1, got {base:g} and {base + difference:g}")
    if config_sd < 0 or interaction_sd < 0:
        raise ValueError(f"standard deviations must not be negative, got {config_sd:g} and {interaction_sd:g}")
    u, v, w = _nodes()
    shifts = (config_sd * u, config_sd * u + interaction_sd * v)
    a, b = (
        float(brentq(lambda c, x=x, goal=goal: float(expit(c + x) @ w) - goal, -200, 200))
        for x, goal in zip(shifts, (base, base + difference), strict=True)
    )
    return a, b


# -- inside ------------------------------------------------------------------------------------------------------------


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard normal nodes of both dimensions and their weights, (NODES^2,) each."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    u, v = np.meshgrid(x, x, indexing="ij")
    return u.ravel(), v.ravel(), np.outer(w, w).ravel()


@functools.lru_cache(maxsize=1024)
def _variances(difference: float, base: float, config_sd: float, interaction_sd: float) -> tuple[float, float]:
    """(variance of p1 - p0 over configurations, mean variance of a pair's difference within them)."""
    a, b = intercepts(difference, base, config_sd, interaction_sd)
    u, v, w = _nodes()
    p0, p1 = expit(a + config_sd * u), expit(b + config_sd * u + interaction_sd * v)
    between = float(w @ (p1 - p0 - difference) ** 2)
    return between, float(w @ (p1 * (1 - p1) + p0 * (1 - p0)))


def _check_wanted(target: float, alpha: float) -> None:
    if not alpha < target < 1:
        raise ValueError(f"the target power must lie between alpha = {alpha:g} and 1, got {target:g}")
