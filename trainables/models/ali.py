"""ALI: D's loss (38), and the four losses (40) to (43) of encoder and generator; BiGAN as its deterministic limit.

D classifies pairs: (x, z ~ p(z|x)) is 1 and (x ~ q(x|z), z) is 0. Encoder and generator are one player and share `g_lr`
and `g_steps`. With `stochastic` both are Gaussian: nets give means and bounded log variances, and samples are drawn by
reparametrisation. Otherwise z = E(x) and x = G(z).

The old-versus-new terms: `reg_weight` is the weight of the old-generator term of all four losses. That is T3 of (40),
in nats, if G is stochastic; otherwise it is the term of (26) in the mean convention. So the paper's (40) is `ali_loss:
eq40` with `reg_weight: 1` (its default there), and (41) with weight 1 is (40) without T4. T4, the old-encoder term, is
part of eq40, with weight 1. At the start of a period T3 has no gradient but T4 has one, so eq40 differs from eq41 even
at g_steps 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.models.base import ANCHORS, AdversarialConfig, NetPack, gradient_shares
from vistudy.trainables.models.encoders import MEASURED, backward, discriminate, discriminator_logits, encoder_measures
from vistudy.trainables.nets.architectures import encoder_arch, generator_arch, joint_discriminator_arch
from vistudy.trainables.nets.batch_norm import BN_MOMENTUM
from vistudy.trainables.regularizer import AnchorSamples

LOG_VARIANCE, SPREAD = -4.0, 6.0
"""A net's output u means the log variance -4 + 6 tanh(u): standard deviations of exp(-5) to exp(1), at first .135."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AliConfig(AdversarialConfig):
    """Hyperparameters of an ALI trial."""

    model: ClassVar[str] = "ali"
    lr: ClassVar[tuple[str, ...]] = ("g_lr", "d_lr")
    """What a study file's `lr` sets."""
    reference_fields: ClassVar[tuple[str, ...]] = (*AdversarialConfig.reference_fields, "stochastic")
    """What the samples of an untrained model depend on, besides the seed."""

    g_lr: float = hp(2e-4, "Learning rate of generator and encoder.", structural=False, gt=0)
    ali_loss: str = hp(
        "eq43",
        "Loss of generator and encoder: eq40, the paper's in full; eq41, the paper's without old-versus-new terms; "
        "eq42, minimax; eq43, the non-saturating loss of standard ALI.",
        choices=tuple(losses.ALI_LOSSES),
    )
    stochastic: bool = hp(True, "Gaussian encoder and generator (ALI), or deterministic ones (BiGAN).")
    reg_weight: float = hp(
        None,
        "Weight of the old-generator term: of (40)'s third term, E KL(q(x|z) || q_old(x|z)) in nats; with "
        "`stochastic: false` of the mean over batch and components of (G(z) - G_old(z))^2. Default: 1 with eq40, as "
        "in the paper, and 0 with the others.",
        structural=False,
        ge=0,
    )
    code_sd: float = hp(
        1.0,
        "s_z of (40)'s fourth term for a deterministic encoder, (|z - E(x)|^2 - |z - E_old(x)|^2) / (2 s_z^2) "
        "(ali_loss: eq40, stochastic: false).",
        structural=False,
        gt=0,
    )
    anchor: str = hp(
        "period_start",
        "Which old generator (and, with eq40, old encoder) is used. param_space: the old-generator term is the "
        "squared distance of G's parameters; the old encoder is that of period_start.",
        choices=ANCHORS,
    )
    z_use: str = hp(
        "pool",
        "z, x and noise in the generator steps of a period: one batch for all steps (same), a new batch per step "
        "(fresh), or batches that are used for two steps each (pool).",
        choices=("same", "fresh", "pool"),
    )
    r1_weight: float = hp(
        0.0, "gamma of R1: gamma/2 times the mean squared norm of D's gradient at pairs of the encoder.", ge=0
    )

    def data_defaults(self) -> dict[str, Any]:
        """Defaults of the data set for the nets, and the weight of the third term of (40)."""
        out = AdversarialConfig.data_defaults(self)
        return out | {"reg_weight": float(self.ali_loss == "eq40")} if self.reg_weight is None else out

    def unused_fields(self) -> dict[str, Any]:
        """Also code_sd, except in the deterministic limit of (40), whose fourth term uses it."""
        out = AdversarialConfig.unused_fields(self)
        return out if self.ali_loss == "eq40" and not self.stochastic else out | {"code_sd": 1.0}


