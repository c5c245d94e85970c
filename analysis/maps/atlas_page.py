"""The sample atlas: what trials generate, laid out on the axes of the heatmaps, over training time; one offline page.

Pictures of one block and time share a sheet, so that a study of hundreds of trials is a page of a few megabytes.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vistudy.analysis.figures.colours import share_colour, text_colour
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.maps.atlas_print import save_figures
from vistudy.analysis.maps.atlas_samples import MOST_PICTURES, AtlasSheet, AtlasTrial, Modes, Time, sheets, step_of
from vistudy.analysis.maps.heatmap_cells import HeatmapCell
from vistudy.analysis.maps.heatmap_page import embedded_json, page_environment, rates_summary
from vistudy.analysis.outcomes.label_study import as_ledger
from vistudy.analysis.outcomes.labels import FLAG_TEXT, LABEL_TEXT
from vistudy.analysis.tables.formatting import level_text

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger


def atlas_section(
    store: Ledger | str | os.PathLike[str],
    study: str,
    *,
    modes: Modes | None = None,
    most: int = MOST_PICTURES,
) -> Markup | None:
    """The atlas as a part of a page, with its own style and script; None if the study kept no samples.

    The page must allow inline styles and scripts and `data:` images, and nothing else. `modes`: data set -> centres of
    the real modes (m, 2), marked in grey; `most`: small pictures in all.

    Raises:
        StudyError: unknown study, or as `load_frame`.
    """
    sheets_ = sheets(store, study, modes=modes, most=most)
    return _section(sheets_) if sheets_ else None


def atlas(
    store: Ledger | str | os.PathLike[str],
    study: str,
    out: Path,
    *,
    modes: Modes | None = None,
    most: int = MOST_PICTURES,
) -> Path:
    """Write the atlas as a page `out` (.html) and, for print, as `<stem>.png` at the last time with samples.

    With several blocks the pictures are `<stem>-<number>-<model>-<data>.png`. Returns `out`.

    Raises:
        StudyError: the study kept no samples, its name is not known, or as `load_frame`.
    """
    sheets_ = sheets(store, study, modes=modes, most=most)
    if not sheets_:
        raise StudyError(f"study {study!r}: {_why_none(as_ledger(store), study)}")
    page = page_environment().get_template("atlas.html.j2").render(study=study, section=_section(sheets_))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    save_figures(sheets_, study, out.with_suffix(".png"))
    return out


def _why_none(ledger: Ledger, study: str) -> str:
    """Why a study has no samples to show, and what to do."""
    plan, ended, packs = ledger.read_plan(study), ledger.finished_trials(), ledger.packs().values()
    unfinished = [entry["trial_id"] for entry in plan["trials"] if entry["trial_id"] not in ended]
    planned = [e for block in plan.get("blocks", {}).values() for e in block["sample_evaluations"]]
    sample_evaluations = {trial_id: pack["samples"] for pack in packs for trial_id in pack.get("trial_ids", ())}
    coming = sorted({evaluation for trial_id in unfinished for evaluation in sample_evaluations.get(trial_id, planned)})
    if coming:
        last = max(entry["config"]["evaluations"] for entry in plan["trials"])
        when = " and ".join(filter(None, (", ".join(map(str, coming[:-1])), str(coming[-1]))))
        do = (
            "they are being trained"
            if ledger.live(study, unfinished)
            else "the same `vistudy run` command resumes them"
        )
        return (
            f"no samples that have a picture are stored yet. {len(unfinished)} of {len(plan['trials'])} trials have "
            f"not ended, and samples are stored at evaluation {when} of {last}: {do}; draw the atlas after that."
        )
    return (
        "no evaluation kept samples that have a picture. In the study file, `samples: {evaluations: [10, 20]}` keeps "
        "those of evaluations 10 and 20. A store does not train a trial again, so give the run another --store."
    )


def _section(sheets_: Sequence[AtlasSheet]) -> Markup:
    pages, details = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, sheet in enumerate(sheets_, 1):
        items = [item for some in sheet.shown.values() for item in some]
        columns = math.ceil(math.sqrt(len(items)))
        places = {item.row["trial_id"]: divmod(i, columns) for i, item in enumerate(items)}
        cells = {":".join(map(str, key)): _cell(sheet, cell, shown, places) for key, cell, shown in sheet.cells()}
        height, width = sheet.size
        details.append({
            "times": [_time_text(sheet, time) for time in sheet.times], "width": width, "height": height,
            "columns": columns, "cells": cells,
        })  # fmt: skip
        pages.append({
            "id": f"atlas-{number}", "sheet": sheet, "width": width, "height": height,
            "images": [_data_uri(_joined(items, time, columns, (height, width))) for time in sheet.times],
            "time": details[-1]["times"][-1], "facets": _facets(sheet, cells),
        })  # fmt: skip
    data = embedded_json({"blocks": details})
    return Markup(page_environment().get_template("atlas_section.html.j2").render(blocks=pages, data=data))


def _time_text(sheet: AtlasSheet, time: Time) -> str:
    low, high = sheet.steps(time)
    return f"{float(time):.0%} of the budget, " + (f"{low:,}" if low == high else f"{low:,} to {high:,}") + " updates"


def _facets(sheet: AtlasSheet, cells: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows from the top: tick text and, for each column, key and content of a cell, or None."""
    facets = []
    for number, facet in enumerate(sheet.block.facets):
        rows = []
        for y in reversed(range(len(sheet.block.y.levels))):
            keys = [f"{number}:{x}:{y}" for x in range(len(sheet.block.x.levels))]
            rows.append((sheet.block.y.texts[y], [(key, cells[key]) if key in cells else None for key in keys]))
        facets.append({"title": facet.title, "rows": rows})
    return facets


