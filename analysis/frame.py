"""Ledger -> tidy tables: one row a trial, one row a record. Nothing is left out and nothing appears twice."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.outcome import Outcome, Reference, Thresholds, deficiency, label
from study.errors import StudyError

if TYPE_CHECKING:
    from study.ledger import Ledger

COLUMNS: dict[str, str] = {
    "trial_id": "Content hash of the resolved configuration; the same trial has the same id in every study.",
    "study": "Name of the study.",
    "cell": "The trial's factors and levels without the seed, as in MLflow's tag `vistudy.cell`: `k=v,k=v`, sorted.",
    "model": "Model that was trained.",
    "data": "Data set that was learnt.",
    "g_lr": "Learning rate of the generator.",
    "d_lr": "Learning rate of the discriminator.",
    "reg_weight": "Weight of the old-versus-new-generator regularizer (the paper's lambda), mean convention.",
    "batch_norm": "True if hidden layers are batch-normalised (`norm` is `bn`).",
    "norm": "Normalisation of hidden layers.",
    "d_steps": "Discriminator updates in one period.",
    "g_steps": "Generator updates in one period.",
    "anchor": "Which old generator the regularizer compares with.",
    "z_use": "How z is used in the generator steps of a period.",
    "seed": "Seed of the trial's random streams.",
    "state": "Did it run: planned, running, complete, failed (the machine's fault) or censored (stopped early).",
    "outcome": "What it showed: a label of `docs/outcomes.md`; empty unless the state is complete.",
    "flags": "Flags of the outcome, joined by `;`.",
    "q_final": "Median composite deficiency Q of the final window: 0 = as real data, about 1 = untrained. "
    "Empty if diverged.",
    "q_best": "Smallest Q of any evaluation.",
    "t_thr": "Discriminator updates until Q was good and stayed so for W evaluations; empty: not within the budget.",
    "t_coll": "Discriminator updates at the start of a collapse that lasted; empty: none.",
    "t_div": "Discriminator updates at the first evaluation of the divergence; empty: none.",
    "wall_s": "Seconds of training; the time of a pack is shared equally among its trials.",
    "device": "Device it ran on.",
    "pack_id": "Pack in which it ran.",
    "attempt": "Attempt of the pack that finished it, from 1.",
    "error": "Traceback of a failed trial.",
    "outcome_version": "Version of the rules that gave the outcome.",
    "inert": "True if reg_weight is above 0 but provably has no effect here: a placebo.",
}
"""Columns of `load_frame` -> what they hold. Every other field of the configuration follows under its own name."""

RECORD_COLUMNS: dict[str, str] = {
    "trial_id": "As in the table of trials.",
    "evaluation": "Number of the evaluation; 0 is before training.",
    "step": "Discriminator updates done.",
    "wall_s": "Seconds of training so far.",
    "unix_ms": "When it was written, milliseconds since 1970 (UTC).",
}
"""Columns of `load_records`; one for each recorded value follows, with NaN where it was not recorded."""

INTEGERS = ("d_steps", "g_steps", "seed", "attempt", "outcome_version")
_FIELDS = ("model", "data", "g_lr", "d_lr", "reg_weight", "norm", "d_steps", "g_steps", "anchor", "z_use", "seed")
_SERIES_KEYS = ("evaluation", "step")


def cell_tag(cell: Mapping[str, Any]) -> str:
    """A plan's cell as `k=v,k=v` in sorted order of factors: floats as `%g`, booleans in lower case."""

    def text(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return str(bool(value)).lower()
        return format(value, "g") if isinstance(value, float) else str(value)

    return ",".join(f"{name}={text(cell[name])}" for name in sorted(cell))


def load_frame(
    store: Ledger | str | os.PathLike[str],
    study: str,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """Read one row for each trial of a study's plan, whatever became of it. Columns: COLUMNS, then other fields.

    Raises:
        StudyError: unknown study; a trial planned twice; a record or outcome of a trial that was not asked for; a
            complete trial whose pack or reference is missing.
    """
    ledger = _ledger(store)
    plan = _planned(ledger, study)
    outcomes = ledger.read_outcomes(list(plan))
    _refuse_strangers(outcomes, plan, study)
    packs = ledger.packs() if outcomes else {}
    seen: dict[str, Outcome | None] = {}
    for trial_id, records in _by_trial(ledger.records(list(plan)), plan, study):
        complete = outcomes.get(trial_id, {}).get("state") == "complete"
        seen[trial_id] = _judge(trial_id, records, plan, outcomes, packs, thresholds) if complete else None
    for trial_id, outcome in outcomes.items():
        if outcome["state"] == "complete" and trial_id not in seen:
            seen[trial_id] = _judge(trial_id, [], plan, outcomes, packs, thresholds)
    rows = [
        _row(study, entry, outcomes.get(trial_id, {}), seen.get(trial_id), trial_id in seen)
        for trial_id, entry in plan.items()
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
    plan, packs = _planned(ledger, study), ledger.packs()
    home = {trial_id: pack_id for pack_id, pack in packs.items() for trial_id in pack["trial_ids"]}
    labels: dict[str, dict[str, Any]] = {}
    q: dict[str, dict[int, float]] = {}
    for trial_id, found in records.items():
        if outcomes.get(trial_id, {}).get("state") == "complete":
            labels[trial_id] = dataclasses.asdict(_judge(trial_id, found, plan, outcomes, packs, Thresholds()))
        series = _series(found)
        composite = deficiency(series, Reference.from_dict(packs[home[trial_id]]["reference"]))
        q[trial_id] = dict(zip(series["evaluation"].astype(int).tolist(), composite.tolist(), strict=True))
    return labels, q


def load_records(store: Ledger | str | os.PathLike[str], study: str) -> pd.DataFrame:
    """Read one row for each record of a study's trials, by trial and evaluation. Columns: RECORD_COLUMNS, then values.

    Raises:
        StudyError: as `load_frame`.
    """
    ledger = _ledger(store)
    plan = _planned(ledger, study)
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


def columns_markdown() -> str:
    """The page `docs/export.md`, from the tables in this file."""

    def table(columns: Mapping[str, str]) -> str:
        return "\n".join(["| column | meaning |", "|---|---|", *(f"| `{k}` | {v} |" for k, v in columns.items())])

    return f"""# Columns of an export

<!-- Generated from analysis/frame.py by columns_markdown(); a test compares them. -->

`vistudy export STUDY --out FILE.csv` (or `.parquet`) writes one row for each trial of the study's plan, whatever became
of it; with `--records`, one row for each record. In Python: `load_frame(store, study)`, `load_records(store, study)`.

## Trials

{table(COLUMNS)}

Every other field of the configuration (`d_updates`, `evaluations`, `batch_size`, `optimizer`, ...) follows under its
own name; `docs/study-file.md` explains them. A field that the trial's model does not have is empty. All times are in
discriminator updates and end at the budget `d_updates`: an empty time is censored there, not zero.

## Records

{table(RECORD_COLUMNS)}

One column for each recorded value follows (`dist`, `cov`, `prec`, `d_loss`, `rho`, ...):
`docs/records.md` explains them.
Values are raw: NaN and infinity are data, except that NaN also stands where a value was not recorded.
"""


def _ledger(store: Ledger | str | os.PathLike[str]) -> Ledger:
    from study.ledger import Ledger  # here: whoever has a frame already needs no ledger

    return Ledger(store) if isinstance(store, str | os.PathLike) else store


def _planned(ledger: Ledger, study: str) -> dict[str, dict[str, Any]]:
    """trial_id -> entry of the plan."""
    trials = ledger.read_plan(study)["trials"]
    twice = [trial_id for trial_id, n in Counter(entry["trial_id"] for entry in trials).items() if n > 1]
    if twice:
        raise StudyError(
            f"plan of study {study!r}: {len(twice)} trial ids appear more than once ({', '.join(twice[:3])} ...); "
            "every trial must be planned once. Run `vistudy run` with the study file to write the plan anew."
        )
    return {entry["trial_id"]: entry for entry in trials}


def _refuse_strangers(trial_ids: Iterable[str], plan: Mapping[str, Any], study: str) -> None:
    strangers = sorted(set(trial_ids) - plan.keys())
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
        done.add(trial_id)
        yield trial_id, found


def _judge(
    trial_id: str,
    records: Sequence[Mapping[str, Any]],
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
        return label(_series(records), reference, thresholds, evaluations=evaluations)
    except ValueError as error:
        raise StudyError(f"trial {trial_id} of pack {pack_id} cannot be judged: {error}") from error


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays (T,) of evaluation, step and every value that any record has."""
    names = dict.fromkeys(name for record in records for name in record["values"])
    nan = float("nan")
    series = {key: np.array([record[key] for record in records], dtype=np.float64) for key in _SERIES_KEYS}
    return series | {name: np.array([r["values"].get(name, nan) for r in records], np.float64) for name in names}


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
