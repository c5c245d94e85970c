"""Points where it is uncertain on which side of the boundary between stable and unstable they lie.

An optional way of sampling (`method: boundary`), for finding the boundary with few trials. Its points are no sample of
the space, so a claim on them is refused.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistudy.analysis.outcomes.labels import STABLE, UNDETERMINED
from vistudy.study.planning.sampling import AdaptiveSampler, OptunaSampler, TrialOutcome, sample_points, to_cell
from vistudy.study.spec.hyperparameters import Cell
from vistudy.study.spec.search_space import Dimension

Floats = NDArray[np.float64]

CANDIDATES = 2048
"""Sobol points among which the next ones are chosen."""
STRADDLE = 1.96
"""Standard deviations of the model that speak for a point; its distance from the boundary speaks against it."""


class BoundarySampler(AdaptiveSampler):
    """One arm, or one cell of the grid, whose next points lie where the model is unsure of the outcome.

    A Gaussian process is fitted to the shares of stable trials, -1 (none) to 1 (all). Points are chosen by the straddle
    rule, a batch one after the other: each is taken to have shown what the model expects. The first `start` points, and
    all others as long as every outcome is the same, are those of Sobol's sequence. Trials without an outcome teach
    nothing and are not asked again. As in Optuna's design, what is asked depends on the history alone.

    Source: Bryan et al. 2005, "Active learning for identifying function threshold boundaries".
    """

    def next_cells(self, batch: int) -> list[Cell]:
        """The next round: the sample's own `start`, then its own `batch`, not the one given."""
        return super().next_cells(self._sample.batch if self.history else self._sample.start)

    def ask(self, n: int) -> list[Cell]:
        """The next n cells; they count as pending until told."""
        context = self._block.fixed | self._arm
        points = sample_points(dataclasses.replace(self._sample, method="sobol", n=CANDIDATES))
        every = [self._arm | to_cell(self._sample.space, point, context) for point in points]
        cells = self.cells
        free = [cell for cell in every if cell not in cells]
        evaluated = [(cell, value) for cell, value in self.history if value is not None and math.isfinite(value)]
        if len({value for _, value in evaluated}) > 1:
            pending = [cell for cell, value in self.history if value is None]
            new = [free[i] for i in self._uncertain(free, evaluated, pending, n)]
        else:
            new = free[:n]
        self.history += [(cell, None) for cell in new]
        return new

    @staticmethod
    def value(outcomes: Sequence[TrialOutcome | None]) -> float:
        """Share of stable trials among those with a determined outcome; NaN without any."""
        stable = [outcome.label == STABLE for outcome in outcomes if outcome and outcome.label != UNDETERMINED]
        return float(np.mean(stable)) if stable else math.nan

    def _uncertain(
        self, free: Sequence[Cell], evaluated: Sequence[tuple[Cell, float]], pending: Sequence[Cell], n: int
    ) -> list[int]:
        """Places of the n most uncertain cells, in the order in which they are chosen."""
        model = Surrogate.fit(
            self.features([c for c, _ in evaluated]), np.array([2 * value - 1 for _, value in evaluated])
        )
        mean, cov = model.predict(self.features([*free, *pending]))
        for i in range(len(free), len(free) + len(pending)):
            cov = model.conditioned(cov, i)
        chosen: list[int] = []
        for _ in range(min(n, len(free))):
            score = STRADDLE * np.sqrt(np.maximum(np.diag(cov), 0)) - np.abs(mean)
            score[[*chosen, *range(len(free), len(mean))]] = -np.inf
            chosen.append(int(np.argmax(score)))
            cov = model.conditioned(cov, chosen[-1])
        return chosen

    def features(self, cells: Sequence[Cell]) -> Floats:
        """Cells in the unit cube, (cells, columns): ranges at their place, choices as one column each."""
        columns = [_columns(dim, cells) for dim in self._sample.space]
        return np.concatenate(columns, axis=1)


def _columns(dim: Dimension, cells: Sequence[Cell]) -> Floats:
    """A dimension as columns; a cell without it has the middle of a range, or none of the choices."""
    if dim.choices:
        return np.array([[float(dim.name in c and c[dim.name] == choice) for choice in dim.choices] for c in cells])
    low, high = (math.log(dim.low), math.log(dim.high)) if dim.log else (dim.low, dim.high)
    places = []
    for cell in cells:
        if dim.name not in cell:
            places.append(0.5)
            continue
        level = float(str(cell[dim.name]))
        places.append(((math.log(level) if dim.log else level) - low) / (high - low if high > low else 1))
    return np.array(places)[:, None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Surrogate:
    """A Gaussian process of values within -1 and 1, Matern 3/2 with a length for each column."""

    kernel: object
    """Of scikit-learn, fitted, without the noise."""
    noise: float
    """Variance of one value."""
    x: Floats
    y: Floats

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> Surrogate:
        """Fit lengths, scale and noise by the marginal likelihood of (n, d) points and (n,) values."""
        from sklearn.exceptions import ConvergenceWarning  # a second to import, and most studies are grids
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        lengths = Matern(np.full(x.shape[1], 0.3), (0.05, 5.0), nu=1.5)
        kernel = ConstantKernel(1.0, (0.1, 10.0)) * lengths + WhiteKernel(0.05, (1e-3, 1.0))
        model = GaussianProcessRegressor(kernel, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # lengths at their bounds are fine
            model.fit(x, y)
        return cls(kernel=model.kernel_.k1, noise=float(model.kernel_.k2.noise_level), x=x, y=y)

    def mean(self, x: Floats) -> Floats:
        """Expected share at new points, -1 to 1, (m,)."""
        values: Floats = self._solved(self._k(self.x, x)).T @ self.y
        return values

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean (m,) and covariance (m, m) of the underlying share at new points."""
        across = self._k(self.x, x)
        solved = self._solved(across)
        return solved.T @ self.y, self._k(x, x) - across.T @ solved

    def _solved(self, across: Floats) -> Floats:
        with_noise = self._k(self.x, self.x) + self.noise * np.eye(len(self.x))
        return np.linalg.solve(with_noise, across).astype(np.float64, copy=False)

    def conditioned(self, cov: Floats, i: int) -> Floats:
        """The covariance when point i has been seen, whatever it showed."""
        out: Floats = cov - np.outer(cov[:, i], cov[i]) / (cov[i, i] + self.noise)
        return out

    def _k(self, a: Floats, b: Floats) -> Floats:
        kernel: Floats = self.kernel(a, b)  # type: ignore[operator]
        return kernel


SAMPLERS: dict[str, type[AdaptiveSampler]] = {"optuna": OptunaSampler, "boundary": BoundarySampler}
"""Methods of sampling whose points depend on outcomes."""
