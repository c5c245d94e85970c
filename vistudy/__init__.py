"""Studies of training stability. Every name below is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistudy.analysis.ledger.errors import StudyError
    from vistudy.analysis.ledger.ledger import Ledger
    from vistudy.analysis.maps.atlas_page import atlas
    from vistudy.analysis.maps.heatmap import heatmap, save_heatmaps
    from vistudy.analysis.outcomes.labels import Thresholds
    from vistudy.analysis.outcomes.rules import Outcome, label
    from vistudy.analysis.tables.arm_table import load_arms
    from vistudy.analysis.tables.compare_studies import compare_studies as compare
    from vistudy.analysis.tables.outcome_versions import relabel_study as relabel
    from vistudy.analysis.tables.rates import cell_rates
    from vistudy.analysis.tables.trials import export, load_frame, load_records
    from vistudy.analysis.verdict.decide import decide_study as verdict
    from vistudy.analysis.verdict.multiverse import multiverse_check
    from vistudy.study.api.doctor import doctor
    from vistudy.study.api.heatmap import draw_heatmaps
    from vistudy.study.api.plan import Preview, plan
    from vistudy.study.api.register import register
    from vistudy.study.api.report import report
    from vistudy.study.api.run import RunReport, run
    from vistudy.study.api.status import Status, status
    from vistudy.study.api.sync import sync
    from vistudy.study.films.retrain import film_trial as film
    from vistudy.study.planning.plan import Plan
    from vistudy.study.spec.model import Study
    from vistudy.study.spec.parser import load_study

__all__ = [
    "Ledger", "Outcome", "Plan", "Preview", "RunReport", "Status", "Study", "StudyError", "Thresholds", "atlas",
    "cell_rates", "compare", "doctor", "draw_heatmaps", "export", "film", "heatmap",
    "label", "load_arms", "load_frame", "load_records", "load_study", "multiverse_check", "plan", "register",
    "relabel", "report", "run", "save_heatmaps", "status", "sync", "verdict",
]  # fmt: skip

_HOMES = {
    "analysis.ledger.errors": "StudyError",
    "analysis.ledger.ledger": "Ledger",
    "analysis.maps.atlas_page": "atlas",
    "analysis.maps.heatmap": "heatmap save_heatmaps",
    "analysis.outcomes.labels": "Thresholds",
    "analysis.outcomes.rules": "Outcome label",
    "analysis.tables.arm_table": "load_arms",
    "analysis.tables.compare_studies": "compare=compare_studies",
    "analysis.tables.outcome_versions": "relabel=relabel_study",
    "analysis.tables.rates": "cell_rates",
    "analysis.tables.trials": "export load_frame load_records",
    "analysis.verdict.decide": "verdict=decide_study",
    "analysis.verdict.multiverse": "multiverse_check",
    "study.api.doctor": "doctor",
    "study.api.heatmap": "draw_heatmaps",
    "study.api.plan": "Preview plan",
    "study.api.register": "register",
    "study.api.report": "report",
    "study.api.run": "RunReport run",
    "study.api.status": "Status status",
    "study.api.sync": "sync",
    "study.films.retrain": "film=film_trial",
    "study.planning.plan": "Plan",
    "study.spec.model": "Study",
    "study.spec.parser": "load_study",
}
"""Module below vistudy -> its public names, `NAME` or `NAME=NAME_THERE`."""
_NAMES = {
    word.partition("=")[0]: (f"vistudy.{module}", word.rpartition("=")[2])
    for module, words in _HOMES.items()
    for word in words.split()
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module, attribute = _NAMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'vistudy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
