"""Ledger -> tidy tables: one row a trial, one row a record. Nothing is left out and nothing appears twice."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from analysis.columns import COLUMNS, RECORD_COLUMNS, cell_tag, columns_markdown
from analysis.outcome import VALUES_READ, Outcome, Reference, Thresholds, deficiency, label
from study.errors import StudyError

if TYPE_CHECKING:
    from study.ledger import Ledger

INTEGERS = ("d_steps", "g_steps", "seed", "attempt", "outcome_version")
__all__ = [
    "COLUMNS", "RECORD_COLUMNS", "Store", "Trials", "cell_tag", "columns_markdown", "export", "judge", "load_frame",
    "load_records", "read_trials",
]  # fmt: skip

_FIELDS = ("model", "data", "g_lr", "d_lr", "reg_weight", "norm", "d_steps", "g_steps", "anchor", "z_use", "seed")
_SERIES_KEYS = ("evaluation", "step")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """What is stored of a study's trials, read once: tables and relabelling take it instead of the store."""

    study: str
    plan: dict[str, Any]
    """Content of `plan.json`."""
    entries: dict[str, dict[str, Any]]
    """trial_id -> entry of the plan."""
    outcomes: dict[str, dict[str, Any]]
    """trial_id -> outcome file, of those that have ended."""
    packs: dict[str, dict[str, Any]]
    series: dict[str, dict[str, np.ndarray]]
    """trial_id -> arrays (T,) of what the outcome rules read, of those that have a record or are complete."""
    first_ms: int | None
    """When the first record was written, milliseconds since 1970 (UTC); None without records."""
    registrations: tuple[dict[str, Any], ...]
    """Registrations of the study's claim, oldest first."""

    def outcome(self, trial_id: str, thresholds: Thresholds) -> Outcome | None:
        """The outcome of a complete trial; None of any other."""
        if self.outcomes.get(trial_id, {}).get("state") != "complete":
            return None
        return _judge(trial_id, self.series[trial_id], self.entries, self.outcomes, self.packs, thresholds)


Store: TypeAlias = "Ledger | Trials | str | os.PathLike[str]"
"""A ledger, its place, or what `read_trials` gave: what functions that read a study take."""


def read_trials(store: Ledger | str | os.PathLike[str], study: str) -> Trials:
    """Read plan, outcomes, records and registrations of a study.

    Raises:
        StudyError: unknown study; a trial planned twice; a record or outcome of a trial that was not asked for.
    """
    ledger = as_ledger(store)
    document = ledger.read_plan(study)
    plan = _planned(document, study)
    outcomes = ledger.read_outcomes(list(plan))
    _refuse_strangers(outcomes, plan, study)
    series, first = {}, []
    for trial_id, records in _by_trial(ledger.records(list(plan)), plan, study):
        series[trial_id] = _series(records)
        first.append(min(record.get("unix_ms", 0) for record in records))
    empty = {trial_id: _series([]) for trial_id, ended in outcomes.items() if ended["state"] == "complete"}
    return Trials(
        study=study,
        plan=document,
        entries=plan,
        outcomes=outcomes,
        packs=ledger.packs() if outcomes else {},
        series=empty | series,
        first_ms=min(first, default=None),
        registrations=tuple(ledger.registrations(study)),
    )


