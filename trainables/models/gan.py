"""GAN and DCGAN: losses (16), (20) and the paper's regularised loss (26); R1 as another regulariser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables import losses
from trainables.anchor import Anchor
from trainables.config import TrainConfig, hp
from trainables.data import DATASETS
from trainables.nets import BN_MOMENTUM, PackedNet, Sizes, Stats, discriminator_arch, generator_arch
from trainables.optim import Adam, Sgd, column
from trainables.streams import Stream, generator, normal

RECALIBRATION_BATCH = 2048
"""Samples in one pass of batch norm's recalibration (its statistics are averaged over passes)."""

ANCHORS = ("period_start", "previous_update", "previous_period", "lag", "ema", "param_space")


@dataclass(frozen=True, kw_only=True, slots=True)
class GanConfig(TrainConfig):
    """Hyperparameters of a GAN trial."""

    model: ClassVar[str] = "gan"

    g_lr: float = hp(2e-4, "Learning rate of the generator.", structural=False, gt=0)
    d_lr: float = hp(2e-4, "Learning rate of the discriminator.", structural=False, gt=0)
    optimizer: str = hp("adam", "Optimizer of both nets.", choices=("adam", "sgd"))
    beta1: float = hp(0.5, "Adam's first moment decay.", structural=False, ge=0, lt=1)
    beta2: float = hp(0.999, "Adam's second moment decay.", structural=False, ge=0, lt=1)
    d_steps: int = hp(1, "Discriminator updates in one period.", ge=1)
    g_steps: int = hp(1, "Generator updates in one period.", ge=1)
    g_loss: str = hp(
        "non_saturating",
        "Generator loss: -log D(G(z)), the paper's (20), or log(1 - D(G(z))).",
        choices=("non_saturating", "saturating"),
    )
    reg_weight: float = hp(
        0.0,
        "The paper's lambda in (26), mean convention: lambda times the mean over batch and components of "
        "(G(z) - G_old(z))^2. The sum convention is reg_weight / d, d components a sample.",
        structural=False,
        ge=0,
    )
    anchor: str = hp("period_start", "Which old generator G_old is.", choices=ANCHORS)
    anchor_lag: int = hp(2, "Generator updates between G and G_old (anchor: lag).", ge=1)
    anchor_decay: float = hp(0.99, "Decay of the averaged generator (anchor: ema).", structural=False, ge=0, lt=1)
    z_use: str = hp(
        "pool",
        "z in the generator steps of a period: one batch for all (same), a new batch each step (fresh), or "
        "batches used for two steps each, as in the paper's code (pool).",
        choices=("same", "fresh", "pool"),
    )
    r1_weight: float = hp(0.0, "gamma of R1: gamma/2 times the mean squared norm of D's gradient at real data.", ge=0)
    norm: str = hp(
        "none",
        "Normalisation of hidden layers: bn; none (layers keep their biases); none_ref_nobias (neither bias nor "
        "scale, as the paper's published code without batch norm).",
        choices=("none", "bn", "none_ref_nobias"),
    )
    net: str = hp(None, "Family of nets; the data decides where it is not given.", choices=("mlp", "dcgan"))
    width: int = hp(None, "Hidden units (mlp) or base channels (dcgan).", ge=1)
    depth: int = hp(None, "Hidden layers (mlp); dcgan takes its depth from the image size.", ge=1)
    init: str = hp(
        None,
        "Initial weights: he, xavier or torch's default for linear layers; dcgan is N(0, 0.02).",
        choices=("he", "xavier", "torch", "dcgan"),
    )
    z_dim: int = hp(None, "Components of z.", ge=1)
    bn_recalibration_images: int = hp(
        20480, "Fresh samples over which batch-norm statistics are recalibrated at an evaluation.", ge=64
    )

    def data_defaults(self) -> dict[str, Any]:
        """Net, width, depth, z and init from the data set, where they are not given."""
        defaults = dict(DATASETS[self.data].net_defaults(self.net))
        defaults["init"] = "dcgan" if defaults["net"] == "dcgan" else "he"
        return {name: value for name, value in defaults.items() if getattr(self, name) is None}

    def unread(self) -> dict[str, Any]:
        """Some settings leave others without a reader: no Adam, no betas; one G step a period, no reuse of z; ..."""
        out: dict[str, Any] = {}
        if self.anchor != "lag":
            out["anchor_lag"] = 2
        if self.anchor != "ema":
            out["anchor_decay"] = 0.99
        if self.optimizer != "adam":
            out |= {"beta1": 0.5, "beta2": 0.999}
        if self.g_steps == 1:
            out["z_use"] = "pool"
        if self.norm != "bn":
            out["bn_recalibration_images"] = 20480
        net = self.net or DATASETS[self.data].net_defaults(None)["net"]
        if net == "dcgan":
            out["depth"] = 0
        return out

    def inert(self) -> tuple[str, ...]:
        """With one G step a period and the anchor at its start, the gradient of (26)'s term is exactly zero."""
        if self.g_steps == 1 and self.anchor in ("period_start", "param_space"):
            return ("reg_weight",)
        return ()

    def steps_of_period(self) -> tuple[int, int]:
        """d_steps, g_steps."""
        return (self.d_steps, self.g_steps)


