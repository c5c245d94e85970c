"""What the engine yields: one Record per trial and evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One evaluation of one trial. Records are raw: outcome labels are computed from them later.

    `values` is bitwise reproducible on a CPU, so the clock is a separate field, `wall_s`. Values may be non-finite.
    """

    trial_id: str
    evaluation: int
    """0 (before training) to `evaluations`."""
    step: int
    """Discriminator updates so far."""
    values: dict[str, float]
    """Metric or diagnostic -> value. Names and units: `docs/records.md`."""
    wall_s: float
    """Seconds of training so far, shared equally among the trials of the pack."""
