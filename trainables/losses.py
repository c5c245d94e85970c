"""Losses as pure functions of logits, one value per trial. Equation numbers are those of arXiv:1807.05936.

With l the discriminator's logit: -log D = softplus(-l) and -log(1 - D) = softplus(l). Shapes: K trials, B samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


_LANES = 32
"""Most floats that a vectorised CPU kernel processes at once; the remainder of a tensor is left to scalar code."""


def _softplus(logits: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """Softplus with the same bits for the same logits in any row: no row is split between vector and scalar code."""
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


def _softplus_gradient(logits: Float[Tensor, "K B"], sign: float | Tensor) -> Float[Tensor, "K B"]:
    """Gradient of the sum of softplus(sign * l): sign * sigmoid(sign * l)."""
    return by_row(torch.sigmoid, logits * sign).mul_(sign)


def discriminator_gradient(logits: Float[Tensor, "K 2B"]) -> Float[Tensor, "K 2B"]:
    """Gradient of `discriminator` with respect to the logits of B real samples, followed by B fake ones."""
    batch = logits.shape[1] // 2
    sign = torch.ones(2 * batch, device=logits.device)
    sign[:batch] = -1.0
    return _softplus_gradient(logits, sign).div_(batch)


def half_gradient(logits: Float[Tensor, "K B"], *, real: bool) -> Float[Tensor, "K B"]:
    """Gradient of one of the two terms of `discriminator` with respect to its logits."""
    return _softplus_gradient(logits, -1.0 if real else 1.0).div_(logits.shape[1])


def generator_non_saturating_gradient(fake: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """Gradient of `generator_non_saturating` with respect to the logits."""
    return half_gradient(fake, real=True)


def generator_saturating_gradient(fake: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """Gradient of `generator_saturating` with respect to the logits."""
    return half_gradient(fake, real=False).neg_()


GENERATOR_GRADIENTS = {
    "non_saturating": generator_non_saturating_gradient,
    "saturating": generator_saturating_gradient,
}
"""Hand-written gradients: for small nets autograd would take longer than the matrix products. Tests compare both."""


def r1(real: Float[Tensor, "K B"], x: Float[Tensor, "K B *shape"]) -> Float[Tensor, " K"]:
    """R1 of Mescheder et al. 2018 without its gamma/2: E ||grad_x l(x)||^2 at real x. `x` must require gradients."""
    (gradient,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    return gradient.square().flatten(2).sum(2).mean(1)


def discriminator_diagnostics(
    loss: Float[Tensor, " K"], real: Float[Tensor, "K B"], fake: Float[Tensor, "K B"]
) -> dict[str, Tensor]:
    """D's loss, and the shares of real and of fake samples that it classifies correctly, each (K,)."""
    return {
        "d_loss": loss.detach(),
        "d_acc_real": (real > 0).float().mean(1),
        "d_acc_fake": (fake < 0).float().mean(1),
    }


# vae: the two terms of (7), with all constants, summed over dimensions. Nats.


