from __future__ import annotations

import numpy as np
import pytest
import torch

from vistudy.trainables.data.images.digits import DIGITS
from vistudy.trainables.metrics.coverage.pixels import LARGEST_SIDE, PixelPrecision, thumbnails
from vistudy.trainables.metrics.views import ImageView

N = 800


def precision(images: np.ndarray) -> float:
    def view(pixels: np.ndarray) -> ImageView:
        given = torch.from_numpy(pixels.astype(np.float32))
        return ImageView(images=given, features=given.flatten(1), logits=None)

    return PixelPrecision(DIGITS, view(DIGITS.real(N, "reference")))(view(images))["prec_pixels"]


def test_real_images_are_precise_and_what_is_none_is_not() -> None:
    real, rng = DIGITS.real(N, "held_out"), np.random.default_rng(0)
    assert precision(real) == pytest.approx(0.955, abs=0.025)
    assert precision(0.5 * real) == pytest.approx(precision(real), abs=0.01)  # contrast does not count ...
    for nothing in (-1.0, 0.0, 1.0):  # ... and a blank image is not near thin digits
        assert precision(np.full_like(real, nothing)) == 0
    assert precision(-1 + 0.001 * rng.standard_normal(real.shape)) == 0  # faint noise is not enhanced into something
    assert precision(np.sign(rng.standard_normal(real.shape))) == 0
    assert precision(-real) == 0
    one = np.sign(rng.standard_normal(real.shape[1:]))  # saturated garbage, repeated
    assert precision(np.broadcast_to(one, real.shape)) == 0


def test_thumbnails_are_small_whatever_the_image() -> None:
    for side in (8, 16, 28, 33, 64):
        rows = thumbnails(torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(0)))
        assert rows.shape[1] <= 2 * LARGEST_SIDE**2
        torch.testing.assert_close(rows.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-6)
