"""EM for Gaussian mixtures: (11) and (8) in turn, on fixed data, in double precision. An update is one iteration.

Differences from the paper, which has no experiment:
* weights are updated together with the components, since log q(x, z) in (8) depends on them;
* a relaxation step eta, params += eta (EM(params) - params), replaces a learning rate: 1 is EM, 0 < eta < 2 converges
  near an optimum, and far from one an eta above 1 may push a covariance or a weight out of its range;
* the term of (26) on the means, a negative control: lambda sum_k |mu_k - mu_k,old|^2 plus the sum of (8) over the
  data, mu_old the means before the iteration. Of the step of a mean it leaves N_k / (N_k + 2 lambda sigma_k^2) where
  the component is round: it can only damp.

A trial becomes NaN if a component has no data, a covariance is not positive definite, or a weight is negative
(eta > 1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.config import TrainConfig, hp
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.gaussians import GaussianMixture
from vistudy.trainables.models.parameter_pack import ParameterPack
from vistudy.trainables.random_streams import BLOCK, generator

if TYPE_CHECKING:
    from jaxtyping import Float

TEST_POINTS = 5000
"""Points of the reference split, which is never trained on, for the test likelihood."""

EMPTY = 1e-6
"""A component with a responsibility for fewer points than this is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmConfig(TrainConfig):
    """Hyperparameters of an EM trial. The budget counts iterations."""

    model: ClassVar[str] = "em"
    lr: ClassVar[tuple[str, ...]] = ("relaxation",)
    """What a study file's `lr` sets."""
    reference_fields: ClassVar[tuple[str, ...]] = ("model", "data", "components", "covariance", "points")
    """What the samples of an `untrained` model depend on, besides the seed."""

    precision: str = hp("fp64", "Arithmetic of the training step.", choices=("fp64",))
    components: int = hp(None, "Gaussians in the mixture; by default as many as the data have.", ge=1)
    covariance: str = hp("full", "Form of the components' covariances.", choices=("full", "diag", "spherical"))
    relaxation: float = hp(1.0, "eta: share of the EM step that is applied.", structural=False, gt=0)
    reg_weight: float = hp(
        0.0,
        "lambda of the old-versus-new term on the means, which is added to the log-likelihood of all points.",
        structural=False,
        ge=0,
    )
    reg_covar: float = hp(1e-6, "Added to the diagonal of covariances, as in scikit-learn.", structural=False, ge=0)
    init: str = hp(
        "spread",
        "Initial means: distant points of the data (spread, k-means++), any points of the data (points), or normal "
        "numbers with the mean and variances of the data (random).",
        structural=False,
        choices=("spread", "points", "random"),
    )
    points: int = hp(2000, "Points to learn; each iteration uses all of them.", ge=2)

    def data_defaults(self) -> dict[str, Any]:
        """The number of components of the data, by default.

        Raises:
            ValueError: the data are not a Gaussian mixture, or there are fewer points than components.
        """
        data = DATASETS[self.data]
        if not isinstance(data, GaussianMixture):
            names = ", ".join(name for name, d in DATASETS.items() if isinstance(d, GaussianMixture))
            raise ValueError(f"data: model em learns Gaussian mixtures, got {self.data!r}; allowed: {names}")
        components = len(data.means) if self.components is None else self.components
        if components > self.points:
            raise ValueError(f"components: {components} cannot start from {self.points} points; raise 'points'")
        return {"components": components}

    def unused_fields(self) -> dict[str, Any]:
        """batch_size: there are no minibatches."""
        return {"batch_size": 64}

    def untrained(self) -> Self:
        """The configuration of the untrained baseline, which has random means.

        Means that are spread over the data are already a result: on a grid they leave nothing to learn.
        """
        return dataclasses.replace(self, init="random")

    def steps_of_period(self) -> tuple[int, int]:
        """One iteration."""
        return (1, 0)


