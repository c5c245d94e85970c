"""MLP and DCGAN architectures, written once for K trials.

A linear layer is a batched matmul, a convolution has groups=K, and batch norm has K*C channels, so no operation mixes
trials. Activations of an MLP have the batch innermost, (K, features, B), so batch norm sees (1, K*C, B) without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistudy.trainables.nets import strided_conv

Hidden = Callable[[Tensor, str, float], Tensor]
Params = dict[str, Tensor]

LEAK = 0.2
"""Negative slope of the hidden activations of discriminators and encoders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamSpec:
    """One parameter of one trial."""

    name: str
    shape: tuple[int, ...]
    init: str
    """A name in INITS."""
    fan_in: int = 1
    fan_out: int = 1


class Arch(Protocol):
    """Architecture of a net: its parameters, its batch-norm layers and its forward pass."""

    @property
    def params(self) -> list[ParamSpec]:
        """All parameters in order."""

    @property
    def norms(self) -> dict[str, int]:
        """Batch-norm layer -> channels per trial. Empty without batch norm."""

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """Apply the net. `p` has shapes (K, *shape); `hidden(h, layer, leak)` is batch norm, if any, and `rectify_`."""


INITS: dict[str, Callable[[ParamSpec, np.random.Generator], np.ndarray | float]] = {
    "he": lambda s, rng: math.sqrt(2 / s.fan_in) * rng.standard_normal(s.shape),
    "xavier": lambda s, rng: math.sqrt(6 / (s.fan_in + s.fan_out)) * rng.uniform(-1, 1, s.shape),
    "torch": lambda s, rng: math.sqrt(1 / s.fan_in) * rng.uniform(-1, 1, s.shape),
    "dcgan": lambda s, rng: 0.02 * rng.standard_normal(s.shape),
    "ones": lambda s, rng: 1.0,
    "zeros": lambda s, rng: 0.0,
}
"""Initial weights: He et al. 2015; Glorot and Bengio 2010; torch's nn.Linear (biases too); N(0, 0.02), DCGAN."""


def _layer(name: str, norm: str, shape: tuple[int, ...], init: str, fan_in: int, fan_out: int) -> list[ParamSpec]:
    """The weight of a layer, and its bias (norm: none), scale and shift (bn) or neither (none_ref_nobias)."""
    out = [ParamSpec(name=f"{name}.weight", shape=shape, init=init, fan_in=fan_in, fan_out=fan_out)]
    if norm == "none":
        bias = "torch" if init == "torch" else "zeros"
        out.append(ParamSpec(name=f"{name}.bias", shape=(fan_out,), init=bias, fan_in=fan_in))
    elif norm == "bn":
        out.append(ParamSpec(name=f"{name}.scale", shape=(fan_out,), init="ones"))
        out.append(ParamSpec(name=f"{name}.shift", shape=(fan_out,), init="zeros"))
    return out


def _linear(p: Params, name: str, x: Tensor) -> Tensor:
    """(K, in, B) -> (K, out, B)."""
    out, bias = torch.bmm(p[f"{name}.weight"], x), p.get(f"{name}.bias")
    return out if bias is None else out.add_(bias.unsqueeze(2))  # baddbmm would first expand the bias


def rectify_(h: Tensor, leak: float) -> Tensor:
    """Apply (leaky) ReLU in place. On a view, its gradient would copy the whole of `h` three times."""
    return F.leaky_relu_(h, leak) if leak else F.relu_(h)


