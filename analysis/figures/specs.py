"""What a picture shows, apart from how it is drawn: curves with bands, tiles of cells, bars.

`matplotlib_renderer` draws a description; the page shows the same SVG as print.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vistudy.analysis.figures.colours import share_colour
from vistudy.analysis.figures.html import add_titles
from vistudy.analysis.outcomes.time_series import Floats

ARM_STYLES: tuple[tuple[str, str, str], ...] = (
    ("#4d5661", "solid", "o"), ("#0072b2", "solid", "s"), ("#d55e00", "dashed", "^"), ("#009e73", "dashdot", "D"),
    ("#cc79a7", "dotted", "v"), ("#b07d00", "dashed", "P"), ("#56b4e9", "dashdot", "X"), ("#7f3c8d", "dotted", "*"),
)  # fmt: skip
"""Colour, line and marker of an arm: told apart by colour-blind people and in grey. Source: Okabe and Ito 2008."""
MAX_CURVES = len(ARM_STYLES)
BANDS = 2
"""Curves of the first styles (baseline and treatment) have bands; more of them would hide each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line with its band. NaN leaves a gap."""

    name: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    notes: tuple[str, ...]
    """What hovering over each point shows."""
    style: int
    """Place in ARM_STYLES."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One coordinate system."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveFigure:
    """Panels with the same axes."""

    title: str
    caption: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    log_x: bool = False
    percent: bool = False
    """y is a share: 0 to 1, shown as 0 % to 100 %."""
    steps: bool = False
    """y keeps its value until the next x."""
    markers: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One cell of a map."""

    value: float
    """Colour; NaN: nothing is known."""
    text: str
    small: tuple[str, ...]
    """Lines of small print below the text."""
    note: str
    """What hovering shows."""
    strong: bool = False
    """Outlined: the interval leaves zero out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileMap:
    """Cells by two axes; `tiles[row][column]`, row 0 at the bottom; None: no such cell was planned."""

    title: str
    x_label: str
    y_label: str
    x_texts: tuple[str, ...]
    y_texts: tuple[str, ...]
    tiles: tuple[tuple[Tile | None, ...], ...]
    lines: tuple[Floats, ...] = ()
    """Theory over the cells: lines (n, 2), in cells from the lower left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileFigure:
    """Maps that share a scale: of differences (-1 to 1) or of shares (0 to 1)."""

    title: str
    caption: str
    maps: tuple[TileMap, ...]
    diverging: bool
    small: str = ""
    """What the small print in the cells says."""
    line_name: str = ""
    """What the maps' lines say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar with its whisker; NaN ends: no whisker."""

    value: float
    low: float
    high: float
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BarPanel:
    """Bars of some arms by name of a hyperparameter; a missing one is None."""

    title: str
    names: tuple[str, ...]
    arms: tuple[str, ...]
    styles: tuple[int, ...]
    bars: tuple[tuple[Bar | None, ...], ...]
    """`bars[arm][name]`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarFigure:
    """Panels of bars with the same axis."""

    title: str
    caption: str
    x_label: str
    panels: tuple[BarPanel, ...]


AnyFigure = CurveFigure | TileFigure | BarFigure


def arm_styles(arms: Sequence[str], baseline: str | None = None, treatment: str | None = None) -> dict[str, int]:
    """A style for each arm: grey for the baseline, blue for the treatment, the others in their order.

    More arms than styles share the last one.
    """
    first = [name for name in (baseline, treatment) if name is not None and name in arms]
    order = [*first, *(name for name in arms if name not in first)]
    offset = 0 if baseline in arms or baseline is None else 1
    return {name: min(i + offset, MAX_CURVES - 1) for i, name in enumerate(order)}


_BROWN, _BLUE = ("#f5f3ee", "#eecf9f", "#d4883a", "#8f4300"), ("#f5f3ee", "#b5d3de", "#4d97b8", "#15517c")
"""From no difference to the largest; lightness falls alike on both sides."""


def tile_colour(value: float, diverging: bool) -> str:
    """Colour of a difference in [-1, 1] (brown below 0, blue above) or of a share in [0, 1], as #rrggbb."""
    if not diverging:
        return share_colour(value)
    anchors = _BROWN if value < 0 else _BLUE
    place = min(abs(value), 1.0) * (len(anchors) - 1)
    i = min(int(place), len(anchors) - 2)
    pairs = zip(*(bytes.fromhex(anchor[1:]) for anchor in anchors[i : i + 2]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - i)):02x}" for a, b in pairs)


def save(figure: Figure, out_dir: Path, stem: str, *, png: bool) -> list[Path]:
    """Write `<stem>.svg` and, if wanted, `<stem>.png` (200 dpi); the same figure gives the same SVG, byte for byte."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / f"{stem}.svg"]
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "vistudy", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    paths[0].write_bytes(add_titles(buffer.getvalue()))
    if png:
        paths.append(out_dir / f"{stem}.png")
        figure.savefig(paths[1], dpi=200, pil_kwargs={"compress_level": 4})
    return paths
