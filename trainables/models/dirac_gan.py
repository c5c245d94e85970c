"""The Dirac-GAN: one parameter per player, so that local stability is an eigenvalue (Mescheder et al. 2018).

G(z) = theta learns the point 0, and psi x is the logit of D for x being fake (the sign of that paper). Losses are those
of the GAN, on a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.models.parameter_pack import ParameterPack, PlayersConfig, gradient_shares
from vistudy.trainables.old_generator import FIXED_IN_PERIOD

LOSSES = {
    "non_saturating": (losses.discriminator, losses.generator_non_saturating),
    "saturating": (losses.discriminator, losses.generator_saturating),
    "wgan": (lambda real, fake: (fake - real).mean(1), lambda fake: -fake.mean(1)),
}
"""D's and G's loss of logits (K, 1): (16) with (20), (16) with Goodfellow's minimax loss, Wasserstein's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiracConfig(PlayersConfig):
    """Hyperparameters of a Dirac-GAN trial."""

    model: ClassVar[str] = "dirac_gan"
    reference_fields: ClassVar[tuple[str, ...]] = (*PlayersConfig.reference_fields, "start_theta")

    data: str = hp("point0", "Data set to learn: the point 0.", choices=("point0",))
    loss: str = hp(
        "non_saturating",
        "Losses of both players: (16) with -log D(G(z)), (16) with log(1 - D(G(z))), or Wasserstein's.",
        choices=tuple(LOSSES),
    )
    schedule: str = hp(
        "alternating",
        "alternating: D reacts to G's new parameter; simultaneous: both react to those at the period's start.",
        choices=("alternating", "simultaneous"),
    )
    r1_weight: float = hp(0.0, "gamma of R1: gamma/2 times D's squared slope at real data.", ge=0)
    d_clip: float = hp(0.0, "Clipping as in WGAN: psi is limited to plus and minus this value; 0: no clipping.", ge=0)
    start_theta: float = hp(1.0, "G's initial parameter.", gt=0)
    start_psi: float = hp(1.0, "D's initial parameter.")


class DiracPack(ParameterPack[DiracConfig]):
    """K Dirac-GANs. One period is g_steps updates of G, then d_steps of D."""

    def __init__(self, configs: Sequence[DiracConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        noise = self.column("start_sd") * self.normal("start", 2)
        self.g = self.parameters("g", {"theta": self.column("start_theta") + noise[:, :1]})
        self.d = self.parameters("d", {"psi": self.column("start_psi") + noise[:, 1:]})
        self.anchor = self.make_anchor(self.g)
        self._g_lr, self._d_lr, self._reg_weight = (self.column(name) for name in ("g_lr", "d_lr", "reg_weight"))
        self._d_loss, self._g_loss = LOSSES[self.config.loss]

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last G and D step, each of shape (K,)."""
        c, out = self.config, dict[str, Tensor]()
        theta, psi = self.g.flat.clone(), self.d.flat.clone()
        self.anchor.start_period(self.g.flat)
        for step in range(c.g_steps):
            out |= self._g_step(psi, diagnose=diagnose and step == c.g_steps - 1)
        if diagnose:
            out["drift"] = regularizer.sample_distance(self.g.flat, theta)
        for step in range(c.d_steps):
            opponent = self.g.flat if c.schedule == "alternating" else theta
            out |= self._d_step(opponent, diagnose=diagnose and step == c.d_steps - 1)
        return out

    def _g_step(self, psi: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """Update G by (26). In a Dirac-GAN the distances of samples and of parameters are the same."""
        theta = self.g.flat.detach().clone().requires_grad_()
        adversarial = self._g_loss(-psi * theta)
        regulariser = self._reg_weight.squeeze(1) * regularizer.sample_distance(theta, self.anchor.flat)
        out = gradient_shares(theta, adversarial, regulariser) if diagnose else {}
        (gradient,) = torch.autograd.grad((adversarial + regulariser).sum(), theta)
        self.g.flat.sub_(self._g_lr * gradient)
        self.anchor.updated(self.g.flat)
        return out

    def _d_step(self, theta: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """Update D by (16) and R1."""
        psi = self.d.flat.detach().clone().requires_grad_()
        x = torch.zeros_like(theta).unsqueeze(2).requires_grad_()
        real, fake = -psi * x.squeeze(2), -psi * theta
        loss = self._d_loss(real, fake)
        total = loss + 0.5 * self.config.r1_weight * losses.r1(real, x) if self.config.r1_weight else loss
        (gradient,) = torch.autograd.grad(total.sum(), psi)
        self.d.flat.sub_(self._d_lr * gradient)
        if self.config.d_clip:
            self.d.flat.clamp_(-self.config.d_clip, self.config.d_clip)
        self.d_updates += 1
        if not diagnose:
            return {}
        return {"d_grad_norm": gradient.abs().squeeze(1)} | losses.discriminator_diagnostics(loss, real, fake)

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """The point that G generates, repeated n times, (K, n, 1)."""
        return self.g.flat.unsqueeze(1).repeat(1, n, 1), None


def period_map(config: DiracConfig) -> np.ndarray:
    """Linearise a period at theta = psi = 0, without clipping: a matrix on (theta, psi, remembered thetas).

    The remembered thetas are those of `Anchor`, oldest first. Source: Mescheder et al. 2018, section 3, with the term
    of (26) added.
    """
    c, slope = config, 1.0 if config.loss == "wgan" else 0.5
    remembered = {"previous_update": 2, "previous_period": 2, "lag": c.anchor_lag + 1}.get(c.anchor, 1)
    same = np.eye(2 + remembered)
    push = same.copy()
    push[2:-1], push[-1] = same[3:], same[0]
    start = push if c.anchor in FIXED_IN_PERIOD else same
    updated = same if c.anchor in FIXED_IN_PERIOD else push
    if c.anchor == "ema":
        updated = same.copy()
        updated[2] = c.anchor_decay * same[2] + (1 - c.anchor_decay) * same[0]
    g_step, d_step = same.copy(), same.copy()
    g_step[0] -= c.g_lr * (slope * same[1] + 2 * c.reg_weight * (same[0] - same[2]))
    d_step[1] += c.d_lr * (slope * same[0] - c.r1_weight * same[1])
    g_phase = np.linalg.matrix_power(updated @ g_step, c.g_steps) @ start
    d_phase = np.linalg.matrix_power(d_step, c.d_steps)
    both: np.ndarray = d_phase @ g_phase if c.schedule == "alternating" else g_phase + d_phase - same
    return both
