"""The trunk of every network: convolutions and a hidden layer, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from agents import layers
from agents.choices import choose

# (filters, kernel, stride) per layer, then the units of the fully connected layer.
TRUNKS = {
    # Mnih et al. 2013, used by Mnih et al. 2016 in its Atari-subset experiments (supplement 8).
    "mnih2013": (((16, 8, 4), (32, 4, 2)), 256),
    # Mnih et al. 2015, used by Mnih et al. 2016 in its 57-game runs (section 5.1).
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
}


class ConvolutionalNetwork(nn.Module):
    """The trunk of every network: convolutions and a hidden layer, each with a ReLU.

    Args:
        trunk: a key of `TRUNKS`.
        observation_shape: of a stack of frames, (frames, height, width).
        streams: hidden layers side by side, laid out as one with so many times the units.
    """

    def __init__(
        self, trunk: str, observation_shape: tuple[int, int, int], streams: int = 1
    ) -> None:
        super().__init__()
        convolutions, self.units = choose("network", trunk, TRUNKS)
        channels, height, width = observation_shape
        found = []
        for filters, kernel, stride in convolutions:
            found.append(nn.Conv2d(channels, filters, kernel, stride))
            channels = filters
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.convolutions = nn.ModuleList(found)
        self.hidden = nn.Linear(channels * height * width, streams * self.units)

    def _orthogonal(self, gains: dict[nn.Module, float]) -> None:
        """Draw orthogonal weights, with gain sqrt 2 but for the heads in `gains`; no biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(module.weight, gains.get(module, math.sqrt(2)))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def trunk(self, observation: Tensor) -> list[Tensor]:
        """Run the trunk: uint8 [N, 4, 84, 84] -> the output of each layer, at last [N, units]."""
        found = []
        x = observation if self.convolutions else observation.to(self.hidden.weight.dtype)
        for index, convolution in enumerate(self.convolutions):
            layer = layers.convolution_relu if index else layers.first_convolution_relu
            x = layer(x, convolution)
            found.append(x)
        found.append(layers.linear_relu(x.flatten(1), self.hidden))
        return found

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters behind the trunk."""
        trunk = {id(p) for part in (self.convolutions, self.hidden) for p in part.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in trunk]

    def trunk_gradients(
        self,
        observation: Tensor,
        outputs: Sequence[Tensor],
        gradient: Tensor,
        workers: int = 1,
        scale: float = 1.0,
    ) -> Callable[[int], None]:
        """Return what writes the gradient of the trunk's parameters into their `grad`.

        It is a function of the worker's number, 0 to W - 1, and writes the gradient of the worker's
        part of the batch; where there is one worker, its gradient is written already here. No
        autograd.

        Args:
            observation: [N, 4, 84, 84], of any dtype; converted by the caller once is faster.
            outputs: what `trunk` returned for it.
            gradient: of the last output, [N, units].
            workers: W, each with a part of the batch, in its order.
            scale: of the gradient that enters the last convolution.
        """
        inputs = [observation, *outputs[:-1]]
        if (
            workers == 1
        ):  # a kernel that computes both gradients of a convolution is quicker than two
            self._backpropagate(inputs, outputs, gradient, scale, write=True)
            return lambda worker: None
        sums = self._backpropagate(inputs, outputs, gradient, scale, write=False)

        def write(worker: int) -> None:
            own = (
                [x.unflatten(0, (workers, -1))[worker] for x in found] for found in (inputs, sums)
            )
            self._write_trunk_gradient(*own)

        return write

    @torch.no_grad()
    def _backpropagate(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        gradient: Tensor,
        scale: float,
        write: bool,
    ) -> list[Tensor]:
        """Return the gradient of each layer's sums, before its ReLU; without autograd.

        Args:
            inputs: of each layer of the trunk.
            outputs: of each, after the ReLU.
            gradient: of the last one's output, [N, units].
            scale: of the gradient that enters the last convolution.
            write: whether to write that of the layers' parameters into their `grad` at once, and
                return nothing.
        """
        found = []
        sums = layers.relu_gradient(gradient, outputs[-1])
        if write:
            layers.linear_gradient(sums, inputs[-1].flatten(1), self.hidden)
        else:
            found.append(sums)
        gradient = layers.linear_input_gradient(sums, self.hidden)
        if scale != 1.0:
            gradient = gradient * scale
        gradient = gradient.view(inputs[-1].shape)
        for index in reversed(range(len(self.convolutions))):
            x, layer = inputs[index], self.convolutions[index]
            sums = layers.relu_gradient(gradient, outputs[index])
            if not write:
                found.append(sums)
            if index:
                gradient = layers.convolution_gradient(sums, x, layer, of_parameters=write)
            elif write:
                layers.first_convolution_gradient(sums, x, layer)
        return found[::-1]

    @torch.no_grad()
    def _write_trunk_gradient(self, inputs: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        """Write that of the trunk's parameters into their `grad`, from what `_backpropagate` found.

        `inputs` of each layer; `sums`: the gradient of each layer's.
        """
        for index, layer in enumerate(self.convolutions):
            if index:
                layers.convolution_gradient(sums[index], inputs[index], layer, of_x=False)
            else:
                layers.first_convolution_gradient(sums[index], inputs[index], layer)
        layers.linear_gradient(sums[-1], inputs[-1].flatten(1), self.hidden)
