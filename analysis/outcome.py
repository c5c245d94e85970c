"""Records of a trial -> its outcome: one label, some flags, event times. Pure functions of stored numbers.

The labels, their order of precedence and every threshold are explained for users in `docs/outcomes.md`; their
declarations are in `taxonomy.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from analysis.sequences import (
    Bools,
    Floats,
    capped,
    centred_medians,
    first_lasting,
    mann_kendall_z,
    median,
    stretches,
    tail_length,
    turning_points,
)
from analysis.taxonomy import (
    FLAG_TEXT,
    LABEL_TEXT,
    LABELS,
    OUTCOME_VERSION,
    STABLE,
    UNDETERMINED,
    Reference,
    Thresholds,
)

__all__ = [
    "FLAG_TEXT",
    "LABELS",
    "LABEL_TEXT",
    "OUTCOME_VERSION",
    "STABLE",
    "UNDETERMINED",
    "VALUES_READ",
    "Outcome",
    "Reference",
    "Thresholds",
    "deficiency",
    "diverged_at",
    "label",
]

VALUES_READ = (
    "dist", "cov", "prec", "dist_running", "cov_running", "prec_running", "finite", "g_param_norm", "d_param_norm",
    "max_abs_sample", "saturated_share", "d_acc_real", "d_acc_fake",
)  # fmt: skip
"""Recorded values that the rules read; a test compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a complete trial showed."""

    label: str
    """One of LABELS."""
    flags: tuple[str, ...]
    """Some of FLAG_TEXT, in its order."""
    t_thr: float | None
    """Discriminator updates at the start of the first W good evaluations in a row; None: not within the budget."""
    t_coll: float | None
    """Discriminator updates at the start of the collapse that lasted to the end (or to the divergence)."""
    t_div: float | None
    """Discriminator updates at the first evaluation of the divergence."""
    q_final: float | None
    """Median composite deficiency of the final window; None if diverged or unknown."""
    q_best: float | None
    """Smallest composite deficiency of any evaluation."""
    version: int
    """OUTCOME_VERSION of the rules used."""


def deficiency(values: Mapping[str, NDArray[Any]], reference: Reference, *, suffix: str = "") -> Floats:
    """Composite deficiency Q, (T,): 0 = as good as held-out real data, about 1 = untrained, NaN = not known.

    The worst of three: distance between floor (0) and ceiling (1), clipped below at 0; shortfall of coverage; shortfall
    of precision, both relative to real data's and within [0, 1]. `dist`, `cov`, `prec` are each (T,); a data set
    without coverage or precision leaves them out. An infinite distance is infinitely bad; any other non-finite metric
    makes Q unknown. `suffix="_running"` reads the values under running batch-norm statistics.
    """
    dist = _column(values, f"dist{suffix}")
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite distance is data here
        distance = np.maximum((dist - reference.dist_floor) / (reference.dist_ceiling - reference.dist_floor), 0.0)
    distance[np.isneginf(dist)] = np.nan
    parts = [distance]
    for name, real in (("cov", reference.cov_real), ("prec", reference.prec_real)):
        if f"{name}{suffix}" in values:
            metric = _column(values, f"{name}{suffix}")
            metric = np.where(np.isfinite(metric), metric, np.nan)
            parts.append(1.0 - np.clip(metric / real, 0.0, 1.0))
    q: Floats = np.maximum.reduce(parts)
    return q


def label(
    series: Mapping[str, NDArray[Any]],
    reference: Reference,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    *,
    evaluations: int,
) -> Outcome:
    """Judge one trial. `series` has the arrays `evaluation`, `step` and one per recorded value, all (T,).

    `evaluations` is E, the number planned besides evaluation 0. Raises ValueError if arrays differ in length or
    evaluations do not increase. Source: `docs/outcomes.md`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are data here
        return _label(_Run.build(series, reference, thresholds, evaluations))


