from __future__ import annotations

import numpy as np
import pytest

from vistudy.trainables.data.images.polygons import POLYGONS, ROWS, Polygons, rasterise
from vistudy.trainables.random_streams import generator

SMALL = Polygons(name="small", train=300, reference=80)


def area(corners: np.ndarray) -> np.ndarray:
    """Shoelace formula, (n,)."""
    x, y = corners[..., 0], corners[..., 1]
    areas: np.ndarray = np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(axis=1)) / 2
    return areas


def test_a_square_covers_its_pixels_exactly() -> None:
    square = np.array([[[2, 1], [6, 1], [6, 4], [2, 4]]], dtype=np.float64)
    expected = np.zeros((8, 8), np.uint8)
    expected[1:4, 2:6] = 255
    assert np.array_equal(rasterise(square, 8)[0], expected)
    assert np.array_equal(rasterise(square[:, ::-1], 8)[0], expected)  # the other way round
    shifted = rasterise(square + np.array([0.25, 0.5]), 8)[0]
    assert shifted[2, 2] == 191  # three quarters of 255
    assert shifted[2, 6] == 64
    assert shifted[1, 4] == 128
    assert shifted[4, 4] == 128


@pytest.mark.parametrize("corners", [3, 4, 6])
def test_pixels_add_up_to_the_area(corners: int) -> None:
    shapes = Polygons(name="small", corners=corners).draw(generator(0, "test"), 200)
    total = rasterise(shapes, 28).astype(np.float64).sum(axis=(1, 2)) / 255
    assert total == pytest.approx(area(shapes), abs=1.0)
    assert np.abs(total - area(shapes)).mean() < 0.15


def test_rows_are_intervals() -> None:
    images = rasterise(POLYGONS.draw(generator(0, "test"), 300), 28)
    filled = (images == 255).astype(int)
    assert (np.abs(np.diff(filled, axis=2)).sum(axis=2) <= 2).all()
    assert (images[:, [0, -1]] == 0).mean() > 0.9


def test_corners_keep_their_angles_and_stay_inside() -> None:
    shapes = POLYGONS.draw(generator(0, "test"), 5000)
    assert shapes.mean(axis=1) == pytest.approx(np.full((5000, 2), 14.0), abs=0.01)
    assert shapes.min() >= 0
    assert shapes.max() <= 28
    sides = np.roll(shapes, -1, axis=1) - shapes
    # neighbours 20 degrees apart on a circle of radius 10.5
    assert np.linalg.norm(sides, axis=2).min() >= 2 * 10.5 * np.sin(np.radians(10)) - 0.02
    cross = sides[..., 0] * np.roll(sides, -1, 1)[..., 1] - sides[..., 1] * np.roll(sides, -1, 1)[..., 0]
    assert (cross > 0).all()  # convex, always in the same sense
    directions = np.degrees(np.arctan2(sides[:, 0, 1], sides[:, 0, 0]))
    assert np.histogram(directions, bins=8, range=(-180, 180))[0].min() > 0.8 * 5000 / 8


def test_images_are_fixed_and_differ() -> None:
    images = SMALL.prepared.images
    assert images.shape == (380, 1, 28, 28)
    assert len({image.tobytes() for image in images}) == 380
    again = np.concatenate(list(SMALL.source().read().chunks))
    assert np.array_equal(images, again)
    assert SMALL.real(80, "reference").shape == (80, 1, 28, 28)
    assert SMALL.prepared.train == 300
    with pytest.raises(ValueError, match="has 80 images, 81 were asked for"):
        SMALL.real(81, "reference")


def test_content_is_the_same_on_every_machine() -> None:
    assert SMALL.fingerprint == "abd5156a7fe07194ef6be147c3ff9ed82355dc01b4cedbacfb69d819656e7570"


def test_other_polygons_are_other_data() -> None:
    others = [SMALL, Polygons(name="small", train=300, reference=80, corners=4)]
    others += [Polygons(name="small", train=300, reference=80, shape=(1, 32, 32))]
    assert len({data.fingerprint for data in others}) == 3
    assert others[2].real(2, "reference").shape == (2, 1, 32, 32)
    assert ROWS == 8
