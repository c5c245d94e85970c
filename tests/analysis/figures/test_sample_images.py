"""Pictures of samples: the right place, the right colour, the same scene for all."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vistudy.analysis.figures.sample_images import draw_points, drawable, encode, render, tile_images

MODES = np.array([[1.0, 0.0], [0.0, 1.0]])


def blue(image: np.ndarray) -> np.ndarray:
    """Where points are: (row, column) of clearly blue pixels."""
    return np.argwhere(image[..., 2].astype(int) - image[..., 0] > 40)


def test_a_point_lies_where_it_should() -> None:
    image = draw_points(np.array([[0.5, 0.75]]), limit=1.0, size=200)
    assert image.shape == (200, 200, 3)
    assert image.dtype == np.uint8
    assert blue(image).mean(0) == pytest.approx([(1 - 0.75) / 2 * 199, (1 + 0.5) / 2 * 199], abs=1)


def test_modes_are_grey_and_fix_the_scene() -> None:
    near, far = (draw_points(np.array([[x, 0.0]]), modes=MODES) for x in (0.0, 0.4))
    changed = (near != far).any(2)
    background = draw_points(np.empty((0, 2)), modes=MODES)
    assert changed.mean() < 0.01
    assert np.array_equal(near[~changed], background[~changed])
    row, column = 160, round((1 + 1 / 1.4) / 2 * 319)
    pixel = background[row, column].astype(int)
    assert pixel.max() == pixel.min() < 230


def test_a_crowd_is_darker_than_one_point() -> None:
    one, many = (draw_points(np.zeros((n, 2)), limit=1.0).min() for n in (1, 20))
    assert many < one


def test_a_disc_hides_its_share_of_each_pixel() -> None:
    """Against discs drawn 12 times larger, their centres placed to a third of a pixel: one point, two that overlap."""
    size, fine = 380, 12
    centre = (np.arange(size * fine) + 0.5) / fine
    for centres in ([[0.1, -0.2]], [[0.1, -0.2], [0.106, -0.204]]):
        left = np.ones((size, size))
        for x, y in centres:
            column, row = (np.rint((v + 1) / 2 * (3 * size - 1)) / 3 + 1 / 6 for v in (x, -y))
            inside = (centre[:, None] - row) ** 2 + (centre - column) ** 2 <= (size / 190) ** 2
            left *= 1 - 0.45 * inside.reshape(size, fine, size, fine).mean((1, 3))
        image = draw_points(np.array(centres), limit=1.0, size=size).astype(float)
        expected = 255 * left + (1 - left) * 90
        off = np.abs(image[..., 1] - expected)[3:-3, 3:-3]
        assert off.max() < 12
        assert off.sum() < 0.06 * (255 - expected).sum()


def test_points_outside_and_broken_ones_show() -> None:
    inside = draw_points(np.array([[0.0, 0.0]]), limit=1.0)
    outside = draw_points(np.array([[0.0, 0.0], [50.0, 0.0]]), limit=1.0)
    broken = draw_points(np.array([[0.0, 0.0], [np.nan, 0.0]]), limit=1.0)
    changed = np.argwhere((inside != outside).any(2))
    assert len(changed) > 3
    assert changed[:, 1].min() > 300  # on the right edge
    assert tuple(inside[0, 0]) == (214, 214, 214)
    assert tuple(broken[0, 0]) == (200, 30, 30)


def test_half_precision_draws_the_same_scene() -> None:
    points = np.random.default_rng(0).standard_normal((50, 2)).round(1)
    difference = render(points.astype(np.float16), modes=MODES).astype(int) - render(points, modes=MODES)
    assert np.abs(difference).mean() < 0.2


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (5, 3, 2), (64, 8, 8), (200, 8, 8)])
def test_grid_of_images(n: int, columns: int, rows: int) -> None:
    grid = tile_images(np.zeros((n, 1, 8, 8)), size=200)
    factor = round((200 / columns - 1) / 8)
    gap = factor // 2
    assert grid.shape == (rows * (8 * factor + gap) + gap, columns * (8 * factor + gap) + gap, 3)


def test_pixels_are_enlarged_without_smoothing() -> None:
    image = np.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    grid = tile_images(image, size=42)
    assert grid.shape == (50, 50, 3)  # 4 pixels of 10, and a gap of 5 around them
    expected = ((image[0, 0] + 1) * 127.5).round().astype(np.uint8)
    assert np.array_equal(grid[5:-5, 5:-5, 0], np.kron(expected, np.ones((10, 10), np.uint8)))


def test_range_colour_and_bytes() -> None:
    colour = np.zeros((1, 3, 2, 2))
    colour[0, 0], colour[0, 1] = 7.0, -1.0
    middle = tile_images(colour, size=20)[8, 8]
    assert tuple(middle) == (255, 0, 128)
    plain = tile_images(np.full((1, 1, 2, 2), 99, np.uint8), size=20)
    assert tuple(plain[8, 8]) == (99, 99, 99)


def test_broken_pixels_are_magenta() -> None:
    images = np.zeros((1, 1, 2, 2))
    images[0, 0, 0, 0] = np.inf
    grid = tile_images(images, size=20)
    assert tuple(grid[6, 6]) == (255, 0, 255)
    assert tuple(grid[20, 20]) == (128, 128, 128)


@pytest.mark.parametrize("shape", [(5, 3), (5,), (2, 4, 8, 8), (2, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        render(np.zeros(shape))


def test_files_keep_every_pixel() -> None:
    image = render(np.random.default_rng(0).standard_normal((30, 2)), modes=MODES)
    again = Image.open(io.BytesIO(encode(image)))
    assert again.format == "PNG"
    assert np.array_equal(np.asarray(again.convert("RGB")), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 8), (500, 3), (4, 2, 8, 8), (64, 8, 8)])
def test_numbers_of_a_toy_have_no_picture(shape):
    assert not drawable(shape)
    with pytest.raises(ValueError, match="expected"):
        render(np.zeros(shape))
