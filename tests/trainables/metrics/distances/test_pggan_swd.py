from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import torch

from tests.trainables.metrics.fakes import PLAIN
from vistudy.trainables.metrics.distances import pggan_swd
from vistudy.trainables.metrics.distances.pggan_swd import (
    DIRECTIONS,
    PATCHES,
    PgganSwd,
    blur,
    directions,
    enlarge,
    laplacian_pyramid,
    patches,
    projections,
    sliced_w1,
)
from vistudy.trainables.metrics.views import ImageView
from vistudy.trainables.random_streams import generator


def images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def view(samples: torch.Tensor) -> ImageView:
    return ImageView(images=samples, features=samples.flatten(1), logits=None)


def binomial() -> np.ndarray:
    row = np.array([1, 4, 6, 4, 1]) / 16
    return np.outer(row, row)[None, None]


def test_the_filter_is_scipys_with_a_mirrored_border() -> None:
    x = images(3, 2, 20, 17)
    expected = scipy.ndimage.convolve(x.double().numpy(), binomial(), mode="mirror")
    assert np.allclose(blur(x).numpy(), expected, atol=1e-6)


def test_enlarging_fills_with_zeros_and_makes_up_for_them() -> None:
    x = images(2, 1, 9, 8)
    wide = np.zeros((2, 1, 18, 16))
    wide[:, :, ::2, ::2] = x.numpy()
    expected = scipy.ndimage.convolve(wide, 4 * binomial(), mode="mirror")
    assert np.allclose(enlarge(x, (17, 16)).numpy(), expected[:, :, :17], atol=1e-6)
    assert np.allclose(enlarge(torch.ones(1, 1, 8, 8), (16, 16))[..., 4:12, 4:12].numpy(), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(8, [8]), (28, [28]), (32, [32, 16]), (64, [64, 32, 16]), (63, [63, 32, 16]), (66, [66, 33, 17])],
)
def test_a_pyramid_goes_down_to_sixteen_and_loses_nothing(size: int, sizes: list[int]) -> None:
    x = images(2, 3, size, size)
    levels = laplacian_pyramid(x)
    assert [level.shape[2] for level in levels] == sizes
    whole = levels[-1]
    for finer in levels[-2::-1]:
        whole = finer + enlarge(whole, (finer.shape[2], finer.shape[3]))
    assert torch.allclose(whole, x, atol=1e-5)


def test_parts_do_not_change_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(10, 3, 40, 32)
    whole = laplacian_pyramid(images)
    monkeypatch.setattr(pggan_swd, "IMAGES_AT_ONCE", 4)
    assert all(torch.equal(a, b) for a, b in zip(laplacian_pyramid(images), whole, strict=True))


def test_patches_are_pieces_of_their_images_standardised_by_channel() -> None:
    # The value of a pixel tells image, row and column, so that a patch tells where it was cut.
    place = torch.arange(30.0)[:, None] * 100 + torch.arange(20.0)
    level = torch.stack([torch.stack([place, -3 * place]) + 10_000 * image for image in range(4)])
    found = patches(level, 50, np.random.default_rng(0)).reshape(200, 2, 7, 7)
    assert torch.allclose(found.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(found.square().mean(dim=(0, 2, 3)), torch.ones(2), atol=1e-4)
    down, right = found[:, 0].diff(dim=1), found[:, 0].diff(dim=2)
    assert torch.allclose(down, 100 * right[:, :1, :1].expand_as(down), rtol=1e-2)
    corners = found[:, 0, 0, 0].reshape(4, 50)
    assert bool((corners[:-1].max(dim=1).values < corners[1:].min(dim=1).values).all())  # 50 of each image, in order
    assert len(corners[0].unique()) > 25
    assert torch.equal(patches(torch.zeros(2, 1, 7, 7), 3, np.random.default_rng(0)), torch.zeros(6, 49))


def test_sliced_w1_is_pots() -> None:
    ot = pytest.importorskip("ot")
    x, y = images(300, 20), 0.5 + 2 * images(300, 20, seed=1)
    onto = directions(20, 64)
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=onto.T.numpy(), p=1)
    assert sliced_w1(projections(x, onto), projections(y, onto)) == pytest.approx(float(expected), abs=1e-6)
    assert torch.allclose(onto.norm(dim=1), torch.ones(64))


def test_a_shift_costs_its_mean_projection() -> None:
    x, onto = images(50, 3), directions(3, 20_000)
    shift = torch.tensor([0.0, 2.0, 0.0])
    value = sliced_w1(projections(x, onto), projections(x + shift, onto))
    assert value == pytest.approx(2 * 0.5, rel=0.02)  # in space a unit vector's component is 1/2 in the mean


def test_sets_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match="equal size"):
        sliced_w1(np.zeros((4, 10)), np.zeros((4, 9)))


def test_it_tells_texture_from_its_lack() -> None:
    real = torch.from_numpy(PLAIN.real(400, "reference"))
    metric = PgganSwd(PLAIN, view(real))
    held_out = torch.from_numpy(PLAIN.real(400, "held_out"))
    same, blurred, noisy = (
        metric(view(samples))["swd"]
        for samples in (held_out, blur(blur(held_out)), held_out + 0.3 * torch.randn(held_out.shape))
    )
    assert 0 < 4 * same < min(blurred, noisy)
    assert metric(view(held_out))["swd"] == same


def test_levels_are_averaged_and_brightness_is_standardised_away() -> None:
    data = dataclasses.replace(PLAIN, shape=(1, 32, 32))
    real, fake = images(60, 1, 32, 32), images(60, 1, 32, 32, seed=1).cumsum(dim=3)
    metric = PgganSwd(data, view(real))
    value = metric(view(fake))["swd"]
    assert metric(view(5 * fake))["swd"] == pytest.approx(value, rel=1e-4)
    onto, of_levels = directions(49, DIRECTIONS), []
    for stream, samples in enumerate((real, fake)):
        rng = generator(0, "pggan_swd/patches", stream)
        of_levels.append([projections(patches(level, PATCHES, rng), onto) for level in laplacian_pyramid(samples)])
    by_level = [sliced_w1(*pair) for pair in zip(*of_levels, strict=True)]
    assert len(by_level) == 2
    assert value == pytest.approx(1000 * np.mean(by_level), rel=1e-6)


def test_images_smaller_than_a_patch_are_refused() -> None:
    tiny = dataclasses.replace(PLAIN, shape=(1, 6, 9))
    with pytest.raises(ValueError, match=r"'plain'.*\(1, 6, 9\).*smaller than a 7x7 patch"):
        PgganSwd(tiny, view(torch.zeros(3, 1, 6, 9)))
