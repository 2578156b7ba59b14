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


def gradients(y: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    return list(torch.autograd.grad((y * weight).sum(), inputs))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 2e-4}


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["computed", "given"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_convolution(
    shape: tuple[int, ...], dtype: torch.dtype, given: bool, layout: torch.memory_format
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
    output = expected.detach().clone() if given else None
    found = layers.first_convolution_relu(x, layer, output)
    torch.testing.assert_close(found, expected, **tolerance(dtype))
    parameters = [layer.weight, layer.bias]
    for ours, theirs in zip(
        gradients(found, parameters), gradients(expected, parameters), strict=True
    ):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours / scale, theirs / scale, **tolerance(dtype))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["computed", "given"])
def test_convolution(given: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 4, 2).double()
    x = torch.randn(3, 5, 11, 12, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    expected = layer(x).relu()
    found = layers.convolution_relu(x, layer, expected.detach().clone() if given else None)
    torch.testing.assert_close(found, expected)
    inputs = [x, layer.weight, layer.bias]
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs))


@pytest.mark.parametrize("given", [False, True], ids=["computed", "given"])
def test_linear_adds_to_the_gradient_that_is_there(given: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(11, 6).double()
    x = torch.randn(4, 11, dtype=torch.float64, requires_grad=True)
    expected = layer(x).relu()
    output = expected.detach().clone() if given else None
    inputs = [x, layer.weight, layer.bias]
    theirs = gradients(expected, inputs)
    torch.testing.assert_close(gradients(layers.linear_relu(x, layer, output), inputs), theirs)
    before = torch.randn(6, 11, dtype=torch.float64)
    layer.weight.grad = before.clone()
    ours = gradients(layers.linear_relu(x, layer, output), [x, layer.bias])
    torch.testing.assert_close(ours, [theirs[0], theirs[2]])
    torch.testing.assert_close(layer.weight.grad, before + theirs[1])


def test_a_given_output_is_taken_and_left_alone() -> None:
    """Nothing is computed anew, and autograd writes nothing into the tensor."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 2, 2), nn.Conv2d(2, 3, 2)
    x = torch.randint(0, 256, (2, 1, 6, 6), dtype=torch.uint8)
    given = torch.rand(2, 2, 5, 5)
    kept = given.clone()
    y = layers.convolution_relu(layers.first_convolution_relu(x, first, given), second)
    torch.testing.assert_close(y, functional.conv2d(kept, second.weight, second.bias).relu())
    y.sum().backward()
    assert given.grad_fn is None
    assert not given.requires_grad
    torch.testing.assert_close(given, kept, rtol=0, atol=0)


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
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)  # added to, not written over
    outputs = [torch.stack(part) for part in zip(*inner, strict=True)] if given else None
    found = layers.lstm(x, state, keep, layer, outputs)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(9)).to(found.dtype)
    (found * weight).sum().backward()
    torch.testing.assert_close([x.grad, *(p.grad - 1 for p in parameters)], want)


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
    unrolled, values = network.unroll(
        observation, network.initial_state(2), torch.ones(3, 2), outputs
    )
    (unrolled.log_softmax(1)[:, 2] * values).sum().backward()
    return [logits, unrolled, values, flat.gradient]


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
