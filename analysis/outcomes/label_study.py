"""Outcomes of all trials of a study, judged once: what was judged before is noted in the store, and looked up.

The note (`studies/<name>/judged.json`) is derived from records and outcomes. It is trusted for a trial only if its end
and its pack's records are still those that were judged, by these rules. It may be deleted, and of two writers one may
overwrite the other: what is missing is judged again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.documents import PlannedTrial, Record, StoredPlan, TrialEnd
from vistudy.analysis.ledger.errors import StoreError
from vistudy.analysis.outcomes.histories import (
    check_all_planned,
    checked_histories,
    label_trial,
    plan_entries,
    to_series,
)
from vistudy.analysis.outcomes.labels import OUTCOME_VERSION, Thresholds
from vistudy.analysis.outcomes.rules import Outcome
from vistudy.analysis.parallel import helper_process

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger

FORMAT = 2
RULES = f"{OUTCOME_VERSION}-" + hashlib.sha256(repr(Thresholds()).encode()).hexdigest()[:12]
"""Which rules, with which thresholds, gave the outcomes of a note."""

_log = logging.getLogger("vistudy.judged")


@dataclass(frozen=True, kw_only=True, slots=True)
class InProgress:
    """The records so far of a trial that has not ended."""

    evaluations: tuple[int, int]
    """Number of the first and the last one recorded."""
    unix_ms: tuple[int, int]
    """When they were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledStudy:
    """Where the trials of a study stand."""

    plan: StoredPlan
    """Content of `plan.json`."""
    entries: dict[str, PlannedTrial]
    """trial_id -> entry of the plan."""
    ended: dict[str, TrialEnd]
    """trial_id -> outcome file, of those that have ended."""
    outcomes: dict[str, Outcome]
    """trial_id -> what it showed, of those that are complete, by the present rules."""
    begun: dict[str, InProgress]
    """trial_id -> progress of those that have records and have not ended."""
    live: frozenset[str]
    """Those of `begun` that are being trained now (`Ledger.live`)."""
    first_ms: int | None
    """When the study's first record was written, milliseconds since 1970 (UTC); None without records."""

    def state(self, trial_id: str) -> str:
        """complete, failed, censored, running, interrupted or planned."""
        if trial_id in self.ended:
            return str(self.ended[trial_id]["state"])
        if trial_id not in self.begun:
            return "planned"
        return "running" if trial_id in self.live else "interrupted"


def label_study(ledger: Ledger, study: str) -> LabelledStudy:
    """Judge the trials of a study, reading the records only of those whose outcome is not noted.

    Raises:
        StudyError: unknown study; a trial planned twice; records that are not the study's; a complete trial whose pack
            or reference is missing.
    """
    document = ledger.read_plan(study)
    entries = plan_entries(document, study)
    segments = ledger.segments()  # before the records: what is written meanwhile makes a note old, never wrong
    ended = ledger.read_outcomes(list(entries))
    check_all_planned(ended, entries, study)
    complete = {trial_id: outcome for trial_id, outcome in ended.items() if outcome["state"] == "complete"}
    keys = {trial_id: _cache_key(outcome, segments) for trial_id, outcome in complete.items()}
    noted = _read(ledger, study)
    known = {trial_id: noted[trial_id][1:] for trial_id, key in keys.items() if noted.get(trial_id, ("",))[0] == key}
    new = {trial_id: outcome for trial_id, outcome in complete.items() if trial_id not in known}
    begun, written = dict[str, InProgress](), list[int]()
    known |= _label_pending(ledger, study, new, entries)
    others = entries.keys() - complete.keys()
    for trial_id, records in checked_histories(ledger.histories(others, ended), entries, study):
        written.append(min(record["unix_ms"] for record in records))
        if trial_id not in ended:
            first, last = records[0], records[-1]
            begun[trial_id] = InProgress(
                evaluations=(first["evaluation"], last["evaluation"]), unix_ms=(first["unix_ms"], last["unix_ms"])
            )
    if new:
        _write(ledger, study, {trial_id: (keys[trial_id], *of_trial) for trial_id, of_trial in known.items()})
    written += [first_ms for first_ms, _ in known.values() if first_ms is not None]
    return LabelledStudy(
        plan=document, entries=entries, ended=ended, begun=begun,
        live=frozenset(ledger.live(study, begun.keys())), first_ms=min(written, default=None),
        outcomes={trial_id: known[trial_id][1] for trial_id in complete},
    )  # fmt: skip


