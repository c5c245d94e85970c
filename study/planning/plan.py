"""Study -> ordered trials: every configuration in every arm with every seed; merged duplicates, inert cells."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vistudy.study.planning.trial_configs import (
    DriftScales,
    Variant,
    block_cells,
    pilot_name,
    resolve_config,
    set_names,
    variants,
)
from vistudy.study.planning.unused_settings import check_settings_used
from vistudy.study.spec.arms import matched_settings
from vistudy.study.spec.hyperparameters import Cell, Level, settable
from vistudy.study.spec.limits import LIMIT_TRIALS, MAX_TRIALS, PILOT_CONFIGS, PILOT_SCALES
from vistudy.study.spec.messages import KeyPath, error_message
from vistudy.study.spec.model import Block, Study
from vistudy.trainables.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One cell with one seed."""

    trial_id: str
    """Content hash of `config`."""
    config: TrainConfig
    """Resolved."""
    cell: Cell
    """Factors and sampled dimensions -> level, in the user's names; a dimension whose condition fails is absent. With
    arms also `arm`, its name, and what the arm has drawn; what it overrides keeps the configuration's level."""
    seed: int
    block: str
    """Name of the block."""
    inert: tuple[str, ...]
    """Hyperparameters that the user set and that provably cannot change this run."""
    duplicates: tuple[tuple[str, Cell], ...] = ()
    """(block, cell) of the other cells that turned out to be this same trial."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        also = [{"block": block, "cell": cell} for block, cell in self.duplicates]
        own = {"trial_id": self.trial_id, "block": self.block, "cell": self.cell, "seed": self.seed}
        return {**own, "inert": list(self.inert), "also": also, "config": self.config.to_dict()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All trials of a study, in order: block, grid, sample, arm, seed; pilots at the end of their block."""

    study: Study
    trials: tuple[Trial, ...]
    n_duplicates: int
    """Cells times seeds that equal another trial and are trained once."""
    cells: int
    """Different cells with a trial of their own."""
    inert_cells: int
    """Those of them in which something that the user set provably has no effect."""
    matched: DriftScales = dataclasses.field(default_factory=dict)
    """(block, arm) -> the scale that its pilots have shown; without those that are not known yet."""
    notes: tuple[str, ...] = ()
    """What a user should know of this plan, in sentences."""

    @property
    def unmatched_arms(self) -> tuple[tuple[str, str], ...]:
        """(block, arm) of the arms that follow when their pilots have been trained."""
        arms = ((block, arm) for block in self.study.blocks for arm in block.arms.values() if arm.match)
        return tuple((b.name, a.name) for b, a in arms if (b.name, a.name) not in self.matched)

    @property
    def data(self) -> dict[str, str]:
        """Data set -> fingerprint of what the trials learn."""
        return {trial.config.data: str(trial.config.data_fingerprint) for trial in self.trials}

    def noting(self, notes: Iterable[str]) -> Plan:
        """The plan with more notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    @property
    def factors(self) -> dict[str, dict[str, tuple[Level, ...]]]:
        """Block -> factor -> levels, in the file's order."""
        return {block.name: dict(block.factors) for block in self.study.blocks}

    def to_json(self) -> dict[str, Any]:
        """The content of `plan.json`."""
        factors: dict[str, list[Level]] = {}
        for block in self.study.blocks:
            for name, levels in block.factors.items():
                levels_ = factors.setdefault(name, [])
                levels_ += [level for level in levels if level not in levels_]
        plan = {
            "study": self.study.name,
            "hash": self.study.hash,
            "data": self.data,
            "factors": factors,
            "seeds": sorted({seed for block in self.study.blocks for seed in block.seeds}),
            "cells": self.cells,
            "blocks": {
                block.name: _block_json(block, self.matched) | {"data_fingerprint": self.data.get(block.data)}
                for block in self.study.blocks
            },
            "trials": [trial.to_json() for trial in self.trials],
        }
        plan |= {"claim": self.study.claim.to_json()} if self.study.claim else {}
        return plan | ({"notes": list(self.notes)} if self.notes else {})


def _block_json(block: Block, matched: DriftScales) -> dict[str, Any]:
    arms = {name: matched_settings(arm, matched.get((block.name, name))) for name, arm in block.arms.items()}
    pilots = {
        pilot_name(name, scale): {"arm": name, "scale": scale}
        for name, arm in block.arms.items()
        for scale in (PILOT_SCALES if arm.match else ())
    }
    compared = {
        "sample": block.sample.to_json() if block.sample else None,
        "budget": {"d_updates": block.d_updates, "evaluations": block.evaluations},
    }
    return {
        "family": block.family,
        "class": block.class_,
        "arms": arms,
        **({"pilots": pilots} if pilots else {}),
        **(compared if block.arms else {}),
        "model": block.model,
        "data": block.data,
        "seeds": list(block.seeds),
        "factors": {name: list(levels) for name, levels in block.factors.items()},
        "sampled": [dim.name for dim in block.sample.space] if block.sample else [],
        "fixed": dict(block.fixed),
        "sample_evaluations": list(block.sample_evaluations),
        "keep_checkpoints": block.keep_checkpoints,
    }


