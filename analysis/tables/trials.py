"""Ledger -> tidy tables: one row a trial, one row a record. Nothing is left out and nothing appears twice."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vistudy.analysis.ledger.documents import Record, TrialEnd
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.outcomes.histories import checked_histories, label_trial, plan_entries, to_series
from vistudy.analysis.outcomes.label_study import StoreLike, StudyTrials, as_ledger, read_trials
from vistudy.analysis.outcomes.labels import Reference, Thresholds
from vistudy.analysis.outcomes.rules import Outcome, deficiency
from vistudy.analysis.tables.columns import COLUMNS, NO_DATA, RECORD_COLUMNS, cell_tag, columns_markdown

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger

INTEGERS = ("d_steps", "g_steps", "seed", "attempt", "outcome_version")
__all__ = [
    "COLUMNS", "RECORD_COLUMNS", "StoreLike", "StudyTrials", "cell_tag", "columns_markdown", "export", "label_trials",
    "load_frame",
    "load_records", "read_trials",
]  # fmt: skip

_FIELDS = ("model", "data", "g_lr", "d_lr", "reg_weight", "norm", "d_steps", "g_steps", "anchor", "z_use", "seed")


def load_frame(
    store: StoreLike,
    study: str = "",
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Read one row for each trial of a study's plan, whatever became of it. Columns: COLUMNS, then other fields.

    `store` may be what `read_trials` gave; then `study` is not needed.

    Raises:
        StudyError: as `read_trials`; a complete trial whose pack or reference is missing.
    """
    trials = read_trials(store, study)
    rows = [
        _row(
            trials.study, entry, trials.ends.get(trial_id, {}), trials.outcome(trial_id, thresholds),
            trials.state(trial_id),
        )
        for trial_id, entry in trials.entries.items()
    ]  # fmt: skip
    return _with_dtypes(rows)


def label_trials(
    ledger: Ledger,
    study: str,
    records: Mapping[str, Sequence[Record]],
    outcomes: Mapping[str, TrialEnd],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[int, float]]]:
    """Label trials whose records are read already: (trial_id -> fields of its Outcome, trial_id -> evaluation -> Q).

    Only trials that `outcomes` says are complete have an Outcome; all have the composite deficiency Q.

    Raises:
        StudyError: as `load_frame`.
    """
    plan, packs = plan_entries(ledger.read_plan(study), study), ledger.packs()
    home = {trial_id: pack_id for pack_id, pack in packs.items() for trial_id in pack["trial_ids"]}
    labels: dict[str, dict[str, Any]] = {}
    q: dict[str, dict[int, float]] = {}
    for trial_id, of_trial in records.items():
        if trial_id in outcomes and outcomes[trial_id]["state"] == "complete":
            outcome = label_trial(trial_id, to_series(of_trial), plan, outcomes, packs, Thresholds())
            labels[trial_id] = dataclasses.asdict(outcome)
        series = to_series(of_trial)
        composite = deficiency(series, Reference.from_dict(packs[home[trial_id]]["reference"]))
        q[trial_id] = dict(zip(series["evaluation"].astype(int).tolist(), composite.tolist(), strict=True))
    return labels, q


def load_records(store: Ledger | str | os.PathLike[str], study: str) -> pd.DataFrame:
    """Read one row for each record of a study's trials, by trial and evaluation. Columns: RECORD_COLUMNS, then values.

    Raises:
        StudyError: as `load_frame`.
    """
    ledger = as_ledger(store)
    plan = plan_entries(ledger.read_plan(study), study)
    head: dict[str, list[Any]] = {name: [] for name in RECORD_COLUMNS}
    values: dict[str, list[float]] = {}
    count = 0
    for _, records in checked_histories(ledger.histories(list(plan)), plan, study):
        for record in records:
            for name in head:
                head[name].append(record[name])  # type: ignore[literal-required]
            for name, value in record["values"].items():
                column = values.setdefault(name, [])
                column.extend([float("nan")] * (count - len(column)))
                column.append(value)
            count += 1
    full = {name: np.array(column + [np.nan] * (count - len(column))) for name, column in values.items()}
    table = pd.DataFrame({**head, **full})
    return table.sort_values(["trial_id", "evaluation"], kind="stable", ignore_index=True)


def export(store: Ledger | str | os.PathLike[str], study: str, out: Path, *, records: bool = False) -> int:
    """Write the table of trials (or of records) to a .csv or .parquet file, whole or not at all; returns its rows.

    Raises:
        StudyError: another ending, a folder that does not exist, or as `load_frame`.
    """
    ending = out.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise StudyError(f"--out {out}: the ending says the format; got {ending or 'none'}, allowed: .csv, .parquet")
    if not out.parent.is_dir():
        raise StudyError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if out.is_dir():
        raise StudyError(f"--out {out}: is a folder; give the name of a file")
    table = load_records(store, study) if records else load_frame(store, study)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if ending == ".csv":
            table.to_csv(part, index=False)
        else:
            table.to_parquet(part, index=False)
        part.replace(out)
    except OSError as error:
        raise StudyError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return len(table)


def _row(
    study: str, entry: Mapping[str, Any], ended: Mapping[str, Any], outcome: Outcome | None, state: str
) -> dict[str, Any]:
    config = entry["config"]
    fields = {} if outcome is None else {name: getattr(outcome, name) for name in Outcome.__slots__}
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: config.get(name) for name in _FIELDS}
    row |= {name: fields.get(name) for name in ("q_final", "q_best", "t_thr", "t_coll", "t_div")}
    row |= {name: ended.get(name) for name in ("wall_s", "device", "pack_id", "attempt", "error")}
    row |= {
        "trial_id": entry["trial_id"],
        "study": study,
        "cell": cell_tag(entry["cell"]),
        "data_fingerprint": config.get("data_fingerprint") or NO_DATA,
        "batch_norm": None if config.get("norm") is None else config["norm"] == "bn",
        "state": state,
        "outcome": fields.get("label"),
        "flags": ";".join(fields["flags"]) if fields else None,
        "outcome_version": fields.get("version"),
        "inert": "reg_weight" in entry.get("inert", ()) and (config.get("reg_weight") or 0) > 0,
    }
    return row | {name: value for name, value in config.items() if name not in row}


def _with_dtypes(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table, every column with the type that its meaning has even where part of it is empty."""
    floats = ("g_lr", "d_lr", "reg_weight", "q_final", "q_best", "t_thr", "t_coll", "t_div", "wall_s")
    types = dict.fromkeys(floats, "float64") | dict.fromkeys(INTEGERS, "Int64")
    types |= {"batch_norm": "boolean", "inert": "bool"}
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(COLUMNS)
    for name in names:
        if name not in COLUMNS and {type(row.get(name)) for row in rows} <= {int, type(None)}:
            types[name] = "Int64"
    return pd.DataFrame(rows, columns=names).astype(types)
