"""Passes by hand give autograd's gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vistudy.trainables import losses
from vistudy.trainables.nets import manual_gradients
from vistudy.trainables.nets.architectures import Mlp, Sizes, generator_arch
from vistudy.trainables.nets.packed_net import PackedNet

K, B, SEEDS = 3, 32, [0, 1, 2]


def mlp(norm: str, leak: float, depth: int) -> PackedNet:
    arch = Mlp(inputs=5, outputs=2, width=7, depth=depth, norm=norm, init="he", leak=leak)
    net = PackedNet(arch, SEEDS, "g", torch.device("cpu"))
    net.flat.add_(0.3 * normal(*net.flat.shape))  # scales are 1 and shifts 0 at first
    return net


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["none", "none_ref_nobias", "bn"])
@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("wrt", ["parameters", "inputs"])
def test_an_mlp_by_hand_is_autograd(norm: str, leak: float, depth: int, wrt: manual_gradients.WithRespectTo) -> None:
    net, x, grad_output = mlp(norm, leak, depth), normal(K, B, 5), normal(K, B, 2)
    by_hand = manual_gradients.forward_pass(net, x, wrt)
    by_autograd = manual_gradients.AutogradPass(net, x, wrt, None, None)
    assert isinstance(by_hand, manual_gradients.MlpPass)
    torch.testing.assert_close(by_hand.out, by_autograd.out)
    ours = by_hand.gradient(grad_output).clone()
    theirs = by_autograd.gradient(grad_output)
    assert theirs.abs().amax() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand.gradient(2 * grad_output), 2 * ours)  # may be asked again


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_running_statistics_are_those_of_torch(device: str) -> None:
    arch = Mlp(inputs=5, outputs=2, width=7, depth=2, norm="bn", init="he", leak=0.2)
    nets = [PackedNet(arch, SEEDS, "g", torch.device(device)) for _ in range(2)]
    for net in nets:
        net.flat.add_(0.3 * normal(*net.flat.shape).to(device))
    for i in range(3):
        x, grad_output = 3 + (i + 2) * normal(K, B, 5).to(device), normal(K, B, 2).to(device)
        made = (manual_gradients.forward_pass(nets[0], x, "parameters", nets[0].running, 0.1),
                manual_gradients.AutogradPass(nets[1], x, "parameters", nets[1].running, 0.1))  # fmt: skip
        assert isinstance(made[0], manual_gradients.MlpPass)
        torch.testing.assert_close(made[0].out, made[1].out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made[0].gradient(grad_output), made[1].gradient(grad_output), rtol=1e-3, atol=1e-4)
    for layer in nets[0].running:
        for ours, theirs in zip(nets[0].running[layer], nets[1].running[layer], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_lies_between_parameters_has_no_gradient() -> None:
    net = mlp("none", 0.2, 2)
    gradient = manual_gradients.forward_pass(net, normal(K, B, 5), "parameters").gradient(normal(K, B, 2))
    used = torch.cat([view.flatten(1) for view in net.views(gradient).values()], 1)
    assert gradient.shape[1] > used.shape[1]
    assert gradient.double().norm() == pytest.approx(used.double().norm().item(), rel=1e-12)


def test_a_pass_that_lost_its_buffers_says_so() -> None:
    net = mlp("none", 0.2, 2)
    first = manual_gradients.forward_pass(net, normal(K, B, 5), "parameters")
    other_size = manual_gradients.forward_pass(net, normal(K, B + 1, 5), "parameters")
    first.gradient(normal(K, B, 2))
    manual_gradients.forward_pass(net, normal(K, B, 5), "inputs")
    with pytest.raises(RuntimeError, match="another batch"):
        first.gradient(normal(K, B, 2))
    other_size.gradient(normal(K, B + 1, 2))


def test_samples_survive_the_next_pass() -> None:
    net = mlp("none", 0.2, 2)
    first = manual_gradients.forward_pass(net, normal(K, B, 5), "parameters").out
    kept = first.clone()
    manual_gradients.forward_pass(net, 2 * normal(K, B, 5), "parameters")
    assert torch.equal(first, kept)


@pytest.mark.parametrize(("net", "norm"), [("shaped_mlp", "none"), ("dcgan", "none")])
def test_other_nets_go_by_autograd(net: str, norm: str) -> None:
    arch = generator_arch(net.removeprefix("shaped_"), (1, 8, 8), 4, Sizes(width=4, depth=2, norm=norm, init="he"))
    g, z = PackedNet(arch, SEEDS, "g", torch.device("cpu")), normal(K, B, 4)
    made = manual_gradients.forward_pass(g, z, "parameters")
    assert not made.out.requires_grad
    gradient = made.gradient(torch.ones_like(made.out)).clone()
    expected = g.backward(g(z, g.leaves).sum())
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("batch", [10, 64])
@pytest.mark.parametrize("name", sorted(losses.GENERATOR_LOSSES))
def test_generator_gradients(name: str, batch: int) -> None:
    logits = (30 * normal(K, batch)).requires_grad_()  # far into both tails
    (expected,) = torch.autograd.grad(losses.GENERATOR_LOSSES[name](logits).sum(), logits)
    torch.testing.assert_close(losses.GENERATOR_GRADIENTS[name](logits.detach()), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("batch", [10, 64])
def test_discriminator_gradient(batch: int) -> None:
    logits = (30 * normal(K, 2 * batch)).requires_grad_()
    loss = losses.discriminator(logits[:, :batch], logits[:, batch:])
    (expected,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(losses.discriminator_gradient(logits.detach()), expected, rtol=1e-5, atol=0)
