"""Stability of all trials of a study under many thresholds, from records read once: thousands of trials in seconds.

`StabilityByThreshold.stable` agrees with `vistudy.analysis.outcomes.rules.label`; a test compares them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vistudy.analysis.outcomes.label_study import StudyTrials
from vistudy.analysis.outcomes.labels import STABLE, UNDETERMINED, Reference, Thresholds
from vistudy.analysis.outcomes.rules import deficiency, diverged_at, label
from vistudy.analysis.outcomes.time_series import Bools, Floats, capped, first_run_of


class StabilityByThreshold:
    """Complete trials of a study, ready to be labelled again under other windows and thresholds of Q.

    Trials with a full, finite record are labelled together; diverged ones and those with gaps one by one.
    """

    def __init__(self, trials: StudyTrials, base: Thresholds) -> None:
        """`base`: whatever the variants do not change."""
        self._trials, self._base = trials, base
        # An explosion must last at least one evaluation: without a single one there is none for any persistence.
        self._once = dataclasses.replace(base, persistence_share=0.0, persistence_min=1)
        self._clean: dict[int, _SeriesBatch] = {}
        self._odd: list[str] = []
        complete = list(trials.outcomes)
        groups: dict[int, list[tuple[str, dict[str, Any], Reference, Floats]]] = {}
        for trial_id in complete:
            series, reference, evaluations = self._of(trial_id)
            q = deficiency(series, reference, version=base.version)
            if self._is_clean(series, q, reference, evaluations):
                groups.setdefault(evaluations, []).append((trial_id, series, reference, q))
            else:
                self._odd.append(trial_id)
        self._clean = {evaluations: _SeriesBatch(members, evaluations, base) for evaluations, members in groups.items()}
        self._broken: dict[tuple[str, int], int | None] = {}

    def _of(self, trial_id: str) -> tuple[dict[str, Any], Reference, int]:
        trials = self._trials
        pack = trials.packs[trials.ends[trial_id]["pack_id"]]
        evaluations = int(trials.entries[trial_id]["config"]["evaluations"])
        return trials.series[trial_id], Reference.from_dict(pack["reference"]), evaluations

    def _is_clean(self, series: dict[str, Any], q: Floats, reference: Reference, evaluations: int) -> bool:
        """Whether every evaluation is there, its Q known, and nothing looks like an explosion."""
        if q.size != evaluations + 1 or np.isnan(q).any():
            return False
        if not np.array_equal(series["evaluation"], np.arange(evaluations + 1)):
            return False
        return diverged_at(series, reference, self._once, evaluations=evaluations) is None

    def stable(self, thresholds: Thresholds) -> tuple[dict[str, float], dict[str, float]]:
        """(by the last window, by the best so far): trial_id -> 1, 0 or NaN (undetermined).

        By the best so far a trial is stable if Q was good for W evaluations in a row at any time, whatever came later:
        that is choosing the checkpoint by the metric that evaluates it.

        `thresholds` may differ from the base in `tau_ok`, the window and the persistence.
        """
        last: dict[str, float] = {}
        best: dict[str, float] = {}
        for group in self._clean.values():
            at_end, ever, doubtful = group.stable(thresholds)
            last |= dict(zip(group.ids, at_end.astype(float).tolist(), strict=True))
            best |= dict(zip(group.ids, ever.astype(float).tolist(), strict=True))
            last |= {group.ids[i]: self._one(group.ids[i], thresholds)[0] for i in np.flatnonzero(doubtful)}
        for trial_id in self._odd:
            last[trial_id], best[trial_id] = self._one(trial_id, thresholds)
        return last, best

    def _one(self, trial_id: str, thresholds: Thresholds) -> tuple[float, float]:
        series, reference, evaluations = self._of(trial_id)
        persistence = thresholds.persistence(evaluations)
        key = (trial_id, persistence)
        if key not in self._broken:
            self._broken[key] = diverged_at(series, reference, thresholds, evaluations=evaluations)
        start = self._broken[key]
        if start is not None:
            q = deficiency(series, reference, version=thresholds.version)[:start]
            ever = first_run_of(np.asarray(q[~np.isnan(q)] <= thresholds.tau_ok), persistence)
            return 0.0, float(ever is not None)
        outcome = label(series, reference, thresholds, evaluations=evaluations)
        if outcome.label == UNDETERMINED:
            return float("nan"), float("nan")
        return float(outcome.label == STABLE), float(outcome.t_thr is not None)


class _SeriesBatch:
    """Trials with the same number of evaluations, all recorded and finite: arrays (trials, evaluations + 1)."""

    def __init__(
        self, members: Sequence[tuple[str, dict[str, Any], Reference, Floats]], evaluations: int, base: Thresholds
    ) -> None:
        self.ids = [trial_id for trial_id, *_ in members]
        self.evaluations, self.base = evaluations, base
        self.q = np.stack([q for *_, q in members])
        nothing = np.full(evaluations + 1, np.nan)
        self.coverage = np.stack([series.get("cov", nothing) / ref.cov_real for _, series, ref, _ in members])
        self.precision = np.stack([series.get("prec", nothing) / ref.prec_real for _, series, ref, _ in members])
        self._collapses: dict[int, tuple[Bools, Bools]] = {}
        self._early: dict[int, Bools] = {}

    def stable(self, t: Thresholds) -> tuple[Bools, Bools, Bools]:
        """(converged, good for W evaluations in a row at any time, converged unless it is an early collapse).

        (trials,) each. Follows `rules._Run.classify`.
        """
        persistence, end = t.persistence(self.evaluations), t.end(self.evaluations)
        window, final = (
            np.arange(self.evaluations + 1) > max(0, self.evaluations - count)
            for count in (t.window(self.evaluations), end)
        )
        late, covered = self._collapse(persistence)
        if end not in self._early:
            coverage = np.median(self.coverage[:, final], axis=1)
            precision = np.median(self.precision[:, final], axis=1)
            self._early[end] = (coverage <= self.base.early_coverage) & (precision >= self.base.early_precision)
        good = self.q <= t.tau_ok
        shares = (np.mean(good[:, part], axis=1) for part in (window, final))
        at_end = np.logical_or(*(share >= self.base.converged_share for share in shares))
        doubtful = at_end & ~late & ~covered & self._early[end]
        return at_end & ~late, self._ever(good, persistence), doubtful

    @staticmethod
    def _ever(good: Bools, persistence: int) -> Bools:
        if good.shape[1] < persistence:
            return np.zeros(len(good), dtype=bool)
        runs: Bools = np.asarray(np.lib.stride_tricks.sliding_window_view(good, persistence, axis=1).all(axis=-1))
        return np.asarray(runs.any(axis=1))

    def _collapse(self, persistence: int) -> tuple[Bools, Bools]:
        """(a collapse lasts to the end, coverage was ever high enough to collapse), (trials,) each."""
        if persistence not in self._collapses:
            base = self.base
            coverage, q = (_medians(each, persistence) for each in (self.coverage, capped(self.q)))
            peak = np.maximum.accumulate(coverage, axis=1)
            worse = q >= np.minimum.accumulate(q, axis=1) + base.collapse_worsening
            condition = (coverage <= base.collapse_drop * peak) & (peak >= base.collapse_peak) & worse
            long_enough = condition.shape[1] >= persistence
            late = condition[:, -persistence:].all(axis=1) & long_enough
            self._collapses[persistence] = late, np.asarray((peak >= base.collapse_peak).any(axis=1))
        return self._collapses[persistence]


def _medians(values: Floats, length: int) -> Floats:
    """`centred_medians` of every row: (trials, T) -> (trials, T)."""
    half, size = length // 2, values.shape[1]
    out = np.empty_like(values)
    if size > 2 * half:
        windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1, axis=1)
        out[:, half : size - half] = np.median(windows, axis=-1)
    for i in (*range(min(half, size)), *range(max(half, size - half), size)):
        out[:, i] = np.median(values[:, max(0, i - half) : i + half + 1], axis=1)
    return out
