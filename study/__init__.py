"""Declares, plans and runs a study.

The names below are the Python API for notebooks. They are loaded when first used: reading a ledger needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.commands import draw, plan, run, status, sync
    from study.ledger import Ledger
    from study.spec import load_study

__all__ = ["Ledger", "draw", "load_study", "plan", "run", "status", "sync"]

_HOMES = {
    "commands": ("draw", "plan", "run", "status", "sync"),
    "ledger": ("Ledger",),
    "spec": ("load_study",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"study.{module}"), name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")
