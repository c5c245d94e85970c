"""Losses as pure functions of logits, one value a trial. Equation numbers are those of arXiv:1807.05936.

With l the discriminator's logit: -log D = softplus(-l) and -log(1 - D) = softplus(l). Shapes: K trials, B samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


_LANES = 32
"""Floats that a vectorised CPU kernel takes at once, at most; the rest of a tensor is computed by scalar code."""


def _softplus(logits: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """softplus, the same bits for the same logits in any row: no row is cut between vector and scalar code."""
    batch = logits.shape[1]
    return F.softplus(F.pad(logits, (0, -batch % _LANES)))[:, :batch] if batch % _LANES else F.softplus(logits)


def discriminator(real: Float[Tensor, "K B"], fake: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """(16): -E log D(x) - E log(1 - D(G(z)))."""
    return _softplus(-real).mean(1) + _softplus(fake).mean(1)


def generator_non_saturating(fake: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """(20): -E log D(G(z))."""
    return _softplus(-fake).mean(1)


def generator_saturating(fake: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """E log(1 - D(G(z))), the minimax loss of Goodfellow et al. 2014."""
    return -_softplus(fake).mean(1)


GENERATOR_LOSSES = {"non_saturating": generator_non_saturating, "saturating": generator_saturating}


def old_generator(x: Float[Tensor, "K B *shape"], x_old: Float[Tensor, "K B *shape"]) -> Float[Tensor, " K"]:
    """The term of (26) in the mean convention: mean over batch and components of (G(z) - G_old(z))^2."""
    return (x - x_old).square().flatten(1).mean(1)


def r1(real: Float[Tensor, "K B"], x: Float[Tensor, "K B *shape"]) -> Float[Tensor, " K"]:
    """R1 of Mescheder et al. 2018 without its gamma/2: E ||grad_x l(x)||^2 at real x. `x` must require gradients."""
    (gradient,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    return gradient.square().flatten(2).sum(2).mean(1)


def discriminator_diagnostics(
    loss: Float[Tensor, " K"], real: Float[Tensor, "K B"], fake: Float[Tensor, "K B"]
) -> dict[str, Tensor]:
    """D's loss and the share of real and of fake samples that it tells right, each (K,)."""
    return {
        "d_loss": loss.detach(),
        "d_acc_real": (real > 0).float().mean(1),
        "d_acc_fake": (fake < 0).float().mean(1),
    }
