"""Columns of the tables of trials and records, and how a cell is written as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NO_DATA = "data not recorded"
"""Stands where the fingerprint of the data would: trials of schema 1 have none."""

COLUMNS: dict[str, str] = {
    "trial_id": "Content hash of the resolved configuration; the same trial has the same id in every study.",
    "study": "Name of the study.",
    "cell": "The trial's factors and levels without the seed, as in MLflow's tag `vistudy.cell`: `k=v,k=v`, sorted.",
    "model": "Model that was trained.",
    "data": "Data set that was learnt.",
    "data_fingerprint": "What it held: 16 hex digits of a hash of values, order and division; `data not recorded` of "
    "trials of schema 1.",
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
    "state": "Did it run: planned, running, interrupted (begun, and not being trained now), complete, or "
    "failed (the machine's fault).",
    "outcome": "What it showed: a label of `docs/outcomes.md`; empty unless the state is complete.",
    "flags": "Flags of the outcome, joined by `;`.",
    "q_final": "Median composite deficiency Q of the last quarter: 0 = as real data, about 1 = untrained. "
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


def data_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """Data set -> fingerprint and division of what a study was trained on last, of its `meta.json`."""
    return {
        name: f"fingerprint {content['fingerprint']}" + (f" ({content['division']})" if content["division"] else "")
        for name, content in meta.get("data", {}).items()
    }


def cell_tag(cell: Mapping[str, Any]) -> str:
    """A plan's cell as `k=v,k=v` in sorted order of factors: floats as `%g`, booleans in lower case."""

    def text(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return str(bool(value)).lower()
        return format(value, "g") if isinstance(value, float) else str(value)

    return ",".join(f"{name}={text(cell[name])}" for name in sorted(cell))


def cell_levels(tag: str) -> dict[str, str]:
    """Factor -> level as text: the inverse of `cell_tag`, without the levels' types.

    Tables hold cells as text so that they can be exported. Only this function reads it. A level may contain commas and
    equals signs, but not `,name=`.
    """
    parts = re.split(r",(?=[A-Za-z_]\w*=)", tag) if tag else []
    return {name: level for name, _, level in (part.partition("=") for part in parts)}


def columns_markdown() -> str:
    """The page `docs/export.md`, from the tables in this file."""

    def table(columns: Mapping[str, str]) -> str:
        return "\n".join(["| column | meaning |", "|---|---|", *(f"| `{k}` | {v} |" for k, v in columns.items())])

    return f"""# Columns of an export

<!-- Generated from analysis/tables/columns.py by columns_markdown(); a test compares them. -->

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
