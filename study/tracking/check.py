"""Check a study's MLflow mirror: moved databases, runs without a trial, second runs, runs left RUNNING."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from vistudy.analysis.ledger.documents import TrialEnd
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.ledger.repair import Problem
from vistudy.study.tracking.client import Experiment, connect
from vistudy.study.tracking.locations import (
    OWNER,
    describe_move,
    former_place_of_files,
    former_places,
    is_own,
    moved_message,
    other_owner,
    rewrite_locations,
)
from vistudy.study.tracking.runs import ENDED, Run
from vistudy.study.tracking.uri import TrackingError, artifact_location, database_file, without_password


def check_moved_database(study: str, uri: str | None) -> Iterator[Problem]:
    """An SQLite database whose locations are those of a former place."""
    path = database_file(uri) if uri is not None else None
    if path is None:
        return
    only = None if is_own(path) else study
    with contextlib.suppress(TrackingError):  # `check_runs` reports a database that cannot be read
        if places := former_places(path, only):
            what = (
                f"{describe_move(places)} The next command that writes corrects its locations, `--repair` does it now"
            )
            yield Problem(
                kind="moved database", where=str(path), what=what, act=functools.partial(rewrite_locations, path, only)
            )


def check_runs(
    study: str, ledger: Ledger, trial_ids: Collection[str], ends: Mapping[str, TrialEnd], uri: str
) -> Iterator[Problem]:
    """Problems of the runs of a study's trials. Creates nothing."""
    shown, path = without_password(uri), database_file(uri)
    try:
        if path is not None and not (path.is_file() and path.stat().st_size):
            return
        client = connect(uri, reads=True)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            return
        api = Experiment(client, study)
        runs = [run for run in api.runs() if run.tags.get("vistudy.kind") == "trial"]
    except Exception as error:  # of MLflow, its database or the network, which share no class
        lines = str(error).replace(uri, shown).splitlines() or [type(error).__name__]
        yield Problem(kind="unreachable", where=shown, what=f"MLflow cannot be read: {lines[0][:300]}")
        return
    if other := other_owner(ledger, study, uri, experiment.tags.get(OWNER)):
        what = f"experiment {study!r} is the mirror of the store {other}, which is still there; its runs are left alone"
        yield Problem(kind="another store's mirror", where=shown, what=what)
        return
    location = str(experiment.artifact_location)
    if path is None and (place := former_place_of_files(location, study, artifact_location(uri, ledger.uri))):
        yield Problem(kind="moved store", where=shown, what=moved_message(study, place, uri))
    # Trials of an earlier plan, for example on other data, are no orphans, whether they ended or not.
    stored = {i for pack in ledger.packs().values() for i in pack.get("trial_ids", ())} | ledger.finished_trials()
    yield from _problems(api, runs, stored.union(trial_ids), ends)


def _problems(
    api: Experiment, runs: list[Run], trial_ids: Collection[str], ends: Mapping[str, TrialEnd]
) -> Iterator[Problem]:
    fullest: dict[str, Run] = {}
    for run in runs:
        trial_id = run.tags.get("vistudy.trial_id", "")
        if trial_id not in fullest or run.synced > fullest[trial_id].synced:
            fullest[trial_id] = run
    count = Counter(run.tags.get("vistudy.trial_id", "") for run in runs)
    for run in runs:
        trial_id = run.tags.get("vistudy.trial_id", "")
        if trial_id not in trial_ids:
            kind, what = "orphan run", f"run of {trial_id or 'no trial'}, which is not in the study"
            act = functools.partial(api.delete, run)
        elif run is not fullest[trial_id]:
            kind, what = "double run", f"one of {count[trial_id]} runs of {trial_id}, and not the fullest"
            act = functools.partial(api.delete, run)
        elif run.status == "RUNNING":
            kind, what = "left RUNNING", f"run of {trial_id} is RUNNING, but no process runs the study"
            status = ENDED[ends[trial_id]["state"]] if trial_id in ends else "KILLED"
            act = functools.partial(api.set_status, run, status)
        else:
            continue
        yield Problem(kind=kind, where=run.run_id, what=what, act=act)
