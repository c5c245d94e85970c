from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from trainables.data import DATASETS, Dataset
from trainables.metrics.evaluate import METRICS, Evaluator, evaluator

ALL = pytest.mark.parametrize("data", DATASETS.values(), ids=DATASETS)
EXPECTED = {
    "points": {"dist", "cov", "prec", "modes", "robust_modes", "hq_share", "reverse_kl", "energy_distance"},
    "images": {"dist", "cov", "prec", "fd", "class_coverage"}
    | {"prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage"},
}


def some(data: Dataset, k: int) -> torch.Tensor:
    """Samples (k, N, *shape) of mixed quality."""
    n = evaluator(data).n_samples
    noise = np.random.default_rng(0).standard_normal((k, n, *data.shape), dtype=np.float32)
    level = np.linspace(0, 0.5, k, dtype=np.float32).reshape(k, *[1] * (noise.ndim - 1))
    return torch.from_numpy(data.real(n, "held_out") + level * noise)


@ALL
def test_names_are_those_of_the_records(data: Dataset) -> None:
    judge = evaluator(data)
    values = judge(some(data, 1))[0]
    assert set(values) == EXPECTED[data.kind] == set(judge.names)
    assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())


def test_no_two_metrics_of_a_kind_write_one_name() -> None:
    for metrics in METRICS.values():
        counts = Counter(name for metric in metrics for name in metric.names)
        assert set(counts.values()) == {1}
        assert {"dist", "cov", "prec"} <= set(counts)


@ALL
def test_values_are_bitwise_those_of_the_trial_alone_even_beside_nan(data: Dataset) -> None:
    judge = evaluator(data)
    pack = some(data, 5)
    pack[3, 17] = float("nan")
    together = judge(pack)
    for k in (0, 1, 2, 4):
        assert together[k] == judge(pack[k : k + 1])[0]
    assert len({values["dist"] for values in together}) == 5
    assert set(together[3]) == set(together[0])
    assert all(math.isnan(value) for value in together[3].values())


@ALL
def test_infinite_samples_have_no_metrics(data: Dataset) -> None:
    pack = some(data, 1)
    pack[0, 0, 0] = float("inf")
    assert all(math.isnan(value) for value in evaluator(data)(pack)[0].values())


@ALL
def test_the_order_of_samples_means_nothing(data: Dataset) -> None:
    judge = evaluator(data)
    pack = some(data, 2)
    shuffled = pack[:, torch.randperm(judge.n_samples, generator=torch.Generator().manual_seed(0))]
    for values, again in zip(judge(pack), judge(shuffled), strict=True):
        assert again == pytest.approx(values, rel=1e-5)


@ALL
def test_full_collapse_is_finite(data: Dataset) -> None:
    judge = evaluator(data)
    constant = torch.from_numpy(data.real(1, "held_out")).expand(1, judge.n_samples, *data.shape)
    values = judge(constant)[0]
    assert all(math.isfinite(value) for value in values.values())
    assert values["cov"] <= 0.125


@pytest.mark.parametrize("scale", [1e6, 1e15])
@ALL
def test_an_explosion_is_judged_without_raising(data: Dataset, scale: float) -> None:
    values = evaluator(data)(scale * some(data, 1))[0]
    assert values["dist"] > scale / 100
    assert values["cov"] == values["prec"] == 0


@ALL
def test_samples_that_need_gradients_or_are_strided_are_accepted(data: Dataset) -> None:
    pack = some(data, 4)
    expected = evaluator(data)(pack[::2].clone())
    assert evaluator(data)(pack.double().requires_grad_()[::2]) == expected


@ALL
def test_another_number_of_samples_is_refused(data: Dataset) -> None:
    pack = some(data, 2)
    with pytest.raises(ValueError, match=rf"'{data.name}' is judged by samples of shape"):
        evaluator(data)(pack[:, 1:])
    with pytest.raises(ValueError, match="is judged by samples of shape"):
        evaluator(data)(pack[0])
    with pytest.raises(ValueError, match="is judged by samples of shape"):
        Evaluator(data, data.real(100, "reference"))


@ALL
def test_an_evaluator_is_made_once(data: Dataset) -> None:
    assert evaluator(data) is evaluator(data)


@pytest.mark.gpu
@ALL
def test_samples_on_a_gpu_are_judged_as_on_the_cpu(data: Dataset) -> None:
    pack = some(data, 2)
    assert evaluator(data)(pack.cuda()) == evaluator(data)(pack)


def test_what_outcomes_are_judged_by_is_one_of_the_named_metrics() -> None:
    points, images = (evaluator(DATASETS[name])(some(DATASETS[name], 4))[3] for name in ("ring8", "digits"))
    assert (points["cov"], points["prec"]) == (points["robust_modes"] / 8, points["hq_share"])
    assert (images["dist"], images["cov"], images["prec"]) == (
        images["fd"],
        images["prdc_coverage"],
        images["prdc_precision"],
    )
    assert len({images[name] for name in images if name.startswith("prdc")}) == 4
