"""Records, packs and outcomes for tests of the ledger."""

from __future__ import annotations

from typing import Any


def pack(pack_id: str = "p1", created_ms: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "pack_id": pack_id,
        "trials": [{"seed": 0}],
        "reference": {"dist_floor": 0.1},
        "created_ms": created_ms,
        **more,
    }


def record(evaluation: int, trial_id: str = "a", **values: float) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "evaluation": evaluation,
        "step": 40 * evaluation,
        "wall_s": 0.5,
        "values": values or {"dist": 1.0},
    }


def outcome(trial_id: str = "a", attempt: int = 1, state: str = "complete", pack_id: str = "p1") -> dict[str, Any]:
    return {
        "trial_id": trial_id, "state": state, "pack_id": pack_id, "attempt": attempt, "wall_s": 1.0, "device": "cpu",
        "versions": {"torch": "2"}, "error": None if state == "complete" else "Traceback ...", "unix_ms": 5,
    }  # fmt: skip
