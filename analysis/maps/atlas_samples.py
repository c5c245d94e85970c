"""Which samples of a study the atlas shows, and as which small pictures.

What does not fit a page is left out by a stated rule: first evaluations between the others, then the last seeds, then
all but the first configuration of a cell; and what is left out is said.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vistudy.analysis.figures.sample_images import Image, draw_points, drawable, tile_images
from vistudy.analysis.maps.heatmap_cells import HeatmapBlock, HeatmapCell, blocks, factors_of
from vistudy.analysis.outcomes.label_study import as_ledger
from vistudy.analysis.tables import trials as tables
from vistudy.analysis.tables.trials import cell_tag

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger

THUMB = 88
"""Pixels of a side of a small picture of points; one of images is about as large."""
MOST_PICTURES = 1500
"""Small pictures of a page; of points, each has about 2 kB."""
MOST_TIMES = 10
"""Times that the slider has, at most."""

Modes = Mapping[str, np.ndarray]
"""Data set -> centres (m, 2) of its real modes."""
Time = Fraction
"""Share of the budget, evaluation / evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasTrial:
    """A trial in its cell."""

    row: Mapping[str, Any]
    """Of the table of trials."""
    pictures: Mapping[Time, Image]
    """All of one size; none after the trial was decided (non-finite)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasSheet:
    """The pictures of one block of heatmaps."""

    heading: str
    block: HeatmapBlock
    shown: Mapping[tuple[int, int, int], tuple[AtlasTrial, ...]]
    """(facet, x, y) -> its trials with pictures."""
    times: tuple[Time, ...]
    seeds: tuple[int, ...]
    left_out: tuple[str, ...]
    """What is not shown, in words."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture."""
        images = (p for some in self.shown.values() for shown in some for p in shown.pictures.values())
        height, width, _ = next(images).shape
        return height, width

    def cells(self) -> Iterator[tuple[tuple[int, int, int], HeatmapCell, tuple[AtlasTrial, ...]]]:
        """Every cell with its place and its trials."""
        for number, facet in enumerate(self.block.facets):
            for cell in facet.cells:
                key = (number, cell.x, cell.y)
                yield key, cell, self.shown.get(key, ())

    def steps(self, time: Time) -> tuple[int, int]:
        """Least and most discriminator updates of a trial at that time."""
        steps = [step_of(shown.row, time) for shown in itertools.chain(*self.shown.values()) if time in shown.pictures]
        return min(steps), max(steps)


def sheets(
    store: Ledger | str | os.PathLike[str], study: str, *, modes: Modes | None = None, most: int = MOST_PICTURES
) -> list[AtlasSheet]:
    """The blocks of a study that have samples with a picture; none if no evaluation kept any.

    Args:
        store: the ledger.
        study: name of a study in it.
        modes: real modes to mark; without them a scene is a little wider than the real data.
        most: small pictures in all.

    Raises:
        StudyError: as `load_frame`.
    """
    ledger = as_ledger(store)
    packs = {t: pack for pack in ledger.packs().values() for t in pack.get("trial_ids", ()) if pack["samples"]}
    plan = ledger.read_plan(study)
    if not any(entry["trial_id"] in packs for entry in plan["trials"]):
        return []
    selections = list(_blocks(tables.load_frame(ledger, study), plan["trials"]))
    choices = [choice for heading, block in selections if (choice := _choose(heading, block, packs))]
    for choice in choices:
        choice.fit(most // len(choices))
    sheets_ = [_sheet(choice, ledger, packs, modes or {}) for choice in choices]
    return [sheet for sheet in sheets_ if sheet]


def step_of(row: Mapping[str, Any], time: Time) -> int:
    """Discriminator updates of a trial at a share of its budget: whole periods, as many as reach it."""
    period = 1 if pd.isna(row["d_steps"]) else int(row["d_steps"])
    return period * math.ceil(int(row["d_updates"]) * time / period)


def _blocks(frame: pd.DataFrame, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, HeatmapBlock]]:
    """Heading and block; with arms one of each arm, for arms are settings of their own and have axes of their own."""
    cells = {e["trial_id"]: [e["cell"], *(also["cell"] for also in e.get("also", ()))] for e in entries}
    arms = dict.fromkeys(cell["arm"] for some in cells.values() for cell in some if "arm" in cell)
    for arm in list(arms) or [None]:
        part = frame
        if arm is not None:
            tags = {t: cell_tag(c) for t, some in cells.items() for c in some if c.get("arm") == arm}
            part = frame[frame["trial_id"].isin(tags.keys())]
            part = part.assign(cell=[tags[t] for t in part["trial_id"]])
        for block in blocks(part, [name for name in factors_of(part) if name != "arm"]):
            name = f"{block.model} on {block.data}"
            yield (name if arm is None else f"{name}, arm {arm}"), block


