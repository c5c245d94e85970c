"""Points of a sample's space: Sobol, random, and Optuna by ask and tell (`boundary` has another such design)."""

from __future__ import annotations

import dataclasses
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vistudy.study.spec.hyperparameters import Cell, Level
from vistudy.study.spec.limits import STARTUP_TRIALS
from vistudy.study.spec.model import Block, Sample
from vistudy.study.spec.search_space import Dimension

if TYPE_CHECKING:
    import optuna


History = Sequence[tuple[Cell, float | None]]
"""Cells asked in order, each with the value told (of a design's own kind, perhaps non-finite) or None so far."""


def to_cell(dims: Iterable[Dimension], values: Iterable[Level], context: Cell) -> Cell:
    """The values of the dimensions whose condition holds."""
    out: Cell = {}
    for dim, value in zip(dims, values, strict=True):
        if dim.is_active(context | out):
            out[dim.name] = value
    return out


def sample_points(sample: Sample) -> list[tuple[Level, ...]]:
    """The sample's points (Sobol or random), a value for every dimension. Raising n keeps the first ones.

    Source: Owen-scrambled Sobol points, `scipy.stats.qmc.Sobol`.
    """
    names = sorted(dim.name for dim in sample.space)  # the order in the file does not matter
    if sample.method == "sobol":
        from scipy.stats import qmc  # a second to import, and most studies are grids

        sobol = qmc.Sobol(len(names), scramble=True, rng=sample.seed)
        unit = sobol.random_base2(math.ceil(math.log2(sample.n)))[: sample.n]
    else:
        keys = [np.random.SeedSequence(sample.seed, spawn_key=(zlib.crc32(name.encode()),)) for name in names]
        unit = np.stack([np.random.Generator(np.random.Philox(key)).random(sample.n) for key in keys], axis=1)
    columns = [(dim, unit[:, names.index(dim.name)].tolist()) for dim in sample.space]
    return [tuple(_from_unit_interval(dim, column[i]) for dim, column in columns) for i in range(sample.n)]


def sample_arm_points(sample: Sample, space: Sequence[Dimension]) -> list[tuple[Level, ...]]:
    """Values of an arm's own dimensions beside every point of `draw(sample)`. Raising n keeps the first ones.

    Arms that draw the same dimension get the same numbers. Sobol: columns beyond those of the sample, each with a
    scramble of its own, so that sample and arm together are one Sobol net.
    """
    if not space:
        return [()] * sample.n
    names = sorted(dim.name for dim in space)
    keys = {name: np.random.SeedSequence(sample.seed, spawn_key=(zlib.crc32(name.encode()),)) for name in names}
    columns: dict[str, list[float]] = {}
    for place, name in enumerate(names, start=len(sample.space)):
        if sample.method == "sobol":
            from scipy.stats import qmc

            sobol = qmc.Sobol(place + 1, scramble=True, rng=np.random.default_rng(keys[name]))
            columns[name] = sobol.random_base2(math.ceil(math.log2(sample.n)))[: sample.n, place].tolist()
        else:
            columns[name] = np.random.Generator(np.random.Philox(keys[name])).random(sample.n).tolist()
    return [tuple(_from_unit_interval(dim, columns[dim.name][i]) for dim in space) for i in range(sample.n)]


def _from_unit_interval(dim: Dimension, u: float) -> Level:
    """The dimension's value at `u` in [0, 1)."""
    if dim.choices:
        return dim.choices[int(u * len(dim.choices))]
    high = dim.high + 1 if dim.kind is int else dim.high
    value = dim.low * (high / dim.low) ** u if dim.log else dim.low + (high - dim.low) * u
    return min(dim.high, math.floor(value)) if dim.kind is int else _rounded(dim, value)


def _rounded(dim: Dimension, value: float) -> float:
    """Six digits: more would differ between machines in the last place, and with it the trial's hash."""
    return float(min(max(float(f"{value:.6g}"), dim.low), dim.high))