def _label_pending(
    ledger: Ledger, study: str, complete: Mapping[str, TrialEnd], entries: Mapping[str, PlannedTrial]
) -> dict[str, tuple[int | None, Outcome]]:
    """trial_id -> (when its first record was written, what it showed) of complete trials; many: in two processes."""
    other = helper_process(len(complete))
    if other is None or ledger.files.local is None:  # a store in this process's memory is seen by no other
        return _label_in_process(ledger, study, complete, entries)
    packs = sorted({outcome["pack_id"] for outcome in complete.values()})
    theirs = set(packs[::2])  # a pack is read by one of the two
    parts = [
        {trial_id: outcome for trial_id, outcome in complete.items() if (outcome["pack_id"] in theirs) == there}
        for there in (True, False)
    ]
    found = dict[str, tuple[int | None, Outcome]]()
    try:
        later = other.submit(
            _label_in_process, ledger, study, parts[0], {trial_id: entries[trial_id] for trial_id in parts[0]}
        )
        found = _label_in_process(ledger, study, parts[1], entries)
        return found | later.result()
    except BrokenExecutor as error:
        _log.warning("a second process died (%s); this one judges the rest", error)
        rest = {trial_id: outcome for trial_id, outcome in complete.items() if trial_id not in found}
        return found | _label_in_process(ledger, study, rest, entries)


def _label_in_process(
    ledger: Ledger, study: str, complete: Mapping[str, TrialEnd], entries: Mapping[str, PlannedTrial]
) -> dict[str, tuple[int | None, Outcome]]:
    found: dict[str, tuple[int | None, Outcome]] = {}
    for trial_id, records in checked_histories(ledger.histories(complete.keys(), complete), entries, study):
        first_ms = min(record["unix_ms"] for record in records)
        found[trial_id] = (first_ms, _outcome(ledger, trial_id, records, entries, complete))
    for trial_id in complete.keys() - found.keys():  # complete without a record
        found[trial_id] = (None, _outcome(ledger, trial_id, [], entries, complete))
    return found


def _outcome(
    ledger: Ledger,
    trial_id: str,
    records: Sequence[Record],
    entries: Mapping[str, PlannedTrial],
    complete: Mapping[str, TrialEnd],
) -> Outcome:
    pack_id = complete[trial_id]["pack_id"]
    try:
        packs = {pack_id: ledger.read_pack(pack_id)}
    except StoreError:
        packs = {}  # judge_trial says what is missing
    return label_trial(trial_id, to_series(records), entries, complete, packs, Thresholds())


def _cache_key(outcome: TrialEnd, segments: Mapping[str, Mapping[int, int]]) -> str:
    """What an outcome was judged from: pack and attempt that ended the trial, and how much the pack has recorded."""
    recorded = sorted(segments.get(outcome["pack_id"], {}).items())
    return f"{outcome['pack_id']} {outcome['attempt']} {outcome['unix_ms']} {recorded}"


CachedOutcome = tuple[str, int | None, Outcome]
"""(what a trial was judged from, when its first record was written, what it showed)."""


def _read(ledger: Ledger, study: str) -> dict[str, CachedOutcome]:
    """trial_id -> what is noted of it; empty if there is no note that these rules can use."""
    data = ledger.read_judged(study)
    if data is None:
        return {}
    try:
        note = json.loads(data)
        if (note["format"], note["rules"]) != (FORMAT, RULES):
            return {}
        names = [field.name for field in dataclasses.fields(Outcome)]
        return {
            trial_id: (
                note["keys"][key],
                first_ms,
                Outcome(**dict(zip(names, [label, tuple(flags), *rest], strict=True))),
            )
            for trial_id, (key, first_ms, label, flags, *rest) in note["trials"].items()
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        _log.warning("studies/%s/judged.json is damaged (%s); its trials are judged again", study, error)
        return {}


def _write(ledger: Ledger, study: str, judged: Mapping[str, CachedOutcome]) -> None:
    """Note outcomes. Whoever may only read the store judges anew each time."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(key for key, *_ in judged.values()))}
    names = [field.name for field in dataclasses.fields(Outcome)]
    trials = {
        trial_id: [keys[key], first_ms, *(getattr(outcome, name) for name in names)]
        for trial_id, (key, first_ms, outcome) in judged.items()
    }
    note = {"format": FORMAT, "rules": RULES, "keys": list(keys), "trials": trials}
    try:
        ledger.write_judged(study, json.dumps(note, separators=(",", ":")).encode())
    except StoreError as error:
        _log.info("outcomes are not noted: %s", error)
