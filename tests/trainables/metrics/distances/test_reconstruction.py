from __future__ import annotations

import pytest
import torch

from vistudy.trainables.metrics.distances.reconstruction import reconstruction_mse


def test_it_is_the_mean_over_samples_and_components_of_each_trial() -> None:
    x = torch.zeros(2, 3, 1, 2, 2)
    near = x.clone()
    near[0] = 0.5
    near[1, 2, 0, 1, 1] = 6.0  # one of 12 components
    assert reconstruction_mse(x, near).tolist() == [0.25, 3.0]


def test_points_and_images_of_one_trial_alone_have_the_value_of_the_pack() -> None:
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(4, 50, 3, 8, 8, generator=generator), torch.randn(4, 50, 3, 8, 8, generator=generator)
    together = reconstruction_mse(x, other)
    assert together.dtype == torch.float64
    assert together.tolist() == pytest.approx(
        [float(reconstruction_mse(x[k : k + 1], other[k : k + 1])) for k in range(4)]
    )
    assert together.tolist() == pytest.approx([2.0] * 4, rel=0.05)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="its original's shape"):
        reconstruction_mse(torch.zeros(2, 5, 3), torch.zeros(2, 5, 1))
