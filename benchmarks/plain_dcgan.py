"""A DCGAN as a careful user of PyTorch writes it: ordinary modules with our shapes, one trial."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vistudy.trainables.nets.architectures import DcganDiscriminator, DcganGenerator

HIDDEN = {True: nn.ReLU(inplace=True), False: nn.LeakyReLU(0.2, inplace=True)}
"""Activation of generators and of discriminators."""


def generator(arch: DcganGenerator) -> nn.Sequential:
    """z -> image by transposed convolutions."""
    p = {spec.name: spec.shape for spec in arch.params}
    ups = sorted((name for name in p if name.startswith("up") and name.endswith("weight")), reverse=True)
    dense, channels = p["dense.weight"][0], p[ups[0]][0]
    side = int((dense / channels) ** 0.5)
    layers: list[nn.Module] = [
        nn.Linear(arch.z_dim, dense, bias="dense.bias" in p),
        nn.Unflatten(1, (channels, side, side)),
    ]
    layers += [nn.BatchNorm2d(channels)] if arch.norm == "bn" else []
    layers.append(HIDDEN[True])
    sizes = _sides(arch.shape[1], len(ups))
    for i, name in enumerate(ups):
        wide, narrow = p[name][:2]
        last, even = i == len(ups) - 1, 1 - sizes[len(ups) - 1 - i] % 2
        bias = f"{name.removesuffix('.weight')}.bias" in p
        layers.append(nn.ConvTranspose2d(wide, narrow, 5, 2, 2, even, bias=bias))
        if last:
            layers.append(nn.Tanh())
        else:
            layers += [nn.BatchNorm2d(narrow)] if arch.norm == "bn" else []
            layers.append(HIDDEN[True])
    return _initialised(nn.Sequential(*layers))


def discriminator(arch: DcganDiscriminator) -> nn.Sequential:
    """Image -> logit by convolutions."""
    p = {spec.name: spec.shape for spec in arch.params}
    layers: list[nn.Module] = []
    for i, name in enumerate(name for name in p if name.startswith("down") and name.endswith("weight")):
        out, into = p[name][:2]
        layers.append(nn.Conv2d(into, out, 5, 2, 2, bias=f"{name.removesuffix('.weight')}.bias" in p))
        layers += [nn.BatchNorm2d(out, track_running_stats=False)] if arch.norm == "bn" and i else []
        layers.append(HIDDEN[False])
    layers += [nn.Flatten(), nn.Linear(p["out.weight"][1], 1)]
    return _initialised(nn.Sequential(*layers))


def _sides(side: int, stages: int) -> list[int]:
    """Sides of the maps that transposed convolutions make, from the image down."""
    sides = [side]
    for _ in range(stages - 1):
        sides.append((sides[-1] + 1) // 2)
    return sides


def _initialised(net: nn.Sequential) -> nn.Sequential:
    for name, parameter in net.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    return net


def images(shape: tuple[int, ...], device: torch.device, **options: Any) -> Tensor:
    """1,024 images in [-1, 1]: what is on them does not change what a step costs."""
    return torch.rand((1024, *shape), device=device, **options) * 2 - 1
