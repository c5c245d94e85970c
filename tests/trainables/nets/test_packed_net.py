from __future__ import annotations

import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from vistudy.trainables.nets.architectures import Sizes, discriminator_arch, generator_arch
from vistudy.trainables.nets.packed_net import PackedNet

CPU = torch.device("cpu")
SHAPES = {"mlp": (2,), "dcgan": (1, 8, 8)}
NORMS = ("none", "bn", "none_ref_nobias")


def nets(
    net: str, norm: str, seeds: list[int], shape: tuple[int, ...] | None = None, *, channels_last: bool = False
) -> tuple[PackedNet, PackedNet]:
    shape, init = shape or SHAPES[net], "dcgan" if net == "dcgan" else "he"
    sizes = Sizes(width=4 if net == "dcgan" else 16, depth=2, norm=norm, init=init)
    g, d = generator_arch(net, shape, 5, sizes), discriminator_arch(net, shape, sizes)
    return tuple(
        PackedNet(arch, seeds, role, CPU, channels_last=channels_last)
        for arch, role in ((g, "generator"), (d, "discriminator"))
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("net", SHAPES)
def test_a_pack_is_its_trials(net, norm):
    """Samples, logits and gradients of each trial in a pack are those of the trial alone."""
    g, d = nets(net, norm, [3, 1, 4])
    z = torch.randn(3, 7, 5)
    d.backward(d(g(z, g.frozen), d.leaves).square().mean((1, 2)).sum())
    for i, seed in enumerate([3, 1, 4]):
        g1, d1 = nets(net, norm, [seed])
        x1 = g1(z[i : i + 1], g1.frozen)
        logits1 = d1(x1, d1.leaves)
        d1.backward(logits1.square().mean((1, 2)).sum())
        torch.testing.assert_close(g(z, g.frozen)[i : i + 1], x1, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(d.gradient[i : i + 1], d1.gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_channels_last_is_the_same_net_in_another_layout(norm, shape):
    plain, other = (nets("dcgan", norm, [3], shape, channels_last=last) for last in (False, True))
    z = torch.randn(1, 7, 5)
    for a, b, x in zip(plain, other, (z, plain[0](z, plain[0].frozen)), strict=True):
        for net in (a, b):
            net.backward(net(x, net.leaves).square().mean())
        assert all(torch.equal(view, b.frozen[name]) for name, view in a.frozen.items())
        assert torch.equal(a.flat, b.to_contiguous(b.flat))
        assert torch.equal(b.from_contiguous(a.flat), b.flat)
        assert not torch.equal(a.flat, b.flat)
        torch.testing.assert_close(a.gradient, b.to_contiguous(b.gradient), rtol=1e-3, atol=1e-6)
        kernels = [view[0] for view in b.frozen.values() if view.dim() == 5]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_mlp_equals_torch_modules():
    g, _ = nets("mlp", "none", [0])
    p = {name: view[0] for name, view in g.frozen.items()}
    plain = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        for layer, name in zip(plain[::2], ("hidden0", "hidden1", "out"), strict=True):
            layer.weight.copy_(p[f"{name}.weight"])
            layer.bias.copy_(p[f"{name}.bias"])
        z = torch.randn(9, 5)
        torch.testing.assert_close(g(z[None], g.frozen)[0], plain(z), rtol=1e-5, atol=1e-6)


def test_batch_norm_equals_torch_in_training_and_evaluation():
    g, _ = nets("mlp", "bn", [0])
    p = {name: view[0] for name, view in g.frozen.items()}
    first, second = nn.BatchNorm1d(16), nn.BatchNorm1d(16)

    def plain(z: torch.Tensor) -> torch.Tensor:
        h = torch.relu(first(z @ p["hidden0.weight"].T))
        h = torch.relu(second(h @ p["hidden1.weight"].T))
        return h @ p["out.weight"].T + p["out.bias"]

    with torch.no_grad():
        for _ in range(3):
            z = torch.randn(8, 5)
            torch.testing.assert_close(g(z[None], g.frozen, g.running, 0.1)[0], plain(z), rtol=1e-4, atol=1e-5)
        first.eval(), second.eval()
        z = torch.randn(8, 5)
        torch.testing.assert_close(g(z[None], g.frozen, g.running)[0], plain(z), rtol=1e-4, atol=1e-5)


def test_without_momentum_or_stats_nothing_is_remembered():
    g, _ = nets("mlp", "bn", [0])
    before = {name: (mean.clone(), var.clone()) for name, (mean, var) in g.running.items()}
    g(torch.randn(1, 8, 5), g.frozen)
    g(torch.randn(1, 8, 5), g.frozen, g.running)
    for name, (mean, var) in g.running.items():
        assert torch.equal(mean, before[name][0])
        assert torch.equal(var, before[name][1])


def test_off_keeps_biases_and_the_reference_has_none():
    names = {norm: set(nets("dcgan", norm, [0])[0].frozen) for norm in NORMS}
    assert {"dense.bias", "up2.bias", "up1.bias"} <= names["none"]
    assert {n for n in names["none_ref_nobias"] if n.endswith("bias")} == {"up1.bias"}
    assert {"dense.scale", "dense.shift", "up2.scale"} <= names["bn"]
    assert "dense.bias" not in names["bn"]


def test_weights_are_paired_over_norms_and_packs():
    a, b = nets("mlp", "none", [5])[0].frozen, nets("mlp", "bn", [2, 5])[0].frozen
    assert torch.equal(a["hidden1.weight"][0], b["hidden1.weight"][1])


@pytest.mark.parametrize(("size", "stages"), [(8, 2), (28, 3), (32, 3), (64, 4)])
def test_dcgan_sizes(size, stages):
    g, d = nets("dcgan", "none", [0, 1], (3, size, size))
    x = g(torch.randn(2, 3, 5), g.frozen)
    assert x.shape == (2, 3, 3, size, size)
    assert x.abs().max() <= 1
    assert d(x, d.frozen).shape == (2, 3, 1)
    assert sum(name.startswith("down") and name.endswith("weight") for name in d.frozen) == stages


def test_dcgan_equals_plain_convolutions():
    g, d = nets("dcgan", "none", [0])
    p = {name: view[0] for name, view in g.frozen.items()}
    z = torch.randn(6, 5)
    h = torch.relu(F.linear(z, p["dense.weight"], p["dense.bias"])).view(6, 8, 2, 2)
    h = torch.relu(F.conv_transpose2d(h, p["up2.weight"], p["up2.bias"], 2, 2, 1))
    x = torch.tanh(F.conv_transpose2d(h, p["up1.weight"], p["up1.bias"], 2, 2, 1))
    torch.testing.assert_close(g(z[None], g.frozen)[0], x, rtol=1e-4, atol=1e-6)
    q = {name: view[0] for name, view in d.frozen.items()}
    h = F.leaky_relu(F.conv2d(x, q["down0.weight"], q["down0.bias"], 2, 2), 0.2)
    h = F.leaky_relu(F.conv2d(h, q["down1.weight"], q["down1.bias"], 2, 2), 0.2)
    logit = F.linear(h.flatten(1), q["out.weight"], q["out.bias"])
    torch.testing.assert_close(d(x[None], d.frozen)[0], logit, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("init", "spread"),
    [("he", math.sqrt(2 / 64)), ("xavier", math.sqrt(2 / 128)), ("torch", math.sqrt(1 / (3 * 64))), ("dcgan", 0.02)],
)
def test_initial_spread(init, spread):
    arch = generator_arch("mlp", (2,), 8, Sizes(width=64, depth=2, norm="none", init=init))
    weight = PackedNet(arch, list(range(8)), "generator", CPU).frozen["hidden1.weight"]
    assert weight.std().item() == pytest.approx(spread, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=spread / 50)
