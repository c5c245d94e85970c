"""Baselines that give metrics a scale: real against real data, untrained nets, and a moment-matched Gaussian."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data import Dataset
from vistudy.trainables.data.images.stacked import Stacked
from vistudy.trainables.metrics.cache import cached
from vistudy.trainables.metrics.evaluate import Evaluator, evaluator, suite_of
from vistudy.trainables.metrics.stacked_real import stacked_pair, view_singles
from vistudy.trainables.random_streams import generator

FLOOR_PAIRS = 20
INIT_SEEDS = 8
TRIVIAL_DRAWS, TRIVIAL_DRAWS_STACKED = 8, 2
"""A draw of 26,000 stacked images takes 13 s, and two draws differ in `dist` by a thousandth."""


def reference(dataset: Dataset, untrained: Callable[[int], Tensor]) -> dict[str, float]:
    """Compute the real-data, untrained and trivial baselines of one data set and one structure of nets.

    Args:
        dataset: the data set that is learned.
        untrained: initial seed -> samples (n_samples, *shape) of a generator before training.

    Returns:
        dist_floor and dist_floor_sd: mean and sd of `dist` over 20 disjoint pairs of real sets. dist_ceiling: median
        over 8 untrained generators. dist_trivial: median over 8 draws (2 of stacked images) of a moment-matched
        Gaussian.
        cov_real and prec_real: mean coverage and precision of the real pairs. max_abs_data: largest |component|.
        Data sets of images from files also have `<metric>_real` and `<metric>_real_sd` for every metric. For toys,
        dist_floor is 0 and dist_trivial equals dist_ceiling, since their solution is a formula.
    """
    evaluate = evaluator(dataset)
    ceiling = float(np.median([evaluate(untrained(seed)[None])[0]["dist"] for seed in range(INIT_SEEDS)]))
    real = real_scale(dataset, ceiling)
    first = {name: real.pop(name) for name in ("dist_floor", "dist_floor_sd")}
    return first | {"dist_ceiling": ceiling} | real | {"max_abs_data": dataset.max_abs}


def real_scale(dataset: Dataset, ceiling: float) -> dict[str, float]:
    """Compute the baselines that do not depend on nets. For images from files they take minutes and are cached."""
    suite = suite_of(dataset)
    if suite == "exact":
        exact = {"dist_floor": 0.0, "dist_floor_sd": 0.0, "cov_real": 1.0, "prec_real": 1.0}
        return exact | {"dist_trivial": ceiling}
    if suite in ("points", "digits"):
        return _trivial(dataset) | _floors(dataset)[0]
    depends_on = [dataset.fingerprint, evaluator(dataset).provenance(), FLOOR_PAIRS, _trivial_draws(dataset)]
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]

    def make() -> bytes:
        decisive, others = _floors(dataset)
        return json.dumps(decisive | others | _trivial(dataset)).encode()

    baselines: dict[str, float] = json.loads(cached(f"floors/{dataset.name}-{key}.json", make))
    return baselines


def _floors(dataset: Dataset) -> tuple[dict[str, float], dict[str, float]]:
    """Real-data baselines that outcome labels depend on; and mean and sd of every other metric of real data."""
    pairs = list(_pairs(dataset))
    dist = np.array([values["dist"] for values in pairs])
    decisive = {
        "dist_floor": float(dist.mean()),
        "dist_floor_sd": float(dist.std(ddof=1)),
        "cov_real": float(np.mean([values["cov"] for values in pairs])),
        "prec_real": float(np.mean([values["prec"] for values in pairs])),
    }
    if "prec_pixels" in pairs[0]:
        decisive["prec_pixels_real"] = float(np.mean([values["prec_pixels"] for values in pairs]))
    others: dict[str, float] = {}
    for name in pairs[0].keys() - {"dist", "cov", "prec"}:
        of_pairs = [values[name] for values in pairs]
        others |= {f"{name}_real": float(np.mean(of_pairs)), f"{name}_real_sd": float(np.std(of_pairs, ddof=1))}
    return decisive, dict(sorted(others.items()))


def _pairs(dataset: Dataset) -> Iterator[dict[str, float]]:
    if isinstance(dataset, Stacked):
        singles = view_singles(dataset)
        yield from (stacked_pair(dataset, singles, pair) for pair in range(FLOOR_PAIRS))
    else:
        yield from (real_pair(dataset, pair) for pair in range(FLOOR_PAIRS))


def _trivial(dataset: Dataset) -> dict[str, float]:
    evaluate = evaluator(dataset)
    draws = (torch.from_numpy(moment_matched(dataset, draw))[None] for draw in range(_trivial_draws(dataset)))
    return {"dist_trivial": float(np.median([evaluate(samples)[0]["dist"] for samples in draws]))}


def _trivial_draws(dataset: Dataset) -> int:
    return TRIVIAL_DRAWS_STACKED if dataset.kind == "stacked" else TRIVIAL_DRAWS


def real_pair(dataset: Dataset, pair: int) -> dict[str, float]:
    """Metrics of one real set against another, disjoint one, both of the size of an evaluation."""
    n = evaluator(dataset).n_samples
    against = Evaluator(dataset, dataset.real(n, 2 * pair + 1))
    return against(torch.from_numpy(dataset.real(n, 2 * pair))[None])[0]


def moment_matched(dataset: Dataset, draw: int) -> np.ndarray:
    """Draw `n_samples` from the Gaussian with the mean and covariance of real data, float32 (n_samples, *shape).

    Images are clipped to their range. (For pixels, this is the Gaussian in all principal components.)
    """
    n = evaluator(dataset).n_samples
    rng = generator(0, f"trivial/{dataset.name}", draw)
    if isinstance(dataset, Stacked):  # channels are independent: draw each from the moments of single images
        samples = _gaussian(dataset.digits.real(dataset.prepared.train, "held_out"), n * dataset.shape[0], rng)
    else:
        samples = _gaussian(dataset.real(n, "held_out"), n, rng)
    if dataset.kind in ("images", "stacked"):
        samples = samples.clip(-dataset.max_abs, dataset.max_abs)
    single: np.ndarray = samples.astype(np.float32)
    return single.reshape(n, *dataset.shape)


def _gaussian(real: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` draws, float64 (n, components), from the Gaussian with the mean and covariance of `real`."""
    flat = real.reshape(len(real), -1).astype(np.float64)
    mean, (count, dim) = flat.mean(axis=0), flat.shape
    if dim <= count:
        values, vectors = np.linalg.eigh(np.cov(flat.T))
        root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T  # the symmetric root: eigenvectors have no fixed sign
        out: np.ndarray = mean + rng.standard_normal((n, dim)) @ root
    else:  # the same Gaussian without a (dim, dim) matrix: normal weights on the centred images
        out = mean + rng.standard_normal((n, count)) @ (flat - mean) / (count - 1) ** 0.5
    return out