@dataclass(kw_only=True, slots=True)
class AtlasSelection:
    """What could be shown of a block, and is cut to what fits."""

    heading: str
    block: HeatmapBlock
    cells: dict[tuple[int, int, int], list[dict[str, Any]]]
    """Rows of trials that kept samples."""
    times: list[Time]
    left_out: list[str]

    @property
    def pictures(self) -> int:
        """Number of pictures on the sheet."""
        return len(self.times) * sum(map(len, self.cells.values()))

    def fit(self, most: int) -> None:
        """Leave out times beyond MOST_TIMES; then, while there are too many pictures, seeds and configurations."""
        if len(self.times) > MOST_TIMES:
            self.left_out.append(f"{MOST_TIMES} of {len(self.times)} evaluations with samples")
            spread = np.linspace(0, len(self.times) - 1, MOST_TIMES).round().astype(int)
            self.times = [self.times[i] for i in spread]
        seeds = sorted({row["seed"] for rows in self.cells.values() for row in rows})
        n_seeds = len(seeds)
        while n_seeds > 1 and self.pictures > most:
            n_seeds -= 1
            self._keep(seeds[:n_seeds])
        if n_seeds < len(seeds):
            self.left_out.append(f"{n_seeds} of {len(seeds)} seeds")
        if self.pictures > most and any(len(rows) > 1 for rows in self.cells.values()):
            self.cells = {key: rows[:1] for key, rows in self.cells.items()}
            self.left_out.append("the first configuration of each cell")
        while len(self.times) > 1 and self.pictures > most:
            self.times.pop(0)
            note = "the last evaluations only"
            self.left_out += [note] if note not in self.left_out else []

    def _keep(self, seeds: list[Any]) -> None:
        self.cells = {key: [row for row in rows if row["seed"] in seeds] for key, rows in self.cells.items()}


def _choose(heading: str, block: HeatmapBlock, packs: Mapping[str, Mapping[str, Any]]) -> AtlasSelection | None:
    cells: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    times: set[Time] = set()
    for number, facet in enumerate(block.facets):
        for cell in facet.cells:
            rows = [row for row in cell.trials.to_dict("records") if row["trial_id"] in packs]
            cells[number, cell.x, cell.y] = [{str(name): value for name, value in row.items()} for row in rows]
            times |= {Time(e, int(row["evaluations"])) for row in rows for e in packs[row["trial_id"]]["samples"]}
    if not times:
        return None
    return AtlasSelection(heading=heading, block=block, cells=cells, times=sorted(times), left_out=[])


def _sheet(
    choice: AtlasSelection, ledger: Ledger, packs: Mapping[str, Mapping[str, Any]], modes: Modes
) -> AtlasSheet | None:
    """Draw what was chosen; None if there is nothing that has a picture (the exact numbers of toys)."""
    centres = modes.get(choice.block.data)
    shown: dict[tuple[int, int, int], tuple[AtlasTrial, ...]] = {}
    for key, rows in choice.cells.items():
        trials_ = []
        for row in rows:
            samples, evaluations = ledger.samples(row["trial_id"]), int(row["evaluations"])
            wide = 1.2 * packs[row["trial_id"]]["reference"]["max_abs_data"]
            pictures = {
                time: thumbnail(samples[int(e)], modes=centres, limit=None if centres is not None else wide)
                for time in choice.times
                if (e := time * evaluations) in samples and drawable(samples[int(e)].shape)
            }
            if pictures:
                trials_.append(AtlasTrial(row=row, pictures=pictures))
        shown[key] = tuple(trials_)
    everything = [item for some in shown.values() for item in some]
    if not everything:
        return None
    return AtlasSheet(
        heading=choice.heading,
        block=choice.block,
        shown=shown,
        times=tuple(time for time in choice.times if any(time in item.pictures for item in everything)),
        seeds=tuple(sorted({int(item.row["seed"]) for item in everything})),
        left_out=tuple(choice.left_out),
    )


def thumbnail(samples: np.ndarray, *, modes: np.ndarray | None, limit: float | None) -> Image:
    """A small picture: points (n, 2) in the scene of all trials, or the first images (n, C, H, W) in a small grid.

    Images wider than 47 pixels are averaged down. `limit` as in `draw_points`.
    """
    if samples.ndim == 2:
        return draw_points(samples, modes=modes, limit=limit, size=THUMB)
    factor = max(1, samples.shape[3] // 28) if samples.shape[3] >= 48 else 1
    side = samples.shape[3] // factor
    rows = min(4, max(2, 96 // side), math.isqrt(len(samples)))
    return tile_images(_smaller(samples[: rows * rows], factor), size=THUMB)


def _smaller(images: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels."""
    if factor == 1:
        return images
    n, channels, height, width = images.shape
    high, wide = height // factor, width // factor
    cut = images[:, :, : high * factor, : wide * factor].reshape(n, channels, high, factor, wide, factor)
    with np.errstate(invalid="ignore", over="ignore"):  # broken images are shown as such
        mean: np.ndarray = cut.mean((3, 5), dtype=np.float32)
    return mean.round().astype(np.uint8) if images.dtype == np.uint8 else mean
