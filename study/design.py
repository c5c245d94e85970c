"""Study -> ordered trials: grids, samples (Sobol, random, Optuna by ask and tell), merged duplicates, inert cells."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.factors import ELSEWHERE, Cell, KeyPath, Level, assign, field_types, refusal, settable
from study.sampling import OptunaDesign, draw, drawn
from study.spec import Block, Study
from trainables.config import TrainConfig, hyperparameters

MAX_TRIALS = 10_000
"""More than this many trials need a yes."""
LIMIT_TRIALS = 1_000_000
"""More than this many trials are refused, yes or no: the plan itself would not fit."""
READ_CHECK_CELLS = 20_000
"""Cells that are tried at most in search of one that reads a factor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One cell with one seed."""

    trial_id: str
    """Content hash of `config`."""
    config: TrainConfig
    """Resolved."""
    cell: Cell
    """Factors and sampled dimensions -> level, in the user's names; a dimension whose condition fails is absent."""
    seed: int
    block: str
    """Name of the block."""
    inert: tuple[str, ...]
    """Hyperparameters that the user set and that provably cannot change this run."""
    also: tuple[tuple[str, Cell], ...] = ()
    """(block, cell) of the other cells that turned out to be this same trial."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        also = [{"block": block, "cell": cell} for block, cell in self.also]
        own = {"trial_id": self.trial_id, "block": self.block, "cell": self.cell, "seed": self.seed}
        return {**own, "inert": list(self.inert), "also": also, "config": self.config.to_dict()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All trials of a study, in order: block, grid, sample, seed."""

    study: Study
    trials: tuple[Trial, ...]
    merged: int
    """Cells times seeds that equal another trial and are trained once."""
    cells: int
    """Different cells with a trial of their own."""
    inert_cells: int
    """Those of them in which something that the user set provably has no effect."""

    @property
    def factors(self) -> dict[str, dict[str, tuple[Level, ...]]]:
        """Block -> factor -> levels, in the file's order."""
        return {block.name: dict(block.factors) for block in self.study.blocks}

    def to_json(self) -> dict[str, Any]:
        """The content of `plan.json`."""
        factors: dict[str, list[Level]] = {}
        for block in self.study.blocks:
            for name, levels in block.factors.items():
                known = factors.setdefault(name, [])
                known += [level for level in levels if level not in known]
        return {
            "study": self.study.name,
            "hash": self.study.hash,
            "factors": factors,
            "seeds": sorted({seed for block in self.study.blocks for seed in block.seeds}),
            "cells": self.cells,
            "blocks": {block.name: _block_json(block) for block in self.study.blocks},
            "trials": [trial.to_json() for trial in self.trials],
        }


def _block_json(block: Block) -> dict[str, Any]:
    return {
        "model": block.model,
        "data": block.data,
        "seeds": list(block.seeds),
        "factors": {name: list(levels) for name, levels in block.factors.items()},
        "sampled": [dim.name for dim in block.sample.space] if block.sample else [],
        "fixed": dict(block.fixed),
        "sample_evaluations": list(block.sample_evaluations),
        "keep_checkpoints": block.keep_checkpoints,
    }


def plan(study: Study, *, yes: bool = False, asked: Mapping[str, Sequence[Cell]] | None = None) -> Plan:
    """Expand a study into its trials. Equal resolved configurations become one trial.

    `asked`: block -> all cells asked from Optuna so far (`OptunaDesign.cells`), for blocks that are run in rounds.
    A block with `method: optuna` that is not in it is planned as its n cells before any value is told.

    Raises:
        StudyError: too many trials without `yes`; a factor that no cell reads; a cell that cannot be trained.
    """
    _refuse_too_many(study, yes)
    trials: dict[str, Trial] = {}
    also: dict[str, list[tuple[str, Cell]]] = {}
    cells = inert_cells = 0
    for block in study.blocks:
        _refuse_unread(block)
        named = {t for name in _names(block) for t in settable(block.config)[name]}
        for cell in asked[block.name] if asked and block.name in asked else _cells(block):
            config = _resolved(block, cell)
            inert, new = tuple(name for name in config.inert() if name in named), False
            for seed in block.seeds:
                seeded = dataclasses.replace(config, seed=seed)
                key = seeded.trial_id()
                if key in trials:
                    also.setdefault(key, []).append((block.name, cell))
                    continue
                trials[key] = Trial(trial_id=key, config=seeded, cell=cell, seed=seed, block=block.name, inert=inert)
                new = True
            cells += new
            inert_cells += new and bool(inert)
    return Plan(
        study=study,
        trials=tuple(dataclasses.replace(t, also=tuple(also[k])) if k in also else t for k, t in trials.items()),
        merged=sum(map(len, also.values())),
        cells=cells,
        inert_cells=inert_cells,
    )


def count_trials(study: Study) -> int:
    """Trials before equal ones are merged, counted without making them."""
    return sum(
        math.prod(map(len, block.factors.values())) * (block.sample.n if block.sample else 1) * len(block.seeds)
        for block in study.blocks
    )


