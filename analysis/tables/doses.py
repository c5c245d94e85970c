"""How much the term did in each trial, from records: rho and drift, for a table of arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vistudy.analysis.outcomes.histories import checked_histories
from vistudy.analysis.outcomes.label_study import StudyTrials

NAMES = ("rho", "drift")


def with_doses(table: pd.DataFrame, trials: StudyTrials) -> pd.DataFrame:
    """The table with columns `rho` and `drift`: medians over the evaluations of a complete trial, NaN where unknown."""
    complete = table.loc[table["state"] == "complete", "trial_id"].unique().tolist()
    histories = checked_histories(trials.ledger.histories(complete), trials.entries, trials.study)
    medians = {trial_id: [_median(records, name) for name in NAMES] for trial_id, records in histories}
    unknown = [math.nan] * len(NAMES)
    values = np.array([medians.get(trial_id, unknown) for trial_id in table["trial_id"]]).reshape(
        len(table), len(NAMES)
    )
    dosed = table.assign(**{name: values[:, i] for i, name in enumerate(NAMES)})
    dosed.attrs = table.attrs
    return dosed


def _median(records: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [record["values"].get(name, math.nan) for record in records]
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
