"""Places of the trials of an arm table on two axes: learning rate by the other factors. Pure functions of tables."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vistudy.analysis.tables.columns import cell_levels
from vistudy.analysis.tables.formatting import level_text

MAX_LEVELS = 12
"""A numeric axis with more levels (a sampled study) is cut into bins."""
MAX_FACETS = 8
"""A factor with more levels than this makes no facets; its trials are pooled, and the title says so."""
BINS = 8
FACTOR_TEXT = {
    "norm": "batch norm",
    "ratio": "D:G steps",
    "d_steps": "D steps",
    "g_steps": "G steps",
    "g_lr": "G's learning rate",
    "d_lr": "D's learning rate",
    "reg_weight": "λ",
    "r1_weight": "R1 γ",
    "z_use": "z",
    "z_dim": "size of z",
    "batch_size": "batch size",
}

MAX_ROWS = 12
"""More combinations of the other factors than this: those with the most levels are pooled."""
WORDS = {"batch_norm": "batch norm", "lr": "learning rate"} | FACTOR_TEXT
"""Factor -> how pictures name it."""


_NEEDED = (
    "block", "class", "arm", "config", "seed", "trial_id", "state", "outcome", "stable", "q", "lr", "t_thr", "t_coll",
    "t_div", "t_end", "d_updates", "d_steps", "g_steps", "batch_size", "wall_s",
)  # fmt: skip


def numeric_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that estimates and pictures read, as plain numbers: a third of the time of working on all of them."""
    part = table[[name for name in _NEEDED if name in table]]
    extension = [name for name in part if pd.api.types.is_extension_array_dtype(part[name].dtype)]
    numbers = [name for name in extension if pd.api.types.is_numeric_dtype(part[name].dtype)]
    return part.assign(**{str(name): part[name].to_numpy(dtype=float, na_value=np.nan) for name in numbers})


@dataclass(frozen=True, kw_only=True, slots=True)
class GridLayout:
    """Where each trial of one block stands: a column by learning rate, a row by the other factors."""

    x_label: str
    y_label: str
    x_texts: tuple[str, ...]
    y_texts: tuple[str, ...]
    x: np.ndarray
    """Column of each row of the table."""
    y: np.ndarray
    pooled: tuple[str, ...]
    """Factors whose levels share a cell."""

    def place(self, x: int, y: int) -> str:
        """A cell in words."""
        columns = f"{self.x_label.removesuffix(', in bins')} {self.x_texts[x]}" if self.x_label else ""
        rows = f"{self.y_label}: {self.y_texts[y]}" if self.y_label else ""
        return ", ".join(part for part in (columns, rows) if part) or "all configurations"


def parse_config(table: pd.DataFrame) -> pd.DataFrame:
    """Levels of the factors of each trial as text, one column a factor, from the column `config`."""
    codes, texts = pd.factorize(table["config"])
    return pd.DataFrame(map(cell_levels, texts)).take(codes).set_axis(table.index)


def layout_arm_table(table: pd.DataFrame) -> GridLayout:
    """Place the trials of one block by learning rate (in bins if there are many) and by the other factors."""
    levels = parse_config(table)
    names: list[str] = list(map(str, levels))
    rates = pd.to_numeric(table["lr"]) if "lr" in table else pd.Series(np.nan, index=table.index)
    label = "learning rate"
    if rates.nunique() < 2:
        numeric = [
            c for c in names if levels[c].nunique() > 1 and pd.to_numeric(levels[c], errors="coerce").notna().all()
        ]
        if numeric:
            label = WORDS.get(numeric[0], numeric[0])
            rates = pd.to_numeric(levels[numeric[0]])
            names.remove(numeric[0])
        elif rates.isna().all():
            label = ""
    x, x_texts, binned = _columns(rates)
    others = [c for c in names if c != "lr" and levels[c].nunique(dropna=False) > 1]
    others.sort(key=lambda c: levels[c].nunique(dropna=False))
    pooled = [c for c in others if levels[c].nunique(dropna=False) > MAX_FACETS]
    others = [c for c in others if c not in pooled]
    while others and len(levels[others].drop_duplicates()) > MAX_ROWS:
        pooled.append(others.pop())
    rows = list(levels[others].fillna("–").itertuples(index=False, name=None)) if others else []
    combos = sorted(set(rows), key=_order)
    number = {combo: i for i, combo in enumerate(combos)}
    return GridLayout(
        x_label=f"{label}, in bins" if binned else label,
        y_label=" · ".join(WORDS.get(c, c) for c in others),
        x_texts=x_texts,
        y_texts=tuple(" · ".join(_level(c, v) for c, v in zip(others, combo, strict=True)) for combo in combos)
        or ("",),
        x=x,
        y=np.array([number[row] for row in rows] or [0] * len(table), dtype=int),
        pooled=tuple(WORDS.get(c, c) for c in pooled),
    )


def rate_bins(rates: pd.Series) -> tuple[np.ndarray, np.ndarray] | None:
    """(bin of each rate, edges) on a log axis; None if there are few enough levels to show each."""
    values = rates.dropna().unique()
    if len(values) <= MAX_LEVELS or (values <= 0).any():
        return None
    edges = np.geomspace(values.min(), values.max(), BINS + 1)
    return np.clip(np.digitize(rates.to_numpy(dtype=float), edges[1:-1]), 0, BINS - 1), edges


def _columns(rates: pd.Series) -> tuple[np.ndarray, tuple[str, ...], bool]:
    bins = rate_bins(rates)
    if bins is not None:
        power = bool(bins[1][0] < 0.01)
        texts = [level_text(None, float(f"{edge:.1e}"), exponent=power) for edge in bins[1]]
        return bins[0], tuple(f"{a}–{b}" for a, b in itertools.pairwise(texts)), True
    values = sorted(rates.dropna().unique().tolist())
    number = {value: i for i, value in enumerate(values)}
    texts = [level_text(None, float(value)) for value in values]
    if rates.isna().any() or not values:
        texts.append("–" if values else "")
    return np.array([number.get(value, len(values)) for value in rates], dtype=int), tuple(texts), False


def _order(combo: tuple[str, ...]) -> tuple[tuple[int, float, str], ...]:
    def key(text: str) -> tuple[int, float, str]:
        parts = text.split(":")
        try:
            return (
                (0, float(parts[0]), text) if len(parts) == 1 else (1, float(parts[0]) + float(parts[1]) * 1e-3, text)
            )
        except ValueError:
            return (2, 0.0, text)

    return tuple(key(text) for text in combo)


def _level(name: str, text: str) -> str:
    if name == "norm":
        return level_text("norm", text)
    return {"true": "on", "false": "off"}.get(text, text)
