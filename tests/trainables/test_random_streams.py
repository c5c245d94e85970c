from __future__ import annotations

import numpy as np
import torch

from vistudy.trainables.random_streams import BLOCK, Stream, generator, normal

CPU = torch.device("cpu")


def test_a_stream_depends_on_seed_role_and_step_alone():
    alone = Stream(normal("z", (3,)), [7], CPU)
    packed = Stream(normal("z", (3,)), [1, 7, 7, 2], CPU)
    for step in (0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 3):
        assert torch.equal(packed.at(step)[1], alone.at(step)[0])
        assert torch.equal(packed.at(step)[1], packed.at(step)[2])
        assert not torch.equal(packed.at(step)[0], packed.at(step)[1])


def test_steps_may_be_asked_in_any_order():
    forward, backward = (Stream(normal("z", (2,)), [3], CPU) for _ in range(2))
    steps = [0, BLOCK, 2 * BLOCK + 1]
    ahead = [forward.at(s).clone() for s in steps]
    behind = [backward.at(s).clone() for s in reversed(steps)]
    assert all(torch.equal(a, b) for a, b in zip(ahead, reversed(behind), strict=True))


def test_roles_and_blocks_differ():
    draws = [generator(s, r, b).standard_normal() for s in (0, 1) for r in ("a", "b") for b in (0, 1)]
    assert len(set(draws)) == 8


def test_moments():
    x = generator(0, "moments").standard_normal(200_000)
    assert abs(x.mean()) < 0.01
    assert abs(np.var(x) - 1) < 0.02
