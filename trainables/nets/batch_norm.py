"""Batch norm of packed nets: its constants, and the recalibration of its statistics before an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from vistudy.trainables.nets.architectures import Params

if TYPE_CHECKING:
    from vistudy.trainables.nets.packed_net import PackedNet

BN_EPS = 1e-5
BN_MOMENTUM = 0.1
"""Weight of the newest batch in the running statistics (decay .9, as in the paper's code)."""

RECALIBRATION_BATCH = 2048
"""Samples per pass of the recalibration, whose statistics are averaged over passes."""

Stats = dict[str, tuple[Tensor, Tensor]]
"""Batch-norm layer -> (mean, variance), each (K, C)."""


def recalibrated_stats(net: PackedNet, batches: Iterable[Tensor], trial_groups: Sequence[slice]) -> Stats:
    """Average the batch statistics of `net` over `batches` (K, B, *shape) of fresh inputs, under its present weights.

    `trial_groups` are the trials that are computed together. Running statistics are left alone.
    """
    stats = net.fresh_stats()
    for i, x in enumerate(batches):
        for rows in trial_groups:
            net(x[rows], *select_trials(rows, net.frozen, stats), 1.0 / (i + 1))
    return stats


def select_trials(rows: slice, params: Params, stats: Stats | None) -> tuple[Params, Stats | None]:
    """Views of the parameters and batch-norm statistics of some trials."""
    selected = None if stats is None else {name: (mean[rows], var[rows]) for name, (mean, var) in stats.items()}
    return {name: p[rows] for name, p in params.items()}, selected
