"""Pictures for the browser: `panels` as plain data for plotly.js, which the report carries within itself."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.figures.colours import GREY, INK, LINE, PAPER, THEORY
from vistudy.analysis.figures.grid_layout import WORDS, settings
from vistudy.analysis.figures.specs import (
    ARM_STYLES,
    BANDS,
    AnyFigure,
    BarFigure,
    Curve,
    CurveFigure,
    Panel,
    TileFigure,
    TileMap,
    tile_colour,
)
from vistudy.analysis.outcomes.labels import LABEL_TEXT
from vistudy.analysis.tables.formatting import level_text

_DASH = {"solid": "solid", "dashed": "dash", "dashdot": "dashdot", "dotted": "dot"}
_FONT = {"family": "DejaVu Sans, Verdana, system-ui, sans-serif", "size": 12, "color": INK}
PANEL_HEIGHT, CELL_HEIGHT = 300, 46
"""Pixels."""
PAGE = 1040
"""Pixels of the page's width, about: only distances between panels depend on it."""


def browser(figure: AnyFigure) -> dict[str, Any]:
    """`data`, `layout` and `height` (pixels) for plotly.js. Text is escaped: plotly reads some HTML."""
    if isinstance(figure, TileFigure):
        return _tiles(figure)
    return _curves(figure) if isinstance(figure, CurveFigure) else _bars(figure)


def text(words: str) -> str:
    """Text of a study as plotly shows it letter by letter; line breaks are kept."""
    return html.escape(words, quote=False).replace("\n", "<br>")


def _layout(height: float, **more: Any) -> dict[str, Any]:
    return {
        "height": height, "font": _FONT, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 10, "r": 10, "t": 34, "b": 10}, "hovermode": "closest", "annotations": [], "shapes": [],
        "modebar": {"bgcolor": "rgba(255,255,255,0.7)", "color": LINE, "activecolor": GREY},
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": LINE, "font": {**_FONT, "size": 12}, "align": "left"},
        **more,
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if not math.isfinite(value) else float(f"{value:.5g}")


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _axis(i: int) -> str:
    return "" if i == 0 else str(i + 1)


def _domains(
    count: int, columns: int, heights: Sequence[float], gap_px: float, left_px: float = 0
) -> list[tuple[list[float], list[float]]]:
    """x and y domain of each panel; `heights`: pixels of each row of panels; `left_px`: room for labels on its left."""
    total, found = sum(heights) + gap_px * len(heights), []
    pad, gap_x = left_px / PAGE, 0.035
    wide = (1 - gap_x * (columns - 1)) / columns
    top = 1.0
    for row, high in enumerate(heights):
        for column in range(min(columns, count - row * columns)):
            left = column * (wide + gap_x)
            found.append(([left + pad, min(1.0, left + wide)], [max(0.0, top - high / total), top]))
        top -= (high + gap_px) / total
    return found


def _label(words: str) -> dict[str, Any]:
    return {"text": text(words), "font": {"size": 11}}


def _legend(height: float) -> dict[str, Any]:
    """Below the last panel's axis title; `height`: pixels of all panels."""
    return {"orientation": "h", "y": 26 / height, "yanchor": "top", "x": 0, "traceorder": "normal"}


def _title(title: str, domain: tuple[list[float], list[float]]) -> dict[str, Any]:
    return {
        "text": f"<b>{text(title)}</b>", "x": domain[0][0], "y": domain[1][1], "xref": "paper", "yref": "paper",
        "xanchor": "left", "yanchor": "bottom", "showarrow": False, "yshift": 4,
    }  # fmt: skip


def _rgba(colour: str, alpha: float) -> str:
    r, g, b = bytes.fromhex(colour[1:])
    return f"rgba({r},{g},{b},{alpha})"


# -- curves ------------------------------------------------------------------------------------------------------------


