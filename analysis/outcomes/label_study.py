"""Label all trials of a study: cached outcomes are looked up, the others computed from records."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from vistudy.analysis.ledger.documents import (
    PackRecord,
    PlannedTrial,
    Record,
    Registration,
    StoredPlan,
    TrialEnd,
    TrialState,
)
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.outcomes.histories import (
    check_all_planned,
    checked_histories,
    label_trial,
    plan_entries,
    to_series,
)
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.outcomes.outcome_cache import CachedOutcome, cache_key, read_cache, write_cache
from vistudy.analysis.outcomes.rules import Outcome
from vistudy.analysis.parallel import helper_process

TimedOutcomes: TypeAlias = dict[str, tuple[int | None, Outcome]]
"""trial_id -> (when its first record was written, its outcome)."""

_log = logging.getLogger("vistudy.outcomes")


@dataclass(frozen=True, kw_only=True, slots=True)
class InProgress:
    """The records so far of a trial that has not ended."""

    evaluations: tuple[int, int]
    """Number of the first and the last one recorded."""
    unix_ms: tuple[int, int]
    """When they were written."""


@dataclass(frozen=True, kw_only=True)
class StudyTrials:
    """Plan, states and outcomes of the trials of a study, read once. Tables and relabelling take it as a store."""

    ledger: Ledger = field(compare=False)
    study: str
    plan: StoredPlan
    """Content of `plan.json`."""
    entries: dict[str, PlannedTrial]
    """trial_id -> entry of the plan."""
    ends: dict[str, TrialEnd]
    """trial_id -> end, of the trials that have ended."""
    outcomes: dict[str, Outcome]
    """trial_id -> outcome by the present rules, of the complete trials."""
    cache: dict[str, CachedOutcome]
    """The same as the cache should hold them."""
    uncached: frozenset[str]
    """Those of `outcomes` that the cache lacks."""
    in_progress: dict[str, InProgress]
    """trial_id -> progress, of the trials that have records and have not ended."""
    live: frozenset[str]
    """Those of `in_progress` that are being trained now (`Ledger.live`)."""
    first_ms: int | None
    """When the study's first record was written, milliseconds since 1970 (UTC); None without records."""

    def state(self, trial_id: str) -> TrialState:
        """The state of a planned trial."""
        if trial_id in self.ends:
            return TrialState(self.ends[trial_id]["state"])
        if trial_id not in self.in_progress:
            return TrialState.PLANNED
        return TrialState.RUNNING if trial_id in self.live else TrialState.INTERRUPTED

    def outcome(self, trial_id: str, thresholds: Thresholds) -> Outcome | None:
        """The outcome of a complete trial; None of any other."""
        if trial_id not in self.outcomes or thresholds == Thresholds():
            return self.outcomes.get(trial_id)
        return label_trial(trial_id, self.series[trial_id], self.entries, self.ends, self.packs, thresholds)

    @functools.cached_property
    def registrations(self) -> tuple[Registration, ...]:
        """Registrations of the study's claim, oldest first."""
        return tuple(self.ledger.registrations(self.study))

    @functools.cached_property
    def packs(self) -> dict[str, PackRecord]:
        """pack_id -> content of its `pack.json`."""
        return self.ledger.packs()

    @functools.cached_property
    def series(self) -> dict[str, dict[str, np.ndarray]]:
        """trial_id -> arrays (T,) of the values that the outcome rules read, of the complete trials."""
        histories = checked_histories(self.ledger.histories(list(self.outcomes)), self.entries, self.study)
        no_records = {trial_id: to_series([]) for trial_id in self.outcomes}
        return no_records | {trial_id: to_series(records) for trial_id, records in histories}


StoreLike: TypeAlias = "Ledger | StudyTrials | str | os.PathLike[str]"
"""A ledger, its place, or trials that have been read from it."""


def read_trials(store: StoreLike, study: str = "") -> StudyTrials:
    """Read the trials of a study (`label_study`), unless `store` is them already; then `study` is not needed."""
    return store if isinstance(store, StudyTrials) else label_study(as_ledger(store), study)


def as_ledger(store: Ledger | str | os.PathLike[str]) -> Ledger:
    """The ledger at a place; a ledger itself."""
    return Ledger(store) if isinstance(store, str | os.PathLike) else store


