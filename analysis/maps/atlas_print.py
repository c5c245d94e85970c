"""The sample atlas for print: one figure a block, at the last time with samples and for its first seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vistudy.analysis.figures.colours import GREY, INK, LINE, PAPER, share_colour, text_colour
from vistudy.analysis.maps.atlas_samples import AtlasSheet, AtlasTrial, step_of
from vistudy.analysis.maps.facets import LINE as LINE_OF_TITLE
from vistudy.analysis.maps.facets import wrapped
from vistudy.analysis.maps.heatmap_cells import HeatmapCell
from vistudy.analysis.outcomes.labels import LABEL_TEXT

CELL, CAPTION, MARGIN, LEFT, GAP, TITLE, TICKS = 0.98, 0.17, 0.22, 0.85, 0.30, 0.32, 0.30
WIDEST = 10.4
HEADER, FOOTER = 0.72, 0.46
"""Inches: side of a picture, its caption, and the space around the facets."""


def atlas_figure(sheet: AtlasSheet, study: str) -> Figure:
    """Draw a block's samples at the last time that kept any; a trial that ended before is dashed."""
    high, wide = sheet.size
    cell_h, cell_w = CELL * high / wide + CAPTION, CELL
    columns, rows = len(sheet.block.x.levels), len(sheet.block.y.levels)
    facet_w, facet_h = columns * cell_w, rows * cell_h
    names = [wrapped(facet.title, facet_w + GAP / 2) for facet in sheet.block.facets]
    lines = max(len(name.splitlines()) for name in names)
    title = TITLE + (lines - 1) * LINE_OF_TITLE if lines else 0.0
    count = len(sheet.block.facets)
    across = min(count, max(1, int((WIDEST - LEFT - MARGIN + GAP) / (facet_w + GAP))))
    down = math.ceil(count / across)
    width = max(LEFT + across * (facet_w + GAP) - GAP + MARGIN, 6.3)
    height = HEADER + down * (title + facet_h + TICKS) + FOOTER
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    time = sheet.times[-1]
    low, most = sheet.steps(time)
    steps = f"{low:,}" if low == most else f"{low:,} to {most:,}"
    _text(ax, MARGIN, height - 0.24, f"{study}: samples", 12, weight="bold")
    _text(ax, MARGIN, height - 0.48, f"{sheet.heading} · after {steps} updates · seed {sheet.seeds[0]}", 8.5, GREY)
    cells = list(sheet.cells())
    for number, name in enumerate(names):
        x0 = LEFT + number % across * (facet_w + GAP)
        y0 = height - HEADER - (number // across) * (title + facet_h + TICKS) - title - facet_h
        middle = y0 + facet_h + 0.12 + (len(name.splitlines()) - 1) * LINE_OF_TITLE / 2
        _text(ax, x0, middle, name, 8.5, weight="bold")
        for (place, x, y), cell, shown in cells:
            if place == number:
                first = next((item for item in shown if item.row["seed"] == sheet.seeds[0]), None)
                _cell(ax, sheet, cell, first, (x0 + x * cell_w, y0 + y * cell_h, cell_w, cell_h))
        for x, text in enumerate(sheet.block.x.texts):
            _text(ax, x0 + (x + 0.5) * cell_w, y0 - 0.1, text, 7.5, ha="center")
        for y, text in enumerate(sheet.block.y.texts if number % across == 0 else ()):
            _text(ax, x0 - 0.08, y0 + (y + 0.5) * cell_h, text, 7.5, ha="right")
    middle = LEFT + (across * (facet_w + GAP) - GAP) / 2
    _text(ax, middle, FOOTER + 0.02, sheet.block.x.label, 8.5, ha="center")
    words = "k/n: stable trials of the cell, all seeds; the word: the outcome of the trial shown"
    _text(ax, MARGIN, 0.14, words, 6.5, GREY)
    _text(ax, 0.28, (height - HEADER + FOOTER) / 2, sheet.block.y.label, 8.5, ha="center", rotation=90)
    return figure


def _text(
    ax: Axes, x: float, y: float, text: str, size: float, color: str = INK, *, ha: str = "left", rotation: float = 0,
    weight: str = "normal",
) -> None:  # fmt: skip
    ax.text(
        x, y, text, fontsize=size, color=color, ha=ha, va="center", rotation=rotation, fontweight=weight,
        parse_math=False, fontfamily="DejaVu Sans",
    )  # fmt: skip


def _cell(
    ax: Axes, sheet: AtlasSheet, cell: HeatmapCell, item: AtlasTrial | None, box: tuple[float, float, float, float]
) -> None:
    x, y, width, height = box
    pad, rates = 0.03, cell.rates
    fill = share_colour(rates["share"]) if rates["n"] else PAPER
    ax.add_patch(Rectangle((x + pad, y + pad), width - 2 * pad, CAPTION - pad, facecolor=fill, linewidth=0))
    caption = f"{rates['k']}/{rates['n']} {_outcome(item)}" if rates["n"] else _outcome(item)
    _text(ax, x + width / 2, y + pad / 2 + CAPTION / 2, caption, 5.6, text_colour(fill), ha="center")
    left, right, low, high = x + pad, x + width - pad, y + CAPTION + pad / 2, y + height - pad
    time = sheet.times[-1]
    if item is not None and time in item.pictures:
        ax.imshow(item.pictures[time], extent=(left, right, low, high), aspect="auto", interpolation="antialiased")
        return
    dashed: dict[str, Any] = {"edgecolor": LINE, "linewidth": 0.9, "linestyle": (0, (3, 2))}
    ax.add_patch(Rectangle((left, low), right - left, high - low, facecolor=PAPER, **dashed))
    _text(ax, x + width / 2, (low + high) / 2, "no samples" if item is None else _ended(item), 6, GREY, ha="center")


def _ended(item: AtlasTrial) -> str:
    at = item.row["t_div"]
    return f"last at\n{step_of(item.row, max(item.pictures)):,}" if pd.isna(at) else f"diverged\nat {at:,.0f}"


def _outcome(item: AtlasTrial | None) -> str:
    if item is None:
        return ""
    outcome = item.row["outcome"]
    return LABEL_TEXT[outcome][0] if pd.notna(outcome) else str(item.row["state"])


def save_figures(sheets: Sequence[AtlasSheet], study: str, path: Path) -> list[Path]:
    """Write each block as a PNG of 200 dpi: `path` itself, or with several `<stem>-<number>-<model>-<data>.png`."""
    paths = []
    for number, sheet in enumerate(sheets, 1):
        name = path.name if len(sheets) == 1 else f"{path.stem}-{number}-{sheet.block.key}.png"
        atlas_figure(sheet, study).savefig(path.with_name(name), dpi=200)
        paths.append(path.with_name(name))
    return paths
