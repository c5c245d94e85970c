"""Draw the figures of `specs` with matplotlib. Text keeps its size whatever the number of panels or cells."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from vistudy.analysis.figures.colours import GREY, INK, LINE, PAPER, THEORY, text_colour
from vistudy.analysis.figures.html import CAPTION, TITLE, set_hover_texts
from vistudy.analysis.figures.specs import (
    ARM_STYLES,
    BANDS,
    AnyFigure,
    BarFigure,
    BarPanel,
    Curve,
    CurveFigure,
    Panel,
    Tile,
    TileFigure,
    save,
    tile_colour,
)

WIDEST = 10.4
"""Inches: what fits across a page in landscape."""
_FONT = "DejaVu Sans"
_SIZE, _SMALL, _TINY = 8.5, 7.0, 6.0
_LEFT, _GAP_X, _GAP_Y, _CELL_H = 0.25, 0.35, 0.72, 0.50


def draw(figure: AnyFigure) -> Figure:
    """Draw any description of a picture."""
    if isinstance(figure, TileFigure):
        return _tiles(figure)
    return _curves(figure) if isinstance(figure, CurveFigure) else _bars(figure)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedFigure:
    """A picture that was drawn for print."""

    paths: tuple[Path, ...]
    """SVG, then PNG if that was wanted."""
    inches: float
    """Width."""


def warm_up() -> None:
    """Whoever calls this has imported what drawing needs."""


def render(figure: AnyFigure | Figure, folder: Path, key: str, png: bool) -> RenderedFigure:
    """Draw a picture for print and write its files."""
    figure_ = figure if isinstance(figure, Figure) else draw(figure)
    return RenderedFigure(paths=tuple(save(figure_, folder, key, png=png)), inches=float(figure_.get_size_inches()[0]))


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure in inches with one bare axes over all of it."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return figure, ax


def _write(
    ax: Axes, x: float, y: float, text: str, *, size: float = _SIZE, color: str = INK, weight: str = "normal",
    ha: str = "left", va: str = "center", rotation: float = 0, gid: str | None = None,
) -> None:  # fmt: skip
    ax.text(
        x, y, text, fontsize=size, color=color, fontweight=weight, ha=ha, va=va, rotation=rotation, parse_math=False,
        fontfamily=_FONT, linespacing=1.25, gid=gid,
    )  # fmt: skip


def _draw_title(ax: Axes, width: float, height: float, title: str) -> None:
    room = int((width - 2 * _LEFT) / 0.105)
    _write(ax, _LEFT, height - 0.24, textwrap.shorten(title, room, placeholder="…"), size=12, weight="bold", gid=TITLE)


def _wrapped(caption: str, width: float) -> list[str]:
    return textwrap.wrap(caption, int((width - 2 * _LEFT) / 0.0535)) if caption else []


def _foot(ax: Axes, lines: Sequence[str], top: float) -> None:
    for i, line in enumerate(lines):
        _write(ax, _LEFT, top - 0.15 * i, line, size=_SMALL, color=GREY, va="top", gid=CAPTION)


# -- maps of cells -----------------------------------------------------------------------------------------------------


def _tiles(figure: TileFigure) -> Figure:
    texts = max((len(text) for m in figure.maps for text in m.x_texts), default=0)
    small = max((len(s) for m in figure.maps for row in m.tiles for t in row if t for s in t.small), default=0)
    cell = max(0.62, 0.068 * texts, 0.053 * small)
    left = 0.30 + max((0.062 * len(text) for m in figure.maps for text in m.y_texts), default=0.0) + 0.12
    wide = max((len(m.x_texts) for m in figure.maps), default=1) * cell
    columns = max(1, min(len(figure.maps), int((WIDEST - 2 * _LEFT + _GAP_X) / (left + wide + _GAP_X))))
    rows = [figure.maps[i : i + columns] for i in range(0, len(figure.maps), columns)]
    heights = [max(len(m.y_texts) for m in row) * _CELL_H + _GAP_Y for row in rows]
    width = max(2 * _LEFT + columns * (left + wide + _GAP_X) - _GAP_X, 6.3)
    foot = _wrapped(f"{figure.caption} {figure.small}".strip(), width)
    height = 0.62 + sum(heights) + 0.38 + 0.15 * len(foot) + 0.1
    sheet, ax = _sheet(width, height)
    _draw_title(ax, width, height, figure.title)
    top = height - 0.62
    for row, high in zip(rows, heights, strict=True):
        for i, m in enumerate(row):
            x0 = _LEFT + i * (left + wide + _GAP_X) + left
            _write(ax, x0, top, m.title, weight="bold", va="bottom")
            y0 = top - 0.07 - len(m.y_texts) * _CELL_H
            for y, tiles in enumerate(m.tiles):
                _write(ax, x0 - 0.08, y0 + (y + 0.5) * _CELL_H, m.y_texts[y], size=7.5, ha="right")
                for x, tile in enumerate(tiles):
                    if tile is not None:
                        _tile(ax, tile, x0 + x * cell, y0 + y * _CELL_H, cell, figure.diverging)
                        area = Rectangle((x0 + x * cell, y0 + y * _CELL_H), cell, _CELL_H, alpha=0, zorder=10)
                        set_hover_texts(ax.add_patch(area), [f"{m.title}\n{tile.note}".strip()])
            for line in m.lines:
                for colour, thick in ((PAPER, 4.0), (THEORY, 2.0)):
                    ax.plot(x0 + line[:, 0] * cell, y0 + line[:, 1] * _CELL_H, color=colour, linewidth=thick)
            for x, text in enumerate(m.x_texts):
                _write(ax, x0 + (x + 0.5) * cell, y0 - 0.06, text, size=7.0, ha="center", va="top")
            _write(ax, x0 + len(m.x_texts) * cell / 2, y0 - 0.29, m.x_label, size=_SMALL, ha="center", color=GREY)
            if m.y_label:
                tall = len(m.y_texts) * _CELL_H
                label = "\n".join(textwrap.wrap(m.y_label, max(8, int(tall / 0.075))))
                _write(ax, x0 - left + 0.10, y0 + tall / 2, label, size=_SMALL, ha="center", color=GREY, rotation=90)
        top -= high
    _scale(ax, _LEFT, 0.1 + 0.15 * len(foot) + 0.42, figure.diverging)
    _foot(ax, foot, 0.1 + 0.15 * len(foot))
    return sheet


def _tile(ax: Axes, tile: Tile, x: float, y: float, width: float, diverging: bool) -> None:
    middle = x + width / 2
    if math.isnan(tile.value):
        ax.add_patch(Rectangle(
            (x + 0.04, y + 0.04), width - 0.08, _CELL_H - 0.08, facecolor=PAPER, edgecolor=LINE, linewidth=0.9,
            linestyle=(0, (3, 2)),
        ))  # fmt: skip
        _write(ax, middle, y + _CELL_H / 2, "\n".join(tile.small), size=_TINY, color=GREY, ha="center")
        return
    fill = tile_colour(tile.value, diverging)
    ink = text_colour(fill)
    ax.add_patch(Rectangle((x, y), width, _CELL_H, facecolor=fill, edgecolor=PAPER, linewidth=1.6))
    if tile.strong:
        inset = 0.022
        ax.add_patch(Rectangle(
            (x + inset, y + inset), width - 2 * inset, _CELL_H - 2 * inset, facecolor="none", edgecolor=INK,
            linewidth=1.3,
        ))  # fmt: skip
    _write(
        ax,
        middle,
        y + _CELL_H * (0.73 if tile.small else 0.5),
        tile.text,
        size=9,
        color=ink,
        weight="bold",
        ha="center",
    )
    for i, line in enumerate(tile.small):
        _write(ax, middle, y + _CELL_H * (0.43 - 0.24 * i), line, size=_TINY, color=ink, ha="center")


def _scale(ax: Axes, x: float, top: float, diverging: bool) -> None:
    steps, width = 80, 2.0
    for i in range(steps):
        value = i / (steps - 1)
        colour = tile_colour(2 * value - 1 if diverging else value, diverging)
        ax.add_patch(
            Rectangle((x + i * width / steps, top - 0.12), width / steps + 0.004, 0.12, linewidth=0, facecolor=colour)
        )
    ends = ("−100 points", "0", "+100 points") if diverging else ("0 %", "50 %", "100 %")
    for place, text, ha in zip((0.0, 0.5, 1.0), ends, ("left", "center", "right"), strict=True):
        _write(ax, x + place * width, top - 0.21, text, size=_TINY + 0.5, color=GREY, ha=ha)


# -- curves and bars ---------------------------------------------------------------------------------------------------


def _grid(
    count: int, panel_width: float, panel_height: float, legend: float, caption: str, label: float = 0.50
) -> tuple[Figure, Axes, list[Axes], float]:
    """Sheet, its bare axes, `count` panels in rows, the caption's upper end. `label`: inches left of a panel."""
    columns = max(1, min(count, 3))
    rows = max(1, math.ceil(count / columns))
    width = max(2 * _LEFT + columns * (panel_width + label + 0.25), 6.3)
    foot = _wrapped(caption, width)
    below = 0.15 * len(foot) + 0.12 + legend
    height = 0.55 + rows * (panel_height + 0.82) + below
    sheet, ax = _sheet(width, height)
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        x = _LEFT + label + column * (panel_width + label + 0.25)
        y = height - 0.55 - (row + 1) * (panel_height + 0.82) + 0.55
        axes.append(sheet.add_axes((x / width, y / height, panel_width / width, panel_height / height)))
    _foot(ax, foot, 0.15 * len(foot) + 0.06)
    return sheet, ax, axes, 0.15 * len(foot) + 0.12


