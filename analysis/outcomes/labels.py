"""Labels and flags of outcomes, the thresholds of the rules, and references. The rules are in `rules.py`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

OUTCOME_VERSION = 2
"""Version of the outcome rules; `RULES` has the versions before it."""


class Label(StrEnum):
    """Outcome of a complete trial, in order of precedence (`UNDETERMINED` is not part of it)."""

    DIVERGED = "diverged"
    MODE_COLLAPSE_LATE = "mode_collapse_late"
    MODE_COLLAPSE_EARLY = "mode_collapse_early"
    CONVERGED = "converged"
    OSCILLATING = "oscillating"
    UNSTEADY = "unsteady"
    SLOW = "slow"
    STALLED_D_WON = "stalled_d_won"
    STALLED = "stalled"
    PLATEAU = "plateau"
    UNDETERMINED = "undetermined"


LABEL_TEXT: dict[str, tuple[str, str]] = {
    "diverged": ("diverged", "numbers became non-finite, or weights or samples exploded"),
    "mode_collapse_late": ("late collapse", "had covered at least half of the data, then lost half of that for good"),
    "mode_collapse_early": ("early collapse", "makes realistic samples of a small part of the data, and never of half"),
    "converged": ("converged", "close to held-out real data throughout the final window, or the last quarter"),
    "oscillating": ("oscillating", "quality keeps swinging up and down in the second half"),
    "unsteady": ("unsteady", "good in most of the last quarter, but not throughout"),
    "slow": ("slow", "not good yet in the last quarter, but still improving"),
    "stalled_d_won": ("D won", "far from real data in the last quarter, and D tells real from fake almost perfectly"),
    "stalled": ("stalled", "far from real data in the last quarter"),
    "plateau": ("plateau", "neither good nor far from real data in the last quarter, with no trend or swing seen"),
    "undetermined": ("unclear", "records stop early or the metric failed: says nothing about stability"),
}
"""Label -> (short name, plain sentence). Keys are plain strings, in the order of `Label`."""

LABELS: tuple[str, ...] = tuple(label.value for label in Label)
STABLE = Label.CONVERGED.value
"""The primary endpoint: a trial is stable if and only if this is its label."""
UNDETERMINED = Label.UNDETERMINED.value

FLAG_TEXT: dict[str, str] = {
    "transient_collapse": "a collapse that lasted at least W evaluations and ended",
    "late_spike": "reached the threshold, but had a short excursion above tau_bad in the second half",
    "bn_stats_mismatch": "running batch-norm statistics give another quality than recalibrated ones",
    "saturated": "at least 99 % of a tanh generator's components at their limits for W evaluations",
    "d_won_segment": "D told real from fake perfectly for W evaluations",
    "metric_failure": "a metric was NaN although samples were finite; that evaluation is left out",
    "too_few_evaluations": "fewer than 10 evaluations are too few: trends and swings were not looked for",
    "recorded_before_v2": "recorded without the spread within modes, or without precision by pixels: Q is without it",
    "records_incomplete": "records stop before the budget without a divergence",
}
"""Flag -> plain sentence. Flags do not exclude each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Pre-registered numbers of the rules. Source: `docs/outcomes.md`, fixed before any confirmatory run."""

    version: int = OUTCOME_VERSION
    """Of the rules. `RULES` has the thresholds of each version."""
    persistence_share: float = 0.10
    """W = max(persistence_min, ceil(share * E)) evaluations: how long something must last to count."""
    persistence_min: int = 3
    window_share: float = 0.25
    """L = max(window_min, ceil(share * E)) evaluations: the final window, over which bad evaluations are counted."""
    window_min: int = 10
    end_min: int = 3
    """Evaluations at the end, of which medians are taken: max(end_min, ceil(window_share * E))."""
    tau_ok: float = 0.25
    """Q at or below which an evaluation is good."""
    tau_bad: float = 0.75
    """Q at or above which a final window is hardly better than no training."""
    converged_share: float = 0.90
    """Share of the final window that must be good."""
    collapse_drop: float = 0.5
    """Late collapse: coverage at most this share of its own running peak ..."""
    collapse_peak: float = 0.5
    """... where the peak is at least this ..."""
    collapse_worsening: float = 0.20
    """... and Q is worse than its best so far by at least this."""
    early_coverage: float = 0.25
    """Early collapse: relative coverage of the final window at most this ..."""
    early_precision: float = 0.5
    """... with relative precision of at least this, by features and by pixels ..."""
    early_distance: float = 1.0
    """... and a distance below this share of the untrained net's, where precision is that of a feature space ..."""
    early_rise: float = 0.02
    """... and no significant rise of coverage by at least this in the second half."""
    swing: float = 0.25
    """Smallest change of Q between turning points of an oscillation."""
    turning_points: int = 3
    """Turning points in the second half that make an oscillation."""
    trend_z: float = -1.96
    """Slow: Mann-Kendall z of Q over the second half below this ..."""
    trend_drop: float = 0.05
    """... and its median falls by at least this from the third to the fourth quarter of the run ..."""
    slow_quality: float = 1.0
    """... and the final window's median Q is below this."""
    trend_evaluations: int = 10
    """Fewest evaluations E at which swings and trends are considered."""
    d_won_accuracy: float = 0.99
    """D accuracy, on real and on fake, from which D has won."""
    explosion_parameters: float = 1e3
    """Explosion: a net's parameter norm above this multiple of its value before training."""
    explosion_samples: float = 100.0
    """Explosion: a sample component above this multiple of the largest one in the data."""
    saturation: float = 0.99
    """Share of saturated components from which a tanh generator is flagged."""
    bn_mismatch: float = 0.2
    """Difference of Q between running and recalibrated batch-norm statistics that is flagged."""

    def persistence(self, evaluations: int) -> int:
        """W, the evaluations that a condition must last."""
        return max(self.persistence_min, math.ceil(self.persistence_share * evaluations - 1e-9))

    def window(self, evaluations: int) -> int:
        """L, the evaluations of the final window."""
        return max(self.window_min, math.ceil(self.window_share * evaluations - 1e-9))

    def end(self, evaluations: int) -> int:
        """The evaluations at the end; in version 1 they are the final window."""
        return max(self.end_min, math.ceil(self.window_share * evaluations - 1e-9))


