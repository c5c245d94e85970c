"""Which pictures a report has, in which order: one SVG for print and for the page."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from vistudy.analysis.figures.curves import best_curves, importance_bars, stability_curves, time_curves
from vistudy.analysis.figures.matplotlib_renderer import RenderedFigure, render, warm_up
from vistudy.analysis.figures.specs import AnyFigure, TileFigure, arm_styles
from vistudy.analysis.maps.difference import difference_figure, grid_figure, stability_figure
from vistudy.analysis.maps.heatmap import heatmaps
from vistudy.analysis.maps.heatmap_cells import blocks
from vistudy.analysis.outcomes.label_study import StudyTrials
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.parallel import helper_process
from vistudy.analysis.tables.trials import load_frame

_log = logging.getLogger("vistudy.report")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture of a report."""

    key: str
    """Name of its files, and of its place in the page."""
    title: str
    caption: str
    figure: AnyFigure | Figure

    @classmethod
    def of(cls, key: str, figure: AnyFigure) -> Picture:
        """Picture of a description."""
        small = figure.small if isinstance(figure, TileFigure) else ""
        return cls(key=key, title=figure.title, caption=f"{figure.caption} {small}".strip(), figure=figure)


class FigureWorker:
    """Draws pictures, those of large studies in a second process, too. `results` draws the rest."""

    def __init__(self, folder: Path, trials: int, *, png: bool) -> None:
        self._folder, self._png = folder, png
        self._other = helper_process(trials)
        self._figures: dict[str, AnyFigure | Figure] = {}
        self._waiting: deque[str] = deque()
        """What either process may draw: the other takes the oldest, this one the newest."""
        self._elsewhere: dict[str, Future[RenderedFigure]] = {}
        self._lock = Lock()
        if self._other is not None:
            self._other.submit(warm_up)

    def add(self, picture: Picture) -> None:
        """Draw it soon, or in the end."""
        self._figures[picture.key] = picture.figure
        if self._other is None or isinstance(picture.figure, Figure):
            return
        with self._lock:
            self._waiting.append(picture.key)
            idle = all(future.done() for future in self._elsewhere.values())
        if idle:
            self._send()

    def _send(self, _: object = None) -> None:
        """Have the other process draw one more: one at a time, what it has been given cannot be taken back."""
        with self._lock:
            if not self._waiting or self._other is None:
                return
            try:
                future = self._other.submit(
                    render, self._figures[self._waiting[0]], self._folder, self._waiting[0], self._png
                )
            except BrokenExecutor:  # it died: this process draws what waits, and what the other has not finished
                self._other = None
                return
            self._elsewhere[self._waiting.popleft()] = future
        future.add_done_callback(self._send)

    def results(self) -> dict[str, RenderedFigure]:
        """Key -> what was drawn, in order of adding."""
        done: dict[str, RenderedFigure] = {}
        with self._lock:
            shared = {*self._waiting, *self._elsewhere}
        for key in self._figures.keys() - shared:
            done[key] = render(self._figures[key], self._folder, key, self._png)
        while True:
            with self._lock:
                if not self._waiting:
                    break
                key = self._waiting.pop()
            done[key] = render(self._figures[key], self._folder, key, self._png)
        for key, future in self._elsewhere.items():
            try:
                done[key] = future.result()
            except BrokenExecutor as error:
                _log.warning("a second process died (%s); this one draws %s", error, key)
                done[key] = render(self._figures[key], self._folder, key, self._png)
        return {key: done[key] for key in self._figures}


Section = Literal["main", "compare", "stability", "events"]
"""Where a picture stands: at the top, or with the comparison, with stability, with outcomes."""


def pictures(
    table: pd.DataFrame, claim: Mapping[str, Any] | None, trials: StudyTrials, notes: list[str], thresholds: Thresholds
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
        if (curves := time_curves(table, styles, notes, event)) is not None:
            yield "events", Picture.of(f"time-{event}", curves)
    yield from (("compare", picture) for picture in _compare(table, styles, notes, claim))
    if treatment:
        for slower in (claim or {}).get("slower", ()):
            if slower in others:
                slower_picture = _difference(f"difference-{_key(slower)}", table, [treatment], slower, notes)
                yield from (("compare", picture) for picture in slower_picture)


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
    figure = difference_figure(table, treatments, baseline)
    if figure.maps:
        return [Picture.of(key, figure)]
    notes.append(f"Difference of {', '.join(treatments)} and {baseline}: no block has both.")
    return []


def _compare(
    table: pd.DataFrame, styles: Mapping[str, int], notes: list[str], claim: Mapping[str, Any] | None
) -> Iterator[Picture]:
    arms = list(styles)[:2] if claim is None else [claim["baseline"], claim["treatment"]]
    makers: dict[str, Callable[[], AnyFigure | None]] = {
        "stability-by-lr": lambda: stability_curves(table, styles, notes),
        "best-of-k": lambda: best_curves(table, styles, notes, (claim or {}).get("best_of", 20)),
        "importance-q": lambda: importance_bars(table, arms, styles, notes, "q"),
        "importance-failure": lambda: importance_bars(table, arms, styles, notes, "failure"),
    }
    for key, make in makers.items():
        if (figure := make()) is not None:
            yield Picture.of(key, figure)


def _heatmaps(trials: StudyTrials, thresholds: Thresholds) -> list[Picture]:
    frame = load_frame(trials, thresholds=thresholds)
    figures = heatmaps(frame)
    pictures_ = []
    for block in blocks(frame):
        figure = grid_figure(block)
        pictures_.append(Picture(
            key=f"heatmap-{_key(block.key)}", title=figure.title, caption=figure.caption, figure=figures[block.key],
        ))  # fmt: skip
    return pictures_


def _key(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+=-]+", "-", name).strip("-.")
