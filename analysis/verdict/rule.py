"""The decision rule, fixed before the data: from estimates to one of a few strings. Pure."""

from __future__ import annotations

from vistudy.analysis.verdict.results import HARMS, INCONCLUSIVE, MORE, SLOWER, SUPPORTED, WITHIN

TOLERANCE = 1e-12
"""Tolerance for rounding: 8 of 100 is a share of 0.08."""


def no_room(baseline: float, treatment: float, room_low: float, room_high: float) -> str | None:
    """Explain why the stable shares leave no room to detect an effect; None if they do."""
    if max(baseline, treatment) < room_low - TOLERANCE:
        return f"both arms are stable in less than {100 * room_low:g} % of runs"
    if min(baseline, treatment) > room_high + TOLERANCE:
        return f"both arms are stable in more than {100 * room_high:g} % of runs"
    return None


def decide_rule(
    estimate: float,
    low: float,
    high: float,
    *,
    significant: bool,
    wider: bool,
    equals_slower: bool,
    sesoi: float,
    margin: float,
) -> str:
    """Return the verdict of one comparison that has room: the first that holds.

    1. the interval (`low`, `high`) of the difference lies above 0, the test is `significant` after correction, and the
       difference is at least `sesoi`: `supported (reduces sensitivity)` if the stable range of learning rates is
       `wider`, `supported, but equals a slower generator` if the treatment is also equivalent to an arm that only
       slows the generator down (`equals_slower`), `supported (more runs are stable)` if it is not known to be wider.
    2. `within the margin`: the interval lies within (-margin, margin).
    3. `harms`: the interval lies below 0, and the test is significant.
    4. `inconclusive`. A missing interval (NaN) ends here.
    """
    if low > 0 and significant and estimate >= sesoi - TOLERANCE:
        return MORE if not wider else SLOWER if equals_slower else SUPPORTED
    if -margin < low and high < margin:
        return WITHIN
    return HARMS if high < 0 and significant else INCONCLUSIVE
