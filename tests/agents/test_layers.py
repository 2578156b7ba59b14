"""The layers' own gradients are those of PyTorch's functions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from agents import layers
from agents.networks import ActionValueNetwork, build_network
from agents.optim import FlatParameters

# Channels, filters, kernel, stride, height and width; in the last two pixels are left over.
SHAPES = [(4, 16, 8, 4, 84, 84), (4, 32, 8, 4, 84, 84), (3, 5, 3, 2, 10, 13), (2, 4, 4, 3, 18, 14)]


def weight_of(y: torch.Tensor) -> torch.Tensor:
    """The gradient that comes back to `y`."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)


def gradients(y: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad((y * weight_of(y)).sum(), inputs))


def write(gradient, sums: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> list[torch.Tensor]:
    """What `gradient` of `layers` writes over what is there, after what it returns."""
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    with torch.no_grad():
        returned = gradient(sums, x, layer)
    return [*([] if returned is None else [returned]), layer.weight.grad, layer.bias.grad]


def of_sums(y: torch.Tensor) -> torch.Tensor:
    """The gradient of what a ReLU made `y` of."""
    return layers.relu_gradient(weight_of(y), y)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 2e-4}


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_convolution(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    channels, filters, kernel, stride, height, width = shape
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, filters, kernel, stride).to(dtype)
    x = torch.randint(0, 256, (6, channels, height, width), dtype=torch.uint8)
    x = x.contiguous(memory_format=layout)
    # A product of two: the scale is rounded into the weights there as here.
    expected = functional.conv2d(
        x.to(dtype), layer.weight * layers.PIXEL_SCALE, layer.bias, layer.stride
    ).relu()
    with torch.no_grad():
        found = layers.first_convolution_relu(x, layer)
    torch.testing.assert_close(found, expected, **tolerance(dtype))
    want = gradients(expected, [layer.weight, layer.bias])
    got = write(layers.first_convolution_gradient, of_sums(found), x, layer)
    for ours, theirs in zip(got, want, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours / scale, theirs / scale, **tolerance(dtype))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_convolution(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 4, 2).double()
    x = torch.randn(3, 5, 11, 12, dtype=torch.float64).contiguous(memory_format=layout)
    expected = layer(x.requires_grad_()).relu()
    with torch.no_grad():
        found = layers.convolution_relu(x, layer)
    torch.testing.assert_close(found, expected)
    want = gradients(expected, [x, layer.weight, layer.bias])
    sums = of_sums(found)
    torch.testing.assert_close(write(layers.convolution_gradient, sums, x, layer), want)
    of_parameters = partial(layers.convolution_gradient, of_x=False)
    torch.testing.assert_close(write(of_parameters, sums, x, layer), want[1:])
    of_x = partial(layers.convolution_gradient, of_parameters=False)
    untouched = [torch.full_like(parameter, 7.0) for parameter in layer.parameters()]
    torch.testing.assert_close(write(of_x, sums, x, layer), [want[0], *untouched])


def test_linear() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(11, 6).double()
    x = torch.randn(4, 11, dtype=torch.float64, requires_grad=True)
    expected = layer(x).relu()
    with torch.no_grad():
        found = layers.linear_relu(x, layer)
    torch.testing.assert_close(found, expected)
    want = gradients(expected, [x, layer.weight, layer.bias])
    torch.testing.assert_close(write(layers.linear_gradient, of_sums(found), x, layer), want[1:])
    with torch.no_grad():
        torch.testing.assert_close(layers.linear_input_gradient(of_sums(found), layer), want[0])


def test_lstm() -> None:
    """Three episodes in two lanes: their states are cleared where `keep` is 0."""
    torch.manual_seed(0)
    layer = nn.LSTMCell(5, 3).double()
    x = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    start = tuple(torch.randn(2, 3, dtype=torch.float64) for _ in range(2))
    keep = torch.ones(6, 2)
    keep[0, 1] = keep[3, 0] = 0
    state, expected, cells = start, [], []
    for t in range(6):
        state = layer(x[t], tuple(part * keep[t].unsqueeze(1) for part in state))
        expected.append(state[0])
        cells.append(state[1])
    expected = torch.stack(expected)
    parameters = [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
    want = gradients(expected, [x, *parameters])
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    with torch.no_grad():
        found = layers.lstm(x, start, keep, layer)
        steps = layers.LstmSteps.of(*found, start, keep)
        sums = layers.lstm_sums_gradient(weight_of(expected), steps, layer)
        of_x = layers.lstm_input_gradient(sums.flatten(0, 1), layer).view_as(x)
        flat = [part.flatten(0, 1) for part in (x, sums, steps.hidden_before)]
        layers.lstm_gradient(*flat, layer)
    torch.testing.assert_close(list(found[1:]), [expected, torch.stack(cells)])
    torch.testing.assert_close([of_x, *(parameter.grad for parameter in parameters)], want)


PRODUCTS = {"convolution", "convolution_backward", "mm", "addmm", "addmm_", "bmm", "baddbmm"}


class Products(TorchDispatchMode):
    """Notes the dtypes that enter convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in PRODUCTS:
            self.dtypes += [a.dtype for a in args if isinstance(a, torch.Tensor)]
        return function(*args, **(kwargs or {}))


def policy_gradients(cells: int) -> list[torch.Tensor]:
    network = build_network("mnih2013", 6, cells, "torch", 0)
    flat = FlatParameters(network, torch.bfloat16)
    observation = torch.randint(0, 256, (3, 2, 4, 84, 84), dtype=torch.uint8)
    state, outputs = network.initial_state(2), []
    with torch.no_grad():
        for step in observation:
            logits, state, found = network.decide(step, state)
            outputs.append(found)
    start, keep = network.initial_state(2), torch.ones(3, 2)
    write_gradient = network.gradients(
        observation,
        start,
        keep,
        lambda z, v: (z.log_softmax(2)[:, :, 2] * v).sum(1),
        outputs=outputs,
    )
    loss = write_gradient(0)
    return [logits, loss, flat.gradient]


def value_gradients(dueling: bool) -> list[torch.Tensor]:
    network = ActionValueNetwork("mnih2013", 6, dueling)
    flat = FlatParameters(network, torch.bfloat16)
    observation = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8)
    _, q = network.backward(observation, lambda q: q[:, 1].square().sum())
    return [q, flat.gradient]


@pytest.mark.parametrize(
    ("gradients", "kind"),
    [
        (policy_gradients, 0),
        (policy_gradients, 32),
        (value_gradients, False),
        (value_gradients, True),
    ],
)
def test_bfloat16_by_kernels_of_float32(gradients, kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """No product is left to bfloat16 kernels then, and the numbers are theirs to rounding."""

    def compute(instructions: bool) -> tuple[list[torch.Tensor], list[torch.dtype]]:
        monkeypatch.setattr(layers, "BFLOAT16_INSTRUCTIONS", instructions)
        torch.manual_seed(0)
        with Products() as products:
            return gradients(kind), products.dtypes

    expected, native = compute(True)
    found, widened = compute(False)
    assert set(native) == {torch.bfloat16}
    assert set(widened) == {torch.float32}
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        scale = theirs.float().abs().max()
        assert (ours.float() - theirs.float()).abs().max() < 0.02 * scale
