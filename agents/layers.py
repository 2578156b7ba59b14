"""Layers and their gradients, which cost little on one CPU core.

Same numbers as PyTorch's own, to rounding, with two savings:

- a gradient is computed from the outputs that acting has left, without another pass forward and
  without autograd, and written where it belongs;
- that of an LSTM's matrices is computed once for all steps.

Where the processor has no instructions for bfloat16, its products are computed by kernels of
float32 (`operand_dtype`).

Stacks of frames should be laid out as `stacks` does: else PyTorch pads four frames to eight
channels and takes three times as long for the gradient of the first convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
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
    x: Tensor, state: LstmState, keep: Tensor, layer: nn.LSTMCell
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gates, hidden and cell states of T steps, [T, B, 4 cells] and [T, B, cells].

    Args:
        x: inputs, [T, B, D].
        state: before the first step.
        keep: 0 where an episode starts with that step and its state is cleared, else 1, [T, B].
        layer: the cell.
    """
    keep, found = keep.unsqueeze(2).to(x.dtype), []
    for t in range(len(x)):
        state, gates = lstm_step(x[t], (state[0] * keep[t], state[1] * keep[t]), layer)
        found.append((gates, *state))
    gates, hidden, cell = (torch.stack(part) for part in zip(*found, strict=True))
    return gates, hidden, cell


class LstmSteps(NamedTuple):
    """What an LSTM has computed in T steps; its gradient needs no more.

    [T, B, cells], `gates` [T, B, 4 cells], `keep` [T, B, 1]; `..._before` each step, cleared.
    """

    gates: Tensor
    hidden: Tensor
    cell: Tensor
    hidden_before: Tensor
    cell_before: Tensor
    keep: Tensor

    @classmethod
    def of(
        cls, gates: Tensor, hidden: Tensor, cell: Tensor, state: LstmState, keep: Tensor
    ) -> LstmSteps:
        """Of what `lstm` returns, the state before the first step, and `keep` [T, B]."""
        keep = keep.unsqueeze(2).to(gates.dtype)
        before = (
            torch.cat([first.unsqueeze(0), later[:-1]]) * keep
            for first, later in zip(state, (hidden, cell), strict=True)
        )
        return cls(gates, hidden, cell, *before, keep)


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


def relu_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    """Return the gradient of the sums that a ReLU was given, from that of its `output`."""
    if _channels_last(output):  # PyTorch's kernel is slow where the two are laid out differently
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    return torch.ops.aten.threshold_backward(gradient, output, 0)


def first_convolution_gradient(gradient: Tensor, x: Tensor, layer: nn.Conv2d) -> None:
    """Write the gradient of `layer`'s parameters into their `grad`.

    `gradient`: of the layer's sums, before the ReLU, [N, C', H', W']; `x` [N, C, H, W], what it
    was given, of any dtype.
    """
    _, weight_gradient, bias_gradient = _convolution_backward(
        gradient, x, layer.weight, layer.stride, [False, True, True]
    )
    torch.mul(weight_gradient, PIXEL_SCALE, out=layer.weight.grad)
    layer.bias.grad.copy_(bias_gradient)


def convolution_gradient(
    gradient: Tensor, x: Tensor, layer: nn.Conv2d, of_x: bool = True, of_parameters: bool = True
) -> Tensor | None:
    """As `first_convolution_gradient`; return that of `x`. Without either, if so asked."""
    x_gradient, weight_gradient, bias_gradient = _convolution_backward(
        gradient, x, layer.weight, layer.stride, [of_x, of_parameters, of_parameters]
    )
    if of_parameters:
        layer.weight.grad.copy_(weight_gradient)
        layer.bias.grad.copy_(bias_gradient)
    return x_gradient


def linear_gradient(gradient: Tensor, x: Tensor, layer: nn.Linear) -> None:
    """Write the gradient of `layer`'s parameters into their `grad`.

    `gradient`: of its sums, [N, D']; `x` [N, D], what it was given.
    """
    if operand_dtype(layer.weight) == layer.weight.dtype:
        torch.mm(gradient.t(), x, out=layer.weight.grad)
    else:
        layer.weight.grad.copy_(_product(gradient.t(), x))
    torch.sum(gradient, 0, out=layer.bias.grad)


def linear_input_gradient(gradient: Tensor, layer: nn.Linear) -> Tensor:
    """Return the gradient of what `layer` was given, [N, D], from that of its sums, [N, D']."""
    return _product(gradient, layer.weight)


def lstm_sums_gradient(gradient: Tensor, steps: LstmSteps, layer: nn.LSTMCell) -> Tensor:
    """Return the gradient of the sums before the gates, [T, B, 4 cells].

    `gradient`: of the hidden states, [T, B, cells], by what is behind the LSTM alone.
    """
    gates, cell, keep = steps.gates, steps.cell, steps.keep
    i, f, g, o = gates.split(layer.hidden_size, dim=2)
    tanh_c = cell.tanh()
    # What one unit of dL/dc', and of dL/dh' for o, makes of the sums before each gate.
    by_c = torch.cat([g * i * (1 - i), steps.cell_before * f * (1 - f), i * (1 - g * g)], dim=2)
    by_h = tanh_c * o * (1 - o)
    c_by_h = o * (1 - tanh_c * tanh_c)
    sums = torch.empty_like(gates)
    h_gradient = torch.zeros_like(cell[0])
    c_gradient = torch.zeros_like(h_gradient)
    for t in reversed(range(len(gates))):
        h_gradient = h_gradient + gradient[t]
        c_gradient = torch.addcmul(c_gradient, h_gradient, c_by_h[t])
        torch.mul(by_c[t], c_gradient.repeat(1, 3), out=sums[t, :, : by_c.shape[2]])
        torch.mul(by_h[t], h_gradient, out=sums[t, :, by_c.shape[2] :])
        h_gradient = _product(sums[t], layer.weight_hh) * keep[t]
        c_gradient = c_gradient * f[t] * keep[t]
    return sums


def lstm_input_gradient(sums: Tensor, layer: nn.LSTMCell) -> Tensor:
    """Return the gradient of the inputs, [N, D], from that of the sums, [N, 4 cells]."""
    return _product(sums, layer.weight_ih)


def lstm_gradient(x: Tensor, sums: Tensor, hidden_before: Tensor, layer: nn.LSTMCell) -> None:
    """Write the gradient of `layer`'s parameters into their `grad`.

    Args:
        x: inputs of N steps, [N, D].
        sums: the gradient of their sums before the gates, [N, 4 cells].
        hidden_before: hidden states before them, [N, cells].
        layer: the cell.
    """
    layer.weight_ih.grad.copy_(_product(sums.t(), x))
    layer.weight_hh.grad.copy_(_product(sums.t(), hidden_before))
    for bias in (layer.bias_ih, layer.bias_hh):
        torch.sum(sums, 0, out=bias.grad)
