"""Which pictures a report has, in which order: for print and for the browser."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from analysis.curves import best_curves, importance_bars, stability_curves, time_curves
from analysis.difference import difference_figure, grid_figure, stability_figure
from analysis.figures import heatmaps
from analysis.frame import Trials, load_frame
from analysis.grid import blocks
from analysis.outcome import Thresholds
from analysis.panels import AnyFigure, arm_styles, save
from analysis.prints import draw
from analysis.report_plotly import browser

LARGE = 2000
"""Trials from which pictures are drawn in a process of their own, beside the statistics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture of a report."""

    key: str
    """Name of its files, and of its place in the page."""
    title: str
    caption: str
    figure: AnyFigure | Figure
    browser: dict[str, Any]
    """What plotly draws."""

    @classmethod
    def of(cls, key: str, figure: AnyFigure) -> Picture:
        """Picture that is drawn both ways."""
        return cls(key=key, title=figure.title, caption=figure.caption, figure=figure, browser=browser(figure))


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """A picture that was drawn for print."""

    paths: tuple[Path, ...]
    """PNG and SVG."""
    page: bytes
    """WebP, for the page."""
    inches: float
    """Width."""


def paint(figure: AnyFigure | Figure, folder: Path, key: str) -> Printed:
    """Draw a picture for print and write its files."""
    drawn = figure if isinstance(figure, Figure) else draw(figure)
    paths = save(drawn, folder, key)
    with Image.open(paths[0]) as image, io.BytesIO() as buffer:
        image.convert("RGB").save(buffer, "WEBP", lossless=True, method=2)  # a fifth of the PNG
        return Printed(paths=tuple(paths), page=buffer.getvalue(), inches=float(drawn.get_size_inches()[0]))


class Painter:
    """Draws pictures, those of large studies in a second process, too. A context manager; `results` draws the rest."""

    def __init__(self, folder: Path, trials: int) -> None:
        self._folder = folder
        # spawn, not fork: Arrow and BLAS have threads by now
        self._pool = ProcessPoolExecutor(1, get_context("spawn")) if trials >= LARGE else None
        self._added: dict[str, tuple[AnyFigure | Figure, Future[Printed] | None]] = {}
        if self._pool is not None:
            self._pool.submit(_import)

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, picture: Picture) -> None:
        """Draw it soon, or in the end."""
        figure, later = picture.figure, None
        if self._pool is not None and not isinstance(figure, Figure):
            later = self._pool.submit(paint, figure, self._folder, picture.key)
        self._added[picture.key] = (figure, later)

    def results(self) -> dict[str, Printed]:
        """Key -> what was drawn, in order of adding."""
        done = {
            key: paint(figure, self._folder, key)
            for key, (figure, later) in reversed(self._added.items())
            if later is None or later.cancel()  # the second process has not come to it
        }
        return {
            key: done[key] if later is None or key in done else later.result()
            for key, (_, later) in self._added.items()
        }


def _import() -> None:
    """Finding this function has imported what drawing needs, while nothing is there to be drawn yet."""


Section = Literal["main", "compare", "stability", "events"]
"""Where a picture stands: at the top, or with the comparison, with stability, with outcomes."""


def pictures(
    table: pd.DataFrame, claim: Mapping[str, Any] | None, trials: Trials, notes: list[str], thresholds: Thresholds
) -> Iterator[tuple[Section, Picture]]:
    """The pictures, those of one section in order; what is made fast comes first. What cannot be drawn: to `notes`."""
    baseline, treatment = _compared(table, claim)
    styles = arm_styles(list(dict.fromkeys(table["arm"])), baseline, treatment)
    others = [a for a in styles if a not in (baseline, treatment)]
    differences: list[Picture] = []
    if baseline and treatment:
        treatments = [treatment] if claim else [a for a in styles if a != baseline]
        differences = _difference("difference", table, treatments, baseline, notes)
    if claim is None and not table["arm"].isin(_declared(trials.plan)).any():
        maps = _heatmaps(trials, thresholds)
        yield from (("main", picture) for picture in (*maps[:1], *differences))
        yield from (("stability", picture) for picture in maps[1:])
    else:
        yield from (("main", picture) for picture in differences)
        for block, part in table.groupby("block", sort=False):
            yield "stability", Picture.of(f"stability-{_key(str(block))}", stability_figure(part))
    for event in ("threshold", "collapse", "divergence"):
        if (found := time_curves(table, styles, notes, event)) is not None:
            yield "events", Picture.of(f"time-{event}", found)
    yield from (("compare", picture) for picture in _compare(table, styles, notes, claim))
    if treatment:
        for slower in (claim or {}).get("slower", ()):
            if slower in others:
                made = _difference(f"difference-{_key(slower)}", table, [treatment], slower, notes)
                yield from (("compare", picture) for picture in made)


def _declared(plan: Mapping[str, Any]) -> set[str]:
    return {arm for block in plan.get("blocks", {}).values() for arm in block.get("arms") or ()}


def _compared(table: pd.DataFrame, claim: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """Baseline and treatment: the claim's, else no regularizer and the paper's weight (or the first other arm)."""
    if claim is not None:
        return claim["baseline"], claim["treatment"]
    arms = list(dict.fromkeys(table["arm"]))
    if len(arms) < 2:
        return None, None
    baseline = "λ = 0" if "λ = 0" in arms else arms[0]
    others = [arm for arm in arms if arm != baseline]
    return baseline, "λ = 5" if "λ = 5" in others else others[0]


def _difference(
    key: str, table: pd.DataFrame, treatments: Sequence[str], baseline: str, notes: list[str]
) -> list[Picture]:
    found = difference_figure(table, treatments, baseline)
    if found.maps:
        return [Picture.of(key, found)]
    notes.append(f"Difference of {', '.join(treatments)} and {baseline}: no block has both.")
    return []


def _compare(
    table: pd.DataFrame, styles: Mapping[str, int], notes: list[str], claim: Mapping[str, Any] | None
) -> Iterator[Picture]:
    arms = list(styles)[:2] if claim is None else [claim["baseline"], claim["treatment"]]
    made: dict[str, Callable[[], AnyFigure | None]] = {
        "stability-by-lr": lambda: stability_curves(table, styles, notes),
        "best-of-k": lambda: best_curves(table, styles, notes, (claim or {}).get("best_of", 20)),
        "importance-q": lambda: importance_bars(table, arms, styles, notes, "q"),
        "importance-failure": lambda: importance_bars(table, arms, styles, notes, "failure"),
    }
    for key, make in made.items():
        if (figure := make()) is not None:
            yield Picture.of(key, figure)


def _heatmaps(trials: Trials, thresholds: Thresholds) -> list[Picture]:
    frame = load_frame(trials, thresholds=thresholds)
    drawn = heatmaps(frame)
    found = []
    for block in blocks(frame):
        figure = grid_figure(block)
        found.append(Picture(
            key=f"heatmap-{_key(block.key)}", title=figure.title, caption=figure.caption, figure=drawn[block.key],
            browser=browser(figure),
        ))  # fmt: skip
    return found


def _key(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+=-]+", "-", name).strip("-.")
