"""Stability heatmaps as one offline HTML page whose cells show their trials and how to find them in MLflow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from vistudy.analysis.figures.colours import PAPER, THEORY, share_colour, text_colour
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.maps.dirac_overlay import NAME, boundary_lines
from vistudy.analysis.maps.heatmap_cells import MARKS, PLACEBO, HeatmapBlock, HeatmapCell, blocks
from vistudy.analysis.outcomes.labels import FLAG_TEXT, LABEL_TEXT, OUTCOME_VERSION

TRIAL_FIELDS = (
    "trial_id", "seed", "state", "outcome", "flags", "q_final", "q_best", "t_thr", "t_coll", "t_div", "wall_s", "error",
)  # fmt: skip
"""What the page shows of a trial."""
MAX_ERROR = 600
"""Characters of a traceback that the page keeps: the end, where its message is."""


def heatmap_html(
    frame: pd.DataFrame,
    factors: Iterable[str] | None = None,
    *,
    study: str,
    mlflow_url: str | None = None,
    title: str | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Draw a study's heatmaps as a page that needs no network. `factors`: None for those of the trials' cells.

    `mlflow_url`: page of the study's experiment in MLflow, such as `http://127.0.0.1:5000/#/experiments/1`; cells then
    link to their search. `provenance`: name -> text, shown at the foot (file hash, git commit, time). `#cell=` and a
    cell's tag in the address opens that cell.

    Raises:
        StudyError: `mlflow_url` is not http or https.
    """
    if mlflow_url is not None and urlsplit(mlflow_url).scheme not in ("http", "https"):
        raise StudyError(f"mlflow_url: got {mlflow_url!r}; give the http:// or https:// address of the experiment")
    blocks_ = blocks(frame, factors)
    cells = [cell for block in blocks_ for facet in block.facets for cell in facet.cells]
    tags = [_tag(cell) for cell in cells]
    details: dict[str, dict[str, Any]] = {}
    pages = [_block(block, tags, len(blocks_) > 1, mlflow_url, details) for block in blocks_]
    page = page_environment().get_template("heatmap.html.j2")
    return page.render(
        study=study,
        title=title or study,
        blocks=pages,
        data=embedded_json({"cells": details, "labels": LABEL_TEXT, "flags": FLAG_TEXT, "fields": TRIAL_FIELDS}),
        totals=_totals(frame),
        outcomes=_tally(frame),
        marks=[
            (mark, word) for name, mark, word, _ in MARKS if any(cell.rates["n"] and cell.rates[name] for cell in cells)
        ],
        theory={"name": NAME, "strokes": ((PAPER, 5), (THEORY, 2.5))}
        if any(facet["lines"] for block in pages for facet in block["facets"])
        else None,
        ramp=[share_colour(i / 20) for i in range(21)],
        provenance={"outcome rules": f"version {OUTCOME_VERSION}", **(provenance or {})},
    )


def mlflow_filter(cell_tags: Iterable[str], model: str | None = None, data: str | None = None) -> list[str]:
    """Filter strings that find the runs of these plan cells in MLflow's search, one for each."""
    extra = [f"params.{name} = {_quoted(value)}" for name, value in (("model", model), ("data", data)) if value]
    return [" and ".join([f'tags."vistudy.cell" = {_quoted(tag)}', *extra]) for tag in cell_tags]


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def page_environment() -> jinja2.Environment:
    """Templates of pages: everything that is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("vistudy.analysis"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def embedded_json(content: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _block(
    block: HeatmapBlock, tags: list[str], several: bool, mlflow_url: str | None, details: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What the template draws of a block; adds its cells' trials to `details`."""
    facets = []
    for facet in block.facets:
        rows: list[list[dict[str, Any] | None]] = [[None] * len(block.x.levels) for _ in block.y.levels]
        for cell in facet.cells:
            tag = _tag(cell)
            key = tag if tags.count(tag) == 1 else f"{block.key}:{facet.title}:{cell.x}:{cell.y}:{tag}"
            place = _place(block, facet.title, cell)
            details[key] = _details(block, cell, place, several, mlflow_url)
            rows[len(rows) - 1 - cell.y][cell.x] = _cell(cell, key, place)
        lines = [_path(line, len(block.y.levels)) for line in boundary_lines(block, facet)]
        labelled_rows = list(zip(reversed(block.y.texts), rows, strict=True))
        facets.append({"title": facet.title, "rows": labelled_rows, "lines": lines})
    return {
        "heading": f"{block.model} on {block.data}", "trials": block.trials, "pooled": ", ".join(block.pooled),
        "x": block.x, "y": block.y, "facets": facets,
    }  # fmt: skip


