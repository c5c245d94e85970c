"""Fixed random convolutions: feature extractor for images without labels, with any number of channels and any size.

Nothing is learned, so the features know nothing of what images show. They do represent edges, textures and their
positions, and distances in them order failures (docs/metrics.md). Values are comparable for one image shape only.
Source: random embeddings for coverage and precision, Naeem et al. 2020 (arXiv:2002.09797), section 4.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vistudy.trainables.random_streams import generator

FEATURES = 64
CHANNELS = 32
COARSEST = 4
"""Layers halve the image until it is no larger than this; the result is averaged to 2x2."""
IMAGES_AT_ONCE = 500


@functools.cache
def weights(channels: int, layers: int) -> tuple[Tensor, ...]:
    """Gaussian weights (out, in, 3, 3) per layer, variance 2 / inputs; the last has a quarter of the features."""
    out = []
    for layer in range(layers):
        wider = FEATURES // 4 if layer == layers - 1 else CHANNELS
        values = generator(0, "features/random_conv", layer).standard_normal((wider, channels, 3, 3), dtype=np.float32)
        out.append(torch.from_numpy(values * np.float32((2 / (9 * channels)) ** 0.5)))
        channels = wider
    return tuple(out)


def random_conv(images: Tensor) -> Tensor:
    """Features (N, 64) of images (N, C, H, W) in [-1, 1]: strided 3x3 convolutions with leaky ReLU, on a 2x2 grid."""
    size, layers = max(images.shape[2:]), 0
    while layers < 2 or size > COARSEST:
        size, layers = (size + 1) // 2, layers + 1
    return torch.cat([_forward(part, weights(images.shape[1], layers)) for part in torch.split(images, IMAGES_AT_ONCE)])


def _forward(images: Tensor, layers: tuple[Tensor, ...]) -> Tensor:
    for weight in layers:
        images = F.leaky_relu(F.conv2d(images, weight, stride=2, padding=1), 0.2)
    return F.adaptive_avg_pool2d(images, 2).flatten(1)
