"""A small store for the tests of this room, written through the real ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.series import REFERENCE
from vistudy.analysis.ledger.ledger import Ledger

CONFIG: dict[str, Any] = {
    "model": "gan", "data": "ring8", "seed": 0, "d_updates": 500, "evaluations": 50, "g_lr": 1e-3, "d_lr": 1e-3,
    "reg_weight": 0.0, "norm": "none", "d_steps": 1, "g_steps": 2, "anchor": "period_start", "z_use": "pool",
    "optimizer": "adam", "depth": 2,
}  # fmt: skip


def entry(trial_id: str, cell: Mapping[str, Any] | None = None, inert: tuple[str, ...] = (), **config: Any) -> dict:
    return {"trial_id": trial_id, "cell": dict(cell or {}), "config": CONFIG | config, "inert": list(inert)}


def make_store(path: Path, trials: list[dict], study: str = "demo") -> Ledger:
    ledger = Ledger(path)
    ledger.create()
    plan = {"study": study, "hash": "0" * 12, "factors": {"lr": [1e-3]}, "trials": trials}
    ledger.write_study(study, f"study: {study}\n", plan, {})
    return ledger


def train(
    ledger: Ledger,
    pack_id: str,
    runs: Mapping[str, dict[str, np.ndarray]],
    state: str | None = "complete",
    reference: dict[str, float] | None = None,
) -> None:
    """Write a pack with the series of its trials; `state=None` leaves it without an end."""
    reference = dataclasses.asdict(REFERENCE) if reference is None else reference
    ledger.write_pack({"pack_id": pack_id, "trials": [CONFIG], "reference": reference, "created_ms": 1})
    attempt = ledger.open_attempt(pack_id)
    names = {trial_id: [n for n in run if n not in ("evaluation", "step")] for trial_id, run in runs.items()}
    for i in range(max(len(run["evaluation"]) for run in runs.values())):
        records = [
            {
                "trial_id": trial_id,
                "evaluation": int(run["evaluation"][i]),
                "step": int(run["step"][i]),
                "wall_s": 0.5 * i,
                "values": {n: float(run[n][i]) for n in names[trial_id]},
            }
            for trial_id, run in runs.items()
            if i < len(run["evaluation"])
        ]
        attempt.append(records, unix_ms=1_000 + i)
    for trial_id in runs if state else ():
        ledger.finish_trial({
            "trial_id": trial_id, "state": state, "pack_id": pack_id, "attempt": attempt.number, "wall_s": 25.0,
            "device": "cpu", "versions": {}, "error": "boom" if state == "failed" else None, "unix_ms": 2_000,
        })  # fmt: skip
