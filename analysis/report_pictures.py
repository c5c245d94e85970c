"""Which pictures a report has, in which order: for print and for the browser."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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
COLOURS = 256
"""Of the pictures inside the page: they have few, and a palette makes them a third as large."""


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
    """PNG with a palette, for the page."""
    inches: float
    """Width."""


def paint(figure: AnyFigure | Figure, folder: Path, key: str) -> Printed:
    """Draw a picture for print and write its files."""
    drawn = figure if isinstance(figure, Figure) else draw(figure)
    paths = save(drawn, folder, key)
    with Image.open(paths[0]) as image, io.BytesIO() as buffer:
        image.convert("RGB").quantize(COLOURS).save(buffer, "PNG")
        return Printed(paths=tuple(paths), page=buffer.getvalue(), inches=float(drawn.get_size_inches()[0]))


class Painter:
    """Draws pictures, those of large studies in a second process. A context manager; `results` waits."""

    def __init__(self, folder: Path, trials: int) -> None:
        self._folder = folder
        # spawn, not fork: Arrow and BLAS have threads by now
        self._pool = ProcessPoolExecutor(1, get_context("spawn")) if trials >= LARGE else None
        self._done: dict[str, Printed | Future[Printed]] = {}

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, picture: Picture) -> None:
        """Draw it, now or soon."""
        if self._pool is None or isinstance(picture.figure, Figure):
            self._done[picture.key] = paint(picture.figure, self._folder, picture.key)
        else:
            self._done[picture.key] = self._pool.submit(paint, picture.figure, self._folder, picture.key)

    def results(self) -> dict[str, Printed]:
        """Key -> what was drawn, in order of adding."""
        return {key: made.result() if isinstance(made, Future) else made for key, made in self._done.items()}


Pictures = list[Picture]


def pictures(
    table: pd.DataFrame, claim: Mapping[str, Any] | None, trials: Trials, notes: list[str], thresholds: Thresholds
) -> tuple[Pictures, Pictures, Pictures, Pictures]:  # fmt: skip
    """Pictures of the top, of the comparison, of stability, of outcomes. What cannot be drawn goes to `notes`."""
    baseline, treatment = _compared(table, claim)
    styles = arm_styles(list(dict.fromkeys(table["arm"])), baseline, treatment)
    others = [a for a in styles if a not in (baseline, treatment)]
    main, compare = [], _compare(table, styles, notes, claim)
    if baseline and treatment:
        main += _difference(
            "difference", table, [treatment] if claim else [a for a in styles if a != baseline], baseline, notes
        )
        for slower in (claim or {}).get("slower", ()):
            if slower in others:
                compare += _difference(f"difference-{_key(slower)}", table, [treatment], slower, notes)
    stability: Pictures = []
    if claim is None and not table["arm"].isin(_declared(trials.plan)).any():
        maps = _heatmaps(trials, thresholds)
        main, stability = [*maps[:1], *main], maps[1:]
    else:
        for block, part in table.groupby("block", sort=False):
            stability.append(Picture.of(f"stability-{_key(str(block))}", stability_figure(part)))
    events = [
        Picture.of(f"time-{event}", found)
        for event in ("threshold", "collapse", "divergence")
        if (found := time_curves(table, styles, notes, event)) is not None
    ]
    return main, compare, stability, events


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


def _difference(key: str, table: pd.DataFrame, treatments: Sequence[str], baseline: str, notes: list[str]) -> Pictures:
    found = difference_figure(table, treatments, baseline)
    if found.maps:
        return [Picture.of(key, found)]
    notes.append(f"Difference of {', '.join(treatments)} and {baseline}: no block has both.")
    return []


def _compare(
    table: pd.DataFrame, styles: Mapping[str, int], notes: list[str], claim: Mapping[str, Any] | None
) -> Pictures:
    lr = stability_curves(table, styles, notes)
    best = best_curves(table, styles, notes, (claim or {}).get("best_of", 20))
    arms = list(styles)[:2] if claim is None else [claim["baseline"], claim["treatment"]]
    found: list[tuple[str, AnyFigure | None]] = [("stability-by-lr", lr), ("best-of-k", best)]
    for value in ("q", "failure"):
        found.append((f"importance-{value}", importance_bars(table, arms, styles, notes, value)))
    return [Picture.of(key, figure) for key, figure in found if figure is not None]


def _heatmaps(trials: Trials, thresholds: Thresholds) -> Pictures:
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
