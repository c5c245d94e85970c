from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_gan import Draws, Gan, mlp
from tests.trainables.configs import gan
from vistudy.trainables.data import DATASETS
from vistudy.trainables.models.gan import GanConfig, GanPack
from vistudy.trainables.nets.packed_net import PackedNet
from vistudy.trainables.random_streams import BLOCK, normal

UPDATES = 20
ARMS = [(norm, g_steps) for norm in ("none", "bn", "none_ref_nobias") for g_steps in (2, 10)]


def config(norm: str, g_steps: int, **fields: Any) -> GanConfig:
    # A small rate: at larger ones a ReLU at 0 flips by rounding, and a peer perturbed by 1e-7 departs as much.
    return gan(norm=norm, g_steps=g_steps, reg_weight=5.0, batch_size=64, **({"g_lr": 2e-4, "d_lr": 2e-4} | fields))


def copy_weights(net: nn.Sequential, packed: PackedNet) -> None:
    """Give a peer's net the first trial's weights. Both list them from the input on."""
    theirs = [view[0] for view in packed.frozen.values()]
    mine = list(net.parameters())
    assert [p.shape for p in mine] == [p.shape for p in theirs]
    with torch.no_grad():
        for p, value in zip(mine, theirs, strict=True):
            p.copy_(value)


def streamed(draw: Callable[[int, int], np.ndarray], seed: int) -> Callable[[], Tensor]:
    def steps() -> Iterator[Tensor]:
        block = 0
        while True:
            yield from torch.from_numpy(draw(seed, block))
            block += 1

    assert BLOCK > 1
    found = steps()
    return lambda: next(found)


def engine_draws(c: GanConfig) -> Draws:
    """The engine's own numbers, in its order."""
    assert c.z_use == "pool"
    return Draws(
        real=streamed(lambda seed, block: DATASETS[c.data].block(seed, block, c.batch_size), c.seed),
        z_d=streamed(normal("z_d", (c.batch_size, c.z_dim)), c.seed),
        z_g=streamed(normal("z_g", (c.batch_size, c.z_dim)), c.seed),
    )


def peer_with_engine_weights(c: GanConfig, pack: GanPack) -> Gan:
    peer = Gan(c.to_dict())
    copy_weights(peer.g, pack.g)
    copy_weights(peer.d, pack.d)
    return peer


@pytest.mark.parametrize(("norm", "g_steps"), ARMS)
def test_the_plain_peer_has_the_engine_s_losses(norm: str, g_steps: int) -> None:
    c = config(norm, g_steps)
    pack = GanPack([c], torch.device("cpu"))
    peer, source = peer_with_engine_weights(c, pack), engine_draws(c)
    for _ in range(UPDATES):
        ours = pack.period(diagnose=True)
        d_loss = peer.d_step(source)
        *_, g_loss = peer.g_phase(source)
        torch.testing.assert_close(d_loss, ours["d_loss"][0], rtol=0, atol=1e-4)
        torch.testing.assert_close(g_loss, ours["g_loss"][0], rtol=0, atol=1e-4)
    assert pack.d_updates == UPDATES


def trained(c: GanConfig, periods: int) -> tuple[Gan, GanPack]:
    pack = GanPack([c], torch.device("cpu"))
    peer, source = peer_with_engine_weights(c, pack), engine_draws(c)
    for _ in range(periods):
        pack.period(diagnose=False)
        peer.d_step(source)
        list(peer.g_phase(source))
    return peer, pack


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_the_plain_peer_samples_what_the_engine_samples(norm: str) -> None:
    c = config(norm, 10)
    peer, pack = trained(c, 3)
    z = torch.randn(500, c.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pack.g(z[None], pack.g.frozen, pack.g.running)[0]
    samples, running = peer.samples(z)
    assert (running is None) == (norm == "none")
    torch.testing.assert_close(samples if running is None else running, expected, rtol=0, atol=1e-4)


def test_both_recalibrate_to_the_statistics_of_fresh_z() -> None:
    c = config("bn", 2, bn_recalibration_images=20480)
    peer, pack = trained(c, 3)
    recalibrated, running = (x[0] for x in pack.evaluation_samples(500, 0) if x is not None)
    z = pack.fixed_normal("z_eval", 500, c.z_dim)
    torch.manual_seed(0)
    mine, _ = peer.samples(z[0])
    apart = float((mine - recalibrated).abs().mean())
    assert apart < 0.1 * float((running - recalibrated).abs().mean())


def test_recalibrated_statistics_do_not_touch_those_of_training() -> None:
    peer = Gan(config("bn", 2).to_dict())
    before = {name: value.clone() for name, value in peer.g.state_dict().items()}
    samples, running = peer.samples(torch.randn(100, 8))
    assert running is not None
    assert not torch.allclose(samples, running)
    assert all(torch.equal(value, before[name]) for name, value in peer.g.state_dict().items())


def test_initial_weights_have_the_engine_s_distribution() -> None:
    layers = mlp([8, 512, 2], "none", nn.ReLU(), norm_first=True, running=True)
    assert isinstance(layers[0], nn.Linear)
    weight, bias = layers[0].weight, layers[0].bias
    assert float(weight.detach().std()) == pytest.approx((2 / 8) ** 0.5, rel=0.05)
    assert not bias.any()


def test_the_peer_refuses_what_it_is_not_written_for() -> None:
    with pytest.raises(ValueError, match="anchor"):
        Gan(config("none", 2, anchor="ema").to_dict())
