"""Shares of a GPU's memory, and precisions."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.configs import gan
from vistudy.trainables.device import CONTEXT_BYTES, limit_memory, precision_context, share_of_memory
from vistudy.trainables.models.gan import GanPack


def test_a_share_of_a_gpu_leaves_room_for_the_other_processes():
    gib = 2**30
    assert share_of_memory(80 * gib, 1.0) == 80 * gib
    for packs in (2, 4, 8):
        assert packs * (share_of_memory(80 * gib, 1 / packs) + CONTEXT_BYTES) <= 80 * gib
    assert share_of_memory(2 * gib, 1 / 4) == gib / 4  # a small one: half of the share at least


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_more_than_its_share_of_a_gpu_is_out_of_memory():
    device = torch.device("cuda:0")
    mine = limit_memory(device, 1 / 4)
    assert mine is not None
    try:
        torch.cuda.empty_cache()
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(mine + 2**20, dtype=torch.uint8, device=device)
    finally:
        limit_memory(device, 1.0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("fields", [{}, {"norm": "bn"}, {"data": "digits", "net": "dcgan", "width": 4}], ids=str)
def test_bf16_is_close_to_fp32_and_not_the_same(device, fields):
    device = torch.device(device)
    a, b = (GanPack([gan(seed=s, precision=p, **fields) for s in range(3)], device) for p in ("fp32", "bf16"))
    losses = []
    for pack, precision in ((a, "fp32"), (b, "bf16")):
        with precision_context(precision, device):
            losses.append(pack.period(diagnose=True)["d_loss"])
    assert (losses[0] - losses[1]).abs().max() < 2e-2
    assert not torch.equal(losses[0], losses[1])
    assert b.g.flat.dtype == torch.float32