def _curves(figure: CurveFigure) -> dict[str, Any]:
    columns = max(1, min(3, len(figure.panels)))
    rows = math.ceil(len(figure.panels) / columns)
    domains = _domains(len(figure.panels), columns, [PANEL_HEIGHT - 90] * rows, 90, left_px=45)
    layout = _layout(rows * PANEL_HEIGHT + 50, legend=_legend(rows * PANEL_HEIGHT))
    layout["margin"] = {"l": 12, "r": 10, "t": 34, "b": 16}
    data: list[dict[str, Any]] = []
    seen: set[str] = set()
    for i, (panel, domain) in enumerate(zip(figure.panels, domains, strict=True)):
        for curve in panel.curves:
            data += _curve(figure, curve, _axis(i), first=curve.name not in seen)
            seen.add(curve.name)
        layout[f"xaxis{_axis(i)}"] = {
            "domain": domain[0], "anchor": f"y{_axis(i)}", "title": _label(figure.x_label),
            "type": "log" if figure.log_x else "linear", "gridcolor": "#e6e9ed", "zeroline": False, "linecolor": LINE,
            **(_log_ticks(panel) if figure.log_x else {}),
        }  # fmt: skip
        layout[f"yaxis{_axis(i)}"] = {
            "domain": domain[1], "anchor": f"x{_axis(i)}", "gridcolor": "#e6e9ed", "zeroline": False, "linecolor": LINE,
            **({"title": {**_label(figure.y_label), "standoff": 6}} if i % columns == 0 else {}),
            **({"range": [-0.03, 1.03], "tickformat": ".0%"} if figure.percent else {}),
        }  # fmt: skip
        layout["annotations"].append(_title(panel.title, domain))
    return {"data": data, "layout": layout, "height": layout["height"]}


def _log_ticks(panel: Panel) -> dict[str, Any]:
    """The levels themselves where they are few, else powers of ten."""
    levels = sorted({float(x) for curve in panel.curves for x in curve.x})
    if len(levels) > 8:
        return {"exponentformat": "power", "dtick": 1}
    return {"tickvals": levels, "ticktext": [level_text(None, float(f"{x:.3g}")) for x in levels], "tickangle": 0}


def _curve(figure: CurveFigure, curve: Curve, axis: str, *, first: bool) -> list[dict[str, Any]]:
    colour, dash, _ = ARM_STYLES[curve.style]
    shape = "hv" if figure.steps else "linear"
    common = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "legendgroup": curve.name, "type": "scatter"}
    line = {"color": colour, "dash": _DASH[dash], "width": 2.2, "shape": shape}
    main = common | {
        "x": _numbers(curve.x), "y": _numbers(curve.y), "line": line, "name": text(curve.name), "showlegend": first,
        "mode": "lines+markers" if figure.markers else "lines", "customdata": [text(note) for note in curve.notes],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip
    known = np.isfinite(curve.low) & np.isfinite(curve.high)
    if curve.style >= BANDS or not known.any():
        return [main]
    edge = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"width": 0, "shape": shape}}
    x = _numbers(curve.x[known])
    lower = common | edge | {"x": x, "y": _numbers(curve.low[known])}
    upper = (
        common | edge | {"x": x, "y": _numbers(curve.high[known]), "fill": "tonexty", "fillcolor": _rgba(colour, 0.13)}
    )
    return [lower, upper, main]


# -- maps of cells -----------------------------------------------------------------------------------------------------


