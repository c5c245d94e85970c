"""Two studies side by side: trials that both have, rates of each cell, their differences."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.outcomes.label_study import StoreLike
from vistudy.analysis.outcomes.labels import Thresholds
from vistudy.analysis.tables.formatting import percent, points
from vistudy.analysis.tables.rates import cell_rates
from vistudy.analysis.tables.trials import load_frame

KEYS = ("model", "data", "cell")
COUNTS = ("k", "n", "planned", "share")
CELL_COLUMNS: dict[str, str] = {
    "model": "Model.",
    "data": "Data set.",
    "cell": "Factors and levels, without the seed.",
    **{
        f"{name}_{side}": f"Study {side.upper()}: {text}"
        for side in "ab"
        for name, text in (
            ("k", "stable trials."),
            ("n", "trials with an outcome that says something."),
            ("planned", "all trials of the cell; 0 where the study does not have it."),
            ("share", "k / n; NaN without a finished trial."),
        )
    },
    "difference": "share_b - share_a; NaN unless both studies have it.",
    "ci_low": "Lower end of Newcombe's 95 % interval of the difference, for trials that are not paired.",
    "ci_high": "Upper end of it.",
}
"""Columns of a comparison's cells -> what they hold."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StudyComparison:
    """Two studies side by side."""

    a: str
    b: str
    trials_a: int
    trials_b: int
    shared: int
    """Trials that both plans have: the same resolved configuration."""
    both_labelled: int
    """Shared trials that have an outcome in both studies."""
    disagree: tuple[tuple[str, str, str], ...]
    """(trial_id, outcome in a, outcome in b) of those that differ."""
    unequal: int
    """Shared trials of the same outcome whose final Q differs."""
    cells: pd.DataFrame
    """One row a cell of either study: CELL_COLUMNS."""
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a number that is not finite is null."""
        rows = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
            for row in self.cells.to_dict("records")
        ]
        plain = {name: getattr(self, name) for name in ("a", "b", "trials_a", "trials_b", "shared", "both_labelled")}
        return plain | {"disagree": [list(each) for each in self.disagree], "unequal": self.unequal,
                        "sentence": self.sentence, "cells": rows}  # fmt: skip

    def to_markdown(self) -> str:
        """A sentence and a table of the cells."""
        lines = [_text(self.sentence), "", f"| model | data | cell | {_text(self.a)} | {_text(self.b)} | difference |"]
        lines.append("|---|---|---|---|---|---|")
        for row in self.cells.to_dict("records"):
            sides = [f"{row[f'k_{s}']}/{row[f'n_{s}']}" if row[f"planned_{s}"] else "–" for s in "ab"]
            change = ""
            if math.isfinite(row["difference"]):
                change = f"{points(row['difference'])} ({points(row['ci_low'])} to {points(row['ci_high'])})"
            lines.append("| " + " | ".join(map(_text, (*(row[key] for key in KEYS), *sides, change))) + " |")
        return "\n".join(lines) + "\n"


def compare_studies(
    store_a: StoreLike,
    study_a: str,
    store_b: StoreLike,
    study_b: str,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> StudyComparison:
    """Set two studies, of one store or of two, side by side. Cells are matched by model, data, factors and levels.

    Raises:
        StudyError: as `load_frame`.
    """
    a, b = load_frame(store_a, study_a, thresholds), load_frame(store_b, study_b, thresholds)
    both = a.merge(b, on="trial_id", suffixes=("_a", "_b"))
    labelled = both[both["outcome_a"].notna() & both["outcome_b"].notna()]
    differ = labelled[labelled["outcome_a"] != labelled["outcome_b"]]
    alike = labelled[labelled["outcome_a"] == labelled["outcome_b"]]
    q_a, q_b = alike["q_final_a"], alike["q_final_b"]
    unequal = int((~((q_a == q_b) | (q_a.isna() & q_b.isna()))).sum())
    disagree = tuple(differ[["trial_id", "outcome_a", "outcome_b"]].itertuples(index=False, name=None))
    cells = _cells(a, b)
    common = int(((cells["planned_a"] > 0) & (cells["planned_b"] > 0)).sum())
    names = (study_a, study_b) if study_a != study_b else (f"{study_a} (a)", f"{study_b} (b)")
    rates = [
        f"{percent(cells[f'k_{s}'].sum() / max(1, cells[f'n_{s}'].sum()))} of {cells[f'n_{s}'].sum()}" for s in "ab"
    ]
    sentence = (
        f"{names[0]} has {len(a)} trials, {names[1]} has {len(b)}; {len(both)} trials and {common} of {len(cells)} "
        f"cells are in both. Stable: {rates[0]} evaluable trials, and {rates[1]}. "
        f"Of {len(labelled)} trials labelled in both, {len(differ)} have another outcome and {unequal} the same with "
        "another final Q."
    )
    return StudyComparison(
        a=names[0], b=names[1], trials_a=len(a), trials_b=len(b), shared=len(both), both_labelled=len(labelled),
        disagree=disagree, unequal=unequal, cells=cells, sentence=sentence,
    )  # fmt: skip


def _cells(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    sides = []
    for frame, side in ((a, "a"), (b, "b")):
        rates = cell_rates(frame, KEYS)
        keep = rates[[*KEYS, *COUNTS, "ci_low", "ci_high"]]
        sides.append(keep.rename(columns={name: f"{name}_{side}" for name in keep if name not in KEYS}))
    cells = sides[0].merge(sides[1], on=list(KEYS), how="outer", sort=False)
    for name in (f"{count}_{side}" for side in "ab" for count in ("k", "n", "planned")):
        cells[name] = cells[name].fillna(0).astype(int)
    cells["difference"] = cells["share_b"] - cells["share_a"]
    # Newcombe 1998, method 10: the distances of each share to its own Wilson limits, added as squares
    down = np.hypot(cells["share_b"] - cells["ci_low_b"], cells["ci_high_a"] - cells["share_a"])
    up = np.hypot(cells["ci_high_b"] - cells["share_b"], cells["share_a"] - cells["ci_low_a"])
    cells["ci_low"], cells["ci_high"] = cells["difference"] - down, cells["difference"] + up
    return cells[list(CELL_COLUMNS)]


def _text(value: object) -> str:
    return " ".join(html.escape(str(value), quote=False).replace("|", "\\|").split())
