"""The scale on which metrics are read: real against real, the untrained net, and a baseline that learns nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainables.data import Dataset
from trainables.metrics.evaluate import Evaluator, evaluator
from trainables.streams import generator

FLOOR_PAIRS = 20
INIT_SEEDS = 8
TRIVIAL_DRAWS = 8


def reference(dataset: Dataset, untrained: Callable[[int], Tensor]) -> dict[str, float]:
    """Floor, ceiling and trivial baseline for one data set and one structure of nets.

    Args:
        dataset: what is learnt.
        untrained: initial seed -> samples (n_samples, *shape) of a generator before training.

    Returns:
        dist_floor and dist_floor_sd: mean and sd of `dist` over 20 disjoint pairs of real sets. dist_ceiling: median
        over 8 untrained generators. dist_trivial: median over 8 draws of a moment-matched Gaussian.
        cov_real and prec_real: mean coverage and precision of the real pairs. max_abs_data: largest |component|.
    """
    pairs = [real_pair(dataset, pair) for pair in range(FLOOR_PAIRS)]
    dist = np.array([values["dist"] for values in pairs])
    judge = evaluator(dataset)
    ceiling = [judge(untrained(seed)[None])[0]["dist"] for seed in range(INIT_SEEDS)]
    trivial = [judge(torch.from_numpy(moment_matched(dataset, draw))[None])[0]["dist"] for draw in range(TRIVIAL_DRAWS)]
    return {
        "dist_floor": float(dist.mean()),
        "dist_floor_sd": float(dist.std(ddof=1)),
        "dist_ceiling": float(np.median(ceiling)),
        "dist_trivial": float(np.median(trivial)),
        "cov_real": float(np.mean([values["cov"] for values in pairs])),
        "prec_real": float(np.mean([values["prec"] for values in pairs])),
        "max_abs_data": dataset.max_abs,
    }


def real_pair(dataset: Dataset, pair: int) -> dict[str, float]:
    """Metrics of one real set judged against another that is disjoint from it, both of the evaluation's size."""
    n = evaluator(dataset).n_samples
    against = Evaluator(dataset, dataset.real(n, 2 * pair + 1))
    return against(torch.from_numpy(dataset.real(n, 2 * pair))[None])[0]


def moment_matched(dataset: Dataset, draw: int) -> np.ndarray:
    """Draw `n_samples` from the Gaussian with real data's mean and covariance, float32 (n_samples, *shape).

    Images are clipped to their range. (Of pixels, this is the Gaussian in all principal components.)
    """
    n = evaluator(dataset).n_samples
    real = dataset.real(n, "held_out").reshape(n, -1).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(real.T))
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T  # the symmetric root: eigenvectors have no fixed sign
    samples = real.mean(axis=0) + generator(0, f"trivial/{dataset.name}", draw).standard_normal(real.shape) @ root
    if dataset.kind == "images":
        samples = samples.clip(-dataset.max_abs, dataset.max_abs)
    drawn: np.ndarray = samples.astype(np.float32)
    return drawn.reshape(n, *dataset.shape)