def load_frame(
    store: Store,
    study: str = "",
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Read one row for each trial of a study's plan, whatever became of it. Columns: COLUMNS, then other fields.

    `store` may be what `read_trials` gave; then `study` is not needed.

    Raises:
        StudyError: as `read_trials`; a complete trial whose pack or reference is missing.
    """
    trials = store if isinstance(store, Trials) else read_trials(store, study)
    rows = [
        _row(
            trials.study,
            entry,
            trials.outcomes.get(trial_id, {}),
            trials.outcome(trial_id, thresholds),
            trial_id in trials.series,
        )
        for trial_id, entry in trials.entries.items()
    ]
    return _typed(rows)


def judge(
    ledger: Ledger,
    study: str,
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    outcomes: Mapping[str, dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[int, float]]]:
    """Label trials whose records are read already: (trial_id -> fields of its Outcome, trial_id -> evaluation -> Q).

    Only trials that `outcomes` says are complete have an Outcome; all have the composite deficiency Q.

    Raises:
        StudyError: as `load_frame`.
    """
    plan, packs = _planned(ledger.read_plan(study), study), ledger.packs()
    home = {trial_id: pack_id for pack_id, pack in packs.items() for trial_id in pack["trial_ids"]}
    labels: dict[str, dict[str, Any]] = {}
    q: dict[str, dict[int, float]] = {}
    for trial_id, found in records.items():
        if outcomes.get(trial_id, {}).get("state") == "complete":
            outcome = _judge(trial_id, _series(found), plan, outcomes, packs, Thresholds())
            labels[trial_id] = dataclasses.asdict(outcome)
        series = _series(found)
        composite = deficiency(series, Reference.from_dict(packs[home[trial_id]]["reference"]))
        q[trial_id] = dict(zip(series["evaluation"].astype(int).tolist(), composite.tolist(), strict=True))
    return labels, q


def load_records(store: Ledger | str | os.PathLike[str], study: str) -> pd.DataFrame:
    """Read one row for each record of a study's trials, by trial and evaluation. Columns: RECORD_COLUMNS, then values.

    Raises:
        StudyError: as `load_frame`.
    """
    ledger = as_ledger(store)
    plan = _planned(ledger.read_plan(study), study)
    head: dict[str, list[Any]] = {name: [] for name in RECORD_COLUMNS}
    values: dict[str, list[float]] = {}
    count = 0
    for _, records in _by_trial(ledger.records(list(plan)), plan, study):
        for record in records:
            for name in head:
                head[name].append(record[name])
            for name, value in record["values"].items():
                column = values.setdefault(name, [])
                column.extend([float("nan")] * (count - len(column)))
                column.append(value)
            count += 1
    full = {name: np.array(column + [np.nan] * (count - len(column))) for name, column in values.items()}
    return pd.DataFrame({**head, **full})


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


def as_ledger(store: Ledger | str | os.PathLike[str]) -> Ledger:
    from study.ledger import Ledger  # here: whoever has a frame already needs no ledger

    return Ledger(store) if isinstance(store, str | os.PathLike) else store


def _planned(document: Mapping[str, Any], study: str) -> dict[str, dict[str, Any]]:
    """trial_id -> entry of the plan."""
    trials = document["trials"]
    twice = [trial_id for trial_id, n in Counter(entry["trial_id"] for entry in trials).items() if n > 1]
    if twice:
        raise StudyError(
            f"plan of study {study!r}: {len(twice)} trial ids appear more than once ({', '.join(twice[:3])} ...); "
            "every trial must be planned once. Run `vistudy run` with the study file to write the plan anew."
        )
    return {entry["trial_id"]: entry for entry in trials}


def _refuse_strangers(trial_ids: Iterable[str], plan: Mapping[str, Any], study: str) -> None:
    strangers = sorted({trial_id for trial_id in trial_ids if trial_id not in plan})
    if strangers:
        raise StudyError(
            f"study {study!r}: the store answered with {len(strangers)} trials that its plan does not have "
            f"({', '.join(strangers[:3])}): plan.json and the store do not belong together."
        )


def _by_trial(
    records: Iterable[Mapping[str, Any]], plan: Mapping[str, Any], study: str
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Group the ledger's stream, one trial in memory at a time."""
    done: set[str] = set()
    for trial_id, group in itertools.groupby(records, key=lambda record: str(record["trial_id"])):
        _refuse_strangers([trial_id], plan, study)
        found = list(group)
        numbers = [record["evaluation"] for record in found]
        if trial_id in done or any(b <= a for a, b in itertools.pairwise(numbers)):
            raise StudyError(f"study {study!r}: records of trial {trial_id} are out of order or appear twice.")
        if numbers[-1] + 1 != len(numbers):
            gap = min(set(range(numbers[-1])) - set(numbers))
            raise StudyError(
                f"study {study!r}: trial {trial_id} has a record of evaluation {numbers[-1]} but none of {gap}: "
                "the store is damaged. `vistudy doctor` names the file; with --repair, the next run trains it again."
            )
        done.add(trial_id)
        yield trial_id, found


def _judge(
    trial_id: str,
    series: Mapping[str, np.ndarray],
    plan: Mapping[str, dict[str, Any]],
    outcomes: Mapping[str, dict[str, Any]],
    packs: Mapping[str, dict[str, Any]],
    thresholds: Thresholds,
) -> Outcome:
    pack_id = outcomes[trial_id]["pack_id"]
    if pack_id not in packs:
        raise StudyError(f"trial {trial_id}: its pack {pack_id} is not in the store, so its reference is not known.")
    try:
        reference = Reference.from_dict(packs[pack_id].get("reference") or {})
        evaluations = int(plan[trial_id]["config"]["evaluations"])
        return label(series, reference, thresholds, evaluations=evaluations)
    except ValueError as error:
        raise StudyError(f"trial {trial_id} of pack {pack_id} cannot be judged: {error}") from error


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays (T,) of evaluation, step and every value that any record has and the outcome rules read."""
    names = [name for name in VALUES_READ if any(name in record["values"] for record in records)]
    nan = float("nan")
    series = {key: np.array([record[key] for record in records], dtype=np.float64) for key in _SERIES_KEYS}
    rows = [[record["values"].get(name, nan) for name in names] for record in records]
    return series | dict(zip(names, np.array(rows, np.float64).reshape(len(rows), len(names)).T.copy(), strict=True))


def _row(
    study: str, entry: Mapping[str, Any], ended: Mapping[str, Any], outcome: Outcome | None, recorded: bool
) -> dict[str, Any]:
    config = entry["config"]
    seen = {} if outcome is None else dataclasses.asdict(outcome)
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: config.get(name) for name in _FIELDS}
    row |= {name: seen.get(name) for name in ("q_final", "q_best", "t_thr", "t_coll", "t_div")}
    row |= {name: ended.get(name) for name in ("wall_s", "device", "pack_id", "attempt", "error")}
    row |= {
        "trial_id": entry["trial_id"],
        "study": study,
        "cell": cell_tag(entry["cell"]),
        "batch_norm": None if config.get("norm") is None else config["norm"] == "bn",
        "state": ended.get("state", "running" if recorded else "planned"),
        "outcome": seen.get("label"),
        "flags": ";".join(seen["flags"]) if seen else None,
        "outcome_version": seen.get("version"),
        "inert": "reg_weight" in entry.get("inert", ()) and (config.get("reg_weight") or 0) > 0,
    }
    return row | {name: value for name, value in config.items() if name not in row}


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table, every column with the type that its meaning has even where part of it is empty."""
    floats = ("g_lr", "d_lr", "reg_weight", "q_final", "q_best", "t_thr", "t_coll", "t_div", "wall_s")
    types = dict.fromkeys(floats, "float64") | dict.fromkeys(INTEGERS, "Int64")
    types |= {"batch_norm": "boolean", "inert": "bool"}
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(COLUMNS)
    for name in names:
        if name not in COLUMNS and {type(row.get(name)) for row in rows} <= {int, type(None)}:
            types[name] = "Int64"
    return pd.DataFrame(rows, columns=names).astype(types)