def _tiles(figure: TileFigure) -> dict[str, Any]:
    label = max((len(t) for m in figure.maps for t in m.y_texts), default=0) * 6.6 + 34
    label += 13 * max((_wrapped(m.y_label, len(m.y_texts)).count("\n") for m in figure.maps), default=0)
    widest = max((len(m.x_texts) * max(6.2 * max(map(len, m.x_texts)) + 8, 44) for m in figure.maps), default=1.0)
    columns = max(1, min(len(figure.maps), 3, int(PAGE / (label + widest + 36))))
    groups = [figure.maps[i : i + columns] for i in range(0, len(figure.maps), columns)]
    heights = [max(len(m.y_texts) for m in group) * CELL_HEIGHT for group in groups]
    domains = _domains(len(figure.maps), columns, heights, 92, left_px=label)
    total = sum(heights) + 92 * len(heights)
    layout = _layout(total + 64, showlegend=False)
    low = -1.0 if figure.diverging else 0.0
    stops = [[i / 20, tile_colour(low + (1 - low) * i / 20, figure.diverging)] for i in range(21)]
    ticks = (
        {"tickvals": [-1, 0, 1], "ticktext": ["−100", "0", "+100 points"]}
        if figure.diverging
        else {"tickformat": ".0%"}
    )
    layout["coloraxis"] = {
        "cmin": low, "cmax": 1, "colorscale": stops,
        "colorbar": {
            "orientation": "h", "thickness": 10, "len": 0.25, "x": 0, "xanchor": "left", "y": 22 / total,
            "yanchor": "top", "tickfont": {"size": 10}, **ticks,
        },
    }  # fmt: skip
    layout["margin"] = {"l": 12, "r": 10, "t": 34, "b": 30}
    data: list[dict[str, Any]] = []
    for i, (m, domain) in enumerate(zip(figure.maps, domains, strict=True)):
        data += [_tile_trace(m, _axis(i)), *_line_traces(m, _axis(i), figure.line_name)]
        left, (bottom, top) = domain
        bottom = top - (top - bottom) * len(m.y_texts) * CELL_HEIGHT / heights[i // columns]
        layout[f"xaxis{_axis(i)}"] = {
            "domain": left, "anchor": f"y{_axis(i)}", "tickvals": list(range(len(m.x_texts))), "showgrid": False,
            "ticktext": [text(t) for t in m.x_texts], "tickangle": 0, "ticks": "", "title": _label(m.x_label),
            "range": [-0.5, len(m.x_texts) - 0.5], "zeroline": False, "tickfont": {"size": 10}, "fixedrange": True,
        }  # fmt: skip
        layout[f"yaxis{_axis(i)}"] = {
            "domain": [bottom, top],
            "anchor": f"x{_axis(i)}", "tickvals": list(range(len(m.y_texts))), "automargin": True, "fixedrange": True,
            "ticktext": [text(t) for t in m.y_texts], "title": _label(_wrapped(m.y_label, len(m.y_texts))), "ticks": "",
            "range": [-0.5, len(m.y_texts) - 0.5], "zeroline": False, "showgrid": False, "tickfont": {"size": 11},
        }  # fmt: skip
        layout["annotations"].append(_title(m.title, domain))
        layout["shapes"] += _marks(m, _axis(i))
    return {"data": data, "layout": layout, "height": layout["height"]}


def _wrapped(label: str, rows: int) -> str:
    """An axis label in lines as long as the axis."""
    return "\n".join(textwrap.wrap(label, max(10, int(rows * CELL_HEIGHT / 6.6))))


def _tile_trace(m: TileMap, axis: str) -> dict[str, Any]:
    def each(pick: Any, empty: Any) -> list[list[Any]]:
        return [[empty if tile is None else pick(tile) for tile in row] for row in m.tiles]

    return {
        "type": "heatmap", "xaxis": f"x{axis}", "yaxis": f"y{axis}", "coloraxis": "coloraxis", "xgap": 2, "ygap": 2,
        "x": list(range(len(m.x_texts))), "y": list(range(len(m.y_texts))), "z": each(lambda t: _number(t.value), None),
        "text": each(lambda t: text(t.text), ""), "texttemplate": "%{text}", "hoverongaps": True,
        "customdata": each(lambda t: text(t.note), "no configuration here"),
        "hovertemplate": f"<b>{text(m.title)}</b><br>%{{customdata}}<extra></extra>",
    }  # fmt: skip


def _line_traces(m: TileMap, axis: str, name: str) -> list[dict[str, Any]]:
    """What theory says, as lines with a pale edge; cell i of an axis is at i."""
    found = []
    for line in m.lines:
        place = {
            "x": _numbers(line[:, 0] - 0.5),
            "y": _numbers(line[:, 1] - 0.5),
            "xaxis": f"x{axis}",
            "yaxis": f"y{axis}",
        }
        common = {"type": "scatter", "mode": "lines", "name": text(name), "hoverinfo": "skip", **place}
        found += [common | {"line": {"color": colour, "width": width}} for colour, width in ((PAPER, 5), (THEORY, 2.5))]
    return found


def _marks(m: TileMap, axis: str) -> list[dict[str, Any]]:
    """Outlines of cells whose interval leaves 0 out; dashes around cells without an outcome."""
    shapes = []
    for y, row in enumerate(m.tiles):
        for x, tile in enumerate(row):
            if tile is not None and (tile.strong or math.isnan(tile.value)):
                line = {"color": INK, "width": 2} if tile.strong else {"color": LINE, "width": 1, "dash": "dash"}
                shapes.append({
                    "type": "rect", "xref": f"x{axis}", "yref": f"y{axis}", "x0": x - 0.47, "x1": x + 0.47,
                    "y0": y - 0.45, "y1": y + 0.45, "line": line,
                })  # fmt: skip
    return shapes


# -- bars, parallel coordinates ----------------------------------------------------------------------------------------


def _bars(figure: BarFigure) -> dict[str, Any]:
    columns = max(1, min(3, len(figure.panels)))
    groups = [figure.panels[i : i + columns] for i in range(0, len(figure.panels), columns)]
    heights = [max(90, max(len(p.names) * max(1, len(p.arms)) for p in group) * 15) for group in groups]
    label = max((len(name) for p in figure.panels for name in p.names), default=0) * 6.4 + 10
    domains = _domains(len(figure.panels), columns, heights, 92, left_px=label)
    layout = _layout(sum(heights) + 92 * len(heights) + 44, barmode="group", bargap=0.25)
    layout["legend"] = _legend(sum(heights) + 92 * len(heights))
    data, seen = [], set()
    for i, (panel, domain) in enumerate(zip(figure.panels, domains, strict=True)):
        for arm, style, bars in zip(panel.arms, panel.styles, panel.bars, strict=True):
            data.append({
                "type": "bar", "orientation": "h", "xaxis": f"x{_axis(i)}", "yaxis": f"y{_axis(i)}", "name": text(arm),
                "legendgroup": arm, "showlegend": arm not in seen, "marker": {"color": ARM_STYLES[style][0]},
                "x": [None if bar is None else _number(bar.value) for bar in bars],
                "y": [text(name) for name in panel.names],
                "customdata": ["" if bar is None else text(bar.note) for bar in bars],
                "hovertemplate": "%{customdata}<extra></extra>",
            })  # fmt: skip
            seen.add(arm)
        layout[f"xaxis{_axis(i)}"] = {
            "domain": domain[0], "anchor": f"y{_axis(i)}", "title": _label(figure.x_label),
            "gridcolor": "#e6e9ed", "zeroline": True, "zerolinecolor": LINE, "nticks": 5,
        }  # fmt: skip
        layout[f"yaxis{_axis(i)}"] = {
            "domain": domain[1], "anchor": f"x{_axis(i)}", "autorange": "reversed", "automargin": True,
            "tickfont": {"size": 11},
        }  # fmt: skip
        layout["annotations"].append(_title(panel.title, domain))
    return {"data": data, "layout": layout, "height": layout["height"]}


def parallel(table: pd.DataFrame) -> dict[str, Any] | None:
    """Parallel coordinates of the judged trials: hyperparameters, arm, outcome, Q; None without any.

    A line a trial, coloured by Q; dragging along an axis selects. Learning rates and other positive numbers that span
    more than a decade are on log axes.
    """
    part = table[table["q"].notna()]
    if part.empty:
        return None
    levels = settings(part)
    axes = [_dimension(WORDS.get(str(name), str(name)), levels[name]) for name in levels if levels[name].nunique() > 1]
    if part["arm"].nunique() > 1:
        axes.append(_dimension("arm", part["arm"]))
    if part["block"].nunique() > 1:
        axes.append(_dimension("block", part["block"]))
    names = [name for name in LABEL_TEXT if (part["outcome"] == name).any()]
    axes.append(_categories("outcome", part["outcome"], names, [LABEL_TEXT[name][0] for name in names]))
    axes.append({"label": "Q", "values": _numbers(part["q"]), "range": [0, 1]})
    stops = [[i / 10, tile_colour(1 - i / 10, False)] for i in range(11)]
    line = {
        "color": _numbers(part["q"]), "cmin": 0, "cmax": 1, "colorscale": stops, "showscale": True,
        "colorbar": {"title": {"text": "Q"}, "thickness": 10},
    }  # fmt: skip
    data = [{
        "type": "parcoords", "line": line, "dimensions": axes, "labelfont": {"size": 12, "color": INK},
        "tickfont": {"size": 11, "color": GREY}, "rangefont": {"size": 10, "color": "rgba(0,0,0,0)"},
        "unselected": {"line": {"color": LINE, "opacity": 0.08}},
    }]  # fmt: skip
    layout = _layout(430)
    layout["margin"] = {"l": 80, "r": 40, "t": 60, "b": 30}
    return {"data": data, "layout": layout, "height": 430}


def _dimension(label: str, levels: pd.Series) -> dict[str, Any]:
    numbers = pd.to_numeric(levels, errors="coerce")
    if numbers.isna().any():
        names = sorted(levels.fillna("–").unique())
        return _categories(label, levels.fillna("–"), names, names)
    if numbers.min() > 0 and numbers.max() / numbers.min() > 10:
        logs = np.log10(numbers.to_numpy(dtype=float))
        ticks = [int(t) for t in range(math.ceil(logs.min()), math.floor(logs.max()) + 1)]
        return {
            "label": text(label), "values": _numbers(logs), "tickvals": ticks, "ticktext": [f"1e{t}" for t in ticks]
        }  # fmt: skip
    return {"label": text(label), "values": _numbers(numbers)}


def _categories(label: str, levels: pd.Series, names: Sequence[Any], texts: Sequence[str]) -> dict[str, Any]:
    number = {name: i for i, name in enumerate(names)}
    return {
        "label": text(label), "values": [number[level] for level in levels], "tickvals": list(range(len(names))),
        "ticktext": [text(t) for t in texts], "range": [-0.2, len(names) - 0.8],
    }  # fmt: skip
