"""The decision rule, fixed before the data: from estimates to one of a few strings. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.decision import HARMS, INCONCLUSIVE, NO_EFFECT, SLOWER, SUPPORTED

TOLERANCE = 1e-12
"""A share of 8 in 100 is a share of 0.08."""


def decide_rule(
    estimate: float, low: float, high: float, *, wider: bool, equals_slower: bool, sesoi: float, margin: float
) -> str:
    """The verdict string of one comparison. The first that holds:

    1. `supported`: the interval (`low`, `high`) of the difference lies above 0, the difference is at least `sesoi`, and
       the stable range of learning rates is `wider`; `supported, but equals a slower generator` if the treatment is
       also equivalent to an arm that only slows the generator down (`equals_slower`).
    2. `no effect`: the interval lies within (-margin, margin).
    3. `harms`: the interval lies below 0.
    4. `inconclusive`. A missing interval (NaN) ends here.
    """
    if low > 0 and estimate >= sesoi - TOLERANCE and wider:
        return SLOWER if equals_slower else SUPPORTED
    if -margin < low and high < margin:
        return NO_EFFECT
    return HARMS if high < 0 else INCONCLUSIVE


def signs_agree(estimates: Iterable[float]) -> bool:
    """Whether no two estimates have opposite signs; zero agrees with both."""
    found = list(estimates)
    return not (any(e > 0 for e in found) and any(e < 0 for e in found))
