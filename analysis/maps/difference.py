"""Maps of a box: share of stable trials by arm, and the difference of two arms with its interval in every cell.

Pure functions of an arm table: of `tables.arm_table.load_arms`, or of `figures.grid_layout.arm_table` for a study
without arms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import cast

import numpy as np
import pandas as pd

from vistudy.analysis.figures.grid_layout import GridLayout, layout_arm_table
from vistudy.analysis.figures.specs import Tile, TileFigure, TileMap
from vistudy.analysis.maps.dirac_overlay import NAME, boundary_lines
from vistudy.analysis.maps.heatmap_cells import HeatmapBlock, HeatmapCell, cell_text
from vistudy.analysis.outcomes.time_series import Floats
from vistudy.analysis.tables.rates import wilson


def paired_interval(both: int, rescued: int, broken: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, (rescued - broken) / n; (nan, nan) without pairs.

    Treats pairs as independent, so it describes one cell and decides nothing. Never wider than -1 to 1, and never of
    width zero, as an interval of a few equal pairs must not be. Source: Newcombe 1998, Stat. Med. 17:2635, method 10.
    """
    n = both + rescued + broken + neither
    if n == 0:
        return math.nan, math.nan
    first, second = (both + rescued) / n, (both + broken) / n
    (low_1, high_1), (low_2, high_2) = wilson(both + rescued, n), wilson(both + broken, n)
    margins = (both + rescued) * (broken + neither) * (both + broken) * (rescued + neither)
    cross = both * neither - rescued * broken
    phi = 0.0
    if margins > 0:
        phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / math.sqrt(margins)
    down = (first - low_1) ** 2 - 2 * phi * (first - low_1) * (high_2 - second) + (high_2 - second) ** 2
    up = (second - low_2) ** 2 - 2 * phi * (second - low_2) * (high_1 - first) + (high_1 - first) ** 2
    middle = first - second
    return max(-1.0, middle - math.sqrt(max(down, 0.0))), min(1.0, middle + math.sqrt(max(up, 0.0)))


def difference_map(
    table: pd.DataFrame, treatment: str, baseline: str, *, title: str | None = None, box: GridLayout | None = None
) -> TileMap:
    """Difference of the shares of stable trials in each cell of one block, from pairs of equal config and seed.

    `box`: what `layout_arm_table` gave for the table, if it is known.

    Raises:
        ValueError: an arm has two trials of one config and seed; the table has several blocks.
    """
    if table["block"].nunique() != 1:
        raise ValueError(f"difference_map: one block at a time, got {table['block'].unique().tolist()}")
    box = box or layout_arm_table(table)
    part = table[["arm", "config", "seed", "stable"]].assign(x=box.x, y=box.y)
    part = part[part["arm"].isin([treatment, baseline])]
    twice = part.duplicated(["arm", "config", "seed"])
    if twice.any():
        row = part[twice].iloc[0]
        raise ValueError(
            f"difference_map: arm {row['arm']} has two trials of config {row['config']!r}, seed {row['seed']}"
        )
    wide = part.pivot(index=["x", "y", "config", "seed"], columns="arm", values="stable")
    wide = wide.reindex(columns=[treatment, baseline])
    tiles: list[list[Tile | None]] = [[None] * len(box.x_texts) for _ in box.y_texts]
    for key, cell in wide.groupby(level=["x", "y"]):
        x, y = cast("tuple[int, int]", key)
        pairs = cell.dropna().to_numpy(dtype=float)
        place = box.place(x, y)
        tiles[y][x] = _difference_tile(pairs, len(cell), place, treatment, baseline)
    return TileMap(
        title=title or str(table["block"].iloc[0]), x_label=box.x_label, y_label=box.y_label, x_texts=box.x_texts,
        y_texts=box.y_texts, tiles=tuple(tuple(row) for row in tiles),
    )  # fmt: skip


def _difference_tile(pairs: np.ndarray, planned: int, place: str, treatment: str, baseline: str) -> Tile:
    """Tile of some pairs (n, 2): stable in the treatment, stable in the baseline."""
    n = len(pairs)
    if n == 0:
        return Tile(
            value=math.nan,
            text="",
            small=("no pairs",),
            note=f"{place}\nnone of {planned} pairs is evaluable in both arms",
        )
    t, b = pairs[:, 0] == 1, pairs[:, 1] == 1
    counts = [int(np.sum(mask)) for mask in (t & b, t & ~b, ~t & b, ~t & ~b)]
    low, high = paired_interval(*counts)
    difference = (counts[1] - counts[2]) / n
    note = (
        f"{place}\n{treatment}: {counts[0] + counts[1]} of {n} stable; {baseline}: {counts[0] + counts[2]} of {n}\n"
        f"difference {whole_points(difference)} points, 95 % interval {whole_points(low)} to {whole_points(high)}\n"
        f"{counts[1]} rescued, {counts[2]} broken, {n} pairs of {planned}"
    )
    return Tile(
        value=difference, text=whole_points(difference), note=note, strong=bool(low > 0 or high < 0),
        small=(
            f"{counts[0] + counts[1]} vs {counts[0] + counts[2]} of {n}",
            f"{whole_points(low)} to {whole_points(high)}",
        ),
    )  # fmt: skip


def whole_points(share: float) -> str:
    """A difference of shares in percentage points with its sign: +25, −3, 0."""
    if math.isnan(share):
        return "–"
    rounded = round(100 * share)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "−")


