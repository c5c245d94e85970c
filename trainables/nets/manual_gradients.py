"""Forward passes whose gradient can be requested afterwards: hand-written for MLPs, by autograd for other nets.

Packs of small nets are bound by memory and by the dispatch of operations, not by matrix products. The hand-written
pass keeps activations in buffers that are reused in every period, applies biases and masks in place, and writes
gradients straight into the flat layout of the optimizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vistudy.trainables.nets.architectures import Mlp, Params, rectify_
from vistudy.trainables.nets.batch_norm import BN_EPS

if TYPE_CHECKING:
    from jaxtyping import Float

    from vistudy.trainables.nets.batch_norm import Stats
    from vistudy.trainables.nets.packed_net import PackedNet

WithRespectTo = Literal["parameters", "inputs"]


class Pass(Protocol):
    """A net that has been applied to x (K, B, *shape)."""

    out: Tensor
    """(K, B, *shape of a sample, or 1 for logits), detached."""

    def gradient(self, grad_output: Tensor) -> Tensor:
        """Gradient with respect to parameters or inputs, of a loss whose gradient at `out` is `grad_output`.

        Parameters: (K, P), overwritten by the next gradient of the net. Inputs: like x. May be called repeatedly.
        """


class AutogradPass:
    """A pass through any net, by autograd."""

    def __init__(
        self, net: PackedNet, x: Tensor, wrt: WithRespectTo, stats: Stats | None, momentum: float | None
    ) -> None:
        self._net, self._x = net, x.detach().requires_grad_() if wrt == "inputs" else None
        params = net.leaves if self._x is None else net.frozen
        self._graph = net(x if self._x is None else self._x, params, stats, momentum)
        self.out = self._graph.detach()

    def gradient(self, grad_output: Tensor) -> Tensor:
        """See `Pass`."""
        if self._x is None:
            return self._net.backward(self._graph, grad_output, retain_graph=True)
        return torch.autograd.grad(self._graph, self._x, grad_output, retain_graph=True)[0]


class MlpPass:
    """A pass through an MLP; batch norm uses batch statistics. Activations are (K, features, B)."""

    def __init__(
        self,
        x: Float[Tensor, "K B *shape"],
        wrt: WithRespectTo,
        buffers: MlpBuffers,
        stats: Stats | None,
        momentum: float,
    ) -> None:
        self._buffers, self._wrt, self._shape = buffers, wrt, x.shape
        self._number = buffers.start_pass()
        h = buffers.inputs.copy_(x.detach().flatten(2).transpose(1, 2))
        for layer, norm, out in zip(buffers.layers, buffers.norms, buffers.hidden, strict=False):
            if norm is None:
                h = _linear(layer, h, out)
            else:
                running = None if stats is None else stats[norm.name]
                h = norm.forward(_linear(layer, h, norm.before), out, running, momentum)
            h = rectify_(h, buffers.leak)
        self.out = _linear(buffers.layers[-1], h, None).transpose(1, 2)

    def gradient(self, grad_output: Float[Tensor, "K B out"]) -> Tensor:
        """See `Pass`.

        Raises:
            RuntimeError: the net has since been applied to another batch of this size, which reuses the buffers.
        """
        b = self._buffers
        b.check(self._number)
        g = grad_output.transpose(1, 2)
        for i in reversed(range(len(b.layers))):
            layer = b.layers[i]
            if self._wrt == "parameters":
                layer.write_gradient(g, b.before[i])
            if i:
                if layer.outputs == 1:  # an outer product, many times faster than bmm
                    g = torch.mul(layer.weight_t, g, out=b.hidden_grads[i - 1])
                else:
                    g = torch.bmm(layer.weight_t, g, out=b.hidden_grads[i - 1])
                _mask_(g, b.hidden[i - 1], b.leak)
                norm = b.norms[i - 1]
                if norm is not None:
                    g = norm.backward(g, parameters=self._wrt == "parameters")
        if self._wrt == "parameters":
            return b.flat_grad
        return torch.bmm(b.layers[0].weight_t, g).transpose(1, 2).reshape(self._shape)


class Layer:
    """One linear layer of K trials, with its views and buffers. They are made once, since a view takes as long as the
    product of small matrices."""

    def __init__(self, weight: Tensor, bias: Tensor | None, weight_grad: Tensor, bias_grad: Tensor | None) -> None:
        k, self.outputs, inputs = weight.shape
        self.weight, self.weight_t = weight, weight.transpose(1, 2)
        self.bias = None if bias is None else bias.unsqueeze(2)
        self._weight_grad, self._bias_grad = weight_grad, bias_grad
        # torch.bmm is many times slower with a strided output, and for a tall result than for a wide one
        self._wide = inputs >= self.outputs
        self._product = weight.new_empty((k, self.outputs, inputs) if self._wide else (k, inputs, self.outputs))
        self._product_as_weight = self._product if self._wide else self._product.transpose(1, 2)

    def write_gradient(self, g: Float[Tensor, "K out B"], before: tuple[Tensor, Tensor]) -> None:
        """Write the gradient of the parameters; `before` is the input of the layer (K, in, B) and its transpose."""
        h, h_t = before
        if self._wide:
            torch.bmm(g, h_t, out=self._product)
        else:
            torch.bmm(h, g.transpose(1, 2), out=self._product)
        self._weight_grad.copy_(self._product_as_weight)
        if self._bias_grad is not None:
            torch.sum(g, 2, out=self._bias_grad)


class Norm:
    """One batch-norm layer of K trials over batches of one size."""

    def __init__(self, name: str, params: Params, grad_views: Params, batch: int) -> None:
        self.name = name
        scale, shift = params[f"{name}.scale"], params[f"{name}.shift"]
        self._scale, self._shift = scale.unsqueeze(2), shift.unsqueeze(2)
        self._scale_grad, self._shift_grad = grad_views[f"{name}.scale"], grad_views[f"{name}.shift"]
        self.before = scale.new_empty(*scale.shape, batch)
        """Input of the layer (K, features, B)."""
        self._mean, self._inverse_sd = (scale.new_empty(*scale.shape, 1) for _ in range(2))

    def forward(
        self,
        h: Float[Tensor, "K C B"],
        out: Float[Tensor, "K C B"],
        running: tuple[Tensor, Tensor] | None,
        momentum: float,
    ) -> Tensor:
        """Normalise `h`, which is `before`, and move `running` mean and variance (K, C) towards those of the batch."""
        if h.is_cuda:
            flat, saved = h.view(1, -1, h.shape[2]), (self._mean.view(-1), self._inverse_sd.view(-1))
            scale, shift = self._scale.reshape(-1), self._shift.reshape(-1)
            mean, variance = (None, None) if running is None else (r.view(-1) for r in running)
            torch.native_batch_norm(
                flat, scale, shift, mean, variance, True, momentum, BN_EPS, out=(out.view_as(flat), *saved)
            )
            return out
        n = h.shape[2]  # on a CPU, torch's batch norm takes twice as long
        torch.mean(h, 2, keepdim=True, out=self._mean)
        torch.sub(h, self._mean, out=out)
        variance = torch.linalg.vector_norm(out, dim=2, keepdim=True).square_().div_(n)
        torch.add(variance, BN_EPS, out=self._inverse_sd).rsqrt_()
        if running is not None:
            running[0].lerp_(self._mean.squeeze(2), momentum)
            running[1].lerp_(variance.squeeze(2) * (n / (n - 1)), momentum)
        return out.mul_(self._inverse_sd * self._scale).add_(self._shift)

    def backward(self, g: Float[Tensor, "K C B"], *, parameters: bool) -> Tensor:
        """Gradient at the input; with `parameters`, also write the gradients of scale and shift."""
        flat = g.view(1, -1, g.shape[2])
        output_mask = [True, parameters, parameters]
        input_grad, scale_grad, shift_grad = torch.ops.aten.native_batch_norm_backward(
            flat, self.before.view_as(flat), self._scale.reshape(-1), None, None, self._mean.view(-1),
            self._inverse_sd.view(-1), True, BN_EPS, output_mask,
        )  # fmt: skip
        if parameters:
            self._scale_grad.copy_(scale_grad.view_as(self._scale_grad))
            self._shift_grad.copy_(shift_grad.view_as(self._shift_grad))
        out: Tensor = input_grad.view_as(g)
        return out


class MlpBuffers:
    """Buffers for the passes of one MLP over batches of one size."""

    def __init__(self, net: PackedNet, batch: int) -> None:
        arch = net.arch
        assert isinstance(arch, Mlp)
        grad_views = net.views(net.gradient)
        self.leak = arch.leak
        self.flat_grad = net.gradient
        self.layers = [
            Layer(
                net.frozen[f"{name}.weight"],
                net.frozen.get(f"{name}.bias"),
                grad_views[f"{name}.weight"],
                grad_views.get(f"{name}.bias"),
            )
            for name in (*(f"hidden{i}" for i in range(arch.depth)), "out")
        ]
        self.norms = [
            Norm(name, net.frozen, grad_views, batch) if name in arch.norms else None
            for name in (f"hidden{i}" for i in range(arch.depth))
        ]
        like = net.flat
        self.inputs = like.new_empty(net.k, arch.inputs, batch)
        self.hidden = [like.new_empty(net.k, arch.width, batch) for _ in range(arch.depth)]
        self.before = [(h, h.transpose(1, 2)) for h in (self.inputs, *self.hidden)]
        self.hidden_grads = [torch.empty_like(h) for h in self.hidden]
        self._number = 0

    def start_pass(self) -> int:
        """Give the buffers to a new pass and return its number."""
        self._number += 1
        return self._number

    def check(self, number: int) -> None:
        """Raise RuntimeError unless pass `number` is the latest."""
        if number != self._number:
            raise RuntimeError(
                "the net was applied to another batch of this size before this pass's gradient was asked"
            )


def forward_pass(
    net: PackedNet, x: Tensor, wrt: WithRespectTo, stats: Stats | None = None, momentum: float | None = None
) -> Pass:
    """Apply a net with its own parameters to x (K, B, *shape); batch norm as in `PackedNet.__call__`."""
    by_fixed_statistics = stats is not None and momentum is None
    if not isinstance(net.arch, Mlp) or by_fixed_statistics or torch.is_autocast_enabled(x.device.type):
        return AutogradPass(net, x, wrt, stats, momentum)
    buffers = _buffers.setdefault(net, {})
    if x.shape[1] not in buffers:
        buffers[x.shape[1]] = MlpBuffers(net, x.shape[1])
    with torch.no_grad():
        return MlpPass(x, wrt, buffers[x.shape[1]], stats, momentum or 0.0)


_buffers: WeakKeyDictionary[PackedNet, dict[int, MlpBuffers]] = WeakKeyDictionary()
"""Net -> batch size -> buffers, which live as long as the net."""


def _linear(layer: Layer, h: Tensor, out: Tensor | None) -> Tensor:
    out = torch.bmm(layer.weight, h, out=out)
    return out if layer.bias is None else out.add_(layer.bias)


def _mask_(gradient: Tensor, activation: Tensor, leak: float) -> None:
    """Multiply by the derivative of the activation function, in place."""
    if leak:
        torch.ops.aten.leaky_relu_backward.grad_input(gradient, activation, leak, True, grad_input=gradient)
    else:
        torch.ops.aten.threshold_backward.grad_input(gradient, activation, 0, grad_input=gradient)
