"""Study -> ordered trials: grids, samples (Sobol, random, Optuna by ask and tell), merged duplicates, inert cells."""

from __future__ import annotations

import dataclasses
import itertools
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import qmc

from study.factors import ELSEWHERE, Cell, Dimension, KeyPath, Level, assign, field_types, refusal, settable
from study.spec import Block, Sample, Study
from trainables.config import TrainConfig, hyperparameters

if TYPE_CHECKING:
    import optuna

MAX_TRIALS = 10_000
"""More than this many trials need a yes."""
LIMIT_TRIALS = 1_000_000
"""More than this many trials are refused, yes or no: the plan itself would not fit."""
STARTUP_TRIALS = 10
"""Values that must be told before Optuna's TPE takes over from points drawn at random."""
READ_CHECK_CELLS = 20_000
"""Cells that are tried at most in search of one that reads a factor."""

History = Sequence[tuple[Cell, float | None]]
"""Cells asked from Optuna in order, each with the value told (to be minimised; non-finite: diverged) or None so far."""


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
        cell |= _drawn(dims, levels[len(block.factors) :], block.fixed | cell)
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
            yield from (cell | _drawn(block.sample.space, point, context) for point in draws)


def _drawn(dims: Iterable[Dimension], values: Iterable[Level], context: Cell) -> Cell:
    """The values of the dimensions whose condition holds."""
    out: Cell = {}
    for dim, value in zip(dims, values, strict=True):
        if dim.drawn_in(context | out):
            out[dim.name] = value
    return out


def draw(sample: Sample) -> list[tuple[Level, ...]]:
    """The sample's points (Sobol or random), a value for every dimension. Raising n keeps the first ones.

    Source: Owen-scrambled Sobol points, `scipy.stats.qmc.Sobol`.
    """
    names = sorted(dim.name for dim in sample.space)  # the order in the file does not matter
    if sample.method == "sobol":
        sobol = qmc.Sobol(len(names), scramble=True, rng=sample.seed)
        unit = sobol.random_base2(math.ceil(math.log2(sample.n)))[: sample.n]
    else:
        keys = [np.random.SeedSequence(sample.seed, spawn_key=(zlib.crc32(name.encode()),)) for name in names]
        unit = np.stack([np.random.Generator(np.random.Philox(key)).random(sample.n) for key in keys], axis=1)
    columns = [(dim, unit[:, names.index(dim.name)].tolist()) for dim in sample.space]
    return [tuple(_value(dim, column[i]) for dim, column in columns) for i in range(sample.n)]


def _value(dim: Dimension, u: float) -> Level:
    """The dimension's value at `u` in [0, 1)."""
    if dim.choices:
        return dim.choices[int(u * len(dim.choices))]
    high = dim.high + 1 if dim.kind is int else dim.high
    value = dim.low * (high / dim.low) ** u if dim.log else dim.low + (high - dim.low) * u
    return min(dim.high, math.floor(value)) if dim.kind is int else _rounded(dim, value)


def _rounded(dim: Dimension, value: float) -> float:
    """Six digits: more would differ between machines in the last place, and with it the trial's hash."""
    return float(min(max(float(f"{value:.6g}"), dim.low), dim.high))


class OptunaDesign:
    """One arm (cell of the grid) tuned by Optuna's TPE through ask and tell.

    The Optuna study lives in memory and is rebuilt from the history at every ask, with a seed that depends on the place
    in the history only: the same history gives the same cells, whether asked at once, one by one or after a resume.
    """

    def __init__(self, block: Block, arm: Cell | None = None, history: History = ()) -> None:
        """`history`: what was asked and told before, in order."""
        assert block.sample is not None
        self._block, self._sample, self._arm = block, block.sample, dict(arm or {})
        self.history: list[tuple[Cell, float | None]] = list(history)

    @property
    def cells(self) -> list[Cell]:
        """Every cell asked so far."""
        return [cell for cell, _ in self.history]

    def next_cells(self, batch: int) -> list[Cell]:
        """The next round: `batch` cells, or what is left of the sample's n; empty when all are asked."""
        return self.ask(max(0, min(batch, self._sample.n - len(self.history))))

    def ask(self, n: int) -> list[Cell]:
        """The next n cells; they count as pending until told."""
        if sum(value is not None for _, value in self.history) < STARTUP_TRIALS:
            start = len(self.history)
            points = draw(dataclasses.replace(self._sample, method="random", n=start + n))[start:]
            context = self._block.fixed | self._arm
            new = [self._arm | _drawn(self._sample.space, point, context) for point in points]
            self.history += [(cell, None) for cell in new]
            return new
        study = self._rebuilt()
        return [self._ask_tpe(study) for _ in range(n)]

    def tell(self, cell: Cell, value: float) -> None:
        """Set the value (to be minimised) of a cell that was asked; a diverged trial's may be nan or inf.

        Raises:
            StudyError: the cell was not asked, or has its value.
        """
        for i, (asked, told) in enumerate(self.history):
            if asked == cell and told is None:
                self.history[i] = (asked, value)
                return
        raise self._block.error(("sample",), f"cell {cell} was not asked, or was told before")

    def _ask_tpe(self, study: optuna.Study) -> Cell:
        import optuna

        key = np.random.SeedSequence(self._sample.seed, spawn_key=(len(self.history),))
        study.sampler = optuna.samplers.TPESampler(seed=int(key.generate_state(1)[0]))
        trial = study.ask()
        cell: Cell = dict(self._arm)
        for dim in self._sample.space:
            if dim.drawn_in(self._block.fixed | cell):
                raw = trial._suggest(dim.name, _distribution(dim))
                cell[dim.name] = dim.choices[raw] if dim.choices else raw if dim.kind is int else _rounded(dim, raw)
        self.history.append((cell, None))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)  # replaced by the rounded cell, as a rebuild has it
        study.add_trial(self._frozen(cell, None))
        return cell

    def _rebuilt(self) -> optuna.Study:
        import optuna

        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="minimize")
        optuna.logging.set_verbosity(level)
        finite = [value for _, value in self.history if value is not None and math.isfinite(value)]
        worst = max(finite, default=1.0)
        for cell, value in self.history:
            study.add_trial(self._frozen(cell, value if value is None or math.isfinite(value) else worst))
        return study

    def _frozen(self, cell: Cell, value: float | None) -> optuna.trial.FrozenTrial:
        import optuna

        dims = [dim for dim in self._sample.space if dim.name in cell]
        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        try:
            return optuna.trial.create_trial(
                state=state,
                value=value,
                params={dim.name: dim.choices.index(cell[dim.name]) if dim.choices else cell[dim.name] for dim in dims},
                distributions={dim.name: _distribution(dim) for dim in dims},
            )
        except ValueError as error:
            raise self._block.error(("sample", "space"), f"the history has a cell outside of it: {error}") from None


def _distribution(dim: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dim.choices:
        return CategoricalDistribution(tuple(range(len(dim.choices))))  # places: Optuna takes true and 1 for equal
    make = IntDistribution if dim.kind is int else FloatDistribution
    return make(dim.low, dim.high, log=dim.log)