class GanPack:
    """K GANs of equal structure, trained together. One period is d_steps D updates and then g_steps G updates."""

    def __init__(self, configs: Sequence[GanConfig], device: torch.device) -> None:
        c = configs[0]
        self.config, self.k, self.device = c, len(configs), device
        self.data = DATASETS[c.data]
        shape, seeds = self.data.shape, [config.seed for config in configs]
        sizes = Sizes(width=c.width, depth=c.depth, norm=c.norm, init=c.init)
        self.g = PackedNet(generator_arch(c.net, shape, c.z_dim, sizes), seeds, "generator", device)
        self.d = PackedNet(discriminator_arch(c.net, shape, sizes), seeds, "discriminator", device)

        def col(name: str) -> Tensor:
            return column([getattr(config, name) for config in configs], device)

        self.g_optimizer, self.d_optimizer = (
            Adam(net.flat, lr, col("beta1"), col("beta2")) if c.optimizer == "adam" else Sgd(lr)
            for net, lr in ((self.g, col("g_lr")), (self.d, col("d_lr")))
        )
        self._reg_weight = col("reg_weight").float().squeeze(1)
        self.anchor = Anchor(c.anchor, self.g.flat, lag=c.anchor_lag, decay=col("anchor_decay"))
        self._g_loss = losses.GENERATOR_LOSSES[c.g_loss]
        self.d_updates = self.g_updates = self.periods = 0

        def z_stream(role: str, batch: int) -> Stream:
            return Stream(normal(role, (batch, c.z_dim)), seeds, device)

        self._real = Stream(lambda seed, block: self.data.block(seed, block, c.batch_size), seeds, device)
        self._z_d, self._z_g = z_stream("z_d", c.batch_size), z_stream("z_g", c.batch_size)
        self._seeds = seeds
        self._z_eval: Tensor | None = None

    @property
    def nets(self) -> dict[str, PackedNet]:
        """Generator and discriminator."""
        return {"g": self.g, "d": self.d}

    def period(self, *, diagnose: bool) -> dict[str, Tensor]:
        """Train for one period. With `diagnose`, the diagnostics of its last D and G step, each of shape (K,)."""
        c, out = self.config, {}
        for step in range(c.d_steps):
            out.update(self._d_step(diagnose=diagnose and step == c.d_steps - 1))
        start = self.g.flat.clone() if diagnose else None
        self.anchor.start_period(self.g.flat)
        batches = {"same": 1, "fresh": c.g_steps, "pool": (c.g_steps + 1) // 2}[c.z_use]
        old: dict[int, Tensor] = {}
        for step in range(c.g_steps):
            batch = {"same": 0, "fresh": step, "pool": step // 2}[c.z_use]
            z = self._z_g.at(self.periods * batches + batch)
            out.update(self._g_step(step, batch, z, old, diagnose=diagnose and step == c.g_steps - 1))
        if start is not None:
            with torch.no_grad():
                now, before = (self.g(z, self.g.views(flat)) for flat in (self.g.flat, start))
            out["drift"] = losses.old_generator(now, before)
        self.periods += 1
        return out

    def _d_step(self, *, diagnose: bool) -> dict[str, Tensor]:
        """One update of D by (16), with R1 where its weight is not 0."""
        c, d = self.config, self.d
        x = self._real.at(self.d_updates)
        with torch.no_grad():
            x_fake = self.g(self._z_d.at(self.d_updates), self.g.frozen, self.g.running, BN_MOMENTUM)
        if c.r1_weight:
            x.requires_grad_()
        if c.norm == "bn" or c.r1_weight:  # batch norm sees real and fake apart, as in the paper's code
            real, fake = (d(batch, d.leaves).squeeze(2) for batch in (x, x_fake))
        else:
            real, fake = torch.split(d(torch.cat((x, x_fake), 1), d.leaves).squeeze(2), c.batch_size, 1)
        loss = losses.discriminator(real, fake)
        total = loss + 0.5 * c.r1_weight * losses.r1(real, x) if c.r1_weight else loss
        gradient = d.backward(total.sum())
        self.d_optimizer.step(d.flat, gradient)
        self.d_updates += 1
        if not diagnose:
            return {}
        return {
            "d_loss": loss.detach(),
            "d_grad_norm": gradient.norm(dim=1),
            "d_acc_real": (real > 0).float().mean(1),
            "d_acc_fake": (fake < 0).float().mean(1),
        }

    def _g_step(self, step: int, batch: int, z: Tensor, old: dict[int, Tensor], *, diagnose: bool) -> dict[str, Tensor]:
        """One update of G by (26). `old` holds the anchor's samples of this phase, by batch of z."""
        g, weight = self.g, self._reg_weight
        x = g(z, g.leaves, g.running, BN_MOMENTUM)
        adversarial = self._g_loss(self.d(x, self.d.frozen).squeeze(2))
        if self.anchor.kind == "param_space":
            old_leaves = g.views(self.anchor.flat)
            squares = [(leaf - old_leaves[name]).square().flatten(1).sum(1) for name, leaf in g.leaves.items()]
            distance = torch.stack(squares).sum(0)
        else:
            distance = losses.old_generator(x, self._anchor_samples(step, batch, z, x, old))
        regulariser = weight * distance
        total = adversarial + regulariser
        out: dict[str, Tensor] = {}
        if diagnose:
            for name, part in (("adv", adversarial), ("reg", regulariser)):
                out[f"g_grad_norm_{name}"] = g.backward(part.sum(), retain_graph=True).norm(dim=1)
            out["rho"] = out["g_grad_norm_reg"] / out["g_grad_norm_adv"]
            out["g_loss"] = total.detach()
        self.g_optimizer.step(g.flat, g.backward(total.sum()))
        self.anchor.updated(g.flat)
        self.g_updates += 1
        return out

    def _anchor_samples(self, step: int, batch: int, z: Tensor, x: Tensor, old: dict[int, Tensor]) -> Tensor:
        """G_old(z), with the same partition into batches as G(z) and without a trace in the running statistics."""
        if self.anchor.fixed_in_period and batch in old:
            return old[batch]
        if self.anchor.kind == "period_start" and step == 0:
            samples = x.detach()  # G is G_old here: bitwise the same samples
        else:
            with torch.no_grad():
                samples = self.g(z, self.g.views(self.anchor.flat))
        old[batch] = samples
        return samples

    def evaluation_samples(self, n: int, evaluation: int) -> tuple[Tensor, Tensor | None]:
        """n samples a trial from z that is fixed for the whole run, (K, n, *shape).

        With batch norm twice: with statistics recalibrated on fresh z, and with the running ones of training.
        """
        if self._z_eval is None or self._z_eval.shape[1] != n:
            self._z_eval = self._keyed_z("z_eval", 0, n)
        with torch.no_grad():
            samples = self.g(self._z_eval, self.g.frozen, self._recalibrated_stats(evaluation))
            running = self.g(self._z_eval, self.g.frozen, self.g.running) if self.config.norm == "bn" else None
        return samples, running

    def _recalibrated_stats(self, evaluation: int) -> Stats | None:
        """Batch-norm statistics of fresh z under the present weights; None without batch norm."""
        if self.config.norm != "bn":
            return None
        stats = self.g.fresh_stats()
        for i in range(math.ceil(self.config.bn_recalibration_images / RECALIBRATION_BATCH)):
            z = self._keyed_z(f"z_recalibration/{evaluation}", i, RECALIBRATION_BATCH)
            self.g(z, self.g.frozen, stats, 1.0 / (i + 1))
        return stats

    def _keyed_z(self, role: str, block: int, n: int) -> Tensor:
        """(K, n, z_dim), drawn once for each seed."""
        shape = (n, self.config.z_dim)
        draw = {s: generator(s, role, block).standard_normal(shape, dtype=np.float32) for s in set(self._seeds)}
        return torch.from_numpy(np.stack([draw[s] for s in self._seeds])).to(self.device)

    def state(self) -> dict[str, Tensor]:
        """Everything that training depends on (streams are keyed by the counters)."""
        counters = {"d_updates": self.d_updates, "g_updates": self.g_updates, "periods": self.periods}
        out = {name: torch.tensor(value) for name, value in counters.items()}
        for prefix, part in self._parts().items():
            out |= {f"{prefix}.{name}": tensor for name, tensor in part.state().items()}
        for prefix, net in (("g", self.g), ("d", self.d)):
            out[f"{prefix}.flat"] = net.flat
        for layer, (mean, var) in self.g.running.items():
            out |= {f"g.running.{layer}.mean": mean, f"g.running.{layer}.var": var}
        return out

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()` of a pack with the same configurations."""
        self.d_updates, self.g_updates, self.periods = (
            int(state[name]) for name in ("d_updates", "g_updates", "periods")
        )
        for prefix, part in self._parts().items():
            part.load({n.removeprefix(f"{prefix}."): t for n, t in state.items() if n.startswith(f"{prefix}.")})
        self.g.flat.copy_(state["g.flat"])
        self.d.flat.copy_(state["d.flat"])
        for layer, (mean, var) in self.g.running.items():
            mean.copy_(state[f"g.running.{layer}.mean"])
            var.copy_(state[f"g.running.{layer}.var"])

    def _parts(self) -> dict[str, Adam | Sgd | Anchor]:
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer, "anchor": self.anchor}
