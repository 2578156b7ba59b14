"""RMSProp and clipping against PyTorch's and by hand; parameters as one vector."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from agents import networks, optim
from agents.optim import (
    FlatParameters,
    centred_rmsprop_step,
    clip_gradient,
    clipping_divisor,
    rmsprop_step,
)


def test_rmsprop_is_pytorchs_where_they_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(20, generator=generator)
    theirs = weights.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.9, eps=1e-3)
    square_average = torch.zeros(20)
    for _ in range(5):
        gradient = torch.randn(20, generator=generator)
        rmsprop_step(weights, gradient, square_average, 0.01, 0.9, 1e-3, "outside_sqrt")
        theirs.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weights, theirs.detach())


@pytest.mark.parametrize(
    ("place", "step"), [("inside_sqrt", 2 / 3), ("outside_sqrt", 2 / (math.sqrt(5) + 4))]
)
def test_rmsprop_by_hand(place: str, step: float) -> None:
    """g = 3/4 * 16/3 + 1/4 * 2^2 = 5; inside: 2 / sqrt(5 + 4) = 2/3; outside: 2 / (sqrt 5 + 4)."""
    weights, square_average = torch.tensor([1.0]), torch.tensor([16 / 3])
    rmsprop_step(weights, torch.tensor([2.0]), square_average, 0.5, 0.75, 4.0, place)
    torch.testing.assert_close(square_average, torch.tensor([5.0]))
    torch.testing.assert_close(weights, torch.tensor([1 - 0.5 * step]))


@pytest.mark.parametrize(
    ("place", "steps"), [("inside_sqrt", [0.4, 0.4]), ("outside_sqrt", [1 / 3] * 2)]
)
def test_corrected_rmsprop_by_hand(place: str, steps: list[float]) -> None:
    """A constant gradient of 2: g / (1 - 0.75^k) = 4 from the first update on.

    0.5 * 2 / sqrt(4 + 2.25) = 0.4 and 0.5 * 2 / (2 + 1) = 1/3; without, the first g is 1.
    """
    epsilon = {"inside_sqrt": 2.25, "outside_sqrt": 1.0}[place]
    weights, square_average = torch.zeros(1), torch.zeros(1)
    for update, step in enumerate(steps, 1):
        before = weights.clone()
        gradient = torch.tensor([2.0])
        rmsprop_step(weights, gradient, square_average, 0.5, 0.75, epsilon, place, update)
        assert float(before - weights) == pytest.approx(step)


@pytest.mark.parametrize("chunk", [3, 20, 64])
@pytest.mark.parametrize("update", [None, 2])
def test_rmsprop_with_epsilon_inside_is_the_formula_in_whatever_chunks(
    monkeypatch: pytest.MonkeyPatch, chunk: int, update: int | None
) -> None:
    monkeypatch.setattr(optim, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    weights, gradient, g = torch.rand(3, 20, generator=generator)
    expected_g = 0.9 * g + 0.1 * gradient**2
    corrected = expected_g / (1 if update is None else 1 - 0.9**2)
    expected = weights - 0.01 * gradient / (corrected + 0.1).sqrt()
    rmsprop_step(weights, gradient, g, 0.01, 0.9, 0.1, "inside_sqrt", update)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(g, expected_g)


@pytest.mark.parametrize("place", ["inside_sqrt", "outside_sqrt"])
@pytest.mark.parametrize(("limit", "divisor"), [(0.5, 10.0), (50.0, 1.0), (0.0, 1.0)])
def test_rmsprop_divides_the_gradient_to_clip_it(place: str, limit: float, divisor: float) -> None:
    """A gradient of norm 5."""
    found = []
    for by in (clipping_divisor(torch.tensor(5.0), limit), None):
        vectors = torch.ones(2), torch.tensor([3.0, 4.0]), torch.zeros(2)
        weights, gradient, square_average = vectors
        if by is None:
            gradient /= divisor
        rmsprop_step(weights, gradient, square_average, 0.1, 0.9, 0.01, place, divisor=by)
        found.append(torch.stack(vectors))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("chunk", [3, 20, 64])
def test_centred_rmsprop_is_pytorchs_where_they_agree(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Whatever the chunks in which the vector is taken."""
    monkeypatch.setattr(optim, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(20, generator=generator)
    theirs = weights.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.9, eps=1e-3, centered=True)
    average, square_average = torch.zeros(20), torch.zeros(20)
    for _ in range(5):
        gradient = torch.randn(20, generator=generator)
        centred_rmsprop_step(
            weights, gradient, average, square_average, 0.01, 0.9, 1e-3, "outside_sqrt"
        )
        theirs.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weights, theirs.detach())


