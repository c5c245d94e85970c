"""From records to a verdict. Never imports torch, ray or trainables.

The names below are loaded when they are first used, so that the outcome rules alone need neither pandas nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.arms import load_arms
    from analysis.compare import compare_studies
    from analysis.estimates import cell_rates, wilson
    from analysis.figures import heatmap, heatmaps, save_heatmaps
    from analysis.frame import cell_tag, export, load_frame, load_records
    from analysis.multiverse import multiverse_check
    from analysis.outcome import Outcome, Reference, Thresholds, label
    from analysis.verdict import decide, decide_study

__all__ = [
    "Outcome",
    "Reference",
    "Thresholds",
    "cell_rates",
    "cell_tag",
    "compare_studies",
    "decide",
    "decide_study",
    "export",
    "heatmap",
    "heatmaps",
    "label",
    "load_arms",
    "load_frame",
    "load_records",
    "multiverse_check",
    "save_heatmaps",
    "wilson",
]

_HOMES = {
    "arms": ("load_arms",),
    "compare": ("compare_studies",),
    "estimates": ("cell_rates", "wilson"),
    "figures": ("heatmap", "heatmaps", "save_heatmaps"),
    "frame": ("cell_tag", "export", "load_frame", "load_records"),
    "multiverse": ("multiverse_check",),
    "outcome": ("Outcome", "Reference", "Thresholds", "label"),
    "verdict": ("decide", "decide_study"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"analysis.{module}"), name)
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
