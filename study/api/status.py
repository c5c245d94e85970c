"""Where the trials of a study stand: by the ledger alone, and with their outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.documents import TrialState
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.provenance import now_ms

if TYPE_CHECKING:
    from vistudy.study.planning.plan import Plan

DEFAULT_STORE = "vistudy-data"
STALE_MS = 120_000
"""Packs that have recorded nothing for so long do not count in an estimate of the time to go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """States of the trials of a plan."""

    states: dict[str, TrialState]
    """trial_id -> state."""
    left: frozenset[str]
    """Those that have not ended."""
    saved: dict[str, float]
    """Those of them with a checkpoint -> share of their training that is in it."""


def standing(ledger: Ledger, planned: Plan) -> Standing:
    """Read listings, trial ends and heartbeats. Labels nothing; the store need not know the plan yet."""
    updates = {trial.trial_id: trial.config.d_updates for trial in planned.trials}
    if not ledger.exists():
        return Standing(states=dict.fromkeys(updates, TrialState.PLANNED), left=frozenset(updates), saved={})
    states = {trial_id: TrialState(end["state"]) for trial_id, end in ledger.read_outcomes(list(updates)).items()}
    unfinished = frozenset(updates.keys() - states.keys())
    saved: dict[str, float] = {}
    started: set[str] = set()
    for pack_id, pack in ledger.packs().items() if unfinished else ():
        unfinished_here = unfinished.intersection(pack.get("trial_ids", ()))
        if unfinished_here and ledger.progress_of(pack_id) >= 0:
            started |= unfinished_here
            if at := ledger.saved_updates(pack_id):
                saved |= {
                    trial_id: max(saved.get(trial_id, 0.0), min(1.0, at / updates[trial_id]))
                    for trial_id in unfinished_here
                }
    live = ledger.live(planned.study.name, started)
    begun_as = {i: TrialState.RUNNING if i in live else TrialState.INTERRUPTED for i in started}
    states |= {trial_id: begun_as.get(trial_id, TrialState.PLANNED) for trial_id in sorted(unfinished)}
    return Standing(states=states, left=unfinished, saved=saved)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a study stands."""

    study: str
    trials: int
    states: dict[str, int]
    outcomes: dict[str, int]
    progress: float
    """Share of all evaluations that are recorded, 0 to 1."""
    left: int
    """Trials that have not ended."""
    left_at: float | None
    """Mean share of their evaluations that those of them which were begun have recorded; None: none was begun."""
    runner: str | None
    """The process that runs the study now, in words; None where nobody does, and on stores without locks."""
    orphaned: bool
    """Trials are being trained, and no process runs the study: its driver was killed, or another study shares them."""
    eta_s: float | None
    """Seconds to the end at the present pace, while the study is run."""
    errors: dict[str, str]
    """Failed trial -> traceback."""


def status(study: str, *, store: str = DEFAULT_STORE) -> Status:
    """Count a study's trials by state and outcome.

    Raises:
        StudyError: unknown study.
    """
    from vistudy.analysis.outcomes.label_study import label_study

    ledger = Ledger(store)
    labelled = label_study(ledger, study)
    states = {trial_id: labelled.state(trial_id) for trial_id in labelled.entries}
    evaluations = {trial_id: int(entry["config"]["evaluations"]) for trial_id, entry in labelled.entries.items()}
    now, pace = now_ms(), 0.0
    done = sum(evaluations[trial_id] for trial_id in labelled.ends)
    for trial_id, in_progress in labelled.in_progress.items():
        (first, last), (first_ms, last_ms) = in_progress.evaluations, in_progress.unix_ms
        done += last
        if trial_id in labelled.live and last_ms > first_ms and now - last_ms < STALE_MS:
            pace += (last - first) / (last_ms - first_ms) * 1000
    total = sum(evaluations.values())
    shares = [
        in_progress.evaluations[1] / evaluations[trial_id] for trial_id, in_progress in labelled.in_progress.items()
    ]
    runner = ledger.runner(study)
    orphaned = bool(labelled.live) and runner is None and ledger.files.local is not None
    return Status(
        study=study,
        trials=len(labelled.entries),
        states=counts(states.values()),
        outcomes=counts(outcome.label for outcome in labelled.outcomes.values()),
        progress=done / total if total else 1.0,
        left=len(labelled.entries) - len(labelled.ends),
        left_at=sum(shares) / len(shares) if shares else None,
        runner=runner.who if runner else None,
        orphaned=orphaned,
        eta_s=(total - done) / pace if pace and not orphaned else None,
        errors={i: str(labelled.ends[i]["error"]) for i, state in states.items() if state == TrialState.FAILED},
    )


def counts(values: Iterable[str]) -> dict[str, int]:
    """Count values, most frequent first. Keys are plain strings, also those of an enumeration."""
    return dict(Counter(map(str, values)).most_common())
