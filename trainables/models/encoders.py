"""Common parts of AAE, ALI and VAE: the update of D, one gradient for several nets, and the measures of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vistudy.trainables import losses
from vistudy.trainables.data import Dataset
from vistudy.trainables.metrics.distances.codes import code_fd, code_mmd2
from vistudy.trainables.metrics.distances.reconstruction import reconstruction_mse
from vistudy.trainables.metrics.evaluate import n_samples
from vistudy.trainables.models.base import AdversarialConfig
from vistudy.trainables.nets.architectures import Params
from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.optim import Optimizer

MEASURED = 800
"""Samples of the reference split, which is never trained on, that are encoded (fewer if the data have fewer)."""

MEASURED_AT_ONCE = 200
"""Samples per pass. It bounds the memory of large packs, and it is the batch of batch norm."""


def discriminator_logits(
    d: PackedNet, real: Tensor, fake: Tensor, params: Params, c: AdversarialConfig
) -> tuple[Tensor, Tensor]:
    """Logits (K, B) of D for two batches (K, B, n). Batch norm sees the batches separately, as in the GAN."""
    if c.norm == "bn" or c.r1_weight:
        return d(real, params).squeeze(2), d(fake, params).squeeze(2)
    logits = d(torch.cat((real, fake), 1), params).squeeze(2)
    return logits[:, : real.shape[1]], logits[:, real.shape[1] :]


def discriminate(
    d: PackedNet, optimizer: Optimizer, real: Tensor, fake: Tensor, c: AdversarialConfig, *, diagnose: bool
) -> dict[str, Tensor]:
    """Update D by (16) on batches `real`, labelled 1, and `fake`; with R1 at `real` if it has a weight."""
    if c.r1_weight:
        real.requires_grad_()
    logits = discriminator_logits(d, real, fake, d.leaves, c)
    loss = losses.discriminator(*logits)
    total = loss + 0.5 * c.r1_weight * losses.r1(logits[0], real) if c.r1_weight else loss
    gradient = d.backward(total.sum())
    optimizer.step(d.flat, gradient)
    if not diagnose:
        return {}
    return {"d_grad_norm": gradient.norm(dim=1)} | losses.discriminator_diagnostics(loss, *logits)


def backward(loss: Tensor, nets: Sequence[PackedNet]) -> None:
    """Fill the `gradient` of every net with the gradient of a scalar loss, in one backward pass."""
    leaves = [leaf for net in nets for leaf in net.leaves.values()]
    views = [view for net in nets for view in net.views(net.gradient).values()]
    for view, gradient in zip(views, torch.autograd.grad(loss, leaves), strict=True):
        view.copy_(gradient)


@torch.no_grad()
def encoder_measures(
    data: Dataset, k: int, device: torch.device, encode: Callable[[Tensor, slice], tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Measure an encoder and its decoder on the first samples of the reference split, each float64 (K,).

    reconstruction_mse: mean over samples and components of (x - G(E(x)))^2, in squared data units. code_mmd2 and
    code_fd: distance of the codes from the prior (`metrics/distances/codes.py`; a perfect encoder has
    code_fd_floor(800, z_dim)).

    `encode(x, rows)`: codes (K, b, z_dim) and reconstructions (K, b, *shape) of x (K, b, *shape), the samples `rows`.
    """
    x = torch.from_numpy(data.real(min(MEASURED, n_samples(data)), "reference")).to(device)
    codes, reconstructed = [], []
    for start in range(0, len(x), MEASURED_AT_ONCE):
        rows = slice(start, start + MEASURED_AT_ONCE)
        code, x_again = encode(x[rows].expand(k, *x[rows].shape), rows)
        codes.append(code)
        reconstructed.append(x_again)
    all_codes = torch.cat(codes, 1)
    return {
        "reconstruction_mse": reconstruction_mse(x.expand(k, *x.shape), torch.cat(reconstructed, 1)),
        "code_mmd2": code_mmd2(all_codes),
        "code_fd": code_fd(all_codes),
    }
