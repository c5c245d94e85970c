"""Where the parts of a heatmap figure go, in inches: cells keep their size, and facets wrap to a readable width."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from vistudy.analysis.maps.heatmap_cells import HeatmapBlock

MARGIN = 0.22
LEFT, GAP, FACET_TITLE, TICKS = 0.92, 0.28, 0.30, 0.26
WIDEST, NARROWEST, TALLEST = 10.4, 6.3, 12.0
HEIGHT = 0.52


LINE = 0.16
"""Inches of one more line of a facet's title."""
CHARACTER = 0.074
"""Inches of a character of it, on average."""


def wrapped(title: str, width: float) -> str:
    """A facet's title in lines that fit the width in inches: broken between its factors, else between words."""
    room = max(8, int(width / CHARACTER))
    lines: list[str] = []
    for part in title.split(" · ") if title else ():
        if lines and len(lines[-1]) + 3 + len(part) <= room:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, room)
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Places of everything, in inches from the lower left."""

    places: tuple[tuple[int, int], ...]
    """Row and column of each facet."""
    columns: int
    title: float
    """Height of a facet's title."""
    cell: float
    width: float
    height: float
    facet_width: float
    facet_height: float
    left: float
    top: float
    """Upper end of the first row's facet titles."""

    @classmethod
    def of(cls, block: HeatmapBlock, header: float, footer: float) -> Layout:
        """Lay a block out between a header and a footer of the given heights."""
        cell = 0.80 if len(block.x.levels) <= 6 else 0.70
        cell = max(cell, 0.085 * max(len(text) for text in block.x.texts))
        wide, high = cell * len(block.x.levels), HEIGHT * len(block.y.levels)
        lines = max(len(wrapped(facet.title, wide + GAP / 2).splitlines()) for facet in block.facets)
        title = FACET_TITLE + (lines - 1) * LINE if lines else 0.06
        rows, columns, places = _arrange(block, wide, high)
        left = LEFT if block.y.label else MARGIN
        inner = columns * (wide + GAP) - GAP
        width = max(left + inner + MARGIN, NARROWEST)
        body = rows * (high + title + TICKS)
        return cls(
            places=tuple(places), columns=columns, title=title, cell=cell, width=width, height=header + body + footer,
            facet_width=wide, facet_height=high, left=left, top=footer + body,
        )  # fmt: skip

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """Lower left of a facet's cells."""
        y = self.top - row * (self.facet_height + self.title + TICKS) - self.title - self.facet_height
        return self.left + column * (self.facet_width + GAP), y


def _arrange(block: HeatmapBlock, wide: float, high: float) -> tuple[int, int, list[tuple[int, int]]]:
    """Rows, columns, and the place of each facet: as two factors suggest if that fits the width, else wrapped."""
    count, (rows, columns) = len(block.facets), block.shape
    fit = max(1, int((WIDEST - LEFT - MARGIN + GAP) / (wide + GAP)))
    if columns > 1 and columns <= fit:
        return rows, columns, [(facet.row, facet.column) for facet in block.facets]
    if columns > 1 and rows <= fit:
        return columns, rows, [(facet.column, facet.row) for facet in block.facets]
    if count * high > TALLEST:  # a strip of many large facets serves no reader
        fit = max(fit, 2)
    rows = math.ceil(count / min(fit, count))
    columns = math.ceil(count / rows)
    return rows, columns, [divmod(i, columns) for i in range(count)]