def _path(line: NDArray[np.float64], rows: int) -> str:
    """A line in cells from the lower left as an SVG path in cells from the upper left."""
    return "M" + "L".join(f"{x:.3f} {rows - y:.3f}" for x, y in line)


def _tag(cell: HeatmapCell) -> str:
    """The plan's cell; the first of several where a heatmap's cell pools them."""
    return str(cell.trials["cell"].iloc[0])


def _place(block: HeatmapBlock, title: str, cell: HeatmapCell) -> str:
    parts = [f"{block.model} on {block.data}", title]
    parts += [f"{axis.label}: {axis.texts[i]}" for axis, i in ((block.x, cell.x), (block.y, cell.y)) if axis.label]
    return ", ".join(part for part in parts if part)


def _cell(cell: HeatmapCell, key: str, place: str) -> dict[str, Any]:
    rates = cell.rates
    evaluable = bool(rates["n"])
    fill = share_colour(rates["share"]) if evaluable else "#ffffff"
    failure = rates["most_common_failure"] if evaluable and rates["share"] < 0.5 else None
    kinds = {
        "inert": rates["inert"] and evaluable,
        "empty": not evaluable,
        "crossed": not evaluable and rates["failed"],
    }
    return {
        "key": key,
        "fill": fill,
        "ink": text_colour(fill),
        "text": f"{rates['k']}/{rates['n']}" if evaluable else "",
        "failure": LABEL_TEXT[failure][0] if failure else "",
        "notes": "" if evaluable else _notes(rates),
        "marks": [f"{mark}{rates[name]}" for name, mark, _, _ in MARKS if evaluable and rates[name]],
        "kind": " ".join(kind for kind, holds in kinds.items() if holds),
        "label": f"{place}: {rates_summary(rates)}",
    }


def _notes(rates: Mapping[str, Any]) -> str:
    return ", ".join(f"{rates[name]} {word}" for name, _, word, _ in MARKS if rates[name])


def rates_summary(rates: Mapping[str, Any]) -> str:
    """What became of a cell's trials, in a line."""
    if not rates["n"]:
        return f"no outcome of {rates['planned']} trials: {_notes(rates)}"
    interval = f"95 % interval {rates['ci_low']:.0%} to {rates['ci_high']:.0%}"
    placebo = f"; {PLACEBO}" if rates["inert"] else ""
    return f"{rates['k']} of {rates['n']} stable ({interval}){placebo}"


def _details(
    block: HeatmapBlock, cell: HeatmapCell, place: str, several: bool, mlflow_url: str | None
) -> dict[str, Any]:
    tags = list(dict.fromkeys(cell.trials["cell"]))
    filters = mlflow_filter(tags, *((block.model, block.data) if several else ()))
    links = (
        [f"{mlflow_url}{'&' if '?' in mlflow_url else '?'}searchFilter={quote(text, safe='')}" for text in filters]
        if mlflow_url
        else []
    )
    return {
        "place": place, "summary": rates_summary(cell.rates), "filters": filters, "links": links,
        "notes": _notes(cell.rates) if cell.rates["n"] else "",
        "trials": [[_plain(row.get(name), name) for name in TRIAL_FIELDS] for row in cell.trials.to_dict("records")],
    }  # fmt: skip


def _plain(value: Any, name: str) -> str | int | float | None:
    """A value as JSON has it: rounded numbers, infinity as text, None for what is not there."""
    if value is None or pd.isna(value):
        return None
    if isinstance(value, float):
        return (
            float(f"{value:.4g}")
            if math.isfinite(value) and name in ("q_final", "q_best", "wall_s")
            else _number(value)
        )
    return int(value) if isinstance(value, int) else str(value)[-MAX_ERROR:]


def _number(value: float) -> int | float | str:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() else value


def _totals(frame: pd.DataFrame) -> list[tuple[str, int]]:
    states = frame["state"].value_counts()
    return [("trials", len(frame)), *((str(state), int(count)) for state, count in states.items())]


def _tally(frame: pd.DataFrame) -> list[tuple[str, str, int]]:
    counts = frame["outcome"].value_counts()
    return [(text[0], text[1], int(counts[name])) for name, text in LABEL_TEXT.items() if name in counts]