def difference_figure(
    table: pd.DataFrame, treatments: str | Sequence[str], baseline: str, *, title: str = ""
) -> TileFigure:
    """Difference maps of every block that has both arms, for each treatment. Raises ValueError as `difference_map`."""
    arms = [treatments] if isinstance(treatments, str) else list(treatments)
    maps, pooled = [], dict[str, None]()
    for block, part in table.groupby("block", sort=False):
        compared = [arm for arm in arms if {arm, baseline} <= set(part["arm"].unique())]
        if not compared:
            continue
        box = layout_arm_table(part)
        pooled |= dict.fromkeys(box.pooled)
        for arm in compared:
            name = str(block) if len(arms) == 1 else f"{block}: {arm}"
            maps.append(difference_map(part, arm, baseline, title=name, box=box))
    what = arms[0] if len(arms) == 1 else "the arm"
    return TileFigure(
        title=title or f"What {arms[0] if len(arms) == 1 else 'each arm'} changes against {baseline}",
        caption=(
            f"Percentage points of stable trials, {what} minus {baseline}, from pairs of equal configuration and seed. "
            "Outlined: the 95 % interval (paired score interval) leaves 0 out; with many cells some will by chance. "
            f"Dashed: no pair is evaluable in both arms. Blank: no configuration there.{_pooled_note(pooled)}"
        ),
        small=f"Small print: stable trials in {what} vs in {baseline} of the pairs, and the interval.",
        maps=tuple(maps), diverging=True,
    )  # fmt: skip


def _pooled_note(pooled: Collection[str]) -> str:
    return f" Pooled over {', '.join(pooled)}." if pooled else ""


def stability_figure(table: pd.DataFrame, *, title: str = "") -> TileFigure:
    """Share of stable trials by arm over the box of one block, with k/n in every cell."""
    box = layout_arm_table(table)
    maps = []
    for arm, part in table.assign(_x=box.x, _y=box.y).groupby("arm", sort=False):
        tiles: list[list[Tile | None]] = [[None] * len(box.x_texts) for _ in box.y_texts]
        stable, states = part["stable"].to_numpy(dtype=float), part["state"].to_numpy(dtype=object)
        for key, rows in part.groupby(["_x", "_y"]).indices.items():
            x, y = cast("tuple[int, int]", key)
            tiles[y][x] = _share_tile(stable[rows], states[rows], box.place(x, y))
        maps.append(TileMap(
            title=str(arm), x_label=box.x_label, y_label=box.y_label, x_texts=box.x_texts, y_texts=box.y_texts,
            tiles=tuple(tuple(row) for row in tiles),
        ))  # fmt: skip
    block = str(table["block"].iloc[0])
    return TileFigure(
        title=title or f"Stable trials by arm: {block}",
        caption=(
            "k/n: k stable of n evaluable trials. Dashed: none is evaluable. Blank: no configuration there."
            f"{_pooled_note(box.pooled)}"
        ),
        maps=tuple(maps), diverging=False,
    )  # fmt: skip


def _share_tile(stable: Floats, states: np.ndarray, place: str) -> Tile:
    evaluable = ~np.isnan(stable)
    n, k = int(evaluable.sum()), int(stable[evaluable].sum())
    # what became of the trials that are not evaluable
    lost = ", ".join(
        f"{count} {'unclear' if state == 'complete' else state}"
        for state, count in Counter(states[~evaluable].tolist()).most_common()
    )
    if n == 0:
        return Tile(
            value=math.nan, text="", small=("no outcome",), note=f"{place}\nno outcome of {stable.size} trials: {lost}"
        )
    low, high = wilson(k, n)
    note = f"{place}\n{k} of {n} stable, 95 % interval {low:.0%} to {high:.0%}" + (f"\n{lost}" if lost else "")
    return Tile(value=k / n, text=f"{k}/{n}", small=(), note=note)


def grid_figure(block: HeatmapBlock) -> TileFigure:
    """The stability heatmaps of one model on one data set, as `analysis.maps.heatmap.heatmap` draws them for print."""
    maps = []
    for facet in block.facets:
        tiles: list[list[Tile | None]] = [[None] * len(block.x.levels) for _ in block.y.levels]
        for cell in facet.cells:
            tiles[cell.y][cell.x] = _rates_tile(block, cell)
        maps.append(TileMap(
            title=facet.title, x_label=block.x.label, y_label=block.y.label, x_texts=block.x.texts,
            y_texts=block.y.texts, tiles=tuple(tuple(row) for row in tiles),
            lines=tuple(boundary_lines(block, facet)),
        ))  # fmt: skip
    pooled = f" Pooled over {', '.join(block.pooled)}." if block.pooled else ""
    has_lines = any(m.lines for m in maps)
    return TileFigure(
        title=f"Stable trials: {block.model} on {block.data}", maps=tuple(maps), diverging=False,
        caption=f"k/n: k stable of n trials with an outcome. Dashed: none has one.{pooled}"
        + (f" Orange line: {NAME}." if has_lines else ""),
        line_name=NAME if has_lines else "",
    )  # fmt: skip


def _rates_tile(block: HeatmapBlock, cell: HeatmapCell) -> Tile:
    rates, note = cell.rates, cell_text(block, cell)
    if not rates["n"]:
        return Tile(value=math.nan, text="", small=("no outcome",), note=note)
    return Tile(value=rates["share"], text=f"{rates['k']}/{rates['n']}", small=(), note=note)
