"""PackedNet: one architecture with the parameters of K trials.

All parameters of a net are in one buffer `flat` of shape (K, P), so that the optimizer, the copy of the anchor and the
checkpoint each handle one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vistudy.trainables import random_streams as streams
from vistudy.trainables.nets.architectures import INITS, Arch, Params, rectify_
from vistudy.trainables.nets.batch_norm import BN_EPS, Stats

if TYPE_CHECKING:
    from jaxtyping import Float

_ALIGN = 16
"""Parameters start at multiples of 16 floats (64 bytes), so that the position of a trial in its pack does not affect
the memory alignment of its matrices."""


class PackedNet:
    """An architecture with the parameters of K trials."""

    def __init__(
        self, arch: Arch, seeds: Sequence[int], role: str, device: torch.device, *, channels_last: bool = False
    ) -> None:
        """Draw the initial weights.

        Args:
            arch: the architecture of one trial.
            seeds: seeds of the K trials.
            role: key of the initial weights, besides the seed.
            device: device of the parameters.
            channels_last: whether convolution kernels have the memory layout of tensor cores.
        """
        self.arch = arch
        self.k = len(seeds)
        self._channels_last = channels_last
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        size = 0
        for spec in arch.params:
            self._places[spec.name] = (size, spec.shape)
            size += -(-math.prod(spec.shape) // _ALIGN) * _ALIGN
        self._order = self._standard_order(size).to(device) if channels_last else None
        unique = {seed: self._initial(seed, role, size) for seed in set(seeds)}
        self.flat = torch.stack([unique[seed] for seed in seeds]).to(device)
        self.gradient = torch.zeros_like(self.flat)
        self._gradient_views = list(self.views(self.gradient).values())
        self.leaves = {name: view.requires_grad_() for name, view in self.views(self.flat.detach()).items()}
        self.frozen = self.views(self.flat)
        self.running = self.fresh_stats()

    def _initial(self, seed: int, role: str, size: int) -> Tensor:
        """Initial parameters of one trial. Keyed by (seed, net, parameter): batch norm does not change them."""
        row = torch.zeros(size)
        for spec in self.arch.params:
            rng = streams.generator(seed, f"init/{role}/{spec.name}")
            view = self._view(row.unsqueeze(0), spec.name)
            view.copy_(torch.as_tensor(INITS[spec.init](spec, rng)))
        return row

    def _view(self, flat: Tensor, name: str) -> Tensor:
        start, shape = self._places[name]
        part, k = flat[:, start : start + math.prod(shape)], flat.shape[0]
        if self._channels_last and len(shape) == 4:
            return part.view(k, shape[0], *shape[2:], shape[1]).permute(0, 1, 4, 2, 3)
        return part.view(k, *shape)

    def _standard_order(self, size: int) -> Tensor:
        """Indices into a row of this net, in the order of a row whose parameters are all contiguous."""
        positions = torch.arange(size)
        out = positions.clone()
        for name, (start, shape) in self._places.items():
            out[start : start + math.prod(shape)] = self._view(positions.unsqueeze(0), name).flatten()
        return out

    def to_contiguous(self, rows: Tensor) -> Tensor:
        """Convert a tensor (..., P) from this net's layout to the contiguous one, which does not depend on the device.

        Tensors without a parameter dimension are returned unchanged.
        """
        return rows if self._order is None or rows.dim() < 2 else rows[..., self._order]

    def from_contiguous(self, contiguous: Tensor) -> Tensor:
        """Inverse of `to_contiguous`."""
        if self._order is None or contiguous.dim() < 2:
            return contiguous
        out = torch.empty_like(contiguous)
        out[..., self._order] = contiguous
        return out

    def views(self, flat: Float[Tensor, "K P"]) -> Params:
        """The parameters as views of a flat buffer of this net."""
        return {name: self._view(flat, name) for name in self._places}

    def fresh_stats(self) -> Stats:
        """Batch-norm statistics before any data: mean 0, variance 1."""
        device = self.flat.device
        return {
            name: (torch.zeros(self.k, channels, device=device), torch.ones(self.k, channels, device=device))
            for name, channels in self.arch.norms.items()
        }

    def __call__(self, x: Tensor, params: Params, stats: Stats | None = None, momentum: float | None = None) -> Tensor:
        """Apply the net with `params` to x (K, B, *shape). The result is always float32.

        Batch norm without `stats` uses the statistics of the batch. With `stats` and `momentum` it uses those of the
        batch and moves `stats` towards them; with `stats` alone it uses `stats`.
        """
        norms = self.arch.norms

        def hidden(h: Tensor, layer: str, leak: float) -> Tensor:
            if layer not in norms:
                return rectify_(h, leak)
            mean, var = (None, None) if stats is None else (s.view(-1) for s in stats[layer])
            scale, shift = params[f"{layer}.scale"].reshape(-1), params[f"{layer}.shift"].reshape(-1)
            training = stats is None or momentum is not None
            flat = h.reshape(1, -1, h.shape[2]) if h.dim() == 3 else h
            normed = F.batch_norm(flat, mean, var, scale, shift, training, momentum or 0.0, BN_EPS)
            return rectify_(normed, leak).view_as(h)

        out = self.arch.forward(params, x, hidden)
        return out.float() if out.dtype == torch.bfloat16 else out

    def backward(
        self, loss: Tensor, grad_output: Tensor | None = None, *, retain_graph: bool = False
    ) -> Float[Tensor, "K P"]:
        """Gradient of a scalar loss in the flat layout (K, P), overwritten by the next call.

        With `grad_output`, that of any scalar whose gradient at the tensor `loss` is `grad_output`.
        """
        gradients = torch.autograd.grad(loss, list(self.leaves.values()), grad_output, retain_graph=retain_graph)
        for view, gradient in zip(self._gradient_views, gradients, strict=True):
            view.copy_(gradient)
        return self.gradient
