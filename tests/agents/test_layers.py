"""The layers' own gradients are those of PyTorch's functions."""

from __future__ import annotations

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


def written(gradient, y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> list[torch.Tensor]:
    """What `gradient` of `layers` writes over what is there, after what it returns."""
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    with torch.no_grad():
        returned = gradient(weight_of(y), x, y, layer)
    return [*([] if returned is None else [returned]), layer.weight.grad, layer.bias.grad]


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
    got = written(layers.first_convolution_relu_gradient, found, x, layer)
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
    torch.testing.assert_close(written(layers.convolution_relu_gradient, found, x, layer), want)


def test_linear() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(11, 6).double()
    x = torch.randn(4, 11, dtype=torch.float64, requires_grad=True)
    expected = layer(x).relu()
    with torch.no_grad():
        found = layers.linear_relu(x, layer)
    torch.testing.assert_close(found, expected)
    want = gradients(expected, [x, layer.weight, layer.bias])
    torch.testing.assert_close(written(layers.linear_relu_gradient, found, x, layer), want)


@pytest.mark.parametrize("given", [False, True], ids=["computed", "given"])
def test_lstm(given: bool) -> None:
    """Three episodes in two lanes: their states are cleared where `keep` is 0."""
    torch.manual_seed(0)
    layer = nn.LSTMCell(5, 3).double()
    x = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 3, dtype=torch.float64) for _ in range(2))
    keep = torch.ones(6, 2)
    keep[0, 1] = keep[3, 0] = 0
    expected, inner = [], []
    theirs = ours = state
    for t in range(6):
        theirs = layer(x[t], tuple(part * keep[t].unsqueeze(1) for part in theirs))
        expected.append(theirs[0])
        with torch.no_grad():
            masked = tuple(part * keep[t].unsqueeze(1) for part in ours)
            ours, gates = layers.lstm_step(x[t], masked, layer)
        torch.testing.assert_close(ours, theirs)
        inner.append((gates, *ours))
    expected = torch.stack(expected)
    parameters = [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
    want = gradients(expected, [x, *parameters])
    outputs = [torch.stack(part) for part in zip(*inner, strict=True)] if given else None
    found = layers.lstm(x, state, keep, layer, outputs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, [x, *parameters]), want)


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
    loss = network.backward(
        observation, start, keep, lambda z, v: (z.log_softmax(1)[:, 2] * v).sum(), outputs
    )
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