class EmPack(ParameterPack[EmConfig]):
    """K mixtures of equal structure, each on the points of its own seed."""

    def __init__(self, configs: Sequence[EmConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        points = {seed: self._points(seed) for seed in set(self.seeds)}
        starts = [initial_means(c.init, c.components, points[c.seed], c.seed) for c in configs]
        self.x = torch.from_numpy(np.stack([points[seed] for seed in self.seeds])).to(device)
        means = torch.from_numpy(np.stack(starts)).to(device)
        self._shape = FORMS[self.config.covariance]
        nearest = (self.x.unsqueeze(2) - means.unsqueeze(1)).square().sum(3).argmin(2, keepdim=True)
        centred = self.x - means.gather(1, nearest.expand_as(self.x))
        covs = self._shape(centred.mT @ centred / self.x.shape[1]).unsqueeze(1).repeat(1, self.config.components, 1, 1)
        weights = torch.full(means.shape[:2], 1 / self.config.components, dtype=torch.float64)
        self.mixture = self.parameters("g", {"weights": weights, "means": means, "covariances": covs})
        self._eta, self._reg_weight, self._reg_covar = map(self.column, ("relaxation", "reg_weight", "reg_covar"))
        self._test = torch.from_numpy(self.data.real(TEST_POINTS, "reference")).double().to(device)

    def _points(self, seed: int) -> np.ndarray:
        """The data of a seed: the start of its data stream, float64 (points, d)."""
        blocks = self.data.block(seed, 0, math.ceil(self.config.points / BLOCK))
        return blocks.reshape(-1, *self.data.shape)[: self.config.points].astype(np.float64)

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Run one iteration. With `diagnose`, return g_loss before it and drift, each (K,).

        drift is the mean squared change of the means. g_loss is (5) at the optimal p(z|x) without its constant terms:
        minus the log-likelihood per point.
        """
        old = self.mixture.frozen["means"].clone()
        target, evidence = self.em()
        self.mixture.flat.lerp_(target, self._eta)
        self.d_updates += 1
        if not diagnose:
            return {}
        squared_change = (self.mixture.frozen["means"] - old).square().mean(2)
        return {"g_loss": -evidence.mean(1), "drift": (self.mixture.frozen["weights"] * squared_change).sum(1)}

    def em(self) -> tuple[Tensor, Tensor]:
        """EM(params) in the flat layout (K, P), and log q(x) of the points under the old parameters, (K, n)."""
        old = self.mixture.frozen
        joint = log_joint(self.x, **old)
        evidence = joint.logsumexp(1)
        share = (joint - evidence.unsqueeze(1)).exp()  # (11)
        count = share.sum(2)  # N_k; from here on (8)
        count = torch.where(count > EMPTY, count, torch.nan)
        step = share @ self.x / count.unsqueeze(2) - old["means"]
        means = old["means"] + self._damped(step, count, old["covariances"])
        centred = self.x.unsqueeze(1) - means.unsqueeze(2)
        scatter = (share.unsqueeze(3) * centred).mT @ centred / count[..., None, None]
        eye = torch.eye(self.x.shape[2], dtype=torch.float64, device=self.device)
        covs = self._shape(scatter) + self._reg_covar[..., None, None] * eye
        parts = (count / self.x.shape[1], means, covs)
        return torch.cat([part.flatten(1) for part in parts], 1), evidence

    def _damped(self, step: Tensor, count: Tensor, covs: Tensor) -> Tensor:
        """Step of the means under the term: N_k (N_k I + 2 lambda Sigma_k)^-1 step, Sigma_k the current covariance."""
        eye = torch.eye(step.shape[2], dtype=step.dtype, device=step.device)
        damped = count[..., None, None] * eye + 2 * self._reg_weight[..., None, None] * covs
        solved: Tensor = torch.linalg.solve_ex(damped, (count.unsqueeze(2) * step).unsqueeze(3))[0]
        return solved.squeeze(3)

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples per trial, float32 (K, n, d), from random numbers that are fixed for the whole run."""
        p = self.mixture.frozen
        uniform = {seed: generator(seed, "component_eval").random(n) for seed in set(self.seeds)}
        u = torch.from_numpy(np.stack([uniform[seed] for seed in self.seeds])).to(self.device)
        edges = p["weights"].cumsum(1).contiguous()
        chosen = torch.searchsorted(edges, u, right=True).clamp(max=self.config.components - 1)
        root = choleskys(p["covariances"]).flatten(2).gather(1, chosen[..., None].expand(-1, -1, self.x.shape[2] ** 2))
        means = p["means"].gather(1, chosen[..., None].expand(-1, -1, self.x.shape[2]))
        noise = self.normal("z_eval", n, self.x.shape[2])
        samples = means + (root.view(*noise.shape, -1) @ noise.unsqueeze(3)).squeeze(3)
        return samples.float(), None

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """Measures (K,): log_likelihood of the data and test_nll of the test points, both in nats per point.

        smallest_weight is the smallest weight of a component.
        """
        p = self.mixture.frozen
        test = self._test.expand(self.k, *self._test.shape)
        return {
            "log_likelihood": log_joint(self.x, **p).logsumexp(1).mean(1),
            "test_nll": -log_joint(test, **p).logsumexp(1).mean(1),
            "smallest_weight": p["weights"].amin(1),
        }


def choleskys(covs: Float[Tensor, "K C d d"]) -> Float[Tensor, "K C d d"]:
    """Lower Cholesky factors of covariances; NaN if a covariance is not positive definite."""
    root, info = torch.linalg.cholesky_ex(covs)
    return torch.where((info == 0)[..., None, None], root, torch.nan)


def log_joint(
    x: Float[Tensor, "K n d"],
    weights: Float[Tensor, "K C"],
    means: Float[Tensor, "K C d"],
    covariances: Float[Tensor, "K C d d"],
) -> Float[Tensor, "K C n"]:
    """log q(x, z) = log q(x|z) + log q(z) of the mixture, in nats: (9) is its logsumexp over C."""
    root = choleskys(covariances)
    white: Tensor = torch.linalg.solve_triangular(root, (x.unsqueeze(1) - means.unsqueeze(2)).mT, upper=False)
    log_roots = root.diagonal(dim1=2, dim2=3).log().sum(2)
    log_scale = weights.log() - log_roots - 0.5 * x.shape[2] * math.log(2 * math.pi)
    return log_scale.unsqueeze(2) - 0.5 * white.square().sum(2)


def initial_means(kind: str, components: int, x: np.ndarray, seed: int) -> np.ndarray:
    """Initial means (C, d) for points (n, d), keyed by the seed."""
    rng = generator(seed, f"init/{kind}")
    if kind == "random":
        means: np.ndarray = x.mean(0) + x.std(0) * rng.standard_normal((components, x.shape[1]))
        return means
    chosen = [int(rng.integers(len(x)))]
    while len(chosen) < components:
        distance = np.square(x[:, None] - x[None, chosen]).sum(2).min(1)
        weights = distance if kind == "spread" else (distance > 0).astype(np.float64)
        chosen.append(int(rng.choice(len(x), p=weights / weights.sum())))
    initial: np.ndarray = x[chosen]
    return initial


def _diagonal(covs: Tensor) -> Tensor:
    return torch.diag_embed(covs.diagonal(dim1=-2, dim2=-1))


def _round(covs: Tensor) -> Tensor:
    variance = covs.diagonal(dim1=-2, dim2=-1)
    return torch.diag_embed(variance.mean(-1, keepdim=True).expand_as(variance))


FORMS: dict[str, Callable[[Tensor], Tensor]] = {"full": lambda covs: covs, "diag": _diagonal, "spherical": _round}
"""Form of covariance -> function from scatters (..., d, d) to the best covariances of that form."""
