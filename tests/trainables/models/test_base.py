"""Evaluation samples are made in parts: the same samples, and never more of them in one pass than is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.configs import gan
from vistudy.trainables.models import base
from vistudy.trainables.models.base import NetPack
from vistudy.trainables.models.gan import GanPack
from vistudy.trainables.nets.batch_norm import RECALIBRATION_BATCH
from vistudy.trainables.nets.packed_net import PackedNet


def trained(**fields: Any) -> GanPack:
    """Two trials after three periods: running statistics are those of no initial net."""
    pack = GanPack([gan(seed=s, **fields) for s in (0, 1)], torch.device("cpu"))
    for _ in range(3):
        pack.period(diagnose=False)
    return pack


def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Will hold, for each pass of any net, its batch and whether batch norm's statistics are given and fixed."""
    seen: list[tuple[int, bool]] = []
    forward = PackedNet.__call__

    def spy(net: PackedNet, x: Any, params: Any, stats: Any = None, momentum: Any = None) -> torch.Tensor:
        seen.append((x.shape[1], stats is not None and momentum is None))
        return forward(net, x, params, stats, momentum)

    monkeypatch.setattr(PackedNet, "__call__", spy)
    return seen


@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("data", [{"data": "ring8"}, {"data": "digits", "width": 4}], ids=["mlp", "dcgan"])
def test_samples_in_parts_are_the_same_samples(data, norm, monkeypatch):
    """250 in parts of 100, with recalibrated and with running statistics; the last part is smaller."""
    pack = trained(norm=norm, **data)
    whole = pack.sample(pack.g, 250, 1)
    monkeypatch.setattr(base, "SAMPLED_AT_ONCE", 100)
    seen = passes(monkeypatch)
    parts = pack.sample(pack.g, 250, 1)
    sampling = 2 * [(100, norm == "bn"), (100, norm == "bn"), (50, norm == "bn")]  # each trial by itself
    assert [one for one in seen if one[0] != RECALIBRATION_BATCH] == sampling * (2 if norm == "bn" else 1)
    for one, other in zip(parts, whole, strict=True):
        if one is None or other is None:
            assert one is other is None
            assert norm == "none"
            continue
        assert one.shape == (2, 250, *pack.data.shape)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    if norm == "bn":
        assert not torch.allclose(parts[0], parts[1])  # type: ignore[arg-type]


def test_what_fits_is_sampled_in_one_pass(monkeypatch):
    """Points and small images are judged by what one pass of a trial makes, to the bit."""
    pack: NetPack[Any] = trained()
    seen = passes(monkeypatch)
    samples, _ = pack.sample(pack.nets["g"], base.SAMPLED_AT_ONCE, 0)
    assert seen == [(base.SAMPLED_AT_ONCE, False)] * pack.k
    z = pack.fixed_normal("z_eval", base.SAMPLED_AT_ONCE, pack.config.z_dim)
    g = pack.nets["g"]
    for i in range(pack.k):
        assert torch.equal(samples[i : i + 1], g(z[i : i + 1], {n: p[i : i + 1] for n, p in g.frozen.items()}))