def _label_axes(ax: Axes, title: str, x_label: str, y_label: str) -> None:
    ax.set_title(title, fontsize=_SIZE, fontweight="bold", loc="left", fontfamily=_FONT, color=INK, parse_math=False)
    ax.set_xlabel(x_label, fontsize=_SMALL + 0.5, color=GREY)
    ax.set_ylabel(y_label, fontsize=_SMALL + 0.5, color=GREY)
    ax.tick_params(labelsize=_SMALL, colors=INK, length=2.5, color=LINE)
    ax.grid(color="#e6e9ed", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(LINE)


def _curves(figure: CurveFigure) -> Figure:
    names: dict[str, int] = {c.name: c.style for panel in figure.panels for c in panel.curves}
    lines = math.ceil(len(names) / 6) if len(names) > 1 else 0
    sheet, page, axes, bottom = _grid(len(figure.panels), 2.55, 2.0, 0.22 * lines, figure.caption)
    height = float(sheet.get_size_inches()[1])
    _draw_title(page, float(sheet.get_size_inches()[0]), height, figure.title)
    for i, (ax, panel) in enumerate(zip(axes, figure.panels, strict=True)):
        _panel(ax, figure, panel, figure.y_label if i % min(len(axes), 3) == 0 else "")
    if lines:
        _legend(page, names, bottom + 0.22 * lines, figure)
    return sheet


def _panel(ax: Axes, figure: CurveFigure, panel: Panel, y_label: str) -> None:
    _label_axes(ax, panel.title, figure.x_label, y_label)
    if figure.log_x:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    for curve in panel.curves:
        _curve(ax, figure, curve)
    if figure.percent:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    if not panel.curves:
        ax.text(0.5, 0.5, "nothing to draw", transform=ax.transAxes, ha="center", color=GREY, fontsize=_SMALL)


def _curve(ax: Axes, figure: CurveFigure, curve: Curve) -> None:
    colour, dash, marker = ARM_STYLES[curve.style]
    step: Literal["post"] | None = "post" if figure.steps else None
    if curve.style < BANDS and np.isfinite(curve.low).any():
        ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.14, linewidth=0, step=step)
    ax.plot(
        curve.x, curve.y, color=colour, linestyle=dash, linewidth=1.6, markersize=3.4,
        drawstyle="steps-post" if figure.steps else "default", marker=marker if figure.markers else None,
    )  # fmt: skip
    finite = np.isfinite(curve.x) & np.isfinite(curve.y)
    points = ax.plot(curve.x[finite], curve.y[finite], "o", markersize=9, alpha=0, zorder=10)[0]
    set_hover_texts(points, [note for note, is_finite in zip(curve.notes, finite, strict=True) if is_finite])


