"""Whether a table of trials can be counted: tables come from the store, but also from files that people have edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.ledger.documents import TrialState
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.labels import LABELS, STABLE


class TableError(StudyError, ValueError):
    """A table of trials that cannot be counted."""


STATES = tuple(state.value for state in TrialState)


def check_trials(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table in which a count would be wrong.

    Raises:
        TableError: a column that is not there, a trial twice, a state or outcome that there is not, a `stable` that
            is neither 0 nor 1 or says something else than the outcome.
    """
    absent = [name for name in columns if name not in table]
    if absent:
        raise TableError(f"the table of trials lacks the column{'s' * (len(absent) > 1)} {', '.join(absent)}")
    if "trial_id" in table and "arm" not in table:  # a trial may stand in several arms
        _none(table["trial_id"].duplicated(), table, "stands there twice", "trial_id")
    if "state" in table and not set(table["state"].unique()) <= set(STATES):
        _none(~table["state"].isin(STATES), table, f"is no state; want one of {', '.join(STATES)}", "state")
    if "outcome" in table and not set(table["outcome"].dropna().unique()) <= set(LABELS):
        valid = table["outcome"].isna() | table["outcome"].isin(LABELS)
        _none(~valid, table, f"is no outcome; want one of {', '.join(LABELS)}", "outcome")
    if "stable" in table:
        stable = table["stable"].to_numpy(dtype=float, na_value=np.nan)
        finite = np.isfinite(stable)  # infinite ones are refused as values
        _none(finite & (stable != 0) & (stable != 1), table, "is neither 0 nor 1", "stable")
        if "outcome" in table:
            outcome = table["outcome"]
            other = finite & outcome.notna().to_numpy() & ((stable == 1) != outcome.eq(STABLE).to_numpy(dtype=bool))
            _none(other, table, "says something else than the trial's outcome", "stable")


def _none(wrong: Any, table: pd.DataFrame, what: str, column: str) -> None:
    """Raise with the first row of `wrong`, if there is one."""
    if not wrong.any():
        return
    row = table[wrong].iloc[0]
    name = row["trial_id"] if "trial_id" in table else row.name
    more = f", and {int(wrong.sum()) - 1} more" if wrong.sum() > 1 else ""
    raise TableError(f"trial {name}{more}: {column} {row[column]!r} {what}. Export the study again.")