RULES: dict[int, Thresholds] = {
    1: Thresholds(version=1, window_share=0.20, window_min=5, end_min=5),
    OUTCOME_VERSION: Thresholds(),
}
"""Version of the rules -> its thresholds. Functions that take thresholds apply the rules of their version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Metrics of real data and untrained nets, which normalise those of trials. One per data set and net structure."""

    dist_floor: float
    """Distance between two disjoint sets of real samples."""
    dist_floor_sd: float
    """Standard deviation of it over splits."""
    dist_ceiling: float
    """Median distance of untrained generators."""
    dist_trivial: float
    """Distance of a moment-matched Gaussian; for orientation, not used by the rules."""
    cov_real: float
    """Coverage of real data by real data."""
    prec_real: float
    """Precision of real data against real data."""
    max_abs_data: float
    """Largest absolute component in the data."""
    prec_pixels_real: float = 1.0
    """Precision by pixels of real data; of no meaning where it is not recorded."""

    def __post_init__(self) -> None:
        if not self.dist_ceiling > self.dist_floor:
            raise ValueError(
                f"reference: dist_ceiling ({self.dist_ceiling}) must be above dist_floor ({self.dist_floor}): "
                "this metric does not tell untrained generators from real data"
            )
        for name in ("cov_real", "prec_real", "max_abs_data", "prec_pixels_real"):
            if not getattr(self, name) > 0:
                raise ValueError(f"reference: {name} must be above 0, got {getattr(self, name)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a reference as stored in a pack. Other keys are ignored. Raises ValueError if one is missing."""
        fields = dataclasses.fields(cls)
        missing = [f.name for f in fields if f.name not in values and f.default is dataclasses.MISSING]
        if missing:
            raise ValueError(f"reference: {', '.join(missing)} missing; it has {', '.join(values) or 'nothing'}")
        return cls(**{f.name: float(values[f.name]) for f in fields if f.name in values})
