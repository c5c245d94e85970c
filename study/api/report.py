"""Write the report of a study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.errors import ReadOnlyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.execution.runner import sync_all
from vistudy.study.tracking.locations import detach_links

if TYPE_CHECKING:
    from vistudy.analysis.report.report import Report


def report(
    study: str,
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    out: str | os.PathLike[str] | None = None,
    png: bool = False,
) -> tuple[Report, str | None]:
    """Write a study's report. Returns what was written, and why MLflow has no copy of it, if it has not.

    `out`: folder; by default `reports/<study>` in a local store, else in the present folder.
    `png`: write the pictures for print as PNG, too.

    Raises:
        StudyError: unknown study, or a store that does not add up.
    """
    from vistudy.analysis.outcomes.label_study import update_outcome_cache
    from vistudy.analysis.report.report import report as write
    from vistudy.study.execution.runner import real_modes
    from vistudy.study.tracking.mirror import TrackingError, experiment_url
    from vistudy.study.tracking.uri import default_tracking_uri

    ledger = Ledger(store)
    trials = update_outcome_cache(ledger, study)  # a second report reads no records
    uri = tracking_uri or default_tracking_uri(store)
    folder = Path(out) if out is not None else Path("" if "://" in ledger.uri else ledger.uri, "reports", study)
    detach_links(folder)
    written_report = write(trials, study, folder, mlflow_url=experiment_url(uri, study), modes=real_modes(), png=png)
    try:
        sync_all(ledger, study, uri, [written_report.html, written_report.markdown])
    except (TrackingError, ReadOnlyError) as error:
        return written_report, str(error)
    return written_report, None