def plan(
    study: Study,
    *,
    allow_large: bool = False,
    cells: Mapping[str, Sequence[Cell]] | None = None,
    matched: DriftScales | None = None,
) -> Plan:
    """Expand a study into its trials. Equal resolved configurations become one trial.

    Args:
        study: the study.
        allow_large: allow more than `MAX_TRIALS` trials.
        cells: block -> all cells proposed so far (`AdaptiveSampler.cells`), for blocks that are run in rounds. An
            adaptive block that is missing here is planned as the n cells proposed without any outcome.
        matched: scales of arms with `match_drift`; an arm that is not in it is left out, its pilots are planned.

    Raises:
        StudyError: too many trials without `allow_large`; a factor that no cell reads; a cell that cannot be trained.
    """
    _refuse_too_many(study, allow_large)
    matched = matched or {}
    expansion = _Expansion()
    for block in study.blocks:
        check_settings_used(block)
        variants_ = variants(block, matched)
        for cell in cells[block.name] if cells and block.name in cells else block_cells(block, variants_):
            expansion.add(block, cell, variants_[str(cell["arm"]) if "arm" in cell else None])
    trials, also = expansion.trials, expansion.duplicates
    planned = Plan(
        study=study,
        trials=tuple(dataclasses.replace(t, duplicates=tuple(also[k])) if k in also else t for k, t in trials.items()),
        n_duplicates=sum(map(len, also.values())),
        cells=expansion.cells,
        inert_cells=expansion.inert_cells,
        matched=matched,
    )
    return dataclasses.replace(planned, notes=(*study.notes, *_notes(planned, expansion.of_arm)))


class _Expansion:
    """Trials of a plan in the making."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}
        self.duplicates: dict[str, list[tuple[str, Cell]]] = {}
        self.cells = self.inert_cells = 0
        self.of_arm: dict[tuple[str, str], list[str]] = {}
        """(block, arm) -> trial ids in order."""

    def add(self, block: Block, cell: Cell, variant: Variant) -> None:
        """Add one cell with its seeds."""
        config = resolve_config(block, cell, variant)
        named = {t for name in (*set_names(block), *_set_by(variant)) for t in settable(block.config)[name]}
        inert = tuple(name for name in config.inert() if name in named and not _arm_disables(config, name, variant))
        new = False
        for seed in block.seeds[:1] if variant.pilot else block.seeds:
            seeded = dataclasses.replace(config, seed=seed)
            key = seeded.trial_id()
            if variant.arm and not variant.pilot:
                self.of_arm.setdefault((block.name, variant.arm.name), []).append(key)
            if key in self.trials:
                self.duplicates.setdefault(key, []).append((block.name, cell))
                continue
            self.trials[key] = Trial(trial_id=key, config=seeded, cell=cell, seed=seed, block=block.name, inert=inert)
            new = True
        self.cells += new
        self.inert_cells += new and bool(inert)


def _arm_disables(config: TrainConfig, name: str, variant: Variant) -> bool:
    """Whether an arm leaves a hyperparameter at its default: then the cell is no placebo of it."""
    return variant.arm is not None and getattr(config, name) == getattr(type(config)(), name)


def _set_by(variant: Variant) -> Sequence[str]:
    return list(variant.arm.written) if variant.arm else ()


def _notes(planned: Plan, of_arm: Mapping[tuple[str, str], list[str]]) -> Iterator[str]:
    first: dict[tuple[str, ...], str] = {}
    for (block_name, arm), ids in of_arm.items():
        twin = first.setdefault((block_name, *ids), arm)
        if twin != arm:
            yield f"{block_name}: arms {twin} and {arm} are the same in every configuration, and are trained once"
    blocks = {block.name: block for block in planned.study.blocks}
    for block_name, arm in planned.unmatched_arms:
        key, other = blocks[block_name].arms[arm].match or ("", "")
        yield (
            f"{block_name}: arm {arm} follows in a second pass: pilots find the factor of {key} with which "
            f"its drift is that of {other}"
        )
    yield from (f"{block_name}: {match.note}" for (block_name, _), match in planned.matched.items())
    claim = planned.study.claim
    for block in planned.study.blocks if claim else ():
        if claim and not {claim.baseline, claim.treatment} <= block.arms.keys():
            yield f"{block.name}: without both arms {claim.baseline} and {claim.treatment} it is no part of the claim"
        if block.sample and block.sample.is_adaptive:
            method = block.sample.method
            yield f"{block.name}: {method} places its trials by results, so this claim cannot be registered"


def count_trials(study: Study) -> int:
    """Trials before equal ones are merged, counted without making them."""
    return sum(map(_count, study.blocks))


def _count(block: Block) -> int:
    configs = math.prod(map(len, block.factors.values())) * (block.sample.n if block.sample else 1)
    pilots = sum(arm.match is not None for arm in block.arms.values()) * len(PILOT_SCALES)
    return configs * max(1, len(block.arms)) * len(block.seeds) + pilots * min(PILOT_CONFIGS, configs)


def _refuse_too_many(study: Study, allow_large: bool) -> None:
    count = count_trials(study)
    if count <= (LIMIT_TRIALS if allow_large else MAX_TRIALS):
        return
    block = max(study.blocks, key=_count)
    sizes = [f"{name} {len(levels)}" for name, levels in block.factors.items()]
    sizes += [f"sample {block.sample.n}"] if block.sample else []
    sizes += [f"arms {len(block.arms)}"] if block.arms else []
    product = " x ".join([*sizes, f"seeds {len(block.seeds)}"])
    allowed = f"up to {MAX_TRIALS:,}, or up to {LIMIT_TRIALS:,} with --allow-large (allow_large=True)"
    key: KeyPath = ("factors",) if block.factors else ("sampling", "n") if block.sample else ("seeds",)
    raise block.error(key, error_message(f"{count:,} trials ({block.name}: {product})", allowed=allowed))