def _refuse_too_many(study: Study, yes: bool) -> None:
    count = count_trials(study)
    if count <= (LIMIT_TRIALS if yes else MAX_TRIALS):
        return
    block = max(study.blocks, key=lambda b: math.prod(map(len, b.factors.values())) * (b.sample.n if b.sample else 1))
    sizes = [f"{name} {len(levels)}" for name, levels in block.factors.items()]
    sizes += [f"sample {block.sample.n}"] if block.sample else []
    product = " x ".join([*sizes, f"seeds {len(block.seeds)}"])
    allowed = f"up to {MAX_TRIALS:,}, or up to {LIMIT_TRIALS:,} with --yes (yes=True)"
    key: KeyPath = ("factors",) if block.factors else ("sample", "n")
    raise block.error(key, refusal(f"{count:,} trials ({block.name}: {product})", allowed=allowed))


def _names(block: Block) -> list[str]:
    """Everything that the user set."""
    return [*block.factors, *(dim.name for dim in (block.sample.space if block.sample else ())), *block.fixed]


def _place(block: Block, name: str) -> KeyPath:
    """Where the user set `name`."""
    if name in block.factors:
        return ("factors", name)
    return ("fixed", name) if name in block.fixed else ("sample", "space", name)


def _config(block: Block, cell: Cell) -> TrainConfig:
    values: dict[str, Any] = {"data": block.data, "d_updates": block.d_updates, "evaluations": block.evaluations}
    for name, level in (block.fixed | cell).items():
        values |= assign(block.config, name, level)
    return block.config(**values)


def _resolved(block: Block, cell: Cell) -> TrainConfig:
    """The resolved configuration of a cell; StudyError if the model or the data refuses it."""
    config = _config(block, cell)
    try:
        config = config.resolve()
    except ValueError as error:
        name = str(error).partition(":")[0]
        path: KeyPath = _place(block, name) if name in _names(block) else ("data",)
        raise block.error(path, f"cell {cell}: {error}") from None
    d_steps = config.steps_of_period()[0]
    periods = -(-block.d_updates // d_steps)
    if periods < block.evaluations:
        problem = f"an evaluation would have no update in cell {cell}, whose periods have {d_steps} D updates"
        allowed = f"up to d_updates / {d_steps}, {periods}"
        raise block.error(("budget", "evaluations"), refusal(problem, got=block.evaluations, allowed=allowed))
    return config


def _refuse_unread(block: Block) -> None:
    """Refuse what the user set and no possible cell reads (a fixed value that is the default does no harm)."""
    dims = block.sample.space if block.sample else ()
    combinations = itertools.product(*block.factors.values(), *(dim.choices or (dim.low,) for dim in dims))
    pending, present_in = set(_names(block)), dict[str, TrainConfig]()
    for levels in itertools.islice(combinations, READ_CHECK_CELLS):
        cell: Cell = dict(zip(block.factors, levels, strict=False))
        cell |= drawn(dims, levels[len(block.factors) :], block.fixed | cell)
        config = _config(block, cell)
        unread = config.unread()
        for name in pending & (cell.keys() | block.fixed.keys()):
            present_in[name] = config
            values = assign(block.config, name, (block.fixed | cell)[name])
            if values.keys() - unread.keys() or (name in block.fixed and values.items() <= unread.items()):
                pending.remove(name)
        if not pending:
            return
    if next(combinations, None) is not None:
        return  # too many to try
    name = next(name for name in _names(block) if name in pending)
    reason = "its condition holds in no cell"
    if name in present_in:
        reason = f"it would be with {why_unread(present_in[name], settable(block.config)[name][0])}"
    raise block.error(_place(block, name), refusal(f"'{name}' is read in no cell", mend=f"{reason}; or take it out"))


def why_unread(config: TrainConfig, field: str) -> str:
    """The settings under which `config` would read `field`, found by trying the others one by one."""
    found: list[str] = []
    kinds = field_types(type(config))
    for name, hyper in hyperparameters(type(config)).items():
        now = getattr(config, name)
        if name == field or name in ELSEWHERE:
            continue
        others = hyper.choices or ((now + 1,) if kinds[name] is int and isinstance(now, int) else ())
        for other in others:
            if other != now and field not in dataclasses.replace(config, **{name: other}).unread():
                found.append(f"{name}: {other}" if hyper.choices else f"{name} above {now}")
    return " or ".join(found) or "another model"


def _cells(block: Block) -> Iterator[Cell]:
    """Every cell of a block: the grid, and in each of its cells the sample."""
    draws = None if block.sample is None or block.sample.method == "optuna" else draw(block.sample)
    for levels in itertools.product(*block.factors.values()):
        cell: Cell = dict(zip(block.factors, levels, strict=True))
        if block.sample is None:
            yield cell
        elif draws is None:
            yield from OptunaDesign(block, arm=cell).ask(block.sample.n)
        else:
            context = block.fixed | cell
            yield from (cell | drawn(block.sample.space, point, context) for point in draws)