def diverged_at(
    series: Mapping[str, NDArray[Any]], reference: Reference, thresholds: Thresholds, *, evaluations: int
) -> int | None:
    """Index in `series` from which `label` calls a trial diverged; None if it does not. Arguments as there."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _Run.build(series, reference, thresholds, evaluations).divergence()


def _label(run: _Run) -> Outcome:
    bad_from = run.divergence()
    if bad_from is not None:
        return run.upto(bad_from).outcome("diverged", t_div=float(run.step[bad_from]))
    if not run.complete():
        return run.outcome(UNDETERMINED, extra=("records_incomplete",))
    if 2 * int(run.final.sum()) < min(run.thresholds.window(run.evaluations), run.evaluations):
        return run.outcome(UNDETERMINED)
    return run.outcome(run.judge())


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A trial's series, with Q, and the questions that the rules ask of it. No slots: answers are kept."""

    evaluation: Floats
    step: Floats
    values: dict[str, Floats]
    q: Floats
    thresholds: Thresholds
    reference: Reference
    evaluations: int

    @classmethod
    def build(
        cls, series: Mapping[str, NDArray[Any]], reference: Reference, thresholds: Thresholds, evaluations: int
    ) -> Self:
        values = {"evaluation": np.empty(0), "step": np.empty(0)}
        values |= {name: np.asarray(array, dtype=np.float64) for name, array in series.items()}
        lengths = {name: array.shape for name, array in values.items() if array.shape != values["evaluation"].shape}
        if lengths:
            raise ValueError(
                f"series: every array must be {values['evaluation'].shape} as `evaluation` is, got {lengths}"
            )
        if evaluations < 1 or np.any(np.diff(values["evaluation"]) <= 0):
            raise ValueError("series: evaluations must be at least 1 and `evaluation` strictly increasing")
        return cls(
            evaluation=values["evaluation"], step=values["step"], values=values,
            q=deficiency(values, reference), thresholds=thresholds, reference=reference, evaluations=evaluations,
        )  # fmt: skip

    @property
    def persistence(self) -> int:
        return self.thresholds.persistence(self.evaluations)

    @cached_property
    def known(self) -> Bools:
        return np.asarray(~np.isnan(self.q))

    @cached_property
    def final(self) -> Bools:
        """Mask of the final window's evaluations whose Q is known; evaluation 0 is never part of it."""
        start = max(0, self.evaluations - self.thresholds.window(self.evaluations))
        return (self.evaluation > start) & self.known

    @cached_property
    def late(self) -> Bools:
        """Mask of the second half's evaluations whose Q is known."""
        return (2 * self.evaluation > self.evaluations) & self.known

    def get(self, name: str) -> Floats:
        return _column(self.values, name, like=self.evaluation)

    def complete(self) -> bool:
        return self.evaluation.size > 0 and bool(self.evaluation[-1] >= self.evaluations)

    def divergence(self) -> int | None:
        """Index from which numbers are non-finite, or exploded, for W evaluations or for good; None if they are not."""
        t, finite = self.thresholds, self.get("finite") != 0.0
        broken = ~finite | (self.get("max_abs_sample") > t.explosion_samples * self.reference.max_abs_data)
        for name in ("g_param_norm", "d_param_norm"):
            norm = self.get(name)
            if norm.size and norm[0] > 0:
                broken |= norm > t.explosion_parameters * norm[0]
        for start, stop in stretches(np.asarray(broken)):
            at_the_last = stop == broken.size and (self.complete() or not finite[-1])
            if stop - start >= self.persistence or at_the_last:
                return start
        return None

    def upto(self, index: int) -> _Run:
        """The part before an evaluation's index."""
        values = {name: array[:index] for name, array in self.values.items()}
        return dataclasses.replace(
            self, values=values, evaluation=self.evaluation[:index], step=self.step[:index], q=self.q[:index]
        )

    def relative(self, name: str) -> Floats:
        """Coverage or precision relative to real data's, at known evaluations; NaN where the data set has none."""
        real: float = getattr(self.reference, f"{name}_real")
        return np.asarray(self.get(name)[self.known] / real)

    @cached_property
    def collapsed(self) -> tuple[Bools, Floats]:
        """The collapse condition on centred W-medians, and the running peak of coverage; known evaluations, each."""
        t = self.thresholds
        coverage = centred_medians(self.relative("cov"), self.persistence)
        q = centred_medians(capped(self.q[self.known]), self.persistence)
        peak = np.maximum.accumulate(coverage) if coverage.size else coverage
        best = np.minimum.accumulate(q) if q.size else q
        worse = q >= best + t.collapse_worsening
        return (coverage <= t.collapse_drop * peak) & (peak >= t.collapse_peak) & worse, peak

    def judge(self) -> str:
        """The label of a complete trial that did not diverge: the first rule that holds."""
        t, q = self.thresholds, self.q[self.final]
        condition, peak = self.collapsed
        middle = median(q)
        if tail_length(condition) >= self.persistence:
            return "mode_collapse_late"
        window = self.final[self.known]
        coverage, precision = (median(self.relative(name)[window]) for name in ("cov", "prec"))
        if coverage <= t.early_coverage and precision >= t.early_precision and not np.any(peak >= t.collapse_peak):
            return "mode_collapse_early"
        if np.mean(q <= t.tau_ok) >= t.converged_share:
            return "converged"
        if self.evaluations >= t.trend_evaluations:
            if turning_points(self.q[self.late], t.swing) >= t.turning_points:
                return "oscillating"
            if self.improving():
                return "slow"
        if middle >= t.tau_bad:
            return "stalled_d_won" if self.d_won_at_end() else "stalled"
        return "plateau"

    def improving(self) -> bool:
        """Significantly falling Q over the second half, by more than a trifle."""
        q = self.q[self.late]
        fourth = self.evaluation[self.late] > 0.75 * self.evaluations
        if fourth.all() or not fourth.any() or mann_kendall_z(q) >= self.thresholds.trend_z:
            return False
        return bool(median(capped(q[~fourth])) - median(capped(q[fourth])) >= self.thresholds.trend_drop)

    def d_won(self) -> Bools:
        limit = self.thresholds.d_won_accuracy
        return np.asarray((self.get("d_acc_real") >= limit) & (self.get("d_acc_fake") >= limit))

    def d_won_at_end(self) -> bool:
        limit = self.thresholds.d_won_accuracy
        return all(median(self.get(name)[self.final]) >= limit for name in ("d_acc_real", "d_acc_fake"))

    def flags(self, t_thr: float | None) -> set[str]:
        t, w, flags = self.thresholds, self.persistence, set()
        condition = self.collapsed[0]
        ended = condition[: condition.size - tail_length(condition)]
        if first_lasting(ended, w) is not None:
            flags.add("transient_collapse")
        if t_thr is not None:
            after = self.late[self.known] & (self.step[self.known] > t_thr)
            if any(
                stop - start < w and after[start:stop].any()
                for start, stop in stretches(self.q[self.known] >= t.tau_bad)
            ):
                flags.add("late_spike")
        if "dist_running" in self.values and self.final.any():
            running = deficiency(self.values, self.reference, suffix="_running")[self.final]
            gap = np.abs(median(capped(running)) - median(capped(self.q[self.final])))
            if gap > t.bn_mismatch:
                flags.add("bn_stats_mismatch")
        if first_lasting(self.get("saturated_share") >= t.saturation, w) is not None:
            flags.add("saturated")
        if first_lasting(self.d_won(), w) is not None:
            flags.add("d_won_segment")
        if not self.known.all():
            flags.add("metric_failure")
        if self.evaluations < t.trend_evaluations:
            flags.add("too_few_evaluations")
        return flags

    def outcome(self, name: str, *, t_div: float | None = None, extra: tuple[str, ...] = ()) -> Outcome:
        """Put label, flags and event times together."""
        known = self.known
        start = first_lasting(self.q[known] <= self.thresholds.tau_ok, self.persistence)
        t_thr = None if start is None else float(self.step[known][start])
        condition = self.collapsed[0]
        tail = tail_length(condition)
        lasting = tail >= self.persistence and name in ("mode_collapse_late", "diverged")
        flags = self.flags(t_thr) | set(extra)
        final = self.q[self.final]
        return Outcome(
            label=name,
            flags=tuple(flag for flag in FLAG_TEXT if flag in flags),
            t_thr=t_thr,
            t_coll=float(self.step[known][condition.size - tail]) if lasting else None,
            t_div=t_div,
            q_final=median(final) if final.size and name not in ("diverged", UNDETERMINED) else None,
            q_best=float(self.q[known].min()) if known.any() else None,
            version=OUTCOME_VERSION,
        )


def _column(values: Mapping[str, NDArray[Any]], name: str, like: Floats | None = None) -> Floats:
    """A recorded value as float64, (T,); all NaN where it was not recorded."""
    if name in values:
        return np.asarray(values[name], dtype=np.float64)
    shape = like if like is not None else next(iter(values.values()), np.empty(0))
    return np.full(np.shape(shape), np.nan)
