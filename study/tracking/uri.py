"""Tracking URIs: default, checks, the command that serves MLflow, and example filters. Does not import MLflow."""

from __future__ import annotations

import os
import re
import sys
import urllib.parse
from pathlib import Path

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger

EXAMPLE_FILTERS: tuple[tuple[str, str], ...] = (
    ("all trials, without the run of the study itself", "tags.vistudy.kind = 'trial'"),
    ("trials that were good throughout their final window", "tags.vistudy.outcome = 'converged'"),
    ("trials that found the modes and lost them again", "tags.vistudy.outcome = 'mode_collapse_late'"),
    ("trials that diverged, with the regularizer on", "tags.vistudy.outcome = 'diverged' and params.reg_weight != '0'"),
    ("one level of a factor, all its cells", "tags.vistudy.cell LIKE '%reg_weight=5,%'"),
    ("one seed", "tags.vistudy.kind = 'trial' and tags.vistudy.seed = '0'"),
    ("good at the last evaluation", "metrics.dist < 0.1 and metrics.cov > 0.9"),
    ("the regularizer's gradient outweighs the adversarial one", "metrics.rho > 1"),
    ("trials that a machine failed; the tag vistudy.error has the traceback", "tags.vistudy.state = 'failed'"),
)
"""(description, filter) for the search field of an experiment."""

UI_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
"""Environment for `ui_command`; without job runners a server takes a third of the memory."""

DATABASE = "mlflow.db"
"""Name of a store's own database."""
FILES = "mlartifacts"
"""Folder of runs' files, next to a database."""

_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


class TrackingError(StudyError):
    """MLflow cannot be reached or refuses. The ledger is complete; `vistudy sync` catches up."""


def default_tracking_uri(store: str | os.PathLike[str]) -> str:
    """URI of MLflow's database in a local store.

    Raises:
        TrackingError: the store is not a local directory; a database file needs one.
    """
    ledger = Ledger(store)
    if "://" in ledger.uri:
        raise TrackingError(
            f"store {ledger.uri}: MLflow's database cannot live there. Give --tracking-uri, for example "
            "http://your-server:5000 or sqlite:///mlflow.db"
        )
    return sqlite_uri(Path(ledger.uri, DATABASE))


def sqlite_uri(path: Path) -> str:
    """URI of an SQLite file. SQLAlchemy decodes it and ends the path at a question mark."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def check_tracking_uri(uri: str) -> None:
    """Refuse URIs that MLflow would refuse later, or misread.

    Raises:
        TrackingError: not a database or server URI.
    """
    scheme = uri.split("://")[0].split("+")[0] if "://" in uri else ""
    if scheme not in _SCHEMES:
        hint = "" if scheme else f" For a file write sqlite:///{os.path.abspath(uri or 'mlflow.db')}"
        raise TrackingError(
            f"tracking URI {without_password(uri)!r}: expected one of {', '.join(f'{s}://' for s in _SCHEMES)} "
            f"(MLflow no longer writes plain folders).{hint}"
        )


def ui_command(tracking_uri: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Build the command that serves MLflow's pages; run it with UI_ENVIRONMENT.

    Raises:
        TrackingError: the URI is a server already.
    """
    check_tracking_uri(tracking_uri)
    if tracking_uri.startswith("http"):
        raise TrackingError(f"{tracking_uri} is a server already: open it in a browser.")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    location = artifact_location(tracking_uri)
    if location:  # the second stores what clients upload through it; otherwise the working directory would
        command += ["--default-artifact-root", location, "--artifacts-destination", location]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def artifact_location(uri: str, store: str | None = None) -> str | None:
    """URI of the folder for artifacts: next to a database file, else in a local store, else None (MLflow decides)."""
    path = database_file(uri)
    if path is None and not uri.startswith("http") and store is not None and "://" not in store:
        return (Path(store).absolute() / FILES).as_uri()
    return (path.parent / FILES).as_uri() if path else None


def database_file(uri: str) -> Path | None:
    """Absolute path of an SQLite URI, as SQLAlchemy parses it; None for other URIs."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(os.path.abspath(urllib.parse.unquote(match[1]))) if match else None


def check_database(uri: str) -> None:
    """Create the folder of an SQLite database, and refuse at once what MLflow would retry for minutes.

    Raises:
        TrackingError: the file is no database, or cannot be written.
    """
    path = database_file(uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.seek(0)
            head = file.read(16)
    except OSError as error:
        raise TrackingError(
            f"tracking URI {uri}: cannot write {path} ({error.strerror}). Give another file."
        ) from error
    if head not in (b"", b"SQLite format 3\0"):
        raise TrackingError(f"tracking URI {uri}: {path} is not an SQLite database. Give another file.")


def without_password(uri: str) -> str:
    """The URI without its password, for messages."""
    parts = urllib.parse.urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri
