from __future__ import annotations

import math

import numpy as np
import pytest

from vistudy.trainables.data.mixtures import GRID25, RING8, Mixture
from vistudy.trainables.random_streams import BLOCK

BOTH = pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)


def test_the_ring_has_eight_distinct_modes_at_radius_one() -> None:
    gaps = np.linalg.norm(RING8.means[:, None] - RING8.means, axis=2) + 10 * np.eye(8)
    assert gaps.min() == pytest.approx(2 * math.sin(math.pi / 8), abs=1e-6)
    assert np.linalg.norm(RING8.means, axis=1) == pytest.approx(np.ones(8), abs=1e-6)


def test_the_grid_is_pacgans() -> None:
    assert sorted({x for x, _ in GRID25.modes}) == [-4, -2, 0, 2, 4]
    assert len(set(GRID25.modes)) == 25
    assert GRID25.sd == 0.05


@BOTH
def test_points_are_an_equal_mixture_with_the_stated_sd(data: Mixture) -> None:
    points = data.real(200_000, "held_out")
    nearest = np.linalg.norm(points[:, None] - data.means, axis=2).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(data.modes)) / len(points)
    assert shares == pytest.approx(np.full(len(data.modes), 1 / len(data.modes)), abs=0.004)  # > 5 sd of a share
    assert (points - data.means[nearest]).std(axis=0) == pytest.approx([data.sd, data.sd], rel=0.01)
    assert np.abs(points).max() <= data.max_abs + data.sd


@BOTH
def test_blocks_depend_on_seed_and_block_only(data: Mixture) -> None:
    again = data.block(3, 7, 16)
    assert again.shape == (BLOCK, 16, 2)
    assert again.dtype == np.float32
    assert np.array_equal(data.block(3, 7, 16), again)
    assert not np.array_equal(data.block(4, 7, 16), again)
    assert not np.array_equal(data.block(3, 8, 16), again)


@BOTH
def test_splits_are_fixed_and_differ(data: Mixture) -> None:
    splits = [data.real(50, split) for split in ("reference", "held_out", 0, 1)]
    assert np.array_equal(data.real(50, "reference"), splits[0])
    assert len(np.unique(np.concatenate(splits), axis=0)) == 200


def test_evaluation_sets_are_not_a_trials_minibatches() -> None:
    trained_on = RING8.block(0, 0, 64).reshape(-1, 2)
    both = np.concatenate([trained_on, RING8.real(2500, "reference")])
    assert len(np.unique(both, axis=0)) == len(both)


def test_fingerprints_tell_contents_apart() -> None:
    wider = Mixture(name="ring8", modes=RING8.modes, sd=0.06)
    assert len({data.fingerprint for data in (RING8, GRID25, wider)}) == 3


def test_nets_that_make_images_are_refused_for_points() -> None:
    assert RING8.net_defaults(None) == {"net": "mlp", "width": 64, "depth": 2, "z_dim": 8}
    with pytest.raises(ValueError, match=r"'dcgan' makes images.*'ring8' can be learnt with net mlp"):
        RING8.net_defaults("dcgan")
    with pytest.raises(ValueError, match="'resnet' is not a family of nets"):
        RING8.net_defaults("resnet")