def label_study(ledger: Ledger, study: str) -> StudyTrials:
    """Label the trials of a study, reading the records only of those without a valid cached outcome. Writes nothing.

    Raises:
        StudyError: unknown study; a trial planned twice; records that are not the study's; a complete trial whose pack
            or reference is missing.
    """
    plan = ledger.read_plan(study)
    entries = plan_entries(plan, study)
    segments = ledger.segments()  # before the records: those written meanwhile make a cached outcome stale, never wrong
    ends = ledger.read_outcomes(list(entries))
    check_all_planned(ends, entries, study)
    complete = {trial_id: end for trial_id, end in ends.items() if end["state"] == TrialState.COMPLETE}
    keys = {trial_id: cache_key(end, segments) for trial_id, end in complete.items()}
    stored = read_cache(ledger, study)
    cache = {i: stored[i] for i, key in keys.items() if i in stored and stored[i].key == key}
    uncached = {trial_id: end for trial_id, end in complete.items() if trial_id not in cache}
    labelled = _label_pending(ledger, study, uncached, entries)
    cache |= {trial_id: CachedOutcome(keys[trial_id], *outcome) for trial_id, outcome in labelled.items()}
    first_ms, in_progress = _incomplete(ledger, study, entries.keys() - complete.keys(), ends, entries)
    first_ms += [entry.first_ms for entry in cache.values() if entry.first_ms is not None]
    outcomes = {trial_id: cache[trial_id].outcome for trial_id in complete}
    return StudyTrials(
        ledger=ledger, study=study, plan=plan, entries=entries, ends=ends, outcomes=outcomes, cache=cache,
        uncached=frozenset(uncached), in_progress=in_progress,
        live=frozenset(ledger.live(study, in_progress.keys())), first_ms=min(first_ms, default=None),
    )  # fmt: skip


def update_outcome_cache(ledger: Ledger, study: str) -> StudyTrials:
    """Label the trials of a study, and store the outcomes that the cache lacks. Raises StudyError as `label_study`."""
    labelled = label_study(ledger, study)
    if labelled.uncached:
        write_cache(ledger, study, labelled.cache)
    return labelled


def _incomplete(
    ledger: Ledger,
    study: str,
    trial_ids: Collection[str],
    ends: Mapping[str, TrialEnd],
    entries: Mapping[str, PlannedTrial],
) -> tuple[list[int], dict[str, InProgress]]:
    """(times of first records, progress of the trials that have not ended) of trials that are not complete."""
    first_ms, in_progress = list[int](), dict[str, InProgress]()
    for trial_id, records in checked_histories(ledger.histories(trial_ids, ends), entries, study):
        first_ms.append(min(record["unix_ms"] for record in records))
        if trial_id not in ends:
            first, last = records[0], records[-1]
            in_progress[trial_id] = InProgress(
                evaluations=(first["evaluation"], last["evaluation"]), unix_ms=(first["unix_ms"], last["unix_ms"])
            )
    return first_ms, in_progress


def _label_pending(
    ledger: Ledger, study: str, complete: Mapping[str, TrialEnd], entries: Mapping[str, PlannedTrial]
) -> TimedOutcomes:
    """Label complete trials; many of them in two processes."""
    helper = helper_process(len(complete))
    if helper is None or ledger.files.local is None:  # no other process sees a store in this one's memory
        return _label_in_process(ledger, study, complete, entries)
    packs = sorted({end["pack_id"] for end in complete.values()})
    of_helper = set(packs[::2])  # each pack is read by one process
    helper_part, own_part = (
        {trial_id: end for trial_id, end in complete.items() if (end["pack_id"] in of_helper) == is_helper}
        for is_helper in (True, False)
    )
    outcomes: TimedOutcomes = {}
    try:
        future = helper.submit(_label_in_process, ledger, study, helper_part, {i: entries[i] for i in helper_part})
        outcomes = _label_in_process(ledger, study, own_part, entries)
        return outcomes | future.result()
    except BrokenExecutor as error:
        _log.warning("a helper process died (%s); this one labels the rest", error)
        rest = {trial_id: end for trial_id, end in complete.items() if trial_id not in outcomes}
        return outcomes | _label_in_process(ledger, study, rest, entries)


def _label_in_process(
    ledger: Ledger, study: str, complete: Mapping[str, TrialEnd], entries: Mapping[str, PlannedTrial]
) -> TimedOutcomes:
    def outcome(trial_id: str, records: Sequence[Record]) -> Outcome:
        pack_id = complete[trial_id]["pack_id"]
        try:
            packs = {pack_id: ledger.read_pack(pack_id)}
        except StoreError:
            packs = {}  # label_trial says what is missing
        return label_trial(trial_id, to_series(records), entries, complete, packs, Thresholds())

    outcomes: TimedOutcomes = {}
    for trial_id, records in checked_histories(ledger.histories(complete.keys(), complete), entries, study):
        outcomes[trial_id] = (min(record["unix_ms"] for record in records), outcome(trial_id, records))
    return outcomes | {trial_id: (None, outcome(trial_id, [])) for trial_id in complete.keys() - outcomes.keys()}
