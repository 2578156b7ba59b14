"""Layers with a ReLU whose gradient costs little on one CPU core.

Same numbers as `torch.nn.functional`, to rounding, with three savings:

- an output computed while acting is taken back (`output`), not computed again to learn from;
- the gradient of the first convolution's float32 weights is a dilated convolution: PyTorch's own
  pads the four frames of a stack to eight channels and takes three times as long;
- the gradient of the largest matrix is added where it belongs, without a copy of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

PIXEL_SCALE = 1 / 255


def first_convolution_relu(x: Tensor, layer: nn.Conv2d, output: Tensor | None = None) -> Tensor:
    """Return relu(conv(x / 255)) of stacked frames, uint8 [N, C, H, W] -> [N, C', H', W'].

    The weights are scaled, not the pixels: that saves a pass over them. `output`: what this
    function returned for the same `x` and weights.
    """
    arguments = x, layer.weight, layer.bias, layer.stride, output
    if x.is_cuda or not torch.is_grad_enabled():
        return _first_convolution_relu(*arguments)
    return _FirstConvolutionRelu.apply(*arguments[:4], [output])


def convolution_relu(x: Tensor, layer: nn.Conv2d, output: Tensor | None = None) -> Tensor:
    """Return relu(conv(x)), [N, C, H, W] -> [N, C', H', W']; `output` as above."""
    arguments = x, layer.weight, layer.bias, layer.stride, output
    if x.is_cuda or not torch.is_grad_enabled():
        return _convolution_relu(*arguments)
    return _ConvolutionRelu.apply(*arguments[:4], [output])


def linear_relu(x: Tensor, layer: nn.Linear, output: Tensor | None = None) -> Tensor:
    """Return relu(W x + b), [N, D] -> [N, D']; `output` as above.

    The gradient of the weights is added to `layer.weight.grad` where that exists.
    """
    if x.is_cuda or not torch.is_grad_enabled():
        return _linear_relu(x, layer.weight, layer.bias, output)
    return _LinearRelu.apply(x, layer.weight, layer.bias, layer, [output])


def _first_convolution_relu(x, weight, bias, stride, output):
    if output is not None:
        return output.detach()
    return _convolution_relu(x.to(weight.dtype), weight * PIXEL_SCALE, bias, stride, None)


def _convolution_relu(x, weight, bias, stride, output):
    # Detached: autograd would write its history into the tensor that it was given.
    if output is not None:
        return output.detach()
    return functional.conv2d(x, weight, bias, stride).relu_()


def _linear_relu(x, weight, bias, output):
    return functional.linear(x, weight, bias).relu_() if output is None else output.detach()


def _relu_gradient(gradient: Tensor, output: Tensor) -> Tensor:
    if _channels_last(output):  # PyTorch's kernel is slow where the two are laid out differently
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    return torch.ops.aten.threshold_backward(gradient, output, 0)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _convolution_backward(gradient, x, weight, stride, wanted):
    """(dx, dweight, dbias), those that are `wanted`."""
    none = [0, 0]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], stride, none, [1, 1], False, none, 1, wanted
    )


def _first_convolution_gradient(gradient, x, weight, stride):
    """(dweight, dbias); dweight by pixels that are not scaled."""
    if weight.dtype != torch.float32 or x.is_cuda or _channels_last(x):
        wanted = [False, True, True]
        return _convolution_backward(gradient, x.to(weight.dtype), weight, stride, wanted)[1:]
    # dW[o, c, i, j] = sum over n, y, x of d[n, o, y, x] X[n, c, s y + i, s x + j]: the
    # images are its channels, the gradient its kernel, the stride its dilation.
    frames = x.transpose(0, 1).to(weight.dtype, memory_format=torch.contiguous_format)
    kernel = gradient.transpose(0, 1).contiguous()
    full = functional.conv2d(frames, kernel, dilation=stride)
    rows, columns = weight.shape[2:]  # more where the stride leaves pixels over
    return full[:, :, :rows, :columns].transpose(0, 1), gradient.sum((0, 2, 3))


def first_convolution_relu_gradient(
    gradient: Tensor, x: Tensor, y: Tensor, layer: nn.Conv2d
) -> None:
    """Write the gradient of `layer`'s parameters into their `grad`.

    `gradient`: of y = first_convolution_relu(x, layer), shapes as there; `x` in the weights' dtype.
    """
    weight_gradient, bias_gradient = _first_convolution_gradient(
        _relu_gradient(gradient, y), x, layer.weight, layer.stride
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
    torch.mm(gradient.t(), x, out=layer.weight.grad)
    torch.sum(gradient, 0, out=layer.bias.grad)
    return gradient @ layer.weight


class _FirstConvolutionRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, stride, output) -> Tensor:
        ctx.stride = stride
        y = _first_convolution_relu(x, weight, bias, stride, *output)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        x, weight, y = ctx.saved_tensors
        gradient = _relu_gradient(gradient, y)
        weight_gradient, bias_gradient = _first_convolution_gradient(
            gradient, x, weight, ctx.stride
        )
        return None, weight_gradient * PIXEL_SCALE, bias_gradient, None, None


class _ConvolutionRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, stride, output) -> Tensor:
        ctx.stride = stride
        y = _convolution_relu(x, weight, bias, stride, *output)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        x, weight, y = ctx.saved_tensors
        gradient = _relu_gradient(gradient, y)
        return *_convolution_backward(gradient, x, weight, ctx.stride, [True] * 3), None, None


class _LinearRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, layer, output) -> Tensor:
        ctx.layer = layer
        y = _linear_relu(x, weight, bias, *output)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        x, weight, y = ctx.saved_tensors
        gradient = _relu_gradient(gradient, y)
        x_gradient, bias_gradient = gradient @ weight, gradient.sum(0)
        if ctx.layer.weight.grad is None:
            return x_gradient, gradient.t() @ x, bias_gradient, None, None
        ctx.layer.weight.grad.addmm_(gradient.t(), x)
        return x_gradient, None, bias_gradient, None, None
