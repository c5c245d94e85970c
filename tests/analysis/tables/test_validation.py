"""Tables that somebody has edited: a sentence, never a wrong number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.analysis.arm_tables import arm_table
from tests.analysis.frames import LR5, REG4, make_frame
from vistudy import cell_rates, heatmap
from vistudy.analysis.estimates.pairs import pair
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.tables.validation import check_trials


@pytest.fixture
def frame() -> pd.DataFrame:
    return make_frame({"lr": LR5, "reg_weight": REG4}, gaps=False)


def edited(frame: pd.DataFrame, tmp_path, **first: object) -> pd.DataFrame:
    """The frame with values of its first row changed, as it comes back from a file."""
    changed = frame.copy()
    if first.get("trial_id"):
        first["trial_id"] = frame.loc[1, "trial_id"]
    for name, value in first.items():
        changed[name] = changed[name].astype(object)
        changed.loc[0, name] = value
    changed.to_parquet(tmp_path / "edited.parquet")
    return pd.read_parquet(tmp_path / "edited.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "Converged"}, "outcome 'Converged' is no outcome; want one of diverged"),
        ({"state": "finished"}, "state 'finished' is no state; want one of planned"),
        ({"trial_id": "another's"}, "stands there twice"),
    ],
)
def test_an_edited_file_is_refused(frame, tmp_path, change, message):
    table = edited(frame, tmp_path, **change)
    with pytest.raises(StudyError, match=message):
        heatmap(table)
    if "trial_id" not in change:
        with pytest.raises(StudyError, match=message):
            cell_rates(table, ["g_lr"])


def test_a_trial_twice_is_refused(frame):
    table = pd.concat([frame, frame.iloc[:2]])
    with pytest.raises(StudyError, match=r"and 1 more: trial_id .* stands there twice"):
        cell_rates(table, ["g_lr"])


def test_a_column_that_was_taken_out_is_named(frame):
    with pytest.raises(StudyError, match="lacks the columns state, inert"):
        cell_rates(frame.drop(columns=["state", "inert"]), ["g_lr"])


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "neither 0 nor 1"), (0.0, "something else than the trial's outcome")]
)
def test_an_edited_stable_is_refused(value, message):
    table = arm_table({"A0": [[1.0, 0.0]], "A1": [[1.0, 1.0]]})
    table.loc[0, "stable"] = value
    with pytest.raises(StudyError, match=message):
        pair(table, "A1", "A0")


def test_nan_everywhere_is_no_pair_and_no_error():
    table = arm_table({"A0": [[np.nan, np.nan]], "A1": [[np.nan, np.nan]]})
    check_trials(table, ())
    found = pair(table, "A1", "A0")
    assert (found.n_pairs, found.excluded) == (0, {"undetermined": 2})