def test_centred_rmsprop_by_hand() -> None:
    """m = 3/4 * 2/3 + 1/4 * 2 = 1; g = 3/4 * 16/3 + 1/4 * 4 = 5; 2 / sqrt(5 - 1 + 5) = 2/3."""
    weights, average, square = torch.tensor([1.0]), torch.tensor([2 / 3]), torch.tensor([16 / 3])
    centred_rmsprop_step(
        weights, torch.tensor([2.0]), average, square, 0.5, 0.75, 5.0, "inside_sqrt"
    )
    torch.testing.assert_close(torch.cat([average, square]), torch.tensor([1.0, 5.0]))
    torch.testing.assert_close(weights, torch.tensor([1 - 0.5 * 2 / 3]))


@pytest.mark.parametrize("place", ["inside_sqrt", "outside_sqrt"])
def test_centred_rmsprop_takes_a_bfloat16_gradient_as_float32(place: str) -> None:
    gradient = torch.randn(500, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = []
    for given in (gradient, gradient.float()):
        vectors = torch.ones(500), torch.zeros(500), torch.ones(500)
        weights, average, square_average = vectors
        centred_rmsprop_step(weights, given, average, square_average, 0.1, 0.9, 0.01, place)
        found.append(torch.stack(vectors))
    assert torch.equal(*found)


def test_centred_rmsprop_of_a_large_constant_gradient_stays_finite() -> None:
    """g - m^2 is 0 but for rounding, which may be more than epsilon below it."""
    weights, average, square = torch.zeros(3, 500)
    gradient = torch.linspace(1e3, 1e5, 500)
    for _ in range(500):
        centred_rmsprop_step(weights, gradient, average, square, 1e-4, 0.95, 0.01, "inside_sqrt")
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("limit", [0.5, 5.0, 50.0])
def test_clipping_is_pytorchs(limit: float) -> None:
    """A gradient of norm 5."""
    gradient, weights = torch.tensor([3.0, 4.0]), nn.Parameter(torch.zeros(2))
    weights.grad = gradient.clone()
    norm = clip_gradient(gradient, limit)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_([weights], limit))
    assert norm.item() == 5.0
    torch.testing.assert_close(gradient, weights.grad)
    torch.testing.assert_close(gradient.norm().item(), min(limit, 5.0), rtol=1e-5, atol=0)


def test_a_limit_of_0_clips_nothing() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert clip_gradient(gradient, 0.0).item() == 5.0
    assert gradient.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norm_of_a_gradient_that_is_not_finite_says_so(bad: float) -> None:
    assert not torch.isfinite(clip_gradient(torch.tensor([1.0, bad]), 0.5))


def small(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, FlatParameters, dict]:
    torch.manual_seed(0)
    network = networks.ActorCriticNetwork("mnih2013", 3, 4, "torch", (4, 36, 36))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    return network, FlatParameters(network, dtype), before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_round_trip(dtype: torch.dtype) -> None:
    """The float32 weights come back bit by bit, whatever the network computes in."""
    network, flat, before = small(dtype)
    state = flat.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)
    other = networks.ActorCriticNetwork("mnih2013", 3, 4, "torch", (4, 36, 36))
    other.load_state_dict(state)
    assert flat.size == sum(p.numel() for p in network.parameters())
    state["policy.bias"] += 1  # a copy, not a view
    assert torch.equal(flat.state_dict()["policy.bias"], before["policy.bias"])


def test_the_network_computes_with_the_vector_and_gradients_land_in_it() -> None:
    network, flat, _ = small()
    observation = torch.ones(2, 4, 36, 36, dtype=torch.uint8)

    def loss():
        logits, value, _ = network(observation, network.initial_state(2))
        return logits.square().sum() + value.sum()

    loss().backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert flat.gradient.norm() > 0
    assert torch.equal(flat.gradient, expected)
    before = loss().item()
    flat.master.add_(flat.gradient, alpha=-1e-3)
    assert loss().item() < before
    flat.gradient.zero_()
    assert all((p.grad == 0).all() for p in network.parameters())


def test_a_bfloat16_network_keeps_float32_weights() -> None:
    """Steps below bfloat16's resolution add up in `master` and reach the network at last."""
    network, flat, _ = small(torch.bfloat16)
    flat.master.fill_(1.0)
    flat.publish()
    for _ in range(64):
        flat.master.add_(2**-12)  # bfloat16 has 8 bits: 1 + 2^-12 is 1 there
        flat.publish()
    assert network.policy.weight.dtype == torch.bfloat16
    assert torch.equal(flat.master, torch.full_like(flat.master, 1 + 2**-6))
    assert (network.policy.weight == 1 + 2**-6).all()


def test_gradients_can_be_kept_in_memory_of_another() -> None:
    """As the rows of one matrix; what was there before is no longer written."""
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    flat = FlatParameters(network)
    before, rows = flat.gradient, torch.zeros(2, flat.size)
    flat.keep_gradient_in(rows[1])
    network(torch.ones(4, 3)).sum().backward()
    assert torch.equal(rows[1], torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert flat.gradient.data_ptr() == rows[1].data_ptr()
    assert rows[1].abs().sum() > 0
    assert before.abs().sum() == rows[0].abs().sum() == 0
