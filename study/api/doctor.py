"""Find damage in a store and its MLflow mirror, and repair it. Nothing is deleted.

Files that are damaged, half-written or without their counterpart are moved to `quarantine/<time>/`; then `vistudy run`
trains again what is missing, from the checkpoints that remain. Runs of MLflow are moved to MLflow's trash.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vistudy.analysis.ledger.check import PackFiles, check_ends, check_leftovers, check_plan, check_trials
from vistudy.analysis.ledger.documents import PlannedTrial, TrialEnd
from vistudy.analysis.ledger.errors import StudyBusyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.ledger.repair import Problem, repair
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.tracking.check import check_moved_database, check_runs
from vistudy.study.tracking.uri import default_tracking_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A problem of a store or its mirror."""

    kind: str
    where: str
    """File, trial or run."""
    what: str
    repaired: bool


def doctor(
    study: str, *, store: str = DEFAULT_STORE, tracking_uri: str | None = None, repair: bool = False
) -> tuple[list[Finding], str | None]:
    """Check a study's store and its MLflow mirror for damage. Arguments, result and errors as of `examine`.

    `tracking_uri`: default, the store's own database.
    """
    uri = tracking_uri or default_tracking_uri(store)
    return examine(study, Ledger(store), uri, repairing=repair, stamp=time.strftime("%Y%m%d-%H%M%S"))


def examine(
    study: str, ledger: Ledger, tracking_uri: str | None, *, repairing: bool, stamp: str
) -> tuple[list[Finding], str | None]:
    """Check a study, and repair it if `repairing`.

    Args:
        study: its name.
        ledger: the store.
        tracking_uri: MLflow; None: do not check it.
        repairing: repair problems.
        stamp: name of the folder below `quarantine/`.

    Returns:
        The findings; and which process runs the study now, if one does: the files that it writes are not checked.

    Raises:
        StudyBusyError: the study is running, and `repairing`.
        StoreError: there is no such store.
    """
    if not ledger.exists():
        ledger.finished_trials()  # raises, and says what is there

    def finding(problem: Problem) -> Finding:
        if repairing and problem.repairable:
            repair(problem, ledger.files, stamp)
        repaired = repairing and problem.repairable
        return Finding(kind=problem.kind, where=problem.where, what=problem.what, repaired=repaired)

    try:
        with _locked(study, ledger, repairing):
            # First: a connection to a linked database that is replaced would write into the former one.
            moved = [finding(problem) for problem in check_moved_database(study, tracking_uri)]
            problems = list(_check(study, ledger, tracking_uri))
            return moved + [finding(problem) for problem in problems], None
    except StudyBusyError as running:
        if repairing:
            raise
        problems = [problem for problem in _check(study, ledger, None) if problem.kind != "half-written"]
        return [finding(problem) for problem in (*check_moved_database(study, tracking_uri), *problems)], str(running)


@contextlib.contextmanager
def _locked(study: str, ledger: Ledger, repairing: bool) -> Iterator[None]:
    """Hold the study's locks. Checking a store that cannot be written to needs none."""
    root = ledger.files.local
    if not repairing and root is not None and not os.access(root / "studies" / study, os.W_OK):
        yield
        return
    with ledger.lock(study, "run"), ledger.lock(study, "sync"):
        yield


def _check(study: str, ledger: Ledger, tracking_uri: str | None) -> Iterator[Problem]:
    files = ledger.files
    yield from check_leftovers(files)
    plan = check_plan(ledger, study)
    if isinstance(plan, Problem):
        yield plan
        return
    trials = {trial["trial_id"]: trial for trial in plan["trials"]}
    yield from _check_data(study, trials)
    ends: dict[str, TrialEnd] = {}
    yield from check_ends(ledger, trials.keys(), ends)
    packs: dict[str, PackFiles] = {}
    for name in files.list("packs"):
        pack = PackFiles(files, name, trials.keys())
        yield from pack.problems
        if pack.relevant:
            packs[name] = pack
    yield from check_trials(trials, ends, packs)
    if tracking_uri is not None:
        yield from check_runs(study, ledger, trials.keys(), ends, tracking_uri)


def _check_data(study: str, trials: Mapping[str, PlannedTrial]) -> Iterator[Problem]:
    """Trials of one data set that were trained on different data, or whose data are not recorded."""
    from vistudy.trainables.data import DATASETS  # imports torch

    fingerprints: dict[str, Counter[str]] = {}
    for trial in trials.values():
        config = trial["config"]
        fingerprints.setdefault(config["data"], Counter())[config.get("data_fingerprint", "")] += 1
    for data, counts in fingerprints.items():
        where = f"studies/{study}/plan.json"
        if len(counts) > 1:
            parts = ", ".join(f"{n} on {mark or 'data that are not recorded'}" for mark, n in counts.items())
            what = f"trials of {data} are of different data, and share cells: {parts}. Run the study again"
            yield Problem(kind="mixed data", where=where, what=what)
        elif "" in counts and data in DATASETS and DATASETS[data].from_files:
            what = (
                f"data not recorded: it is unknown whether its {counts['']} trials of {data} saw the same files. "
                "Run the study again: its trials are trained anew, and these are kept"
            )
            yield Problem(kind="data not recorded", where=where, what=what)
