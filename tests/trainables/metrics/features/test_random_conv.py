from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vistudy.trainables.metrics.features.random_conv import random_conv, weights
from vistudy.trainables.random_streams import generator


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 17, 33), (4, 2, 3)])
def test_there_are_64_features_of_any_images(shape: tuple[int, ...]) -> None:
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    features = random_conv(images)
    assert features.shape == (5, 64)
    assert bool((features.std(dim=0) > 0).all())


def test_weights_are_keyed_and_keep_the_scale() -> None:
    first, *_, last = weights(3, 4)
    drawn = generator(0, "features/random_conv", 0).standard_normal((32, 3, 3, 3), dtype=np.float32)
    assert np.allclose(first.numpy(), drawn * (2 / 27) ** 0.5, atol=1e-7)
    assert last.shape == (16, 32, 3, 3)
    assert float(last.square().sum(dim=(1, 2, 3)).mean()) == pytest.approx(2, rel=0.2)


def test_features_are_those_of_the_image_alone() -> None:
    images = torch.randn(700, 1, 28, 28, generator=torch.Generator().manual_seed(0))  # more than are seen at once
    assert torch.allclose(random_conv(images)[501], random_conv(images[501:502])[0], atol=1e-5)


@pytest.mark.parametrize(("size", "layers"), [(5, 2), (28, 3), (64, 4)])
def test_layers_halve_until_four_pixels_are_left_and_these_are_averaged_to_two(size: int, layers: int) -> None:
    images = torch.randn(3, 2, size, size, generator=torch.Generator().manual_seed(0))
    hidden = images
    for weight in weights(2, layers):
        hidden = F.leaky_relu(F.conv2d(F.pad(hidden, (1, 1, 1, 1)), weight)[:, :, ::2, ::2], 0.2)
    quarters = F.interpolate(hidden, size=(2, 2), mode="area")
    assert torch.allclose(random_conv(images), quarters.flatten(1), atol=1e-5)


def test_where_something_is_comes_through() -> None:
    left, right = torch.full((2, 1, 1, 28, 28), -1.0)
    left[0, 0, 10:18, 2:10] = 1
    right[0, 0, 10:18, 18:26] = 1
    dim = torch.full((1, 1, 28, 28), -1.0)
    dim[0, 0, 10:18, 2:10] = 0.9
    features = random_conv(torch.cat([left, right, dim]))
    gap = torch.cdist(features, features)
    assert gap[0, 1] > 15 * gap[0, 2] > 0
