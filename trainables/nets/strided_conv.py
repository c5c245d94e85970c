"""5x5 convolutions of stride 2 for K trials, and their transposes, in the form that is fastest on the device.

K trials are K groups. On a GPU, a single trial uses the channels-last layout, which tensor cores read directly. In that
layout, kernels for images with few channels are slow. So these convolutions are computed with 3x3 kernels of stride 1,
between maps of half the size and four times the channels: each 2x2 block of pixels becomes one pixel. See
docs/decisions/019.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = (2, 3, 4)
"""Numbers of image channels for which blocks of pixels are used; they are padded to 4, as kernels need multiples."""
_FULL = 4


def channels_last(device: torch.device, k: int) -> bool:
    """Whether convolutions of `k` trials use the channels-last layout; grouped ones are slower in it."""
    return device.type == "cuda" and k == 1


def to_conv_layout(h: Tensor, k: int) -> Tensor:
    """Convert activations (B, K*C, H, W) to the layout for convolutions."""
    return h.contiguous(memory_format=torch.channels_last) if channels_last(h.device, k) else h


def down(h: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> Tensor:
    """Convolve (B, K*I, H, W) with (K, O, I, 5, 5): (B, K*O, ceil(H / 2), ceil(W / 2))."""
    if _in_blocks(h.device, k, weight.shape[2], h.shape[2:]):
        return F.conv2d(_blocks(h), _kernel(weight[0]), bias, padding=1)
    return F.conv2d(to_conv_layout(h, k), weight.flatten(0, 1), bias, 2, 2, groups=k)


def up(h: Tensor, weight: Tensor, bias: Tensor | None, k: int, size: int) -> Tensor:
    """Transposed convolution of (B, K*I, S, S) with (K, I, O, 5, 5): (B, K*O, size, size), size 2 S or 2 S - 1."""
    if _in_blocks(h.device, k, weight.shape[2], (size, size)):
        if bias is not None:
            bias = F.pad(bias, (0, _FULL - len(bias))).repeat(4)
        blocks = F.conv_transpose2d(h, _kernel(weight[0]), bias, padding=1)
        return _pixels(blocks, weight.shape[2])
    return F.conv_transpose2d(h, weight.flatten(0, 1), bias, 2, 2, 1 - size % 2, groups=k)


def _in_blocks(device: torch.device, k: int, channels: int, size: tuple[int, ...]) -> bool:
    return channels_last(device, k) and channels in CHANNELS and not any(side % 2 for side in size)


def _blocks(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 16, H/2, W/2) in channels-last layout; the four channels of a pixel are adjacent."""
    b, c, h, w = x.shape
    split = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return F.pad(split, (0, _FULL - c)).reshape(b, h // 2, w // 2, 4 * _FULL).permute(0, 3, 1, 2)


def _pixels(blocks: Tensor, channels: int) -> Tensor:
    """The inverse of `_blocks`."""
    b, _, h, w = blocks.shape
    split = blocks.permute(0, 2, 3, 1).reshape(b, h, w, 2, 2, _FULL)[..., :channels]
    return split.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, 2 * h, 2 * w)


def _kernel(weight: Tensor) -> Tensor:
    """Convert a kernel (O, C, 5, 5) of stride 2 to one (O, 16, 3, 3) of stride 1 on blocks.

    Row u - 2 of the kernel, relative to pixel 2 i, is row p of block i + a with u = 2 (a + 1) + p: rows are paired.
    """
    o, c = weight.shape[:2]
    pairs = F.pad(weight, (0, 1, 0, 1, 0, _FULL - c)).reshape(o, _FULL, 3, 2, 3, 2)
    return pairs.permute(0, 3, 5, 1, 2, 4).reshape(o, 4 * _FULL, 3, 3).contiguous(memory_format=torch.channels_last)
