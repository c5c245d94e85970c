"""States of the trials of a study, from the ledger alone or with their outcomes."""

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
HEARTBEAT_STALE_MS = 120_000
"""Packs that have recorded nothing for this long are left out of the estimate of the time to go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStates:
    """States of the trials of a plan."""

    states: dict[str, TrialState]
    """trial_id -> state."""
    unfinished: frozenset[str]
    """trial_ids of those that have not ended."""
    checkpoints: dict[str, float]
    """trial_id of those of them with a checkpoint -> share of their training before it."""


def trial_states(ledger: Ledger, planned: Plan) -> TrialStates:
    """Read listings, trial ends and heartbeats. Labels nothing; the store need not know the plan yet."""
    updates = {trial.trial_id: trial.config.d_updates for trial in planned.trials}
    if not ledger.exists():
        return TrialStates(
            states=dict.fromkeys(updates, TrialState.PLANNED), unfinished=frozenset(updates), checkpoints={}
        )
    states = {trial_id: TrialState(end["state"]) for trial_id, end in ledger.read_outcomes(list(updates)).items()}
    unfinished = frozenset(updates.keys() - states.keys())
    checkpoints: dict[str, float] = {}
    started: set[str] = set()
    for pack_id, pack in ledger.packs().items() if unfinished else ():
        unfinished_here = unfinished.intersection(pack.get("trial_ids", ()))
        if unfinished_here and ledger.progress_of(pack_id) >= 0:
            started |= unfinished_here
            if at := ledger.saved_updates(pack_id):
                checkpoints |= {
                    trial_id: max(checkpoints.get(trial_id, 0.0), min(1.0, at / updates[trial_id]))
                    for trial_id in unfinished_here
                }
    live = ledger.live(planned.study.name, started)
    begun_as = {i: TrialState.RUNNING if i in live else TrialState.INTERRUPTED for i in started}
    states |= {trial_id: begun_as.get(trial_id, TrialState.PLANNED) for trial_id in sorted(unfinished)}
    return TrialStates(states=states, unfinished=unfinished, checkpoints=checkpoints)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """State of a study."""

    study: str
    trials: int
    states: dict[str, int]
    outcomes: dict[str, int]
    progress: float
    """Share of all evaluations that are recorded, 0 to 1."""
    n_unfinished: int
    """Trials that have not ended."""
    mean_progress: float | None
    """Mean share of their evaluations that the started ones have recorded; None: none was started."""
    runner: str | None
    """The process that runs the study now, for messages; None if none does, and on stores without locks."""
    orphaned: bool
    """Trials are being trained, and no process runs the study: its driver was killed, or another study shares them."""
    eta_s: float | None
    """Seconds to the end at the present pace; None if the study is not running."""
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
        if trial_id in labelled.live and last_ms > first_ms and now - last_ms < HEARTBEAT_STALE_MS:
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
        states=count_values(states.values()),
        outcomes=count_values(outcome.label for outcome in labelled.outcomes.values()),
        progress=done / total if total else 1.0,
        n_unfinished=len(labelled.entries) - len(labelled.ends),
        mean_progress=sum(shares) / len(shares) if shares else None,
        runner=runner.who if runner else None,
        orphaned=orphaned,
        eta_s=(total - done) / pace if pace and not orphaned else None,
        errors={i: str(labelled.ends[i]["error"]) for i, state in states.items() if state == TrialState.FAILED},
    )


def count_values(values: Iterable[str]) -> dict[str, int]:
    """Count values, most frequent first. Keys are plain strings, also those of an enumeration."""
    return dict(Counter(map(str, values)).most_common())
