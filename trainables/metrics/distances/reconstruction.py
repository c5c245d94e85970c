"""Error of reconstructions. Packs with an encoder call this from `Pack.measures`."""

from __future__ import annotations

from torch import Tensor


def reconstruction_mse(x: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean over samples and components of the squared error, float64 (K,) of two (K, n, *shape).

    State which split x is from, `held_out` or `reference`. The identity has a perfect score, so read the error together
    with the distance of the codes from their prior.

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != reconstructed.shape:
        got = f"got {tuple(x.shape)} and {tuple(reconstructed.shape)}"
        raise ValueError(f"a reconstruction has its original's shape: {got}")
    return (x.double() - reconstructed.double()).square().flatten(1).mean(dim=1)
