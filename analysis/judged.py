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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.outcome import Outcome
from analysis.taxonomy import OUTCOME_VERSION, Thresholds
from analysis.trials import by_trial, judge_trial, planned, refuse_strangers, series_of
from study.errors import StoreError

if TYPE_CHECKING:
    from study.ledger import Ledger

FORMAT = 1
RULES = f"{OUTCOME_VERSION}-" + hashlib.sha256(repr(Thresholds()).encode()).hexdigest()[:12]
"""Which rules, with which thresholds, gave the outcomes of a note."""

_log = logging.getLogger("vistudy.judged")


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The records so far of a trial that has not ended."""

    evaluations: tuple[int, int]
    """Number of the first and the last one recorded."""
    unix_ms: tuple[int, int]
    """When they were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Where the trials of a study stand."""

    plan: dict[str, Any]
    """Content of `plan.json`."""
    entries: dict[str, dict[str, Any]]
    """trial_id -> entry of the plan."""
    ended: dict[str, dict[str, Any]]
    """trial_id -> outcome file, of those that have ended."""
    outcomes: dict[str, Outcome]
    """trial_id -> what it showed, of those that are complete, by the present rules."""
    begun: dict[str, Begun]
    """trial_id -> progress of those that have records and have not ended."""

    def state(self, trial_id: str) -> str:
        """complete, failed, running or planned."""
        if trial_id in self.ended:
            return str(self.ended[trial_id]["state"])
        return "running" if trial_id in self.begun else "planned"


def judge_study(ledger: Ledger, study: str) -> Judged:
    """Judge the trials of a study, reading the records only of those whose outcome is not noted.

    Raises:
        StudyError: unknown study; a trial planned twice; records that are not the study's; a complete trial whose pack
            or reference is missing.
    """
    document = ledger.read_plan(study)
    entries = planned(document, study)
    segments = ledger.segments()  # before the records: what is written meanwhile makes a note old, never wrong
    ended = ledger.read_outcomes(list(entries))
    refuse_strangers(ended, entries, study)
    complete = {trial_id: outcome for trial_id, outcome in ended.items() if outcome["state"] == "complete"}
    keys = {trial_id: _key(outcome, segments) for trial_id, outcome in complete.items()}
    noted = _read(ledger, study)
    outcomes = {trial_id: noted[trial_id][1] for trial_id, key in keys.items() if noted.get(trial_id, ("",))[0] == key}
    new, begun = complete.keys() - outcomes.keys(), {}
    unread = set(new)
    for trial_id, records in by_trial(ledger.histories([*new, *(entries.keys() - ended.keys())]), entries, study):
        if trial_id not in new:
            first, last = records[0], records[-1]
            begun[trial_id] = Begun(
                evaluations=(first["evaluation"], last["evaluation"]), unix_ms=(first["unix_ms"], last["unix_ms"])
            )
            continue
        unread.discard(trial_id)
        outcomes[trial_id] = _outcome(ledger, trial_id, records, entries, complete)
    for trial_id in unread:  # complete without a record
        outcomes[trial_id] = _outcome(ledger, trial_id, [], entries, complete)
    if new:
        _write(ledger, study, {trial_id: (keys[trial_id], outcome) for trial_id, outcome in outcomes.items()})
    return Judged(plan=document, entries=entries, ended=ended, outcomes=outcomes, begun=begun)


def _outcome(
    ledger: Ledger,
    trial_id: str,
    records: list[Mapping[str, Any]],
    entries: Mapping[str, dict[str, Any]],
    complete: Mapping[str, dict[str, Any]],
) -> Outcome:
    pack_id = complete[trial_id]["pack_id"]
    try:
        packs = {pack_id: ledger.read_pack(pack_id)}
    except StoreError:
        packs = {}  # judge_trial says what is missing
    return judge_trial(trial_id, series_of(records), entries, complete, packs, Thresholds())


def _key(outcome: Mapping[str, Any], segments: Mapping[str, Mapping[int, int]]) -> str:
    """What an outcome was judged from: pack and attempt that ended the trial, and how much the pack has recorded."""
    recorded = sorted(segments.get(outcome["pack_id"], {}).items())
    return f"{outcome['pack_id']} {outcome['attempt']} {outcome['unix_ms']} {recorded}"


def _read(ledger: Ledger, study: str) -> dict[str, tuple[str, Outcome]]:
    """trial_id -> (key, outcome) of the note; empty if there is none that these rules can use."""
    data = ledger.read_judged(study)
    if data is None:
        return {}
    try:
        note = json.loads(data)
        if (note["format"], note["rules"]) != (FORMAT, RULES):
            return {}
        names = [field.name for field in dataclasses.fields(Outcome)]
        return {
            trial_id: (note["keys"][key], Outcome(**dict(zip(names, [label, tuple(flags), *rest], strict=True))))
            for trial_id, (key, label, flags, *rest) in note["trials"].items()
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        _log.warning("studies/%s/judged.json is damaged (%s); its trials are judged again", study, error)
        return {}


def _write(ledger: Ledger, study: str, judged: Mapping[str, tuple[str, Outcome]]) -> None:
    """Note outcomes. Whoever may only read the store judges anew each time."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(key for key, _ in judged.values()))}
    names = [field.name for field in dataclasses.fields(Outcome)]
    trials = {
        trial_id: [keys[key], *(getattr(outcome, name) for name in names)]
        for trial_id, (key, outcome) in judged.items()
    }
    note = {"format": FORMAT, "rules": RULES, "keys": list(keys), "trials": trials}
    try:
        ledger.write_judged(study, json.dumps(note, separators=(",", ":")).encode())
    except StoreError as error:
        _log.info("outcomes are not noted: %s", error)
