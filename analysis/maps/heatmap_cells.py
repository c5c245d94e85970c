"""Cells of the heatmaps of a frame of trials; `heatmap` draws them, `heatmap_page` writes them as a page.

A block is one model on one data set, a facet one combination of the other factors, a cell one place in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.figures.grid_layout import BINS, FACTOR_TEXT, MAX_FACETS, MAX_LEVELS
from vistudy.analysis.outcomes.labels import LABEL_TEXT
from vistudy.analysis.tables.columns import cell_levels
from vistudy.analysis.tables.formatting import level_text, needs_exponent
from vistudy.analysis.tables.rates import cell_rates
from vistudy.analysis.tables.validation import check_trials

MARKS = (
    ("failed", "×", "failed", "trials that failed (machine)"),
    ("missing", "○", "not run", "trials not run yet"),
    ("undetermined", "?", "unclear", "trials whose records cannot tell"),
)
"""Trials without an outcome: column of the rates, sign in a cell's corner, word after a number, legend."""
PLACEBO = "placebo: λ provably has no effect"


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis of the heatmaps."""

    column: str
    """Column of the frame."""
    label: str
    levels: tuple[Any, ...]
    """Values along it, ascending (numbers) or in order of appearance."""
    texts: tuple[str, ...]
    """Tick labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatmapCell:
    """One place of a facet with what became of its trials."""

    x: int
    y: int
    """Places along the axes; y = 0 is the lowest level."""
    rates: dict[str, Any]
    """RATE_COLUMNS of `vistudy.analysis.tables.rates`."""
    trials: pd.DataFrame
    """The rows of its trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facet:
    """One heatmap: the trials of one combination of the other factors."""

    title: str
    row: int
    column: int
    cells: tuple[HeatmapCell, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatmapBlock:
    """All heatmaps of one model on one data set."""

    model: str
    data: str
    x: Axis
    y: Axis
    facets: tuple[Facet, ...]
    shape: tuple[int, int]
    """Rows and columns that the factors suggest for the facets; (n, 1) if they suggest nothing."""
    pooled: tuple[str, ...]
    """Factors that vary inside the cells."""
    trials: int

    @property
    def key(self) -> str:
        """`model-data`, unique in a study."""
        return f"{self.model}-{self.data}"


def blocks(frame: pd.DataFrame, factors: Iterable[str] | None = None) -> list[HeatmapBlock]:
    """Lay the trials out: learning rate by reg_weight, one facet for each combination of the other varying factors.

    `factors`: names of the study's factors; None: those of the trials' cells. A name that is no column of
    the frame (a factor that only other blocks have) is passed over.
    """
    check_trials(frame, ("trial_id", "state", "outcome", "inert", "model", "data", "cell", "seed"))
    names = list(factors_of(frame) if factors is None else dict.fromkeys(factors))
    pairs = frame[["model", "data"]].drop_duplicates().itertuples(index=False)
    return [_block(frame[(frame["model"] == m) & (frame["data"] == d)], m, d, names) for m, d in pairs]


def factors_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """Names of the factors, from the cells of the frame."""
    return tuple(dict.fromkeys(name for tag in frame["cell"].unique() for name in cell_levels(tag)))


def _block(trials: pd.DataFrame, model: str, data: str, names: Sequence[str]) -> HeatmapBlock:
    part = trials.assign(_x=0, _y=0)
    if {"d_steps", "g_steps"} <= set(part.columns):
        part["ratio"] = [f"{d}:{g}" for d, g in zip(part["d_steps"], part["g_steps"], strict=True)]
    together = bool((part["g_lr"] == part["d_lr"]).all())
    x_column = next((c for c in ("g_lr", "relaxation") if c in part and part[c].notna().any()), "_x")
    y_column = "reg_weight" if part["reg_weight"].notna().any() else "_y"
    columns = dict.fromkeys({"lr": "g_lr", "batch_norm": "norm"}.get(name, name) for name in names)
    used = {x_column, y_column, "seed", "model", "data", "d_lr" if together else None}
    others = {c: int(part[c].nunique(dropna=False)) for c in columns if c in part and c not in used}
    facets = [c for c, levels in others.items() if 1 < levels <= MAX_FACETS]
    x = _axis(part, x_column, "relaxation step η" if x_column == "relaxation" else _rate_label(part, together))
    nets = bool(part["norm"].notna().any())  # toys weigh the term as their equations do
    y = _axis(part, y_column, "reg_weight λ (mean convention)" if nets else "reg_weight λ")
    facets_ = _facets(part, trials, facets, x, y)
    sizes = [others[c] for c in facets]
    return HeatmapBlock(
        model=model,
        data=data,
        x=x,
        y=y,
        facets=tuple(facets_),
        shape=(sizes[0], sizes[1]) if len(sizes) == 2 else (len(facets_), 1),
        pooled=tuple(FACTOR_TEXT.get(c, c) for c, levels in others.items() if levels > MAX_FACETS),
        trials=len(trials),
    )


def _rate_label(part: pd.DataFrame, together: bool) -> str:
    optimizers: list[str] = part["optimizer"].dropna().unique().tolist() if "optimizer" in part else []
    name = {"adam": "Adam", "sgd": "SGD"}.get(optimizers[0], optimizers[0]) if len(optimizers) == 1 else ""
    players = " of G and D" if together else "" if part["d_lr"].isna().all() else " of G"
    return f"learning rate{players}{f' ({name})' if name else ''}"


def _axis(part: pd.DataFrame, column: str, name: str) -> Axis:
    """Levels of a column; a column with too many is replaced by the numbers of its bins."""
    if column in ("_x", "_y"):
        return Axis(column=column, label="", levels=(0,), texts=("",))
    if part[column].nunique() <= MAX_LEVELS:
        levels = _ordered(part[column])
        power = column.endswith("lr") and any(
            needs_exponent(float(v)) for v in levels if v is not None
        )  # one notation along an axis
        texts = tuple(level_text(column, v, exponent=power or None) for v in levels)
        return Axis(column=column, label=name, levels=levels, texts=texts)
    values = part[column].to_numpy(dtype=float)
    positive = values[values > 0]
    log = positive.max() / positive.min() > 30
    space, low = (np.geomspace, positive.min()) if log else (np.linspace, values.min())
    edges = space(low, values.max(), BINS + 1)
    part[column] = np.where((values <= 0) & log, -1, np.digitize(values, edges[1:-1]))  # -1: 0 has no logarithm
    bins = tuple(sorted(part[column].unique().tolist()))
    texts = tuple("0" if i < 0 else f"{_short(edges[i])}–{_short(edges[i + 1])}" for i in bins)
    return Axis(column=column, label=f"{name}, in bins", levels=bins, texts=texts)


def _short(value: float) -> str:
    return level_text(None, float(f"{value:.1e}"))


def _ordered(column: pd.Series) -> tuple[Any, ...]:
    """Numbers ascending, anything else in order of appearance; missing last."""
    values = column.dropna().unique().tolist()
    if all(isinstance(v, int | float) for v in values):
        values.sort()
    return (*values, None) if column.isna().any() else tuple(values)


def _facets(part: pd.DataFrame, trials: pd.DataFrame, factors: list[str], x: Axis, y: Axis) -> list[Facet]:
    """Every combination of the facets' factors that has trials, with its cells. `trials`: `part` before any binning."""
    combos = list(itertools.product(*(_ordered(part[c]) for c in factors)))
    keys = [*factors, x.column, y.column]
    rates = cell_rates(part, keys)
    number = part.groupby([part[k] for k in keys], sort=False, dropna=False).ngroup().to_numpy()
    cells: dict[tuple[Any, ...], list[HeatmapCell]] = {combo: [] for combo in combos}
    for i, record in enumerate(rates.to_dict("records")):
        *combo, x_level, y_level = (_plain(record[key]) for key in keys)
        cells[tuple(combo)].append(
            HeatmapCell(
                x=x.levels.index(x_level),
                y=y.levels.index(y_level),
                rates={str(name): value for name, value in record.items() if name not in keys},
                trials=trials[number == i],
            )
        )
    columns = len({combo[1] for combo in combos}) if len(factors) == 2 else 1
    return [
        Facet(title=_title(factors, combo), row=i // columns, column=i % columns, cells=tuple(cells[combo]))
        for i, combo in enumerate(combos)
        if cells[combo]
    ]


def _plain(value: Any) -> Any:
    """NaN and NA as None, so that they compare equal."""
    return None if pd.isna(value) else value


def _title(facets: list[str], combo: tuple[Any, ...]) -> str:
    texts = (f"{FACTOR_TEXT.get(c, c)} {level_text(c, v)}" for c, v in zip(facets, combo, strict=True))
    return " · ".join(texts)


def cell_text(block: HeatmapBlock, cell: HeatmapCell) -> str:
    """What hovering over a cell shows: its place, share and interval, outcomes, trials without one."""
    axes = ((block.x, cell.x), (block.y, cell.y))
    rates, lines = cell.rates, [", ".join(f"{axis.label} {axis.texts[i]}" for axis, i in axes if axis.label)]
    lost = ", ".join(f"{rates[name]} {word}" for name, _, word, _ in MARKS if rates[name])
    if not rates["n"]:
        return "\n".join([*lines, f"no outcome of {rates['planned']} trials: {lost}"])
    interval = f"95 % interval {rates['ci_low']:.0%} to {rates['ci_high']:.0%}"
    lines.append(f"{rates['k']} of {rates['n']} stable, {interval}")
    counts = cell.trials["outcome"].value_counts()
    lines.append(", ".join(f"{counts[name]} {text[0]}" for name, text in LABEL_TEXT.items() if counts.get(name)))
    lines += [PLACEBO] if rates["inert"] else []
    return "\n".join(filter(None, [*lines, lost]))
