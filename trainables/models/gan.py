"""GAN and DCGAN: losses (16), (20) and the paper's regularised loss (26); R1 as another regulariser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistudy.trainables import losses, regularizer
from vistudy.trainables.config import hp
from vistudy.trainables.models.base import AdversarialConfig, NetPack
from vistudy.trainables.nets import manual_gradients
from vistudy.trainables.nets.architectures import Mlp, discriminator_arch, generator_arch
from vistudy.trainables.nets.batch_norm import BN_MOMENTUM
from vistudy.trainables.regularizer import AnchorSamples


@dataclass(frozen=True, kw_only=True, slots=True)
class GanConfig(AdversarialConfig):
    """Hyperparameters of a GAN trial."""

    model: ClassVar[str] = "gan"

    g_loss: str = hp(
        "non_saturating",
        "Generator loss: -log D(G(z)), the paper's (20), or log(1 - D(G(z))).",
        choices=("non_saturating", "saturating"),
    )


class GanPack(NetPack[GanConfig]):
    """K GANs of equal structure. One period is d_steps updates of D, then g_steps of G."""

    def __init__(self, configs: Sequence[GanConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        c, shape = self.config, self.data.shape
        self.g = self.make_net("g", generator_arch(c.net, shape, c.z_dim, self.sizes), "generator")
        self.d = self.make_net("d", discriminator_arch(c.net, shape, self.sizes), "discriminator")
        self.g_optimizer = self.make_optimizer("g", self.column("g_lr"))
        self.d_optimizer = self.make_optimizer("d", self.column("d_lr"))
        self.anchor = self.make_anchor(self.g)
        self._reg_weight = self.column("reg_weight").float().squeeze(1)
        self._g_gradient = losses.GENERATOR_GRADIENTS[c.g_loss]
        self._real = self.data.batches(self.seeds, c.batch_size, device)
        self._z_d, self._z_g = (self.normal_stream(role, (c.batch_size, c.z_dim)) for role in ("z_d", "z_g"))

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last D and G step, each of shape (K,)."""
        c, out = self.config, {}
        for step in range(c.d_steps):
            out.update(self._d_step(diagnose=diagnose and step == c.d_steps - 1))
        start = self.g.flat.clone() if diagnose else None
        self.anchor.start_period(self.g.flat)
        old = AnchorSamples(self.g, self.anchor)
        for step in range(c.g_steps):
            batch = c.batch_of_step(step)
            z = self._z_g.at(self.periods * c.batches_of_period() + batch)
            out.update(self._g_step(step, batch, z, old, diagnose=diagnose and step == c.g_steps - 1))
        if start is not None:
            with torch.no_grad():
                now, before = (self.g(z, self.g.views(flat)) for flat in (self.g.flat, start))
            out["drift"] = regularizer.sample_distance(now, before)
        self.periods += 1
        return out

    def _d_step(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Update D by (16), with R1 if its weight is not 0."""
        c, d = self.config, self.d
        x = self._real.at(self.d_updates)
        with torch.no_grad():
            z = self._z_d.at(self.d_updates)
            x_fake = manual_gradients.forward_pass(self.g, z, "parameters", self.g.running, BN_MOMENTUM).out
        if c.norm == "bn" or c.r1_weight:
            real, fake, gradient = self._d_gradient_separately(x, x_fake)
        else:
            d_pass = manual_gradients.forward_pass(d, torch.cat((x, x_fake), 1), "parameters")
            gradient = d_pass.gradient(losses.discriminator_gradient(d_pass.out.squeeze(2)).unsqueeze(2))
            real, fake = torch.split(d_pass.out.squeeze(2), c.batch_size, 1)
        self.d_optimizer.step(d.flat, gradient)
        self.d_updates += 1
        if not diagnose:
            return {}
        loss = losses.discriminator(real, fake)
        return {"d_grad_norm": gradient.norm(dim=1)} | losses.discriminator_diagnostics(loss, real, fake)

    def _d_gradient_separately(self, x: Tensor, x_fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and gradient of (16) if D sees real and fake separately, as batch norm does in the paper's code."""
        c, d = self.config, self.d
        if not c.r1_weight and isinstance(d.arch, Mlp):
            real, real_grad = self._d_half(x, real=True)
            real_grad = real_grad.clone()  # the other half overwrites it
            fake, fake_grad = self._d_half(x_fake, real=False)
            return real, fake, real_grad.add_(fake_grad)
        if c.r1_weight:
            x = x.detach().requires_grad_()
        real, fake = (d(batch, d.leaves).squeeze(2) for batch in (x, x_fake))
        loss = losses.discriminator(real, fake)
        total = loss + 0.5 * c.r1_weight * losses.r1(real, x) if c.r1_weight else loss
        return real, fake, d.backward(total.sum())

    def _d_half(self, x: Tensor, *, real: bool) -> tuple[Tensor, Tensor]:
        """Logits of one batch, and the gradient of its term in (16)."""
        d_pass = manual_gradients.forward_pass(self.d, x, "parameters")
        logits = d_pass.out.squeeze(2)
        return logits, d_pass.gradient(losses.half_gradient(logits, real=real).unsqueeze(2))

    def _g_step(self, step: int, batch: int, z: Tensor, old: AnchorSamples, *, diagnose: bool) -> dict[str, Tensor]:
        """Update G by (26). `old` holds the samples of the anchor in this phase."""
        g = self.g
        g_pass = manual_gradients.forward_pass(g, z, "parameters", g.running, BN_MOMENTUM)
        d_pass = manual_gradients.forward_pass(self.d, g_pass.out, "inputs")
        x, logits = g_pass.out, d_pass.out.squeeze(2)
        from_d = d_pass.gradient(self._g_gradient(logits).unsqueeze(2))
        if self.anchor.kind == "param_space":
            from_term, parameter_term = None, 2 * self._reg_weight.unsqueeze(1) * (g.flat - self.anchor.flat)
        else:
            weight = self._reg_weight.view(-1, *[1] * (x.dim() - 1))
            from_term = weight * regularizer.sample_distance_gradient(x, old.samples(step, batch, z, x))
        out = {}
        if diagnose:
            adv = g_pass.gradient(from_d).norm(dim=1)
            reg = (parameter_term if from_term is None else g_pass.gradient(from_term)).norm(dim=1)
            term = self._reg_weight * old.distance(step, batch, z, x)
            loss = losses.GENERATOR_LOSSES[self.config.g_loss](logits) + term
            out = {"g_grad_norm_adv": adv, "g_grad_norm_reg": reg, "rho": reg / adv, "g_loss": loss.detach()}
        gradient = (
            g_pass.gradient(from_d) + parameter_term if from_term is None else g_pass.gradient(from_d + from_term)
        )
        self.g_optimizer.step(g.flat, gradient)
        self.anchor.updated(g.flat)
        self.g_updates += 1
        return out

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples per trial, (K, n, *shape); with batch norm also by running statistics."""
        return self.sample(self.g, n, evaluation)