class Batch(NamedTuple):
    """Inputs of one step: x of the data, z of the prior, and standard normal noise (None if deterministic)."""

    x: Tensor
    z: Tensor
    z_noise: Tensor | None = None
    x_noise: Tensor | None = None


class AliPack(NetPack[AliConfig]):
    """K ALIs of equal structure. One period is d_steps updates of D, then g_steps of E and G."""

    def __init__(self, configs: Sequence[AliConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        c, shape = self.config, self.data.shape
        n = 2 if c.stochastic else 1  # means, or means and log variances (as further channels)
        self.e = self.make_net("e", encoder_arch(c.net, shape, n * c.z_dim, self.sizes), "encoder")
        self.g = self.make_net("g", generator_arch(c.net, (n * shape[0], *shape[1:]), c.z_dim, self.sizes), "generator")
        self.d = self.make_net("d", joint_discriminator_arch(c.net, shape, c.z_dim, self.sizes), "discriminator")
        self.e_optimizer, self.g_optimizer = (self.make_optimizer(name, self.column("g_lr")) for name in ("e", "g"))
        self.d_optimizer = self.make_optimizer("d", self.column("d_lr"))
        self.anchor = self.make_anchor(self.g)
        self.e_anchor = self.make_anchor(self.e, "e_anchor")
        self._reg_weight = self.column("reg_weight").float().squeeze(1)
        self._code_log_variance = 2 * self.column("code_sd").log().float().unsqueeze(2)
        self._real = self.data.batches(self.seeds, c.batch_size, device)
        self._streams = {
            f"{role}_{player}": self.normal_stream(f"{role}_{player}", (c.batch_size, size))
            for player in ("d", "g")
            for role, size in (("z", c.z_dim), ("z_noise", c.z_dim), ("x_noise", math.prod(shape)))
        }

    def _batch(self, player: str, step: int, position: int) -> Batch:
        """Batch number `position` of this period: one per D update, then those of G. No x is reused."""
        c = self.config
        x = self._real.at(self.periods * (c.d_steps + c.batches_of_period()) + position)
        z = self._streams[f"z_{player}"].at(step)
        if not c.stochastic:
            return Batch(x, z)
        z_noise, x_noise = (self._streams[f"{role}_{player}"].at(step) for role in ("z_noise", "x_noise"))
        return Batch(x, z, z_noise, x_noise.view_as(x))

    def _posterior(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (K, B, z_dim) and log variance of p(z|x) from the output of E; in BiGAN's limit of s_z."""
        if not self.config.stochastic:
            return out, self._code_log_variance
        mean, u = out.chunk(2, 2)
        return mean, LOG_VARIANCE + SPREAD * torch.tanh(u)

    def _likelihood(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (K, B, *shape) of q(x|z) from the output of G, which of images ends in tanh."""
        mean, u = out.chunk(2, 2)
        return mean, LOG_VARIANCE + SPREAD * (u if len(self.data.shape) > 1 else torch.tanh(u))

    def _codes(self, out: Tensor, noise: Tensor | None) -> Tensor:
        """z ~ p(z|x) from the output of E."""
        return out if noise is None else losses.code_sample(*self._posterior(out), noise)

    def _samples(self, out: Tensor, noise: Tensor | None) -> Tensor:
        """x ~ q(x|z) from the output of G."""
        return out if noise is None else losses.code_sample(*self._likelihood(out), noise)

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last D and G step, each of shape (K,)."""
        c, out = self.config, dict[str, Tensor]()
        for step in range(c.d_steps):
            batch = self._batch("d", self.d_updates, step)
            out.update(self._d_step(batch, diagnose=diagnose and step == c.d_steps - 1))
        start = self.g.flat.clone() if diagnose else None
        self.anchor.start_period(self.g.flat)
        self.e_anchor.start_period(self.e.flat)
        old = AnchorSamples(self.g, self.anchor)
        for step in range(c.g_steps):
            place = c.batch_of_step(step)
            batch = self._batch("g", self.periods * c.batches_of_period() + place, c.d_steps + place)
            out.update(self._g_step(step, place, batch, old, diagnose=diagnose and step == c.g_steps - 1))
        if start is not None:
            with torch.no_grad():
                now, before = (self.g(batch.z, self.g.views(flat)) for flat in (self.g.flat, start))
            means = slice(self.data.shape[0])
            out["drift"] = regularizer.sample_distance(now[:, :, means], before[:, :, means])
        self.periods += 1
        return out

    def _d_step(self, b: Batch, *, diagnose: bool) -> dict[str, Tensor]:
        """Update D by (38): pairs of the encoder are 1, those of the generator are 0."""
        with torch.no_grad():
            encoded = _pairs(b.x, self._codes(self.e(b.x, self.e.frozen, self.e.running, BN_MOMENTUM), b.z_noise))
            x = self._samples(self.g(b.z, self.g.frozen, self.g.running, BN_MOMENTUM), b.x_noise)
        self.d_updates += 1
        return discriminate(self.d, self.d_optimizer, encoded, _pairs(x, b.z), self.config, diagnose=diagnose)

    def _g_step(self, step: int, place: int, b: Batch, old: AnchorSamples, *, diagnose: bool) -> dict[str, Tensor]:
        """Update E and G by one of (40) to (43), with the old-generator term."""
        e, g = self.e, self.g
        codes = self._codes(e(b.x, e.leaves, e.running, BN_MOMENTUM), b.z_noise)
        out = g(b.z, g.leaves, g.running, BN_MOMENTUM)
        x = self._samples(out, b.x_noise)
        logits = discriminator_logits(self.d, _pairs(b.x, codes), _pairs(x, b.z), self.d.frozen, self.config)
        main = losses.ALI_LOSSES[self.config.ali_loss](*logits)
        if self.config.ali_loss == "eq40":
            main = main + self._old_encoder_term(x, b.z)
        regulariser = self._reg_weight * self._old_generator_term(step, place, b.z, out, old)
        diagnostics = self._shares(main, regulariser) if diagnose else {}
        backward((main + regulariser).sum(), (e, g))
        self.e_optimizer.step(e.flat, e.gradient)
        self.g_optimizer.step(g.flat, g.gradient)
        self.e_anchor.updated(e.flat)
        self.anchor.updated(g.flat)
        self.g_updates += 1
        return diagnostics

    def _old_generator_term(self, step: int, place: int, z: Tensor, out: Tensor, old: AnchorSamples) -> Tensor:
        """T3 of (40), (K,), in closed form; for deterministic nets or in parameter space, a squared distance."""
        if not self.config.stochastic or self.anchor.kind == "param_space":
            return old.distance(step, place, z, out)
        return losses.gaussian_kl(*self._likelihood(out), *self._likelihood(old.samples(step, place, z, out)))

    def _old_encoder_term(self, x: Tensor, z: Tensor) -> Tensor:
        """T4 of (40), (K,): a Monte Carlo estimate over generated pairs, through which its gradient also reaches G."""
        new, old = (self._posterior(self.e(x, p)) for p in (self.e.leaves, self.e.views(self.e_anchor.flat)))
        return losses.log_density_ratio(z, *new, *old)

    def _shares(self, main: Tensor, regulariser: Tensor) -> dict[str, Tensor]:
        """Like `gradient_shares`, for E and G together. T4 counts as adversarial: `reg_weight` does not scale it."""
        out = gradient_shares(self.g, main, regulariser)
        of_e = self.e.backward(main.sum(), retain_graph=True).norm(dim=1)
        adversarial = torch.hypot(out["g_grad_norm_adv"], of_e)
        return out | {"g_grad_norm_adv": adversarial, "rho": out["g_grad_norm_reg"] / adversarial}

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n draws of q(x|z) at z of the prior, (K, n, *shape)."""
        out, running = self.sample(self.g, n, evaluation)
        if not self.config.stochastic:
            return out, running
        noise = self.fixed_normal("x_eval", n, math.prod(self.data.shape)).view(self.k, n, *self.data.shape)
        return self._samples(out, noise), None if running is None else self._samples(running, noise)

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """See `encoder_measures`: codes are draws from p(z|x), reconstructions are means at the mean code."""
        noise = self.fixed_normal("z_noise_eval", MEASURED, self.config.z_dim)

        def encode(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            out = self.e(x, self.e.frozen)
            reconstructed = self.g(self._posterior(out)[0], self.g.frozen)[:, :, : self.data.shape[0]]
            return self._codes(out, noise[:, rows] if self.config.stochastic else None), reconstructed

        return encoder_measures(self.data, self.k, self.device, encode)


def _pairs(x: Tensor, z: Tensor) -> Tensor:
    """(K, B, *shape) and (K, B, z_dim) -> input of D (K, B, prod(shape) + z_dim)."""
    return torch.cat((x.flatten(2), z), 2)
