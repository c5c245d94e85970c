"""Bring MLflow up to date with the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.heatmap import draw_heatmaps
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.execution.runner import ProgressFn, sync_all

if TYPE_CHECKING:
    from vistudy.study.tracking.sync import SyncReport


def sync(
    study: str, *, store: str = DEFAULT_STORE, tracking_uri: str | None = None, tick: ProgressFn | None = None
) -> SyncReport:
    """Bring MLflow up to date with the ledger, outcomes of the present rules included; rebuilds it if it was wiped.

    Raises:
        StudyError: unknown study, or MLflow cannot be reached.
    """
    from vistudy.analysis.outcomes.label_study import update_outcome_cache
    from vistudy.study.tracking.mirror import default_tracking_uri

    ledger = Ledger(store)
    update_outcome_cache(ledger, study)
    uri = tracking_uri or default_tracking_uri(store)
    _, heatmaps = draw_heatmaps(study, store=store, tracking_uri=uri)
    return sync_all(ledger, study, uri, heatmaps, tick)
