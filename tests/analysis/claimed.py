"""The studies of the claim, as if they had been run: the recipes' own plans, with made-up records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.special import expit

from tests.analysis.synthetic import FAILURES, write_trials
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.api.register import register
from vistudy.study.execution.provenance import now_ms
from vistudy.study.planning.plan import Trial, plan
from vistudy.study.spec.arms import Match
from vistudy.study.spec.parser import load_study

RECIPES = Path(__file__).parents[2] / "study" / "recipes"
LIFT: Mapping[str, Mapping[str, float]] = {
    "P": {"A3a": 0.0, "A3b": 0.0, "A4": 2.5, "A50": -3.0},
    "G": {"A1": 3.5, "A3a": 0.5, "A3b": 0.5, "A4": 3.0},
    "D": {"A1": -0.5, "A4": 2.5},
}
"""What an arm adds to the logit of being stable, by class: as the recipes predict."""


def make(recipe: str, store: Path, lift: Mapping[str, Mapping[str, float]] = LIFT, *, configs: int = 60) -> str:
    """Register a recipe and write a store in which it has been run; returns the study's name.

    `configs`: configurations a block. The learning rate's range and all else are those of the recipe.
    """
    text = (RECIPES / f"{recipe}.yaml").read_text("utf-8").replace("n: 60", f"n: {configs}")
    file = store.parent / f"{recipe}.yaml"
    file.write_text(text, encoding="utf-8")
    study = load_study(file)
    register(study, str(store))
    arms = [(block.name, arm.name) for block in study.blocks for arm in block.arms.values() if arm.match]
    found = {key: Match(scale=0.25, note=f"arm {key[1]}: made up") for key in arms}
    planned = plan(study, matched=found)
    ledger, document = Ledger(store), planned.to_json()
    classes = {name: block["class"] for name, block in document["blocks"].items()}
    luck = np.random.default_rng(0)
    draws: dict[tuple[str, int], float] = {}
    kinds = [_kind(trial, classes[trial.block], lift, draws, luck) for trial in planned.trials]
    write_trials(ledger, document["trials"], kinds, luck, first_ms=now_ms() + 1000)
    meta = {"created_ms": now_ms(), "last_run_ms": now_ms(), "git": {"commit": "0" * 40, "dirty": False},
            "versions": {"vistudy": "0"}, "metrics": {}}  # fmt: skip
    ledger.write_study(study.name, text, document, meta)
    return study.name


def _kind(
    trial: Trial,
    block_class: str,
    lift: Mapping[str, Mapping[str, float]],
    draws: dict[tuple[str, int], float],
    luck: np.random.Generator,
) -> str:
    """An outcome: stable around a middle learning rate; one draw for a configuration and seed in all arms."""
    cell = {name: level for name, level in trial.cell.items() if name != "arm"}
    lr = float(str(cell["lr"])) * (10 if trial.config.data == "digits" else 1)
    middle = 2.0 - 3.0 * (math.log10(lr) + 2.5) ** 2 + lift.get(block_class, {}).get(str(trial.cell["arm"]), 0.0)
    drawn = draws.setdefault((str(sorted(cell.items())) + trial.block, trial.seed), luck.random())
    return "converged" if drawn < expit(middle) else FAILURES[int(1e6 * drawn) % len(FAILURES)]
