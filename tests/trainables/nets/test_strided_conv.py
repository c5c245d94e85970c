"""Convolutions in blocks of pixels are those of PyTorch: outputs, all gradients, and gradients of gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistudy.trainables.nets import strided_conv


@pytest.fixture(params=[True, False])
def in_blocks(request, monkeypatch):
    """In double precision on a CPU, too, and not there."""
    monkeypatch.setattr(strided_conv, "channels_last", lambda device, k: request.param and k == 1)
    return request.param


def weights(*shape):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [6, 7, 8])
def test_down_is_a_strided_convolution(in_blocks, channels, size):
    x, weight, bias = weights(2, channels, size, size), weights(1, 5, channels, 5, 5), weights(5)
    out = strided_conv.down(x, weight, bias, 1)
    torch.testing.assert_close(out, F.conv2d(x, weight[0], bias, 2, 2))
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), (x, weight, bias)) for y in (out, F.conv2d(x, weight[0], bias, 2, 2))
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [6, 7, 8])
def test_up_is_a_transposed_convolution(in_blocks, channels, size):
    x, weight, bias = weights(2, 5, (size + 1) // 2, (size + 1) // 2), weights(1, 5, channels, 5, 5), weights(channels)
    out = strided_conv.up(x, weight, bias, 1, size)
    expected = F.conv_transpose2d(x, weight[0], bias, 2, 2, 1 - size % 2)
    assert out.shape[2:] == (size, size)
    torch.testing.assert_close(out, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), (x, weight, bias)) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_of_gradients(in_blocks):
    """As R1 takes them."""
    x, weight = weights(2, 3, 4, 4), weights(1, 2, 3, 5, 5)
    assert torch.autograd.gradgradcheck(lambda x, w: strided_conv.down(x, w, None, 1), (x, weight))
    h, weight = weights(2, 2, 2, 2), weights(1, 2, 3, 5, 5)
    assert torch.autograd.gradgradcheck(lambda h, w: strided_conv.up(h, w, None, 1, 4), (h, weight))


def test_trials_are_groups(in_blocks):
    x, weight, bias = weights(2, 6, 8, 8), weights(2, 5, 3, 5, 5), weights(10)
    alone = [
        strided_conv.down(x[:, 3 * i : 3 * i + 3], weight[i : i + 1], bias[5 * i : 5 * i + 5], 1) for i in range(2)
    ]
    torch.testing.assert_close(strided_conv.down(x, weight, bias, 2), torch.cat(alone, 1))
