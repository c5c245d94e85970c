from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import PLAIN
from vistudy.trainables.data.images.polygons import Polygons, rasterise
from vistudy.trainables.metrics.coverage.prdc import Prdc, PrdcWithoutPrec
from vistudy.trainables.metrics.coverage.triangles import TriangleShare, fitted_corners, triangle_errors
from vistudy.trainables.metrics.views import ImageView
from vistudy.trainables.random_streams import generator

SHAPES = Polygons(name="shapes")


def drawn(corners: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Corners of polygons, and their images in [-1, 1]."""
    places = dataclasses.replace(SHAPES, corners=corners).draw(generator(0, "test"), n)
    return places, (rasterise(places, 28)[:, None] / 127.5 - 1).astype(np.float32)


def share(images: np.ndarray) -> float:
    view = ImageView(images=torch.from_numpy(images), features=torch.zeros(len(images), 1), logits=None)
    values = TriangleShare(PLAIN, view)(view)
    assert values["prec"] == values["triangle_share"]
    return values["prec"]


def test_the_fit_finds_the_corners() -> None:
    places, _ = drawn(3, 40)
    fine = rasterise(places * 8, 224) > 127  # so fine that pixels are points
    gaps = np.linalg.norm(fitted_corners(fine)[:, :, None] / 8 - places[:, None], axis=3).min(axis=2)
    assert np.median(gaps) < 0.05
    assert gaps.max() < 0.5


def test_triangles_of_any_form_place_and_turn_are_triangles() -> None:
    _, images = drawn(3)
    assert share(images) == 1
    assert share(np.ascontiguousarray(images[:, :, ::-1])) == 1
    assert share(np.roll(images, (2, -2), (2, 3))) > 0.99
    assert np.median(triangle_errors(images)) < 0.04


def test_other_polygons_and_two_triangles_are_none() -> None:
    assert share(drawn(4)[1]) < 0.12
    assert share(drawn(6)[1]) == 0
    _, images = drawn(3)
    assert share((images + images[::-1]) / 2) < 0.1


@pytest.mark.parametrize(("sd", "least", "most"), [(0.02, 0.99, 1.0), (0.1, 0.4, 0.9), (0.3, 0.0, 0.02)])
def test_noise_is_told_by_how_much_of_it_there_is(sd: float, least: float, most: float) -> None:
    _, images = drawn(3)
    noise = np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
    assert least <= share((images + sd * noise).clip(-1, 1)) <= most


def test_brightness_beyond_white_is_no_triangle() -> None:
    assert share(3 * drawn(3)[1]) == 0


def test_a_dim_an_empty_and_a_full_image_are_none() -> None:
    _, images = drawn(3)
    dim = 0.7 * (images + 1) / 2 * 2 - 1  # brightness .7 instead of 1
    empty, full, dot = np.full((3, 1, 1, 28, 28), -1, dtype=np.float32)
    full[:], dot[..., 3, 4] = 1, 1
    errors = triangle_errors(np.concatenate([empty, full, dot, dim.astype(np.float32)]))
    assert np.isinf(errors[[0, 2]]).all()
    assert (errors[[1, *range(3, 303)]] > 0.2).all()


def test_the_shares_of_neighbours_leave_precision_to_it() -> None:
    assert set(Prdc.names) - set(PrdcWithoutPrec.names) == {"prec"}
    view = ImageView(images=torch.zeros(30, 1, 2, 2), features=torch.randn(30, 3), logits=None)
    assert set(PrdcWithoutPrec(PLAIN, view)(view)) == set(PrdcWithoutPrec.names)
