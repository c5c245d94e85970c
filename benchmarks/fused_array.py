"""Peer (d) of `make bench-engine`: K GANs fused horizontally as HFTA does it (Wang et al. 2021, MLSys).

Every operator of the plain net becomes one operator for K models (a linear layer a batched product, a convolution a
grouped one), autograd runs through them, and the optimizer takes a vector of rates. Nothing else is changed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_gan import Draws, nets


class Fused(nn.Module):
    """K copies of a plain net, operator by operator. Vectors are (K, B, n), images (B, K * C, H, W)."""

    def __init__(self, plain: nn.Sequential, k: int) -> None:
        super().__init__()
        self.k, self.layers = k, list(plain)
        self.of_layer: list[list[nn.Parameter]] = []
        for i, layer in enumerate(plain):
            own = [nn.Parameter(p.detach().unsqueeze(0).repeat(k, *[1] * p.dim())) for p in layer.parameters()]
            self.of_layer.append(own)
            for j, parameter in enumerate(own):
                self.register_parameter(f"p{i}_{j}", parameter)

    def forward(self, h: Tensor) -> Tensor:
        """(K, B, z) or (K, B, C, H, W) -> (K, B, 1) or (K, B, C, H, W)."""
        if h.dim() == 5:
            h = h.transpose(0, 1).flatten(1, 2)
        for layer, own in zip(self.layers, self.of_layer, strict=True):
            h = self._apply_layer(layer, own, h)
        return h.unflatten(1, (self.k, -1)).transpose(0, 1) if h.dim() == 4 else h

    def _apply_layer(self, layer: nn.Module, p: Sequence[Tensor], h: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):
            weight = p[0].transpose(1, 2)
            return torch.baddbmm(p[1].unsqueeze(1), h, weight) if len(p) > 1 else torch.bmm(h, weight)
        if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
            weight, bias = p[0].flatten(0, 1), p[1].flatten() if len(p) > 1 else None
            if isinstance(layer, nn.Conv2d):
                return F.conv2d(h, weight, bias, 2, 2, groups=self.k)
            return F.conv_transpose2d(h, weight, bias, 2, 2, layer.output_padding, groups=self.k)
        if isinstance(layer, nn.BatchNorm1d):
            flat = h.transpose(1, 2).flatten(0, 1).t()
            normed = F.batch_norm(flat, None, None, p[0].flatten(), p[1].flatten(), True)
            return normed.t().unflatten(0, (self.k, -1)).transpose(1, 2)
        if isinstance(layer, nn.BatchNorm2d):
            return F.batch_norm(h, None, None, p[0].flatten(), p[1].flatten(), True)
        if isinstance(layer, nn.Unflatten):
            c, height, width = layer.unflattened_size
            return h.transpose(0, 1).reshape(h.shape[1], self.k * c, height, width)
        if isinstance(layer, nn.Flatten):
            return h.unflatten(1, (self.k, -1)).transpose(0, 1).flatten(2)
        out: Tensor = layer(h)  # elementwise
        return out


class FusedAdam:
    """Adam with a rate for each of K models, parameter by parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: Tensor, beta1: float, beta2: float) -> None:
        self._parameters, self._lr, self._betas, self._updates = list(parameters), lr, (beta1, beta2), 0
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One update of all models."""
        self._updates += 1
        beta1, beta2 = self._betas
        one, two = 1 - beta1**self._updates, 1 - beta2**self._updates
        gradients = [p.grad for p in self._parameters]
        torch._foreach_lerp_(self._first, gradients, 1 - beta1)
        torch._foreach_mul_(self._second, beta2)
        torch._foreach_addcmul_(self._second, gradients, gradients, 1 - beta2)
        for p, first, second in zip(self._parameters, self._first, self._second, strict=True):
            rate = (-self._lr / one).view(-1, *[1] * (p.dim() - 1))
            p.add_(first / (second.sqrt().div_(two**0.5).add_(1e-8)) * rate)
            p.grad = None


class GanArray:
    """K GANs, each with its own rates and weight of the term."""

    def __init__(self, configs: Sequence[dict[str, Any]], device: torch.device | str = "cpu") -> None:
        self.config, k = configs[0], len(configs)
        g, d = nets(self.config)
        self.g, self.d = Fused(g, k).to(device), Fused(d, k).to(device)
        self.g_old = copy.deepcopy(self.g).requires_grad_(False)
        self._weight = torch.tensor([c["reg_weight"] for c in configs], device=device)

        def adam(net: Fused, name: str) -> FusedAdam:
            lr = torch.tensor([c[name] for c in configs], device=device)
            return FusedAdam(list(net.parameters()), lr, self.config["beta1"], self.config["beta2"])

        self.g_optimizer, self.d_optimizer = adam(self.g, "g_lr"), adam(self.d, "d_lr")

    def d_step(self, source: Draws) -> Tensor:
        """One discriminator update; the losses (K,)."""
        x = source.real()
        with torch.no_grad():
            x_fake = self.g(source.z_d())
        if self.config["norm"] == "bn":
            real, fake = self.d(x), self.d(x_fake)
        else:
            real, fake = self.d(torch.cat((x, x_fake), 1)).chunk(2, 1)
        loss = F.softplus(-real).mean((1, 2)) + F.softplus(fake).mean((1, 2))
        torch.autograd.backward(loss.sum())
        self.d_optimizer.step()
        return loss.detach()

    def g_phase(self, source: Draws) -> Iterator[Tensor]:
        """All generator updates of a period; the losses (K,) of each."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.g_old.parameters()), list(self.g.parameters()))
        self.d.requires_grad_(False)
        for step in range(self.config["g_steps"]):
            if step % 2 == 0:  # z_use pool
                z, x_old = source.z_g(), None
            x = self.g(z)
            loss = F.softplus(-self.d(x)).mean((1, 2))
            if x_old is None:
                x_old = x.detach() if step == 0 else self.g_old(z)
            loss = loss + self._weight * (x - x_old).square().flatten(1).mean(1)
            torch.autograd.backward(loss.sum())
            self.g_optimizer.step()
            yield loss.detach()
        self.d.requires_grad_(True)