def _group_bias(p: Params, name: str) -> Tensor | None:
    bias = p.get(f"{name}.bias")
    return None if bias is None else bias.reshape(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mlp:
    """Fully connected net on vectors: x (K, B, in) -> (K, B, out)."""

    inputs: int
    outputs: int
    width: int
    depth: int
    norm: str
    init: str
    leak: float
    """Negative slope of the hidden activations; 0 is ReLU."""
    norm_first: bool = True
    """False: no batch norm on the first hidden layer (discriminators)."""

    def _norm(self, layer: int) -> str:
        return "none" if self.norm == "bn" and layer == 0 and not self.norm_first else self.norm

    @property
    def params(self) -> list[ParamSpec]:
        """Weights are (out, in)."""
        out, fan_in = [], self.inputs
        for i in range(self.depth):
            out += _layer(f"hidden{i}", self._norm(i), (self.width, fan_in), self.init, fan_in, self.width)
            fan_in = self.width
        return out + _layer("out", "none", (self.outputs, fan_in), self.init, fan_in, self.outputs)

    @property
    def norms(self) -> dict[str, int]:
        """Hidden layers with batch norm."""
        return {f"hidden{i}": self.width for i in range(self.depth) if self._norm(i) == "bn"}

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, in) -> (K, B, out)."""
        h = x.flatten(2).transpose(1, 2)
        for i in range(self.depth):
            h = hidden(_linear(p, f"hidden{i}", h), f"hidden{i}", self.leak)
        return _linear(p, "out", h).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapedMlp:
    """An MLP generator of images: tanh, and the output in the image's shape."""

    mlp: Mlp
    shape: tuple[int, ...]

    @property
    def params(self) -> list[ParamSpec]:
        """The MLP's."""
        return self.mlp.params

    @property
    def norms(self) -> dict[str, int]:
        """The MLP's."""
        return self.mlp.norms

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, z) -> (K, B, *shape)."""
        h = self.mlp.forward(p, x, hidden)
        return torch.tanh(h).view(*h.shape[:2], *self.shape)


def _stages(size: int) -> int:
    """Number of times an image side is halved: 2 for 8, 3 for 28 and 32, 4 for 64; the smallest map is 2 to 4 wide."""
    return max(1, math.ceil(math.log2(size)) - (1 if size <= 8 else 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class DcganGenerator:
    """z (K, B, z_dim) -> images in [-1, 1] (K, B, C, H, W): 5x5 transposed convolutions of stride 2, ReLU, tanh.

    Radford et al. 2016. Kernels are those of the paper's code. Paddings are 2 on each side, whereas TensorFlow's SAME
    pads an even side by 1 and 2; maps have the same sizes but are shifted by a pixel.
    """

    z_dim: int
    shape: tuple[int, ...]
    width: int
    norm: str
    init: str

    def _sizes(self) -> list[int]:
        """Side lengths of the maps, starting with the image."""
        sizes = [self.shape[1]]
        for _ in range(_stages(self.shape[1])):
            sizes.append((sizes[-1] + 1) // 2)
        return sizes

    def _channels(self) -> list[int]:
        """Channels of the maps, starting with the image."""
        return [self.shape[0]] + [self.width * 2**i for i in range(_stages(self.shape[1]))]

    @property
    def params(self) -> list[ParamSpec]:
        """Transposed convolutions are (in, out, 5, 5)."""
        sizes, channels = self._sizes(), self._channels()
        dense = channels[-1] * sizes[-1] ** 2
        out = _layer("dense", self.norm, (dense, self.z_dim), self.init, self.z_dim, dense)
        if self.norm == "bn":  # scale and shift per channel, not per pixel
            out[1:] = _layer("dense", "bn", (1,), self.init, 1, channels[-1])[1:]
        for i in range(len(sizes) - 1, 0, -1):
            shape, norm = (channels[i], channels[i - 1], 5, 5), "none" if i == 1 else self.norm
            # stride 2 in both directions: a quarter of the kernel contributes to each pixel of the larger map
            out += _layer(f"up{i}", norm, shape, self.init, channels[i] * 25 // 4, channels[i - 1])
        return out

    @property
    def norms(self) -> dict[str, int]:
        """Every layer but the last."""
        if self.norm != "bn":
            return {}
        channels = self._channels()
        return {"dense": channels[-1]} | {f"up{i}": channels[i - 1] for i in range(len(channels) - 1, 1, -1)}

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, z_dim) -> (K, B, C, H, W)."""
        sizes, (k, b, _) = self._sizes(), x.shape
        h = _linear(p, "dense", x.transpose(1, 2)).permute(2, 0, 1).reshape(b, -1, sizes[-1], sizes[-1])
        h = hidden(strided_conv.to_conv_layout(h, k), "dense", 0.0)
        for i in range(len(sizes) - 1, 0, -1):
            h = strided_conv.up(h, p[f"up{i}.weight"], _group_bias(p, f"up{i}"), k, sizes[i - 1])
            h = torch.tanh(h) if i == 1 else hidden(h, f"up{i}", 0.0)
        return h.view(b, k, *self.shape).transpose(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DcganDiscriminator:
    """Images (K, B, C, H, W) -> (K, B, outputs): 5x5 convolutions of stride 2, leaky ReLU .2. Also used as encoder."""

    shape: tuple[int, ...]
    width: int
    norm: str
    init: str
    outputs: int = 1

    def _stage_norm(self, i: int) -> str:
        return "none" if self.norm == "bn" and i == 0 else self.norm

    def convolutions(self) -> tuple[list[ParamSpec], int]:
        """Parameters of the convolutions, (out, in, 5, 5), and the number of features after them."""
        out, size, channels = [], self.shape[1], self.shape[0]
        for i in range(_stages(size)):
            wider = self.width * 2**i
            shape = (wider, channels, 5, 5)
            out += _layer(f"down{i}", self._stage_norm(i), shape, self.init, channels * 25, wider)
            size, channels = (size + 1) // 2, wider
        return out, channels * size**2

    @property
    def params(self) -> list[ParamSpec]:
        """The first convolution has no batch norm."""
        out, features = self.convolutions()
        return out + _layer("out", "none", (self.outputs, features), self.init, features, self.outputs)

    @property
    def norms(self) -> dict[str, int]:
        """Every convolution but the first."""
        stages = range(_stages(self.shape[1]))
        return {f"down{i}": self.width * 2**i for i in stages if self._stage_norm(i) == "bn"}

    def features(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, C, H, W) -> (K, features, B)."""
        k, b = x.shape[:2]
        h = x.transpose(0, 1).flatten(1, 2)
        for i in range(_stages(self.shape[1])):
            h = strided_conv.down(h, p[f"down{i}.weight"], _group_bias(p, f"down{i}"), k)
            h = hidden(h, f"down{i}", LEAK)
        return h.reshape(b, k, -1).permute(1, 2, 0)

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, C, H, W) -> (K, B, outputs)."""
        return _linear(p, "out", self.features(p, x, hidden)).transpose(1, 2)


DENSE = 8
"""Units of the dense hidden layers that accompany a DCGAN, per base channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JointDcgan:
    """Pairs of an image and a code, flat (K, B, C*H*W + z_dim) -> (K, B, 1).

    The features of the image and a layer of the code enter one dense layer (Dumoulin et al. 2016, Donahue et al. 2017).
    """

    image: DcganDiscriminator
    z_dim: int

    @property
    def params(self) -> list[ParamSpec]:
        """The first layers, of image and code, have no batch norm."""
        i, units = self.image, DENSE * self.image.width
        out, features = i.convolutions()
        both = features + units
        out += _layer("code", "none" if i.norm == "bn" else i.norm, (units, self.z_dim), i.init, self.z_dim, units)
        out += _layer("joint", i.norm, (units, both), i.init, both, units)
        return out + _layer("out", "none", (1, units), i.init, units, 1)

    @property
    def norms(self) -> dict[str, int]:
        """The layers of the image, and the dense layer."""
        return self.image.norms | ({"joint": DENSE * self.image.width} if self.image.norm == "bn" else {})

    def forward(self, p: Params, x: Tensor, hidden: Hidden) -> Tensor:
        """(K, B, C*H*W + z_dim) -> (K, B, 1)."""
        images, codes = x[..., : -self.z_dim], x[..., -self.z_dim :]
        features = self.image.features(p, images.reshape(*x.shape[:2], *self.image.shape), hidden)
        code = rectify_(_linear(p, "code", codes.transpose(1, 2)), LEAK)
        h = hidden(_linear(p, "joint", torch.cat((features, code), 1)), "joint", LEAK)
        return _linear(p, "out", h).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Settings that all nets of a trial share."""

    width: int
    depth: int
    norm: str
    init: str


def generator_arch(net: str, shape: tuple[int, ...], z_dim: int, s: Sizes) -> Arch:
    """Generator z -> sample of `shape`; images end in tanh, vectors are unbounded."""
    if net == "dcgan":
        return DcganGenerator(z_dim=z_dim, shape=shape, width=s.width, norm=s.norm, init=s.init)
    outputs = math.prod(shape)
    mlp = Mlp(inputs=z_dim, outputs=outputs, width=s.width, depth=s.depth, norm=s.norm, init=s.init, leak=0.0)
    return mlp if len(shape) == 1 else ShapedMlp(mlp=mlp, shape=shape)


def discriminator_arch(net: str, shape: tuple[int, ...], s: Sizes) -> Arch:
    """Discriminator sample -> logit. Its first layer has no batch norm."""
    if net == "dcgan":
        return DcganDiscriminator(shape=shape, width=s.width, norm=s.norm, init=s.init)
    return Mlp(
        inputs=math.prod(shape), outputs=1, width=s.width, depth=s.depth, norm=s.norm, init=s.init, leak=LEAK,
        norm_first=False,
    )  # fmt: skip


def encoder_arch(net: str, shape: tuple[int, ...], outputs: int, s: Sizes) -> Arch:
    """Encoder sample -> `outputs` unbounded numbers (codes, or their means and log variances)."""
    if net == "dcgan":
        return DcganDiscriminator(shape=shape, width=s.width, norm=s.norm, init=s.init, outputs=outputs)
    inputs = math.prod(shape)
    return Mlp(inputs=inputs, outputs=outputs, width=s.width, depth=s.depth, norm=s.norm, init=s.init, leak=LEAK)


def code_discriminator_arch(net: str, z_dim: int, s: Sizes) -> Arch:
    """Discriminator code -> logit, an MLP; with a DCGAN it has two hidden layers."""
    width, depth = (DENSE * s.width, 2) if net == "dcgan" else (s.width, s.depth)
    return discriminator_arch("mlp", (z_dim,), Sizes(width=width, depth=depth, norm=s.norm, init=s.init))


def joint_discriminator_arch(net: str, shape: tuple[int, ...], z_dim: int, s: Sizes) -> Arch:
    """Discriminator of pairs (sample, code) -> logit; a pair is one flat vector, the sample first."""
    if net == "dcgan":
        image = DcganDiscriminator(shape=shape, width=s.width, norm=s.norm, init=s.init)
        return JointDcgan(image=image, z_dim=z_dim)
    return discriminator_arch("mlp", (math.prod(shape) + z_dim,), s)
