"""AAE: losses (30), (33), (34), and the term of (32), on the encoder.

This is the GAN with x and z exchanged: D classifies codes of the prior (1) and of the encoder (0). `g_lr`, `g_steps`,
`reg_weight` and `anchor` refer to the encoder. The decoder gets no adversarial signal, so it has no anchor.

Differences from the paper, which has no experiment here: the KL(p || p_old) of (32) is lambda mean (E(x) - E_old(x))^2,
as in (23) to (26); with (33) the decoder is trained together with the encoder, one update each, instead of afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.models.base import ANCHORS, AdversarialConfig, NetPack, gradient_shares
from vistudy.trainables.models.encoders import backward, discriminate, encoder_measures
from vistudy.trainables.nets.architectures import code_discriminator_arch, encoder_arch, generator_arch
from vistudy.trainables.nets.batch_norm import BN_MOMENTUM
from vistudy.trainables.regularizer import AnchorSamples

LAMBDA_REC = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AaeConfig(AdversarialConfig):
    """Hyperparameters of an AAE trial."""

    model: ClassVar[str] = "aae"
    lr: ClassVar[tuple[str, ...]] = ("g_lr", "d_lr", "ae_lr")
    """What a study file's `lr` sets."""

    g_lr: float = hp(2e-4, "Learning rate of the encoder.", structural=False, gt=0)
    d_lr: float = hp(2e-4, "Learning rate of the discriminator of codes.", structural=False, gt=0)
    ae_lr: float = hp(2e-4, "Learning rate of the decoder.", structural=False, gt=0)
    g_steps: int = hp(1, "Updates of the encoder, and of the decoder, per period.", ge=1)
    aae_loss: str = hp(
        "eq34",
        "eq34: encoder and decoder by the joint loss, -log D(E(x)) plus lambda_rec times the reconstruction error. "
        "eq33: the encoder by -log D(E(x)) alone, the decoder by the reconstruction error at fixed codes.",
        choices=("eq33", "eq34"),
    )
    lambda_rec: float = hp(
        LAMBDA_REC,
        "The lambda of (34), mean convention: times the mean over batch and components of (x - G(E(x)))^2. The sum "
        "convention of (34) is lambda_rec / d, for samples of d components. It is unrelated to reg_weight.",
        structural=False,
        ge=0,
    )
    reg_weight: float = hp(
        0.0,
        "Weight of the term of (32), on the encoder, mean convention: times the mean over batch and components of "
        "(E(x) - E_old(x))^2. The sum convention is reg_weight / z_dim.",
        structural=False,
        ge=0,
    )
    anchor: str = hp("period_start", "Which old encoder E_old is.", choices=ANCHORS)
    anchor_lag: int = hp(2, "Encoder updates between E and E_old (anchor: lag).", ge=1)
    anchor_decay: float = hp(0.99, "Decay of the averaged encoder (anchor: ema).", structural=False, ge=0, lt=1)
    z_use: str = hp(
        "pool",
        "x in the encoder steps of a period: one batch for all steps (same), a new batch per step (fresh), or batches "
        "that are used for two steps each (pool). Corresponds to the choice of z in a GAN.",
        choices=("same", "fresh", "pool"),
    )
    r1_weight: float = hp(0.0, "gamma of R1: gamma/2 times the mean squared norm of D's gradient at prior z.", ge=0)

    def unused_fields(self) -> dict[str, Any]:
        """With (33), also lambda_rec: the reconstruction error is the whole loss of the decoder."""
        return AdversarialConfig.unused_fields(self) | ({"lambda_rec": LAMBDA_REC} if self.aae_loss == "eq33" else {})


