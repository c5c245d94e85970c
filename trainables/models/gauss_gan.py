"""The GAN of Gaussians on the line: G(z) = a z + b, and a D with a quadratic logit, exact or learned.

For data N(m, s^2) the logit of the D of (18) is log p(x) - log q(x), a quadratic in x. D is either set to it before the
steps of the generator, or learned by logistic regression on (1, x, x^2), which can represent it. The loss (26) of G is
integrated over z by Gauss-Hermite quadrature. So the only noise comes from the minibatches of D; an exact D has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistudy.trainables import losses
from vistudy.trainables.config import hp
from vistudy.trainables.data.toys import Normal
from vistudy.trainables.models.parameter_pack import ParameterPack, PlayersConfig, gradient_shares
from vistudy.trainables.random_streams import Stream, normal

NODES = 128
"""Nodes of the quadrature over z."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussConfig(PlayersConfig):
    """Hyperparameters of a trial of Gaussians."""

    model: ClassVar[str] = "gauss_gan"
    reference_fields: ClassVar[tuple[str, ...]] = (*PlayersConfig.reference_fields, "start_a", "start_b")

    data: str = hp("normal1d", "Data set to learn: a Gaussian on the line.", choices=("normal1d",))
    discriminator: str = hp(
        "exact",
        "D: exact by (18), or learnt from minibatches by gradient descent on (16).",
        choices=("exact", "learnt"),
    )
    start_a: float = hp(1.5, "Initial slope of G: the standard deviation of the generated distribution.", gt=0)
    start_b: float = hp(1.0, "Initial offset of G: the mean of the generated distribution.")

    def unused_fields(self) -> dict[str, Any]:
        """As for every toy model of players; an exact D also ignores d_lr and d_steps, as it is set once per period."""
        out = PlayersConfig.unused_fields(self)
        if self.discriminator == "exact":
            return out | {"d_lr": 0.2, "d_steps": 1}
        return {name: value for name, value in out.items() if name not in ("batch_size", "seed")}


class GaussPack(ParameterPack[GaussConfig]):
    """K GANs of Gaussians. One period is d_steps updates of D (one if D is exact), then g_steps of G."""

    def __init__(self, configs: Sequence[GaussConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        c, data = self.config, self.data
        assert isinstance(data, Normal)
        self._mean, self._sd = data.mean, data.sd
        start = torch.cat((self.column("start_a"), self.column("start_b")), 1)
        self.g = self.parameters("g", {"ab": start + self.column("start_sd") * self.normal("start", 2)})
        self.anchor = self.make_anchor(self.g)
        self._g_lr, self._d_lr = self.column("g_lr"), self.column("d_lr")
        self._reg_weight = self.column("reg_weight").squeeze(1)
        z, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self._z, self._weights = (torch.from_numpy(v).to(device) for v in (z, weights / weights.sum()))
        self._logit = torch.zeros(self.k, 3, dtype=torch.float64, device=device)
        if c.discriminator == "learnt":
            self._logit = self.parameters("d", {"logit": self._logit}).flat
        self._real = Stream(lambda seed, block: data.points(seed, block, c.batch_size), self.seeds, device)
        self._z_d = Stream(normal("z_d", (c.batch_size,)), self.seeds, device)

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last D and G step, each of shape (K,)."""
        c, out = self.config, dict[str, Tensor]()
        for _ in range(c.d_steps):
            gradient = self._d_step()
        if diagnose:
            out |= {"d_loss": self._d_loss()} | ({} if gradient is None else {"d_grad_norm": gradient.norm(dim=1)})
        before = generated(self.g.flat, self._z)
        self.anchor.start_period(self.g.flat)
        for step in range(c.g_steps):
            out |= self._g_step(diagnose=diagnose and step == c.g_steps - 1)
        out |= {"drift": self._expected((generated(self.g.flat, self._z) - before).square())} if diagnose else {}
        return out

    def _d_step(self) -> Tensor | None:
        """Set D by (18), or update it along the gradient (K, 3) of (16) and return that."""
        if self.config.discriminator == "exact":
            self._logit.copy_(optimal_logit(self.g.flat, self._mean, self._sd))
            gradient = None
        else:
            fake = generated(self.g.flat, self._z_d.at(self.d_updates).double())
            gradient = d_gradient(self._logit, self._real.at(self.d_updates).double(), fake)
            self._logit.sub_(self._d_lr * gradient)
        self.d_updates += 1
        return gradient

    def _g_step(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Update G by (26)."""
        ab = self.g.flat.detach().clone().requires_grad_()
        x, x_old = generated(ab, self._z), generated(self.anchor.flat, self._z)
        adversarial = self._expected(F.softplus(-quadratic(self._logit, x)))
        by_samples = self.anchor.kind != "param_space"
        distance = self._expected((x - x_old).square()) if by_samples else (ab - self.anchor.flat).square().sum(1)
        regulariser = self._reg_weight * distance
        out = gradient_shares(ab, adversarial, regulariser) if diagnose else {}
        (gradient,) = torch.autograd.grad((adversarial + regulariser).sum(), ab)
        self.g.flat.sub_(self._g_lr * gradient)
        self.anchor.updated(self.g.flat)
        return out

    def _expected(self, values: Tensor) -> Tensor:
        """Expectation over z of values at the nodes: (K, NODES) -> (K,)."""
        return (self._weights * values).sum(1)

    def _d_loss(self) -> Tensor:
        """(16), integrated."""
        real, fake = self._mean + self._sd * self._z, generated(self.g.flat, self._z)
        return self._expected(F.softplus(-quadratic(self._logit, real)) + F.softplus(quadratic(self._logit, fake)))

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the generated distribution, repeated n times, (K, n, 2)."""
        a, b = self.g.flat[:, :1], self.g.flat[:, 1:]
        return torch.cat((b, a.abs()), 1).unsqueeze(1).repeat(1, n, 1), None


def generated(ab: Tensor, z: Tensor) -> Tensor:
    """G(z) = a z + b: (K, 2) and (B,) or (K, B) -> (K, B)."""
    return ab[:, :1] * z + ab[:, 1:]


def quadratic(logit: Tensor, x: Tensor) -> Tensor:
    """D's logit at x: coefficients of 1, x, x^2 (K, 3) and (B,) or (K, B) -> (K, B)."""
    return logit[:, :1] + logit[:, 1:2] * x + logit[:, 2:] * x.square()


def optimal_logit(ab: Tensor, mean: float, sd: float) -> Tensor:
    """Coefficients (K, 3) of the D of (18) for data N(mean, sd^2) and the generator (a, b), (K, 2)."""
    a, b = ab[:, :1].abs(), ab[:, 1:]
    constant = (a / sd).log() - mean**2 / (2 * sd**2) + b.square() / (2 * a.square())
    return torch.cat((constant, mean / sd**2 - b / a.square(), 0.5 / a.square() - 0.5 / sd**2), 1)


def d_gradient(logit: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Gradient (K, 3) of (16) in the coefficients of D, for real and fake points (K, B): logistic regression."""
    w = logit.detach().clone().requires_grad_()
    loss = losses.discriminator(quadratic(w, real), quadratic(w, fake))
    (gradient,) = torch.autograd.grad(loss.sum(), w)
    return gradient