class TrialOutcome(Protocol):
    """The part of an `Outcome` that adaptive samplers use."""

    @property
    def label(self) -> str:
        """Outcome label."""

    @property
    def q_final(self) -> float | None:
        """Final Q; None if there is none."""


class AdaptiveSampler(ABC):
    """One arm, or one cell of the grid, whose configurations are asked in rounds and told their values.

    An arm's own dimensions are asked with the configuration. What is asked depends on the history alone: the same
    history gives the same cells, whether asked at once, one by one or after a resume.
    """

    def __init__(self, block: Block, arm: Cell | None = None, history: History = ()) -> None:
        """`history`: what was asked and told before, in order."""
        assert block.sample is not None
        own = block.arms[str(arm["arm"])].space if arm and "arm" in arm else ()
        self._sample = dataclasses.replace(block.sample, space=(*block.sample.space, *own))
        self._block, self._arm = block, dict(arm or {})
        self.history: list[tuple[Cell, float | None]] = list(history)

    @property
    def cells(self) -> list[Cell]:
        """Every cell asked so far."""
        return [cell for cell, _ in self.history]

    def next_cells(self, batch: int) -> list[Cell]:
        """The next round: `batch` cells, or what is left of the sample's n; empty when all are asked."""
        return self.ask(max(0, min(batch, self._sample.n - len(self.history))))

    @abstractmethod
    def ask(self, n: int) -> list[Cell]:
        """The next n cells; they count as pending until told."""

    @staticmethod
    @abstractmethod
    def value(outcomes: Sequence[TrialOutcome | None]) -> float:
        """Value of a cell, from the outcomes of its seeds (None: a trial without one)."""

    def tell(self, cell: Cell, value: float) -> None:
        """Set the value of a cell that was asked; nan and inf are allowed.

        Raises:
            StudyError: the cell was not asked, or has its value.
        """
        for i, (earlier, earlier_value) in enumerate(self.history):
            if earlier == cell and earlier_value is None:
                self.history[i] = (earlier, value)
                return
        raise self._block.error(("sampling",), f"cell {cell} was not asked, or was told before")


class OptunaSampler(AdaptiveSampler):
    """Tuned by Optuna's TPE: values are final deficiencies, to be minimised; a diverged trial's may be nan or inf.

    The Optuna study lives in memory and is rebuilt from the history at every ask, with a seed that depends on the place
    in the history only.
    """

    def ask(self, n: int) -> list[Cell]:
        """The next n cells; they count as pending until told."""
        if sum(value is not None for _, value in self.history) < STARTUP_TRIALS:
            start = len(self.history)
            points = sample_points(dataclasses.replace(self._sample, method="random", n=start + n))[start:]
            context = self._block.fixed | self._arm
            new = [self._arm | to_cell(self._sample.space, point, context) for point in points]
            self.history += [(cell, None) for cell in new]
            return new
        study = self._rebuilt()
        return [self._ask_tpe(study) for _ in range(n)]

    @staticmethod
    def value(outcomes: Sequence[TrialOutcome | None]) -> float:
        """Mean over seeds of the final Q; infinite where one diverged or has no outcome."""
        finals = [None if outcome is None else outcome.q_final for outcome in outcomes]
        return float(np.mean([math.inf if q is None else float(q) for q in finals]))

    def _ask_tpe(self, study: optuna.Study) -> Cell:
        import optuna

        key = np.random.SeedSequence(self._sample.seed, spawn_key=(len(self.history),))
        study.sampler = optuna.samplers.TPESampler(seed=int(key.generate_state(1)[0]))
        trial = study.ask()
        cell: Cell = dict(self._arm)
        for dim in self._sample.space:
            if dim.is_active(self._block.fixed | cell):
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
            raise self._block.error(("sampling", "space"), f"the history has a cell outside of it: {error}") from None


def _distribution(dim: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dim.choices:
        return CategoricalDistribution(tuple(range(len(dim.choices))))  # places: Optuna takes true and 1 for equal
    make = IntDistribution if dim.kind is int else FloatDistribution
    return make(dim.low, dim.high, log=dim.log)
