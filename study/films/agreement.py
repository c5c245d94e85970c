"""Agreement of the records of a repeated training with the stored ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

AGREEMENT_TOLERANCE = 1e-4
"""Relative difference up to which records agree; accumulated single-precision rounding stays below it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Comparison of the records of a repeated training with the stored ones."""

    compared: int
    """Number of evaluations that both have."""
    exact: bool
    """Whether all their values are equal bit for bit."""
    difference: float
    """Largest relative difference of a value (absolute for values below 1)."""
    first: int | None
    """First evaluation with a difference above AGREEMENT_TOLERANCE; None if there is none."""

    @property
    def text(self) -> str:
        """Result as a sentence."""
        if not self.compared:
            return "The store has no records of this trial to compare with."
        if self.exact:
            return f"All {self.compared} stored evaluations are bit for bit the same."
        if self.first is None:
            return f"All {self.compared} stored evaluations agree to {self.difference:.0e}."
        return (
            f"From evaluation {self.first} on the records differ from the stored ones, by up to {self.difference:.1e}; "
            "the film shows another run of the same configuration."
        )


def compare_records(
    stored: Mapping[int, Mapping[str, float]], repeated: Mapping[int, Mapping[str, float]]
) -> Agreement:
    """Compare records by evaluation. A value that is finite on one side only differs infinitely.

    Metrics that did not exist when the trial was trained are not compared.
    """
    both = sorted(stored.keys() & repeated.keys())
    differences = {e: _difference(stored[e], repeated[e]) for e in both}
    return Agreement(
        compared=len(both),
        exact=all(difference == 0 for difference in differences.values()),
        difference=max(differences.values(), default=0.0),
        first=next((e for e in both if differences[e] > AGREEMENT_TOLERANCE), None),
    )


def _difference(stored: Mapping[str, float], repeated: Mapping[str, float]) -> float:
    if not stored.keys() <= repeated.keys():
        return math.inf
    return max((_relative_difference(stored[name], repeated[name]) for name in stored), default=0.0)


def _relative_difference(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(1.0, abs(a)) if math.isfinite(a) and math.isfinite(b) else math.inf
