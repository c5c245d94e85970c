"""Draw the stability heatmaps of a study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.status import DEFAULT_STORE
from vistudy.study.execution.runner import LogFn, no_op
from vistudy.study.tracking.locations import detach_links

if TYPE_CHECKING:
    import pandas as pd


def draw_heatmaps(
    study: str,
    *,
    store: str = DEFAULT_STORE,
    tracking_uri: str | None = None,
    out: str | os.PathLike[str] | None = None,
    say: LogFn = no_op,
) -> tuple[pd.DataFrame, list[Path]]:
    """Draw a study's heatmaps as PNG, SVG and one offline HTML page. Returns its frame of trials and the files.

    `out`: folder; by default `heatmaps/<study>` in a local store, else in the present folder.

    Raises:
        StudyError: unknown study, or a frame that does not add up.
    """
    from vistudy.analysis.maps.heatmap import save_heatmaps
    from vistudy.analysis.maps.heatmap_page import heatmap_html
    from vistudy.analysis.tables.columns import NO_DATA, data_of
    from vistudy.analysis.tables.trials import load_frame
    from vistudy.study.tracking.mirror import experiment_url

    ledger = Ledger(store)
    factors = list(ledger.read_plan(study)["factors"]) or None
    frame = load_frame(ledger, study)
    folder = Path(out) if out is not None else Path("" if "://" in ledger.uri else ledger.uri, "heatmaps", study)
    say(f"drawing heatmaps into {folder}")
    detach_links(folder)
    files = save_heatmaps(frame, factors, folder, study)
    meta = ledger.read_meta(study)
    page = folder / f"{study}.html"
    url = experiment_url(tracking_uri, study) if tracking_uri else None
    provenance = {
        "study file": ledger.read_plan(study)["hash"],
        "git commit": meta["git"]["commit"] or "none",
        "vistudy": meta["versions"]["vistudy"],
        "torch": meta["versions"]["torch"],
        "data": "; ".join(f"{name}, {text}" for name, text in data_of(meta).items()) or NO_DATA,
    }
    page.write_text(heatmap_html(frame, factors, study=study, mlflow_url=url, provenance=provenance), "utf-8")
    return frame, [*files, page]
