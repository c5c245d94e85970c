"""Which old generator the term of (26) compares with.

At generator update j of period t the anchor is
  period_start     G before the generator phase of period t (the paper and its code): gradient 0 at j = 0
  previous_update  G before the latest update: function-space negative momentum
  previous_period  G at the start of period t - 1
  lag              G `lag` updates ago
  ema              the exponential moving average of G over updates
  param_space      as period_start, but the distance is that of parameters
At the start of training, before such a generator exists, the anchor is the initial generator.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

FIXED_IN_PERIOD = ("period_start", "previous_period", "param_space")
"""Anchors that are constant during a generator phase, so that their samples can be computed once per batch of z."""


class Anchor:
    """The flat parameters of G_old, kept up to date by the training loop."""

    def __init__(self, kind: str, flat: Float[Tensor, "K P"], *, lag: int, decay: Float[Tensor, "K 1"]) -> None:
        self.kind = kind
        self.fixed_in_period = kind in FIXED_IN_PERIOD
        self._decay = decay.to(flat.dtype)
        past = {"previous_update": 1, "previous_period": 1, "lag": lag}.get(kind, 0)
        self._past = [flat.clone() for _ in range(past + 1)]

    @property
    def flat(self) -> Float[Tensor, "K P"]:
        """Parameters of G_old now."""
        return self._past[0]

    def start_period(self, flat: Float[Tensor, "K P"]) -> None:
        """Note that a generator phase begins with parameters `flat`."""
        if self.fixed_in_period:
            self._push(flat)

    def updated(self, flat: Float[Tensor, "K P"]) -> None:
        """Note that an update has produced parameters `flat`."""
        if self.kind == "ema":
            torch.lerp(flat, self._past[0], self._decay, out=self._past[0])
        elif not self.fixed_in_period:
            self._push(flat)

    def _push(self, flat: Tensor) -> None:
        for older, newer in itertools.pairwise(self._past):  # copied: a CUDA graph keeps addresses
            older.copy_(newer)
        self._past[-1].copy_(flat)

    def state(self) -> dict[str, Tensor]:
        """All remembered generators, oldest first."""
        return {"past": torch.stack(self._past)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`."""
        for tensor, saved in zip(self._past, state["past"], strict=True):
            tensor.copy_(saved)
