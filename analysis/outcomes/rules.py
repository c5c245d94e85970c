"""Records of a trial -> its outcome: one label, some flags, event times. Pure functions of stored numbers.

`docs/outcomes.md` explains labels, their order of precedence and every threshold; `labels.py` declares them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vistudy.analysis.outcomes.labels import FLAG_TEXT, OUTCOME_VERSION, Label, Reference, Thresholds
from vistudy.analysis.outcomes.time_series import (
    Bools,
    Floats,
    capped,
    centred_medians,
    first_run_of,
    mann_kendall_z,
    median,
    runs,
    tail_length,
    turning_points,
)

VALUES_READ = (
    "dist", "cov", "prec", "dist_running", "cov_running", "prec_running", "finite", "g_param_norm", "d_param_norm",
    "max_abs_sample", "saturated_share", "d_acc_real", "d_acc_fake", "mode_spread", "class_coverage", "prec_pixels",
    "hq_share", "triangle_share", "prdc_precision",
)  # fmt: skip
"""Recorded values that the rules read, or whose presence they check; a test compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Label, flags and event times of a complete trial."""

    label: Label
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
    """Of the rules used."""


def deficiency(
    values: Mapping[str, NDArray[Any]], reference: Reference, *, suffix: str = "", version: int = OUTCOME_VERSION
) -> Floats:
    """Composite deficiency Q, (T,): 0 = as good as held-out real data, about 1 = untrained, NaN = not known.

    The worst of: distance between floor (0) and ceiling (1), clipped below at 0; shortfall of coverage; shortfall of
    precision, both relative to real data's and within [0, 1]; and since version 2 shortfall of precision by pixels, and
    what of the classes and of the spread within modes is missing. `dist`, `cov`, `prec` and the others are each (T,); a
    data set, or a record, without one of them leaves it out. An infinite distance is infinitely bad; any other
    non-finite metric of the first three makes Q unknown. `suffix="_running"` reads the first three under running
    batch-norm statistics.
    """
    parts = [distance_deficit(_column(values, f"dist{suffix}"), reference)]
    for name, real in (("cov", reference.cov_real), ("prec", reference.prec_real)):
        if f"{name}{suffix}" in values:
            metric = _column(values, f"{name}{suffix}")
            parts.append(_shortfall(np.where(np.isfinite(metric), metric, np.nan), real))
    q: Floats = np.maximum.reduce(parts)
    if version == 1 or suffix:
        return q
    more = (
        _shortfall(_column(values, "prec_pixels", like=q), reference.prec_pixels_real),
        # of pairs of real samples, the share with a member of a missing class
        1.0 - np.square(np.clip(_column(values, "class_coverage", like=q), 0.0, 1.0)),
        # squared Wasserstein distance of the modes from the data's, in units of that of points
        np.square(_shortfall(_column(values, "mode_spread", like=q), 1.0)),
    )
    return np.asarray(np.where(np.isnan(q), q, np.fmax.reduce((q, *more))))


def distance_deficit(dist: Floats, reference: Reference) -> Floats:
    """Distances (T,) on the scale from real data (0; less is cut off) to the untrained net (1)."""
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite distance is data here
        deficit = np.maximum((dist - reference.dist_floor) / (reference.dist_ceiling - reference.dist_floor), 0.0)
    deficit[np.isneginf(dist)] = np.nan
    return deficit


def _shortfall(metric: Floats, real: float) -> Floats:
    return np.asarray(1.0 - np.clip(metric / real, 0.0, 1.0))


def label(
    series: Mapping[str, NDArray[Any]],
    reference: Reference,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    *,
    evaluations: int,
) -> Outcome:
    """Label one trial. `series` has the arrays `evaluation`, `step` and one per recorded value, all (T,).

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
    divergence = run.divergence()
    if divergence is not None:
        return run.truncated_at(divergence).outcome(Label.DIVERGED, t_div=float(run.step[divergence]))
    if not run.complete():
        return run.outcome(Label.UNDETERMINED, extra=("records_incomplete",))
    if 2 * int(run.final.sum()) < min(run.thresholds.end(run.evaluations), run.evaluations):
        return run.outcome(Label.UNDETERMINED)
    return run.outcome(run.classify())


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A trial's series with Q, and the conditions of the rules. No slots: properties are cached."""

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
            q=deficiency(values, reference, version=thresholds.version), thresholds=thresholds, reference=reference,
            evaluations=evaluations,
        )  # fmt: skip

    @property
    def persistence(self) -> int:
        return self.thresholds.persistence(self.evaluations)

    @cached_property
    def has_metrics(self) -> Bools:
        """Mask of the evaluations whose Q is known."""
        return np.asarray(~np.isnan(self.q))

    @cached_property
    def final(self) -> Bools:
        """Mask of the last quarter's evaluations whose Q is known, of which medians are taken."""
        return self.last(self.thresholds.end(self.evaluations))

    def last(self, count: int) -> Bools:
        """Mask of those of the last `count` evaluations whose Q is known; evaluation 0 is never part of it."""
        return (self.evaluation > max(0, self.evaluations - count)) & self.has_metrics

    @cached_property
    def late(self) -> Bools:
        """Mask of the second half's evaluations whose Q is known."""
        return (2 * self.evaluation > self.evaluations) & self.has_metrics

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
        for start, stop in runs(np.asarray(broken)):
            at_the_last = stop == broken.size and (self.complete() or not finite[-1])
            if stop - start >= self.persistence or at_the_last:
                return start
        return None

    def truncated_at(self, index: int) -> _Run:
        """The part before the evaluation at `index`."""
        values = {name: array[:index] for name, array in self.values.items()}
        return dataclasses.replace(
            self, values=values, evaluation=self.evaluation[:index], step=self.step[:index], q=self.q[:index]
        )

    def relative(self, name: str) -> Floats:
        """Coverage or precision relative to real data's, at known evaluations; NaN where the data set has none."""
        real: float = getattr(self.reference, f"{name}_real")
        return np.asarray(self.get(name)[self.has_metrics] / real)

    @cached_property
    def collapsed(self) -> tuple[Bools, Floats]:
        """The collapse condition on centred W-medians, and the running peak of coverage; known evaluations, each."""
        t = self.thresholds
        coverage = centred_medians(self.relative("cov"), self.persistence)
        q = centred_medians(capped(self.q[self.has_metrics]), self.persistence)
        peak = np.maximum.accumulate(coverage) if coverage.size else coverage
        best = np.minimum.accumulate(q) if q.size else q
        worse = q >= best + t.collapse_worsening
        return (coverage <= t.collapse_drop * peak) & (peak >= t.collapse_peak) & worse, peak

    def classify(self) -> Label:
        """The label of a complete trial that did not diverge: the first rule that holds."""
        t, q = self.thresholds, self.q[self.final]
        trends = self.evaluations >= t.trend_evaluations
        condition, peak = self.collapsed
        middle = median(q)
        if tail_length(condition) >= self.persistence:
            return Label.MODE_COLLAPSE_LATE
        little = median(self.relative("cov")[self.final[self.has_metrics]]) <= t.early_coverage
        growing = little and t.version > 1 and trends and self.growing()
        if little and not growing and not np.any(peak >= t.collapse_peak) and self.precise():
            return Label.MODE_COLLAPSE_EARLY
        window = self.q[self.last(t.window(self.evaluations))]
        if any(np.mean(part <= t.tau_ok) >= t.converged_share for part in (window, q)):
            return Label.CONVERGED
        if trends and turning_points(self.q[self.late], t.swing) >= t.turning_points:
            return Label.OSCILLATING
        if t.version > 1 and middle <= t.tau_ok:
            return Label.UNSTEADY
        improving = growing or (trends and self.falling(capped(self.q), t.trend_drop))
        if improving and (t.version == 1 or middle < t.slow_quality):
            return Label.SLOW
        if middle >= t.tau_bad:
            return Label.STALLED_D_WON if self.d_won_at_end() else Label.STALLED
        return Label.PLATEAU

    def precise(self) -> bool:
        """Whether samples are realistic at the end: in version 2 by pixels, too, and not as far as untrained ones."""
        t = self.thresholds
        if not median(self.relative("prec")[self.final[self.has_metrics]]) >= t.early_precision:
            return False
        by_features = "fd" in self.values and "triangle_share" not in self.values  # else garbage is not precise
        if t.version == 1 or not by_features:
            return True
        by_pixels = median(self.get("prec_pixels")[self.final] / self.reference.prec_pixels_real)
        far = median(distance_deficit(capped(self.get("dist")), self.reference)[self.final]) >= t.early_distance
        return not (by_pixels < t.early_precision or far)  # NaN: no pixels were looked at

    def growing(self) -> bool:
        """Whether coverage that there was already rises; a single cluster that drifts onto a mode covers no more."""
        third = self.late & (self.evaluation <= 0.75 * self.evaluations)
        return median(self.get("cov")[third]) > 0 and self.falling(-self.get("cov"), self.thresholds.early_rise)

    def falling(self, values: Floats, drop: float) -> bool:
        """Whether `values`, (T,), fall significantly over the second half, and by more than a trifle."""
        of_late = values[self.late]
        fourth = self.evaluation[self.late] > 0.75 * self.evaluations
        if fourth.all() or not fourth.any() or mann_kendall_z(of_late) >= self.thresholds.trend_z:
            return False
        return bool(median(of_late[~fourth]) - median(of_late[fourth]) >= drop)

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
        if first_run_of(ended, w) is not None:
            flags.add("transient_collapse")
        if t_thr is not None:
            after = (self.late & (self.step > t_thr))[self.has_metrics]
            bad = runs(self.q[self.has_metrics] >= t.tau_bad)
            if any(stop - start < w and after[start:stop].any() for start, stop in bad):
                flags.add("late_spike")
        if "dist_running" in self.values and self.final.any():
            running, recalibrated = (  # by the values that both have
                median(capped(deficiency(self.values, self.reference, suffix=suffix, version=1)[self.final]))
                for suffix in ("_running", "")
            )
            if np.abs(running - recalibrated) > t.bn_mismatch:
                flags.add("bn_stats_mismatch")
        if first_run_of(self.get("saturated_share") >= t.saturation, w) is not None:
            flags.add("saturated")
        if first_run_of(self.d_won(), w) is not None:
            flags.add("d_won_segment")
        if not self.has_metrics.all():
            flags.add("metric_failure")
        if self.evaluations < t.trend_evaluations:
            flags.add("too_few_evaluations")
        beside = (("hq_share", "mode_spread"), ("prdc_precision", "prec_pixels"))
        lacking = any(old in self.values and np.isnan(self.get(new)).any() for old, new in beside)
        if t.version > 1 and lacking and "triangle_share" not in self.values:
            flags.add("recorded_before_v2")
        return flags

    def outcome(self, label: Label, *, t_div: float | None = None, extra: tuple[str, ...] = ()) -> Outcome:
        """Put label, flags and event times together."""
        q, step = self.q[self.has_metrics], self.step[self.has_metrics]
        start = first_run_of(q <= self.thresholds.tau_ok, self.persistence)
        t_thr = None if start is None else float(step[start])
        condition = self.collapsed[0]
        tail = tail_length(condition)
        lasting = tail >= self.persistence and label in (Label.MODE_COLLAPSE_LATE, Label.DIVERGED)
        flags = self.flags(t_thr) | set(extra)
        final = self.q[self.final]
        return Outcome(
            label=label,
            flags=tuple(flag for flag in FLAG_TEXT if flag in flags),
            t_thr=t_thr,
            t_coll=float(step[condition.size - tail]) if lasting else None,
            t_div=t_div,
            q_final=median(final) if final.size and label not in (Label.DIVERGED, Label.UNDETERMINED) else None,
            q_best=float(q.min()) if q.size else None,
            version=self.thresholds.version,
        )


def _column(values: Mapping[str, NDArray[Any]], name: str, like: Floats | None = None) -> Floats:
    """A recorded value as float64, (T,); all NaN where it was not recorded."""
    if name in values:
        return np.asarray(values[name], dtype=np.float64)
    shape = like if like is not None else next(iter(values.values()), np.empty(0))
    return np.full(np.shape(shape), np.nan)
