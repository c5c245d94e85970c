"""The distance of (26) and its gradient."""

from __future__ import annotations

import pytest
import torch

from vistudy.trainables import regularizer


def test_term_of_26_is_a_mean_over_batch_and_components():
    x, old = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    assert regularizer.sample_distance(x, old).tolist() == pytest.approx([14 / 6])


def test_gradient_of_the_term() -> None:
    x, old = torch.randn(3, 6, 4, requires_grad=True), torch.randn(3, 6, 4)
    (expected,) = torch.autograd.grad(regularizer.sample_distance(x, old).sum(), x)
    torch.testing.assert_close(regularizer.sample_distance_gradient(x.detach(), old), expected)
    assert not regularizer.sample_distance_gradient(old, old).any()