def _legend(page: Axes, names: dict[str, int], top: float, figure: CurveFigure | None = None) -> None:
    handles = []
    for style in names.values():
        colour, dash, marker = ARM_STYLES[style]
        marker = marker if figure is None or figure.markers else ""
        line = Line2D([], [], color=colour, linewidth=1.6, marker=marker, markersize=4)
        line.set(linestyle=dash)
        handles.append(line)
    page.legend(
        handles, list(names), loc="upper left", bbox_to_anchor=(_LEFT, top), bbox_transform=page.transData, ncols=6,
        frameon=False, fontsize=_SMALL + 0.5, borderaxespad=0, handlelength=2.6, columnspacing=1.4,
    )  # fmt: skip


def _bars(figure: BarFigure) -> Figure:
    names = dict(zip(figure.panels[0].arms, figure.panels[0].styles, strict=True)) if figure.panels else {}
    for panel in figure.panels:
        names |= dict(zip(panel.arms, panel.styles, strict=True))
    tall = max((len(panel.names) * max(1, len(panel.arms)) for panel in figure.panels), default=1)
    lines = math.ceil(len(names) / 6) if len(names) > 1 else 0
    label = 0.066 * max((len(name) for panel in figure.panels for name in panel.names), default=0) + 0.1
    high = max(1.0, 0.17 * tall + 0.3)
    sheet, page, axes, bottom = _grid(len(figure.panels), 2.0, high, 0.22 * lines, figure.caption, label)
    width, height = map(float, sheet.get_size_inches())
    _draw_title(page, width, height, figure.title)
    for ax, panel in zip(axes, figure.panels, strict=True):
        _bar_panel(ax, figure, panel)
    if lines:
        _legend(page, names, bottom + 0.22 * lines)
    return sheet


def _bar_panel(ax: Axes, figure: BarFigure, panel: BarPanel) -> None:
    _label_axes(ax, panel.title, figure.x_label, "")
    high = 0.8 / max(1, len(panel.arms))
    for i, (style, bars) in enumerate(zip(panel.styles, panel.bars, strict=True)):
        for j, bar in enumerate(bars):
            if bar is None or math.isnan(bar.value):
                continue
            y = j - 0.4 + (i + 0.5) * high
            (patch,) = ax.barh(y, bar.value, height=high * 0.9, color=ARM_STYLES[style][0])
            set_hover_texts(patch, [bar.note])
            if not math.isnan(bar.low):
                ax.plot([bar.low, bar.high], [y, y], color=INK, linewidth=0.9)
    ax.set_yticks(range(len(panel.names)), panel.names, fontsize=_SMALL)
    ax.set_ylim(len(panel.names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
