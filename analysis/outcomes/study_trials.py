"""What is stored of a study's trials, read once: outcomes, and the records that they follow from."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TypeAlias

import numpy as np

from vistudy.analysis.ledger.documents import PackRecord, Registration
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.histories import checked_histories, label_trial, to_series
from vistudy.analysis.outcomes.label_study import LabelledStudy, label_study
from vistudy.analysis.outcomes.rules import Outcome, Thresholds


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyTrials(LabelledStudy):
    """What is stored of a study's trials, read once: tables and relabelling take it instead of the store."""

    ledger: Ledger
    study: str
    registrations: tuple[Registration, ...]
    """Registrations of the study's claim, oldest first."""

    @functools.cached_property
    def packs(self) -> dict[str, PackRecord]:
        """pack_id -> what is stored of it. Read when first asked for."""
        return self.ledger.packs()

    @functools.cached_property
    def series(self) -> dict[str, dict[str, np.ndarray]]:
        """trial_id -> arrays (T,) of what the outcome rules read, of the complete. Read when first asked for."""
        read = checked_histories(self.ledger.histories(list(self.outcomes)), self.entries, self.study)
        return {trial_id: to_series([]) for trial_id in self.outcomes} | {i: to_series(found) for i, found in read}

    def outcome(self, trial_id: str, thresholds: Thresholds) -> Outcome | None:
        """The outcome of a complete trial; None of any other."""
        if trial_id not in self.outcomes or thresholds == Thresholds():
            return self.outcomes.get(trial_id)
        return label_trial(trial_id, self.series[trial_id], self.entries, self.ended, self.packs, thresholds)


StoreLike: TypeAlias = "Ledger | StudyTrials | str | os.PathLike[str]"
"""A ledger, its place, or what `read_trials` gave: what functions that read a study take."""


def read_trials(store: Ledger | str | os.PathLike[str], study: str) -> StudyTrials:
    """Read plan, outcomes and registrations of a study, and the records of trials that have not been judged before.

    Raises:
        StudyError: as `label_study`.
    """
    ledger = as_ledger(store)
    judged = label_study(ledger, study)
    known = {field.name: getattr(judged, field.name) for field in dataclasses.fields(LabelledStudy)}
    return StudyTrials(ledger=ledger, study=study, registrations=tuple(ledger.registrations(study)), **known)


def as_ledger(store: Ledger | str | os.PathLike[str]) -> Ledger:
    """The ledger at a place; a ledger itself."""
    return Ledger(store) if isinstance(store, str | os.PathLike) else store