class AaePack(NetPack[AaeConfig]):
    """K AAEs of equal structure. One period is d_steps updates of D, then g_steps of E and G."""

    def __init__(self, configs: Sequence[AaeConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        c, shape = self.config, self.data.shape
        self.e = self.make_net("e", encoder_arch(c.net, shape, c.z_dim, self.sizes), "encoder")
        self.g = self.make_net("g", generator_arch(c.net, shape, c.z_dim, self.sizes), "generator")
        self.d = self.make_net("d", code_discriminator_arch(c.net, c.z_dim, self.sizes), "discriminator")
        self.e_optimizer = self.make_optimizer("e", self.column("g_lr"))
        self.g_optimizer = self.make_optimizer("g", self.column("ae_lr"))
        self.d_optimizer = self.make_optimizer("d", self.column("d_lr"))
        self.anchor = self.make_anchor(self.e)
        self._joint = c.aae_loss == "eq34"
        self._reg_weight = self.column("reg_weight").float().squeeze(1)
        self._lambda_rec = self.column("lambda_rec").float().squeeze(1) if self._joint else torch.ones(1, device=device)
        self._real = self.data.batches(self.seeds, c.batch_size, device)
        self._z = self.normal_stream("z_d", (c.batch_size, c.z_dim))

    def _x(self, position: int) -> Tensor:
        """Batch number `position` of this period: one per D update, then those of E. None is reused."""
        c = self.config
        return self._real.at(self.periods * (c.d_steps + c.batches_of_period()) + position)

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last D and E step, each of shape (K,)."""
        c, out = self.config, dict[str, Tensor]()
        for step in range(c.d_steps):
            out.update(self._d_step(self._x(step), diagnose=diagnose and step == c.d_steps - 1))
        start = self.e.flat.clone() if diagnose else None
        self.anchor.start_period(self.e.flat)
        old = AnchorSamples(self.e, self.anchor)
        for step in range(c.g_steps):
            batch = c.batch_of_step(step)
            x = self._x(c.d_steps + batch)
            out.update(self._g_step(step, batch, x, old, diagnose=diagnose and step == c.g_steps - 1))
        if start is not None:
            with torch.no_grad():
                now, before = (self.e(x, self.e.views(flat)) for flat in (self.e.flat, start))
            out["drift"] = regularizer.sample_distance(now, before)
        self.periods += 1
        return out

    def _d_step(self, x: Tensor, *, diagnose: bool) -> dict[str, Tensor]:
        """Update D by (30): z of the prior is 1, codes of x are 0."""
        z = self._z.at(self.d_updates)
        with torch.no_grad():
            codes = self.e(x, self.e.frozen, self.e.running, BN_MOMENTUM)
        self.d_updates += 1
        return discriminate(self.d, self.d_optimizer, z, codes, self.config, diagnose=diagnose)

    def _g_step(self, step: int, batch: int, x: Tensor, old: AnchorSamples, *, diagnose: bool) -> dict[str, Tensor]:
        """Update E by (33) or (34), with the term of (32), and G by the reconstruction error."""
        e, g = self.e, self.g
        codes = e(x, e.leaves, e.running, BN_MOMENTUM)
        adversarial = losses.generator_non_saturating(self.d(codes, self.d.frozen).squeeze(2))
        regulariser = self._reg_weight * old.distance(step, batch, x, codes)
        reconstructed = g(codes if self._joint else codes.detach(), g.leaves, g.running, BN_MOMENTUM)
        error = losses.reconstruction(x, reconstructed)
        out = gradient_shares(e, adversarial, regulariser) | {"rec_loss": error.detach()} if diagnose else {}
        backward((adversarial + regulariser + self._lambda_rec * error).sum(), (e, g))
        self.e_optimizer.step(e.flat, e.gradient)
        self.g_optimizer.step(g.flat, g.gradient)
        self.anchor.updated(e.flat)
        self.g_updates += 1
        return out

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n decoded z of the prior per trial, (K, n, *shape); with batch norm also by running statistics."""
        return self.sample(self.g, n, evaluation)

    def measures(self, evaluation: int) -> dict[str, Tensor]:
        """reconstruction_mse, code_mmd2 and code_fd (see `encoder_measures`). Batch norm uses batch statistics."""

        def encode(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            codes = self.e(x, self.e.frozen)
            return codes, self.g(codes, self.g.frozen)

        return encoder_measures(self.data, self.k, self.device, encode)
