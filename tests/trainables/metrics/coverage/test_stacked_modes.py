from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN, STACKED_BARS
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.metrics.coverage.stacked_modes import StackedModes, stacked_statistics
from vistudy.trainables.metrics.features.feature_spaces import feature_space
from vistudy.trainables.metrics.views import StackedView, view_stacked

N = 26_000


def triples(modes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([modes // 100, modes // 10 % 10, modes % 10], axis=1))


def test_reverse_kl_of_real_triples_is_its_finite_sample_bias() -> None:
    rng = np.random.default_rng(0)
    values = [stacked_statistics(torch.from_numpy(rng.integers(0, 10, (N, 3))), 10) for _ in range(10)]
    bias = (1000 - 1) / (2 * N)
    assert bias == pytest.approx(0.01921, abs=5e-6)
    assert np.mean([v["reverse_kl"] for v in values]) == pytest.approx(bias, rel=0.03)  # 4 sd
    assert {v["modes"] for v in values} == {v["robust_modes"] for v in values} == {1000.0}


@pytest.mark.parametrize(("reached", "expected"), [(99, 2.3126), (150, 1.8971)])
def test_reverse_kl_of_an_even_part_of_the_modes(reached: int, expected: float) -> None:
    values = stacked_statistics(triples(np.tile(np.arange(reached) * 7 % 1000, 20)), 10)
    assert values["reverse_kl"] == pytest.approx(expected, abs=5e-5)
    assert values["modes"] == reached


def test_a_mode_is_robust_from_a_tenth_of_its_fair_number() -> None:
    # 26,000 samples: fair is 26, robust from 2.6.
    modes = np.concatenate([np.repeat(np.arange(10), 3), np.repeat(np.arange(10, 25), 2), np.full(N - 60, 999)])
    values = stacked_statistics(triples(modes), 10)
    assert values["modes"] == 26
    assert values["robust_modes"] == 11


def test_the_order_of_channels_is_part_of_the_mode() -> None:
    assert stacked_statistics(torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 3]]), 10)["modes"] == 2


def test_precision_is_the_share_that_is_confident_in_every_channel() -> None:
    view = StackedView(
        features=torch.zeros(4, 2),
        labels=torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3]]),
        confidence=torch.tensor([0.95, 0.9, 0.89, 0.2]),
    )
    values = StackedModes(BARS, view)(view)
    assert values["prec"] == values["confident_share"] == 0.5
    assert values["cov"] == values["robust_modes"] / 16 == 0.25
    assert values["reverse_kl"] == pytest.approx(math.log(4))


def test_channels_are_seen_one_by_one_by_the_classifier_of_the_single_images() -> None:
    space = feature_space(STACKED_BARS)
    samples = torch.from_numpy(STACKED_BARS.real(50, "reference"))
    view = view_stacked(samples, space.transform)
    second_features, second_logits = space.transform(samples[:, 1:].clone())
    assert second_logits is not None
    assert torch.allclose(view.features[:, 64:], second_features, atol=1e-5)
    assert torch.equal(view.labels[:, 1], second_logits.argmax(dim=1))
    first = space.transform(samples[:, :1].clone())[1]
    assert first is not None
    best = torch.stack([logits.softmax(1).max(1).values for logits in (first, second_logits)]).min(dim=0).values
    assert torch.allclose(view.confidence, best, atol=1e-5)


def test_data_without_classes_have_no_modes() -> None:
    view = StackedView(
        features=torch.zeros(1, 2), labels=torch.zeros(1, 2, dtype=torch.int64), confidence=torch.ones(1)
    )
    with pytest.raises(DataError, match="modes: data 'plain' has no labels"):
        StackedModes(PLAIN, view)