def _cell(
    sheet: AtlasSheet, cell: HeatmapCell, shown: Sequence[AtlasTrial], places: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    """What page and script need of a cell. Its first trial of the first seed stands there before anything is chosen."""
    axes = ((sheet.block.x, cell.x), (sheet.block.y, cell.y))
    trials = [_trial(sheet, item, places[item.row["trial_id"]]) for item in shown]
    rates = cell.rates
    fill = share_colour(rates["share"]) if rates["n"] else "#ffffff"
    first = next((trial for trial in trials if trial["seed"] == sheet.seeds[0]), None)
    return {
        "place": ", ".join(f"{axis.label}: {axis.texts[i]}" for axis, i in axes if axis.label) or sheet.heading,
        "summary": rates_summary(rates), "count": f"{rates['k']}/{rates['n']}" if rates["n"] else "", "fill": fill,
        "ink": text_colour(fill), "trials": trials, "first": first,
    }  # fmt: skip


def _trial(sheet: AtlasSheet, item: AtlasTrial, place: tuple[int, int]) -> dict[str, Any]:
    row = item.row
    last = max(item.pictures)
    ended = next((step_of(row, time) for time in sheet.times if time > last), None)
    q = row["q_final"]
    names = ("g_lr", "d_lr", "reg_weight")
    return {
        "id": row["trial_id"], "seed": int(row["seed"]), "row": place[0], "column": place[1],
        "has": [time in item.pictures for time in sheet.times], "ended": ended is not None,
        "outcome": LABEL_TEXT[row["outcome"]][0] if pd.notna(row["outcome"]) else row["state"],
        "sentence": LABEL_TEXT[row["outcome"]][1] if pd.notna(row["outcome"]) else "",
        "q": None if pd.isna(q) else f"{q:.3g}",
        "flags": [FLAG_TEXT[flag] for flag in str(row["flags"] or "").split(";") if flag in FLAG_TEXT],
        "config": {name: level_text(None, float(row[name])) for name in names if pd.notna(row[name])},
        "t_div": None if pd.isna(row["t_div"]) else f"{row['t_div']:,.0f}",
    }  # fmt: skip


def _joined(items: Sequence[AtlasTrial], time: Time, columns: int, size: tuple[int, int]) -> np.ndarray:
    """All pictures of a time in one, row by row; white where a trial has none."""
    height, width = size
    rows = math.ceil(len(items) / columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, item in enumerate(items):
        if time in item.pictures:
            top, left = i // columns * height, i % columns * width
            sheet[top : top + height, left : left + width] = item.pictures[time]
    return sheet


def _data_uri(sheet: np.ndarray) -> str:
    """PNG with at most 64 colours; a lossy WebP where the pictures are colourful."""
    from PIL import Image

    image, buffer = Image.fromarray(sheet), io.BytesIO()
    kind = "png" if image.getcolors(1 << 16) else "webp"
    if kind == "png":
        image.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "WEBP", quality=80, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
