"""Layers and their gradients, which cost little on one CPU core.

Same numbers as PyTorch's own, to rounding, with two savings:

- a gradient is computed from the output that acting has left (`y`, `given`), without another pass
  forward and without autograd, and the largest is written where it belongs;
- that of an LSTM's matrices is computed once for all steps.

Where the processor has no instructions for bfloat16, its products are computed by kernels of
float32 (`operand_dtype`).

Stacks of frames should be laid out as `stacks` does: else PyTorch pads four frames to eight
channels and takes three times as long for the gradient of the first convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

PIXEL_SCALE = 1 / 255
# As PyTorch itself asks: AVX-512, AVX-NE-CONVERT or Arm's extension, and a build with oneDNN.
BFLOAT16_INSTRUCTIONS = (
    torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)


def operand_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype in which `weight` and what it is multiplied with enter a kernel.

    Its own; but float32 for bfloat16 on a CPU without instructions for it, where PyTorch's kernels
    take tens of times as long. The product of two bfloat16 is exact in float32, and kernels of
    bfloat16 sum in float32 too: rounded to bfloat16, the results differ by the order of the sums.
    """
    widened = weight.dtype == torch.bfloat16 and weight.is_cpu and not BFLOAT16_INSTRUCTIONS
    return torch.float32 if widened else weight.dtype


