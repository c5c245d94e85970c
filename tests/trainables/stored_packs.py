"""Packs in a store, and training them as a worker does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainables.configs import gan
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.worker import train_pack

CONFIGS = [gan(seed=s, evaluations=4) for s in (0, 1)]


def stored(folder: Path, configs: list[GanConfig] = CONFIGS, keep: str = "none") -> Ledger:
    ledger = Ledger(folder)
    ledger.create()
    ledger.write_pack(
        {
            "pack_id": "p-1",
            "trial_ids": [c.trial_id() for c in configs],
            "trials": [c.to_dict() for c in configs],
            "reference": {},
            "samples": [2, 4],
            "keep_checkpoints": keep,
            "created_ms": 1,
        }
    )
    return ledger


def train(ledger: Ledger, every_s: float = 0.0, run: str = "") -> dict[str, Any]:
    return train_pack(
        {"pack_id": "p-1"}, journal=lambda: Ledger(ledger.uri), checkpoint_every_s=every_s, run=run, now_ms=lambda: 7
    )


def bits(ledger: Ledger) -> list[tuple[str, int, dict[str, str]]]:
    return [(r["trial_id"], r["evaluation"], {n: v.hex() for n, v in r["values"].items()}) for r in ledger.records()]
