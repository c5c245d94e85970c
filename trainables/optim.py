"""Adam and SGD on a flat (K, P) buffer, with a learning rate (and betas) per trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

ADAM_EPS = 1e-8
FEW_RATES = 8
"""On a GPU the fused update, which takes one call per rate, is used for at most this many different rates,"""
LARGE_NET = 2**17
"""or for nets of at least this many parameters."""


def column(values: Sequence[float], device: torch.device) -> Float[Tensor, "K 1"]:
    """One number per trial, to be broadcast over its parameters; float64, because 1 - beta is computed from it."""
    return torch.tensor(values, dtype=torch.float64, device=device).unsqueeze(1)


class Sgd:
    """Plain gradient descent."""

    def __init__(self, lr: Float[Tensor, "K 1"]) -> None:
        self._lr = lr.float()

    def step(self, flat: Float[Tensor, "K P"], gradient: Float[Tensor, "K P"]) -> None:
        """Update `flat` in place."""
        flat.sub_(gradient * self._lr)

    def state(self) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing to restore."""


class Adam:
    """Adam (Kingma and Ba 2015) as in torch.optim.Adam, with a rate and betas per trial."""

    def __init__(self, like: Float[Tensor, "K P"], lr: Tensor, beta1: Tensor, beta2: Tensor) -> None:
        self._lr, self._beta1, self._beta2 = lr, beta1, beta2
        self._new1, self._new2 = (1 - beta1).float(), (1 - beta2).float()
        self._first, self._second = torch.zeros_like(like), torch.zeros_like(like)
        self._scratch = torch.empty_like(like)
        self._updates = torch.zeros((), device=like.device)
        """A device tensor, so that a captured CUDA graph increments it."""
        self._alike = _alike(lr, beta1, beta2)
        self._fused = like.is_cpu or len(self._alike) <= FEW_RATES or like.shape[1] >= LARGE_NET
        self._of: tuple[Tensor, Tensor] | None = None
        """The tensors that `_rows` are views of: making the views takes as long as the update."""
        self._rows: list[list[list[Tensor]]] = []

    def step(self, flat: Float[Tensor, "K P"], gradient: Float[Tensor, "K P"]) -> None:
        """Update `flat` in place."""
        self._updates += 1
        if self._fused:
            self._step_fused(flat, gradient)
        else:
            self._step_apart(flat, gradient)

    def _step_fused(self, flat: Tensor, gradient: Tensor) -> None:
        """Use torch's fused kernel: one pass over memory, one call per learning rate, any number of trials."""
        if self._of is None or self._of[0] is not flat or self._of[1] is not gradient:
            self._of = flat, gradient
            rows = [tensor.unbind(0) for tensor in (flat, gradient, self._first, self._second)]
            self._rows = [[[row[i] for i in trials] for row in rows] for trials in self._alike.values()]
        for (lr, beta1, beta2), (weights, gradients, first, second) in zip(self._alike, self._rows, strict=True):
            torch._fused_adam_(
                weights,
                gradients,
                first,
                second,
                [],
                [self._updates] * len(weights),
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=ADAM_EPS,
                amsgrad=False,
                maximize=False,
            )

    def _step_apart(self, flat: Tensor, gradient: Tensor) -> None:
        """Use elementwise operations on all trials at once."""
        self._first.lerp_(gradient, self._new1)
        torch.mul(gradient, gradient, out=self._scratch)
        self._second.lerp_(self._scratch, self._new2)
        torch.sqrt(self._second, out=self._scratch)
        root = (1 - self._beta2**self._updates).rsqrt().float()
        rate = (self._lr / (1 - self._beta1**self._updates)).float()
        self._scratch.mul_(root).add_(ADAM_EPS)
        torch.div(self._first, self._scratch, out=self._scratch)
        flat.sub_(self._scratch.mul_(rate))

    def state(self) -> dict[str, Tensor]:
        """Both moments and the number of updates."""
        return {"first": self._first, "second": self._second, "updates": self._updates.to(torch.int64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._updates.fill_(int(state["updates"]))


def _alike(*columns: Tensor) -> dict[tuple[float, ...], list[int]]:
    """Map the values of the columns (K, 1) to the indices of the trials that have them."""
    trials: dict[tuple[float, ...], list[int]] = {}
    for i, values in enumerate(torch.cat(columns, 1).tolist()):
        trials.setdefault(tuple(values), []).append(i)
    return trials


Optimizer = Adam | Sgd