def first_convolution_relu(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return relu(conv(x / 255)) of stacked frames, uint8 [N, C, H, W] -> [N, C', H', W'].

    The weights are scaled, not the pixels: that saves a pass over them.
    """
    return _convolution_relu(x, layer.weight * PIXEL_SCALE, layer)


def convolution_relu(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return relu(conv(x)), [N, C, H, W] -> [N, C', H', W']."""
    return _convolution_relu(x, layer.weight, layer)


def linear_relu(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return relu(W x + b), [N, D] -> [N, D']."""
    return linear(x, layer).relu_()


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return W x + b, [N, D] -> [N, D']."""
    return _linear(x, layer.weight, layer.bias)


LstmState = tuple[Tensor, Tensor]  # hidden h and cell c, [B, cells] each


def lstm_step(x: Tensor, state: LstmState | None, layer: nn.LSTMCell) -> tuple[LstmState, Tensor]:
    """Return the next state of an LSTM cell, and its gates i, f, g, o, [B, 4 cells].

        i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c' = f c + i g, h' = o tanh c'

    Without a `state` it is zero. Source: Hochreiter and Schmidhuber 1997, with the forget gate of
    Gers et al. 2000; the order of the gates is PyTorch's.
    """
    cells = layer.hidden_size
    h, c = state or (x.new_zeros(len(x), cells),) * 2
    sums = _linear(x, layer.weight_ih, layer.bias_ih)
    sums = sums + _linear(h, layer.weight_hh, layer.bias_hh)
    for_if, for_g, for_o = sums.split([2 * cells, cells, cells], dim=1)
    g, o = for_g.tanh(), for_o.sigmoid()
    gates = torch.cat([for_if.sigmoid(), g, o], dim=1)
    c = torch.addcmul(gates[:, cells : 2 * cells] * c, gates[:, :cells], g)
    return (o * c.tanh(), c), gates


def lstm(
    x: Tensor,
    state: LstmState,
    keep: Tensor,
    layer: nn.LSTMCell,
    given: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return the hidden states of T steps, [T, B, D] -> [T, B, cells].

    Args:
        x: inputs, [T, B, D].
        state: before the first step.
        keep: 0 where an episode starts with that step and its state is cleared, else 1, [T, B].
        layer: the cell.
        given: gates, hidden and cell states of all steps, if `lstm_step` has computed them for
            the same weights: [T, B, 4 cells], [T, B, cells], [T, B, cells].
    """
    keep = keep.unsqueeze(2).to(x.dtype)
    if x.is_cuda:  # PyTorch's cell is one kernel there
        found = []
        for t in range(len(x)):
            state = layer(x[t], (state[0] * keep[t], state[1] * keep[t]))
            found.append(state[0])
        return torch.stack(found)
    return _Lstm.apply(x, *layer.parameters(), state, keep, layer, given)


def _convolution_relu(x: Tensor, weight: Tensor, layer: nn.Conv2d) -> Tensor:
    dtype = operand_dtype(weight)
    y = functional.conv2d(x.to(dtype), weight.to(dtype), layer.bias.to(dtype), layer.stride)
    return y.relu_().to(weight.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    dtype = operand_dtype(weight)
    bias = None if bias is None else bias.to(dtype)
    return functional.linear(x.to(dtype), weight.to(dtype), bias).to(weight.dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    dtype = operand_dtype(b)
    return (a.to(dtype) @ b.to(dtype)).to(b.dtype)


def _relu_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    if _channels_last(output):  # PyTorch's kernel is slow where the two are laid out differently
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    return torch.ops.aten.threshold_backward(gradient, output, 0)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _convolution_backward(gradient, x, weight, stride, wanted):
    """(dx, dweight, dbias), those that are `wanted`."""
    none, dtype = [0, 0], operand_dtype(weight)
    gradient, x, wide = gradient.to(dtype), x.to(dtype), weight.to(dtype)
    found = torch.ops.aten.convolution_backward(
        gradient, x, wide, [len(weight)], stride, none, [1, 1], False, none, 1, wanted
    )
    return [part if part is None else part.to(weight.dtype) for part in found]


def first_convolution_relu_gradient(
    gradient: Tensor, x: Tensor, y: Tensor, layer: nn.Conv2d
) -> None:
    """Write the gradient of `layer`'s parameters into their `grad`.

    `gradient`: of y = first_convolution_relu(x, layer), shapes as there; `x` of any dtype.
    """
    _, weight_gradient, bias_gradient = _convolution_backward(
        _relu_gradient(gradient, y), x, layer.weight, layer.stride, [False, True, True]
    )
    torch.mul(weight_gradient, PIXEL_SCALE, out=layer.weight.grad)
    layer.bias.grad.copy_(bias_gradient)


def convolution_relu_gradient(gradient: Tensor, x: Tensor, y: Tensor, layer: nn.Conv2d) -> Tensor:
    """As `first_convolution_relu_gradient`, of y = convolution_relu(x, layer); return that of x."""
    gradient = _relu_gradient(gradient, y)
    x_gradient, weight_gradient, bias_gradient = _convolution_backward(
        gradient, x, layer.weight, layer.stride, [True] * 3
    )
    layer.weight.grad.copy_(weight_gradient)
    layer.bias.grad.copy_(bias_gradient)
    return x_gradient


def linear_relu_gradient(gradient: Tensor, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
    """As `first_convolution_relu_gradient`, of y = linear_relu(x, layer); return that of x."""
    gradient = _relu_gradient(gradient, y)
    if operand_dtype(layer.weight) == layer.weight.dtype:
        torch.mm(gradient.t(), x, out=layer.weight.grad)
    else:
        layer.weight.grad.copy_(_product(gradient.t(), x))
    torch.sum(gradient, 0, out=layer.bias.grad)
    return _product(gradient, layer.weight)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, w_ih, w_hh, b_ih, b_hh, state, keep, layer, given) -> Tensor:
        if given is None:
            found, (h, c) = [], state
            for t in range(len(x)):
                (h, c), gates = lstm_step(x[t], (h * keep[t], c * keep[t]), layer)
                found.append((gates, h, c))
            given = [torch.stack(part) for part in zip(*found, strict=True)]
        gates, hidden, cell = (part.detach() for part in given)
        h_before, c_before = (
            torch.cat([first.unsqueeze(0), later[:-1]]) * keep
            for first, later in zip(state, (hidden, cell), strict=True)
        )
        ctx.layer = layer
        ctx.save_for_backward(x, gates, cell, h_before, c_before, keep)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        x, gates, cell, h_before, c_before, keep = ctx.saved_tensors
        layer = ctx.layer
        i, f, g, o = gates.split(layer.hidden_size, dim=2)
        tanh_c = cell.tanh()
        # What one unit of dL/dc', and of dL/dh' for o, makes of the sums before each gate.
        by_c = torch.cat([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], dim=2)
        by_h = tanh_c * o * (1 - o)
        c_by_h = o * (1 - tanh_c * tanh_c)
        sums = torch.empty_like(gates)  # the gradient by the sums before the gates
        h_gradient = torch.zeros_like(h_before[0])
        c_gradient = torch.zeros_like(h_gradient)
        for t in reversed(range(len(x))):
            h_gradient = h_gradient + gradient[t]
            c_gradient = torch.addcmul(c_gradient, h_gradient, c_by_h[t])
            torch.mul(by_c[t], c_gradient.repeat(1, 3), out=sums[t, :, : by_c.shape[2]])
            torch.mul(by_h[t], h_gradient, out=sums[t, :, by_c.shape[2] :])
            h_gradient = _product(sums[t], layer.weight_hh) * keep[t]
            c_gradient = c_gradient * f[t] * keep[t]
        sums = sums.flatten(0, 1)
        w_ih, w_hh = (_product(sums.t(), inputs.flatten(0, 1)) for inputs in (x, h_before))
        bias = sums.sum(0)
        x_gradient = _product(sums, layer.weight_ih).view_as(x)
        return x_gradient, w_ih, w_hh, bias, bias, None, None, None, None
