"""Stability heatmaps as pictures: learning rate by reg_weight, one facet for each combination of the other factors.

Drawn in inches on one bare axes, so that text keeps its size whatever the number of cells.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from vistudy.analysis.figures.colours import GREY, INK, LINE, PAPER, THEORY, share_colour, text_colour
from vistudy.analysis.figures.html import TITLE, set_hover_texts
from vistudy.analysis.figures.specs import save
from vistudy.analysis.maps.dirac_overlay import NAME, boundary_lines
from vistudy.analysis.maps.facets import GAP, HEIGHT, MARGIN, TICKS, Layout, wrapped
from vistudy.analysis.maps.heatmap_cells import MARKS, PLACEBO, Facet, HeatmapBlock, HeatmapCell, blocks, cell_text
from vistudy.analysis.outcomes.labels import LABEL_TEXT

SIZE, SMALL = 8.5, 6.8
"""Points: of labels; of the legend and of small print in cells."""

Overlay = Callable[[HeatmapBlock, Facet], list[np.ndarray]]
"""Lines (n, 2) to draw over a facet, in cells from its lower left."""


def heatmap(
    frame: pd.DataFrame,
    factors: Iterable[str] | None = None,
    *,
    title: str | None = None,
    overlay: Overlay | None = boundary_lines,
) -> Figure:
    """Draw the trials of one model on one data set. `factors`: None for those of the trials' cells.

    `overlay`: lines over the cells; by default the theoretical boundary where it is known, None for none.

    Raises ValueError if the frame has trials of several models or data sets: `heatmaps` draws each.
    """
    blocks_ = blocks(frame, factors)
    if len(blocks_) != 1:
        names = ", ".join(block.key for block in blocks_) or "no trials"
        raise ValueError(f"heatmap: draws one model on one data set, got {names}; heatmaps draws each of several")
    return _draw(blocks_[0], title or _study(frame), overlay)


def heatmaps(
    frame: pd.DataFrame, factors: Iterable[str] | None = None, *, title: str | None = None
) -> dict[str, Figure]:
    """One figure for each model and data set, by key `model-data`."""
    factors = None if factors is None else list(factors)
    return {block.key: _draw(block, title or _study(frame)) for block in blocks(frame, factors)}


def save_heatmaps(frame: pd.DataFrame, factors: Iterable[str] | None, out_dir: Path, stem: str) -> list[Path]:
    """Write each heatmap as `<stem>.png` (200 dpi) and `.svg`; with several blocks `<stem>-<model>-<data>`.

    The same frame gives the same SVG, byte for byte.
    """
    figures, paths = heatmaps(frame, factors), list[Path]()
    for key, figure in figures.items():
        name = stem if len(figures) == 1 else f"{stem}-{key}"
        paths += reversed(save(figure, out_dir, name, png=True))
    return paths


def _study(frame: pd.DataFrame) -> str:
    return str(frame["study"].iloc[0])


def _draw(block: HeatmapBlock, title: str, overlay: Overlay | None = boundary_lines) -> Figure:
    cells = [cell for facet in block.facets for cell in facet.cells]
    lines = [overlay(block, facet) if overlay else [] for facet in block.facets]
    names = [n for n in LABEL_TEXT if any(_names_failure(c) and c.rates["most_common_failure"] == n for c in cells)]
    footer = 0.36 + 0.62 + 0.17 * len(names) + 0.12
    plan = Layout.of(block, 0.68, footer)
    figure = Figure(figsize=(plan.width, plan.height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, plan.width), ylim=(0, plan.height))
    ax.axis("off")
    _header(ax, plan, block, title, cells)
    for facet, (row, column), over in zip(block.facets, plan.places, lines, strict=True):
        x0, y0 = plan.corner(row, column)
        name = wrapped(facet.title, plan.facet_width + GAP / 2)
        _text(ax, x0, y0 + plan.facet_height + 0.08, name, size=SIZE, weight="bold", va="bottom")
        for cell in facet.cells:
            corner = (x0 + cell.x * plan.cell, y0 + cell.y * HEIGHT)
            _cell(ax, cell, *corner, plan.cell)
            area = Rectangle(corner, plan.cell, HEIGHT, alpha=0, zorder=10)
            set_hover_texts(ax.add_patch(area), [f"{facet.title}\n{cell_text(block, cell)}".strip()])
        for line in over:
            _theory(ax, x0 + line[:, 0] * plan.cell, y0 + line[:, 1] * HEIGHT)
        last = (row + 1, column) not in plan.places
        _ticks(ax, plan, block, x0, y0, left=column == 0, bottom=last)
    _axis_labels(ax, plan, block, footer)
    _legend(ax, plan, cells, names, 0.62 + 0.17 * len(names) + 0.04, theory=any(lines))
    return figure


def _theory(ax: Axes, x: np.ndarray | Sequence[float], y: np.ndarray | Sequence[float]) -> None:
    halo = [withStroke(linewidth=4.0, foreground=PAPER)]
    ax.plot(x, y, color=THEORY, linewidth=2.0, solid_capstyle="butt", solid_joinstyle="round", path_effects=halo)


def _text(
    ax: Axes, x: float, y: float, text: str, *, size: float, color: str = INK, weight: str = "normal", ha: str = "left",
    va: str = "center", rotation: float = 0, halo: str | None = None, gid: str | None = None,
) -> None:  # fmt: skip
    effects = [withStroke(linewidth=2.2, foreground=halo)] if halo else None
    ax.text(
        x, y, text, fontsize=size, color=color, fontweight=weight, ha=ha, va=va, rotation=rotation, parse_math=False,
        path_effects=effects, fontfamily="DejaVu Sans", linespacing=1.0, gid=gid,
    )  # fmt: skip


def _header(ax: Axes, plan: Layout, block: HeatmapBlock, title: str, cells: Sequence[HeatmapCell]) -> None:
    done = sum(cell.rates["n"] for cell in cells)
    trials = f"{block.trials} trials" if block.trials != 1 else "1 trial"
    parts = [f"{block.model} on {block.data}", trials + ("" if done == block.trials else f", {done} evaluable")]
    if block.pooled:
        parts.append(f"pooled over {', '.join(block.pooled)}")
    room = int((plan.width - 2 * MARGIN) / 0.105)
    _text(
        ax,
        MARGIN,
        plan.height - 0.24,
        textwrap.shorten(title, room, placeholder="…"),
        size=12,
        weight="bold",
        gid=TITLE,
    )
    _text(ax, MARGIN, plan.height - 0.48, " · ".join(parts), size=SIZE, color=GREY)


def _names_failure(cell: HeatmapCell) -> bool:
    return bool(cell.rates["n"] and cell.rates["share"] < 0.5 and cell.rates["most_common_failure"])


def _cell(ax: Axes, cell: HeatmapCell, x: float, y: float, width: float) -> None:
    rates, middle = cell.rates, x + width / 2
    if not rates["n"]:
        _cell_without_outcome(ax, cell, x, y, width)
        return
    fill = share_colour(rates["share"])
    ink = text_colour(fill)
    ax.add_patch(Rectangle((x, y), width, HEIGHT, facecolor=fill, edgecolor=PAPER, linewidth=1.6))
    if rates["inert"]:
        _hatch(ax, x, y, width, ink)
    share = f"{rates['k']}/{rates['n']}"
    halo = fill if rates["inert"] else None
    if _names_failure(cell):
        name = LABEL_TEXT[rates["most_common_failure"]][0]
        name = name.replace(" ", "\n", 1) if len(name) > 8 else name
        lines = name.count("\n") + 1
        _text(
            ax,
            middle,
            y + HEIGHT * (0.69 if lines == 1 else 0.77),
            share,
            size=9,
            color=ink,
            weight="bold",
            ha="center",
            halo=halo,
        )
        _text(
            ax, middle, y + HEIGHT * (0.29 if lines == 1 else 0.31), name, size=SMALL, color=ink, ha="center", halo=halo
        )
    else:
        _text(ax, middle, y + HEIGHT * 0.5, share, size=9, color=ink, weight="bold", ha="center", halo=halo)
    marks = "\n".join(f"{mark}{rates[name]}" for name, mark, _, _ in MARKS if rates[name])
    if marks:
        right, high = x + width - 0.05, y + HEIGHT - 0.045
        _text(ax, right, high, marks, size=5.8, color=ink, ha="right", va="top", halo=halo)


def _cell_without_outcome(ax: Axes, cell: HeatmapCell, x: float, y: float, width: float) -> None:
    """Not run: dashed and blank. Failed: crossed. Else: dashed, with what there is."""
    rates, inset = cell.rates, 0.045
    box = (x + inset, y + inset, width - 2 * inset, HEIGHT - 2 * inset)
    ax.add_patch(
        Rectangle(box[:2], box[2], box[3], facecolor=PAPER, edgecolor=LINE, linewidth=0.9, linestyle=(0, (3, 2)))
    )
    if rates["failed"]:
        for rise in (0, 1):
            ax.plot(
                [box[0], box[0] + box[2]], [box[1] + rise * box[3], box[1] + (1 - rise) * box[3]],
                color="#b9bfc6", linewidth=0.9, solid_capstyle="butt",
            )  # fmt: skip
    words = [f"{rates[n]} {word}" for n, _, word, _ in MARKS if rates[n] and n != "missing"]
    if rates["missing"]:
        words.append(f"{rates['planned'] - rates['missing']}/{rates['planned']} run")
    _text(ax, x + width / 2, y + HEIGHT / 2, "\n".join(words), size=SMALL, color=GREY, ha="center", halo=PAPER)


def _hatch(ax: Axes, x: float, y: float, width: float, ink: str) -> None:
    with mpl.rc_context({"hatch.linewidth": 0.6}):
        ax.add_patch(
            Rectangle((x, y), width, HEIGHT, facecolor="none", edgecolor=ink, linewidth=0, hatch="////", alpha=0.28)
        )


def _ticks(ax: Axes, plan: Layout, block: HeatmapBlock, x0: float, y0: float, *, left: bool, bottom: bool) -> None:
    if bottom:
        for i, text in enumerate(block.x.texts):
            _text(ax, x0 + (i + 0.5) * plan.cell, y0 - 0.06, text, size=7.5, ha="center", va="top")
    if left:
        for i, text in enumerate(block.y.texts):
            _text(ax, x0 - 0.08, y0 + (i + 0.5) * HEIGHT, text, size=7.5, ha="right")


def _axis_labels(ax: Axes, plan: Layout, block: HeatmapBlock, footer: float) -> None:
    inner = plan.columns * (plan.facet_width + GAP) - GAP
    _text(ax, plan.left + inner / 2, footer - 0.12, block.x.label, size=SIZE, ha="center")
    if block.y.label:
        high = (plan.top + footer) / 2
        short = plan.top - footer < 0.075 * len(block.y.label)
        label = block.y.label.replace(" (", "\n(") if short else block.y.label
        _text(ax, 0.30, high + TICKS / 4, label, size=7 if short else SIZE, ha="center", rotation=90)


def _legend(
    ax: Axes, plan: Layout, cells: Sequence[HeatmapCell], names: Sequence[str], top: float, *, theory: bool
) -> None:
    """Colour bar; the marks that occur; the failures that are named, in a sentence each."""
    width, steps = 1.5, 60
    for i in range(steps):
        ax.add_patch(
            Rectangle(
                (MARGIN + i * width / steps, top - 0.14),
                width / steps + 0.004,
                0.12,
                linewidth=0,
                facecolor=share_colour(i / (steps - 1)),
            )
        )
    for share, ha in ((0, "left"), (0.5, "center"), (1, "right")):
        _text(ax, MARGIN + share * width, top - 0.23, f"{share:.0%}", size=SMALL, ha=ha, color=GREY)
    _text(ax, MARGIN, top - 0.38, "stable trials; k/n in each cell", size=SMALL, color=GREY)
    _marks(ax, plan, cells, MARGIN + width + 0.45, top, theory=theory)
    for i, name in enumerate(names):
        y = top - 0.62 - 0.17 * i
        short, sentence = LABEL_TEXT[name]
        _text(ax, MARGIN, y, short, size=SMALL, weight="bold", va="baseline")
        _text(ax, MARGIN + 0.95, y, sentence, size=SMALL, color=GREY, va="baseline")


def _marks(ax: Axes, plan: Layout, cells: Sequence[HeatmapCell], x: float, top: float, *, theory: bool) -> None:
    entries: list[tuple[str, str]] = [("line", NAME)] if theory else []
    if any(c.rates["inert"] for c in cells):
        entries.append(("hatch", PLACEBO))
    if any(not c.rates["n"] for c in cells):
        entries.append(("dashed", "no trial finished"))
    entries += [
        (sign, f"n {text}") for name, sign, _, text in MARKS if any(c.rates["n"] and c.rates[name] for c in cells)
    ]
    half = math.ceil(len(entries) / 2) if len(entries) > 2 else len(entries)
    for i, (kind, text) in enumerate(entries):
        left, y = x + (i // max(half, 1)) * 2.1, top - 0.08 - 0.17 * (i % max(half, 1))
        if kind == "hatch":
            with mpl.rc_context({"hatch.linewidth": 0.6}):
                ax.add_patch(
                    Rectangle(
                        (left, y - 0.06),
                        0.22,
                        0.12,
                        facecolor=share_colour(0),
                        edgecolor=GREY,
                        linewidth=0,
                        hatch="//////",
                    )
                )
        elif kind == "line":
            _theory(ax, [left, left + 0.22], [y, y])
        elif kind == "dashed":
            ax.add_patch(
                Rectangle(
                    (left, y - 0.055),
                    0.22,
                    0.11,
                    facecolor=PAPER,
                    edgecolor=LINE,
                    linewidth=0.9,
                    linestyle=(0, (3, 2)),
                )
            )
        else:
            _text(ax, left + 0.11, y, f"{kind}n", size=SMALL, ha="center")
        _text(ax, left + 0.30, y, text.removeprefix("n "), size=SMALL, color=GREY)
