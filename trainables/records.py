"""What the engine hands on: one Record for each trial at each evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One evaluation of one trial. Raw: thresholds and outcomes are computed later, from these.

    `values` is bitwise reproducible on a CPU; the clock is kept apart, in `wall_s`. Non-finite values are kept.
    """

    trial_id: str
    evaluation: int
    """0 (before training) to `evaluations`."""
    step: int
    """Discriminator updates done."""
    values: dict[str, float]
    """Metric or diagnostic -> value. Names and units: `docs/records.md`."""
    wall_s: float
    """Seconds of training so far, shared equally among the trials of the pack."""
