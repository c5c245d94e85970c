"""The mirror copies the ledger to MLflow, by one writer, in batches; `docs/records.md` says what a run holds.

Training never waits for it. If MLflow is down, slow or wiped, nothing is lost: the next sync writes what is missing,
with the ledger's timestamps, and nothing twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.client import Experiment, connect, import_mlflow
from vistudy.study.tracking.locations import (
    OWNER,
    adopt_database,
    former_place_of_files,
    is_owned,
    moved_message,
    other_owner,
)
from vistudy.study.tracking.sql import BulkExperiment, writable
from vistudy.study.tracking.sync import LabelFn, Labels, Syncer, SyncReport
from vistudy.study.tracking.uri import (
    EXAMPLE_FILTERS,
    UI_ENVIRONMENT,
    TrackingError,
    artifact_location,
    check_tracking_uri,
    database_file,
    default_tracking_uri,
    sqlite_uri,
    ui_command,
    without_password,
)

__all__ = [
    "EXAMPLE_FILTERS", "UI_ENVIRONMENT", "SyncReport", "TrackingError", "check_tracking_uri",
    "default_tracking_uri", "pages", "sync", "ui_command",
]  # fmt: skip


def sync(
    ledger: Ledger,
    study_name: str,
    tracking_uri: str,
    *,
    outcomes: Labels | None = None,
    label: LabelFn | None = None,
    relabel: bool = False,
    artifacts: Sequence[Path] = (),
    samples: bool = True,
    modes: Mapping[str, Any] | None = None,
    final: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Bring a study's MLflow experiment up to date with the ledger. Idempotent.

    Args:
        ledger: the source.
        study_name: a study in it; also the experiment's name.
        tracking_uri: sqlite:///file, http(s)://host:port, or a database.
        outcomes: tags of trials (see Labels), compared with every run, for example after a relabel.
        label: computes tags and the metric `q` of trials whose runs have not ended, from their records.
        relabel: also label trials whose runs have ended, and update their tags.
        artifacts: files for the parent run, such as heatmaps.
        samples: also write pictures of samples of trials that have ended.
        modes: data set -> (m, 2) centres of its real modes, drawn behind sampled points.
        final: no training is going on: runs of unfinished trials become KILLED, not RUNNING.
        progress: called with (trials done, trials to do).

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
        StudyBusyError: another process is syncing this study.
    """
    check_tracking_uri(tracking_uri)
    syncer = Syncer(
        ledger, study_name, lambda: open_experiment(tracking_uri, study_name, ledger.uri), samples=samples, modes=modes
    )
    with translate_errors(tracking_uri):
        return syncer.sync(
            outcomes=outcomes, label=label, relabel=relabel, artifacts=artifacts, final=final, progress=progress
        )


def open_experiment(uri: str, name: str, store: str | None = None) -> Experiment:
    """Open or create a study's experiment. Known database schemas are written in bulk, others through MLflow's client.

    A server decides where files go; without one they go to `mlartifacts`, next to an SQLite file or in the store.

    Raises:
        TrackingError: the experiment mirrors another store, or its files are in the folder of another store.
    """
    client, location = connect(uri), artifact_location(uri, store)
    existing = client.get_experiment_by_name(name)
    if existing is not None and (place := former_place_of_files(str(existing.artifact_location), name, location)):
        raise TrackingError(f"MLflow at {without_password(uri)}: {moved_message(name, place, uri)}")
    owner = existing.tags.get(OWNER) if existing is not None else None
    if store is not None and (other := other_owner(Ledger(store), name, uri, owner)):
        raise TrackingError(
            f"MLflow at {without_password(uri)}: experiment {name!r} is the mirror of the store {other}, which is "
            f"still there, and not of {store}. Two stores would replace each other's states: give this one another "
            "--tracking-uri (the default is a database of its own)."
        )
    experiment = (BulkExperiment if writable(client) else Experiment)(client, name, location)
    if store is not None and not is_owned(store, uri, owner):
        client.set_experiment_tag(experiment.id, OWNER, store)
    return experiment


def open_database(uri: str) -> None:
    """Import MLflow and create or migrate its database, which takes seconds, while Ray starts.

    A failure is ignored here: the mirror meets it again and reports it.
    """
    with contextlib.suppress(TrackingError), translate_errors(uri):
        connect(uri).search_experiments(max_results=1)


def experiment_url(uri: str, name: str, served_at: str = "http://127.0.0.1:5000") -> str | None:
    """URL of a study's runs, on its server or where `vistudy ui` serves a database; None if unknown."""
    path = database_file(uri)
    if path is not None and not (path.is_file() and path.stat().st_size):
        return None
    try:
        with translate_errors(uri):
            experiment = connect(uri, reads=True).get_experiment_by_name(name)
    except TrackingError:
        return None
    base = without_password(uri).rstrip("/") if uri.startswith("http") else served_at
    return f"{base}/#/experiments/{experiment.experiment_id}/runs" if experiment else None


def pages(store: str, tracking_uri: str | None, host: str, port: int) -> tuple[list[str], Path | None]:
    """Build the command that serves MLflow's pages for a store, and find the folder to start it in, if it matters.

    Raises:
        TrackingError: the URI is a server already, or the database was moved and cannot be rewritten.
        StoreError: there is no such store.
    """
    uri = tracking_uri or default_tracking_uri(store)
    command, path = ui_command(uri, host, port), database_file(uri)
    if tracking_uri is None:
        Ledger(store).study_names()  # raises if there is no store
    if path is None:
        return command, None
    if path.is_file() and path.stat().st_size:
        adopt_database(path)
    else:
        open_database(uri)
    if not {"%", "?"} & set(str(path)):
        return command, None
    # MLflow 3.17 would create a folder named like the encoded path, so it gets a relative path.
    return [sqlite_uri(Path(path.name)) if part == uri else part for part in command], path.parent


@contextlib.contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Raise every failure of MLflow, its database or the network as TrackingError."""
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        shown = without_password(uri)
        lines = str(error).replace(uri, shown).strip().splitlines() or [type(error).__name__]
        remedy = "Start it or correct --tracking-uri"
        if getattr(error, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            remedy = (
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it takes"
            )
        raise TrackingError(
            f"MLflow at {shown} does not answer or refuses: {lines[0][:300]}. Nothing is lost: the ledger has every "
            f"record. {remedy}, then `vistudy sync` writes what is missing."
        ) from error
