"""One GAN on points or images as a careful user of PyTorch writes it: ordinary modules, ordinary optimizers, one trial.

The training of peer (a). tests/benchmarks/test_peers.py holds its losses against the engine's. Nothing is computed that
the trial does not need: no regularizer at weight 0, no gradient norms, no gradients of D in G's updates.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from benchmarks import plain_dcgan
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.mixtures import GRID25, RING8
from vistudy.trainables.nets.architectures import (
    DcganDiscriminator,
    DcganGenerator,
    Sizes,
    discriminator_arch,
    generator_arch,
)
from vistudy.trainables.nets.batch_norm import RECALIBRATION_BATCH

MIXTURES = {mixture.name: mixture for mixture in (RING8, GRID25)}
SUPPORTED = {
    "model": ("gan",),
    "net": ("mlp", "dcgan"),
    "init": ("he", "dcgan"),
    "optimizer": ("adam",),
    "anchor": ("period_start",),
    "g_loss": ("non_saturating",),
    "r1_weight": (0.0,),
}
"""What it is written for."""


def mlp(sizes: list[int], norm: str, activation: nn.Module, *, norm_first: bool, running: bool) -> nn.Sequential:
    """Linear layers with `activation` and batch norm (`norm` bn) between them; He's initial weights."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        normed = norm == "bn" and not last and (i > 0 or norm_first)
        linear = nn.Linear(fan_in, fan_out, bias=last or not (normed or norm == "none_ref_nobias"))
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        layers += [linear]
        layers += [nn.BatchNorm1d(fan_out, track_running_stats=running)] if normed else []
        layers += [] if last else [activation]
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Where minibatches come from: the next real points (B, 2), the next z (B, z_dim) of D's and of G's steps."""

    real: Callable[[], Tensor]
    z_d: Callable[[], Tensor]
    z_g: Callable[[], Tensor]


def draws(config: dict[str, Any], trials: tuple[int, ...] = (), device: torch.device | str = "cpu") -> Draws:
    """Fresh points of the mixture, or images from memory, and fresh z, by torch's generator; (*trials, B, ...)."""
    batch = (*trials, config["batch_size"])

    def z() -> Tensor:
        return torch.randn(*batch, config["z_dim"], device=device)

    if config["data"] in MIXTURES:
        mixture = MIXTURES[config["data"]]
        means, sd = torch.from_numpy(mixture.means).to(device), mixture.sd

        def real() -> Tensor:
            noise = torch.randn(*batch, 2, device=device)
            return means[torch.randint(len(means), batch, device=device)].add_(noise, alpha=sd)
    else:
        pool = plain_dcgan.images(DATASETS[config["data"]].shape, torch.device(device))

        def real() -> Tensor:
            return pool[torch.randint(len(pool), batch, device=device)]

    return Draws(real=real, z_d=z, z_g=z)


def nets(config: dict[str, Any]) -> tuple[nn.Sequential, nn.Sequential]:
    """Generator and discriminator of a configuration."""
    c, shape = config, DATASETS[config["data"]].shape
    if c["net"] == "dcgan":
        sizes = Sizes(width=c["width"], depth=c["depth"], norm=c["norm"], init=c["init"])
        g, d = generator_arch("dcgan", shape, c["z_dim"], sizes), discriminator_arch("dcgan", shape, sizes)
        assert isinstance(g, DcganGenerator)
        assert isinstance(d, DcganDiscriminator)
        return plain_dcgan.generator(g), plain_dcgan.discriminator(d)
    hidden, dim = [c["width"]] * c["depth"], shape[0]
    leaky = nn.LeakyReLU(0.2, inplace=True)
    return (
        mlp([c["z_dim"], *hidden, dim], c["norm"], nn.ReLU(inplace=True), norm_first=True, running=True),
        mlp([dim, *hidden, 1], c["norm"], leaky, norm_first=False, running=False),
    )


class Gan:
    """One GAN, its optimizers, and the two kinds of updates."""

    def __init__(self, config: dict[str, Any], device: torch.device | str = "cpu") -> None:
        for name, values in SUPPORTED.items():
            if config[name] not in values:
                raise ValueError(f"the plain peer is not written for {name}: {config[name]!r}, but for {values}")
        self.config = c = config
        self.g, self.d = (net.to(device) for net in nets(config))
        self.g_old = copy.deepcopy(self.g).requires_grad_(False)
        betas = (c["beta1"], c["beta2"])
        self.g_optimizer = torch.optim.Adam(self.g.parameters(), lr=c["g_lr"], betas=betas, fused=True)
        self.d_optimizer = torch.optim.Adam(self.d.parameters(), lr=c["d_lr"], betas=betas, fused=True)

    def d_step(self, source: Draws) -> Tensor:
        """One discriminator update; its loss."""
        x = source.real()
        with torch.no_grad():
            x_fake = self.g(source.z_d())
        if self.config["norm"] == "bn":  # batch norm sees real and fake apart
            real, fake = self.d(x), self.d(x_fake)
        else:
            real, fake = self.d(torch.cat((x, x_fake))).chunk(2)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        self.d_optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.d_optimizer.step()
        return loss.detach()

    def g_phase(self, source: Draws) -> Iterator[Tensor]:
        """All generator updates of a period; the loss of each."""
        c = self.config
        if c["reg_weight"]:
            torch._foreach_copy_(list(self.g_old.parameters()), [p.detach() for p in self.g.parameters()])
        self.d.requires_grad_(False)
        for step in range(c["g_steps"]):
            if step == 0 or c["z_use"] == "fresh" or (c["z_use"] == "pool" and step % 2 == 0):
                z, x_old = source.z_g(), None
            x = self.g(z)
            loss = F.softplus(-self.d(x)).mean()
            if c["reg_weight"]:
                if x_old is None:  # at step 0, G is G_old; later, one pass of G_old a batch of z
                    x_old = x.detach() if step == 0 else self.g_old(z)
                loss = loss + c["reg_weight"] * F.mse_loss(x, x_old)
            self.g_optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.g_optimizer.step()
            yield loss.detach()
        self.d.requires_grad_(True)

    @torch.no_grad()
    def samples(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples of `z`; with batch norm by recalibrated statistics, and by those of training."""
        if self.config["norm"] != "bn":
            return self.g(z), None
        recalibrated = copy.deepcopy(self.g)
        fresh = torch.randn(self.config["bn_recalibration_images"], z.shape[1])
        update_bn(torch.split(fresh, RECALIBRATION_BATCH), recalibrated)
        out = recalibrated.eval()(z), self.g.eval()(z)
        self.g.train()
        return out
