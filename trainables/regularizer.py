"""The old-versus-new term of (26): the distance of a generator from the old generator G_old. See `old_generator.py`.

Mean convention: lambda times the mean over batch and components of (G(z) - G_old(z))^2. The weight lambda
(`reg_weight`) is applied by the models. Equation numbers are those of arXiv:1807.05936.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.old_generator import Anchor

if TYPE_CHECKING:
    from jaxtyping import Float


def sample_distance(x: Float[Tensor, "K B *shape"], x_old: Float[Tensor, "K B *shape"]) -> Float[Tensor, " K"]:
    """The term of (26) without its weight: mean over batch and components of (G(z) - G_old(z))^2."""
    return (x - x_old).square().flatten(1).mean(1)


def sample_distance_gradient(x: Float[Tensor, "K B *shape"], x_old: Float[Tensor, "K B *shape"]) -> Tensor:
    """Gradient of `sample_distance` with respect to x, shape (K, B, *shape)."""
    return (x - x_old).mul_(2 / math.prod(x.shape[1:]))


def parameter_distance(net: PackedNet, anchor: Anchor) -> Tensor:
    """Squared distance (K,) of a net's parameters from the anchor's: the control in parameter space."""
    old = net.views(anchor.flat)
    return torch.stack([(leaf - old[name]).square().flatten(1).sum(1) for name, leaf in net.leaves.items()]).sum(0)


class AnchorSamples:
    """Samples of G_old in one generator phase, computed once per batch of z where the anchor allows it."""

    def __init__(self, net: PackedNet, anchor: Anchor) -> None:
        self._net, self._anchor = net, anchor
        self._samples: dict[int, Tensor] = {}

    def samples(self, step: int, batch: int, inputs: Tensor, new: Tensor) -> Tensor:
        """G_old(inputs), batched like `new` = G(inputs). Running batch-norm statistics are left alone."""
        if self._anchor.fixed_in_period and batch in self._samples:
            return self._samples[batch]
        if self._anchor.kind == "period_start" and step == 0:
            samples = new.detach()  # G is G_old here: bitwise the same samples
        else:
            with torch.no_grad():
                samples = self._net(inputs, self._net.views(self._anchor.flat))
        self._samples[batch] = samples
        return samples

    def distance(self, step: int, batch: int, inputs: Tensor, new: Tensor) -> Tensor:
        """The term of (26) without its weight (K,): of samples, or of parameters for the anchor `param_space`."""
        if self._anchor.kind == "param_space":
            return parameter_distance(self._net, self._anchor)
        return sample_distance(new, self.samples(step, batch, inputs, new))
