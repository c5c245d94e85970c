"""Studies of training stability. The public names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.analysis.maps.heatmap import heatmap, save_heatmaps
    from vistudy.analysis.outcomes.rules import Outcome, Thresholds, label
    from vistudy.analysis.tables.arm_table import load_arms
    from vistudy.analysis.tables.compare_studies import compare_studies
    from vistudy.analysis.tables.rates import cell_rates
    from vistudy.analysis.tables.trials import export, load_frame, load_records
    from vistudy.analysis.verdict.decide import decide_study
    from vistudy.analysis.verdict.multiverse import multiverse_check
    from vistudy.study.api.commands import draw, plan, report, run, sync
    from vistudy.study.api.register import register
    from vistudy.study.api.status import status
    from vistudy.study.planning.plan import Plan
    from vistudy.study.spec.model import Study
    from vistudy.study.spec.parser import load_study

__all__ = [
    "Ledger",
    "Outcome",
    "Plan",
    "Study",
    "Thresholds",
    "cell_rates",
    "compare_studies",
    "decide_study",
    "draw",
    "export",
    "heatmap",
    "label",
    "load_arms",
    "load_frame",
    "load_records",
    "load_study",
    "multiverse_check",
    "plan",
    "register",
    "report",
    "run",
    "save_heatmaps",
    "status",
    "sync",
]

_HOMES = {
    "analysis.ledger.ledger": ("Ledger",),
    "analysis.maps.heatmap": ("heatmap", "save_heatmaps"),
    "analysis.outcomes.rules": ("Outcome", "Thresholds", "label"),
    "analysis.tables.arm_table": ("load_arms",),
    "analysis.tables.compare_studies": ("compare_studies",),
    "analysis.tables.rates": ("cell_rates",),
    "analysis.tables.trials": ("export", "load_frame", "load_records"),
    "analysis.verdict.decide": ("decide_study",),
    "analysis.verdict.multiverse": ("multiverse_check",),
    "study.api.commands": ("draw", "plan", "report", "run", "sync"),
    "study.api.register": ("register",),
    "study.api.status": ("status",),
    "study.planning.plan": ("Plan",),
    "study.spec.model": ("Study",),
    "study.spec.parser": ("load_study",),
}
_MODULES = {name: f"vistudy.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'vistudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