def by_row(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to (K, ...), with the same bits for the same numbers in any row."""
    flat = x.flatten(1)
    length = flat.shape[1]
    if length % _LANES == 0:
        return function(x)
    return function(F.pad(flat, (0, -length % _LANES), value=1.0))[:, :length].view(x.shape)


def code_sample(
    mean: Float[Tensor, "K B z"], log_variance: Float[Tensor, "K B z"], normal: Float[Tensor, "K B z"]
) -> Float[Tensor, "K B z"]:
    """Draw from p(z|x) by the reparametrisation trick of (7): mu + s eps."""
    return mean + by_row(torch.exp, 0.5 * log_variance) * normal


def code_kl(mean: Float[Tensor, "K B z"], log_variance: Float[Tensor, "K B z"]) -> Float[Tensor, "K B"]:
    """Second term of (7): KL(p(z|x) || N(0, I)) = 1/2 sum (mu^2 + s^2 - log s^2 - 1)."""
    return 0.5 * (mean.square() + by_row(torch.exp, log_variance) - log_variance - 1).sum(2)


def gaussian_nll(
    x: Float[Tensor, "K B *shape"], mean: Float[Tensor, "K B *shape"], log_sigma: Float[Tensor, "K 1"]
) -> Float[Tensor, "K B"]:
    """First term of (7), -log N(x; mean, sigma^2 I): 1/2 sum [log(2 pi sigma^2) + (x - mean)^2 / sigma^2]."""
    squared = (x - mean).flatten(2).square().sum(2)
    constant = 0.5 * math.log(2 * math.pi) + log_sigma
    return 0.5 * squared * by_row(torch.exp, -2 * log_sigma) + math.prod(x.shape[2:]) * constant


def bernoulli_nll(x: Float[Tensor, "K B *shape"], mean: Float[Tensor, "K B *shape"]) -> Float[Tensor, "K B"]:
    """First term of (7), -log q(x|z) for x and mean in [-1, 1] mapped to [0, 1]; the cross-entropy where x is grey.

    A mean of tanh h is the probability sigmoid(2h). It is kept `BERNOULLI_MARGIN` away from 0 and 1, because tanh
    reaches +-1 in floating point. So a pixel costs at most 11.5 nats instead of infinitely many.
    """
    scaled = (0.5 - BERNOULLI_MARGIN) * mean.flatten(2)
    log_p, target = by_row(torch.log, 0.5 + scaled), 0.5 + 0.5 * x.flatten(2)
    return -(target * log_p + (1 - target) * by_row(torch.log, 0.5 - scaled)).sum(2)


BERNOULLI_MARGIN = 1e-5
"""Smallest probability of either pixel value."""


# aae: (30) is `discriminator(real=l(z), fake=l(E(x)))`, (33) is `generator_non_saturating(l(E(x)))`, and the term that
# (32) adds is `regularizer.sample_distance` of codes: the losses of the GAN with x and z exchanged.


def reconstruction(x: Float[Tensor, "K B *shape"], again: Float[Tensor, "K B *shape"]) -> Float[Tensor, " K"]:
    """Second term of (34) without its lambda, mean convention: mean over batch and components of (x - G(E(x)))^2."""
    return (x - again).square().flatten(1).mean(1)


# ali: losses of encoder and generator, of D's logits at pairs (x, z ~ p(z|x)) and (x ~ q(x|z), z).


def ali_own(encoded: Float[Tensor, "K B"], generated: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """(41): -E log D(x, E(x)) - E log D(G(z), z). Also the first two terms of (40)."""
    return _softplus(-encoded).mean(1) + _softplus(-generated).mean(1)


def ali_minimax(encoded: Float[Tensor, "K B"], generated: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """(42): E log D(x, E(x)) + E log(1 - D(G(z), z)), minus D's loss (38)."""
    return -_softplus(-encoded).mean(1) - _softplus(generated).mean(1)


def ali_non_saturating(encoded: Float[Tensor, "K B"], generated: Float[Tensor, "K B"]) -> Float[Tensor, " K"]:
    """(43): -E log(1 - D(x, E(x))) - E log D(G(z), z)."""
    return _softplus(encoded).mean(1) + _softplus(-generated).mean(1)


ALI_LOSSES = {"eq40": ali_own, "eq41": ali_own, "eq42": ali_minimax, "eq43": ali_non_saturating}
"""(40) has two more terms: `gaussian_kl` to the old generator and `log_density_ratio` of the old encoder."""


def gaussian_kl(
    mean: Float[Tensor, "K B *shape"], log_variance: Tensor, mean_old: Tensor, log_variance_old: Tensor
) -> Float[Tensor, " K"]:
    """Third term of (40), T3: E_z KL(q(x|z) || q_old(x|z)) of diagonal Gaussians in closed form, a sum over components.

    sum log(s_old/s) + (s^2 + (G - G_old)^2)/(2 s_old^2) - 1/2. Its gradient at the old generator is exactly 0.
    """
    wider = log_variance - log_variance_old
    squared = (mean - mean_old).square() * by_row(torch.exp, -log_variance_old)
    return 0.5 * (by_row(torch.exp, wider) - wider + squared - 1).flatten(2).sum(2).mean(1)


def gaussian_log_density(
    x: Float[Tensor, "K B *shape"], mean: Float[Tensor, "K B *shape"], log_variance: Float[Tensor, "K B *shape"]
) -> Float[Tensor, "K B"]:
    """log N(x; mean, variance), a sum over components."""
    squared = (x - mean).square() * by_row(torch.exp, -log_variance)
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).flatten(2).sum(2)


def log_density_ratio(
    z: Float[Tensor, "K B z"], mean: Tensor, log_variance: Tensor, mean_old: Tensor, log_variance_old: Tensor
) -> Float[Tensor, " K"]:
    """Fourth term of (40), T4: E log p_old(z|x) / p(z|x) over generated pairs, a Monte Carlo estimate from the batch.

    sum (z - mu)^2/(2 s^2) + log s - (z - mu_old)^2/(2 s_old^2) - log s_old. With one fixed s it is the limit of BiGAN,
    (|z - E(x)|^2 - |z - E_old(x)|^2)/(2 s^2). Its gradient at the old encoder is not 0: it is maximum likelihood.
    """
    old = gaussian_log_density(z, mean_old, log_variance_old)
    return (old - gaussian_log_density(z, mean, log_variance)).mean(1)
