"""Shapes, sizes and independence of the networks."""

from __future__ import annotations

import pytest
import torch

from agents import layers, networks, stacks
from agents.actor_critic import sample_actions
from agents.networks import build_network
from agents.optim import FlatParameters
from agents.trunk import ConvolutionalNetwork


@pytest.mark.parametrize(
    ("trunk", "lstm_cells", "parameters"),
    [
        # 4*16*64+16 + 16*32*16+32 + 32*81*256+256, heads 256*7+7
        ("mnih2013", 0, 4112 + 8224 + 663_808 + 1799),
        # 4*32*64+32 + 32*64*16+64 + 64*64*9+64 + 64*49*512+512, heads 512*7+7
        ("nature", 0, 8224 + 32_832 + 36_928 + 1_606_144 + 3591),
        # as above; an LSTM has 4 gates: 4*256*(512+256) + 2*4*256; heads 256*7+7
        ("nature", 256, 8224 + 32_832 + 36_928 + 1_606_144 + 788_480 + 1799),
    ],
)
def test_sizes(trunk: str, lstm_cells: int, parameters: int) -> None:
    """Six actions and a value; the papers' layers."""
    network = networks.ActorCriticNetwork(trunk, 6, lstm_cells)
    assert sum(p.numel() for p in network.parameters()) == parameters
    logits, value, state = network(
        torch.zeros(2, 4, 84, 84, dtype=torch.uint8), network.initial_state(2)
    )
    assert (logits.shape, value.shape) == ((2, 6), (2,))
    assert (state is None) == (lstm_cells == 0)


@pytest.mark.parametrize(
    ("dueling", "output_bias", "heads"),
    [
        # 3136*512+512, then 512*6 weights with 6 biases or 1; two streams: twice, and a value
        (False, "per_action", 1_606_144 + 3072 + 6),
        (False, "shared", 1_606_144 + 3072 + 1),
        (True, "per_action", 2 * 1_606_144 + 3072 + 6 + 513),
        (True, "shared", 2 * 1_606_144 + 3072 + 513),
    ],
)
def test_sizes_of_action_values(dueling: bool, output_bias: str, heads: int) -> None:
    network = networks.ActionValueNetwork("nature", 6, dueling, output_bias)
    assert sum(p.numel() for p in network.parameters()) == 8224 + 32_832 + 36_928 + heads
    q, best, state = network(torch.zeros(2, 4, 84, 84, dtype=torch.uint8))
    assert (q.shape, state) == ((2, 6), None)
    assert torch.equal(best, q.max(dim=1).values)


def test_pixels_are_scaled_to_one() -> None:
    """255 is 1: equal to a float network on pixels / 255."""
    network = build_network("mnih2013", 3, 0, "torch", 0, (4, 36, 36))
    pixels = torch.randint(
        0, 256, (2, 4, 36, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x = pixels / 255
    for convolution in network.convolutions:
        x = torch.relu(convolution(x))
    expected = torch.relu(network.hidden(x.flatten(1)))
    torch.testing.assert_close(network.trunk(pixels)[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initialisation", networks.INITIALISATIONS)
def test_weights_are_a_function_of_the_seed_alone(initialisation: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (
        build_network("mnih2013", 3, 8, initialisation, seed, (4, 36, 36)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.hidden.weight, again.hidden.weight)
    assert torch.equal(first.lstm.weight_hh, again.lstm.weight_hh)
    assert not torch.equal(first.hidden.weight, other.hidden.weight)


@pytest.mark.parametrize("lstm_cells", [0, 8])
def test_orthogonal_weights_have_their_gains(lstm_cells: int) -> None:
    """Rows at right angles, of length sqrt 2; the policy's 0.01, so all actions are as likely."""
    network = build_network("mnih2013", 3, lstm_cells, "orthogonal", 0, (4, 36, 36))
    layers = [(network.policy, 1e-4), (network.value, 1.0), (network.hidden, 2.0)]
    for layer, square in [*layers, *((each, 2.0) for each in network.convolutions)]:
        rows = layer.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, square * torch.eye(len(rows)))
        assert not layer.bias.any()


@pytest.mark.parametrize("dueling", [False, True])
def test_orthogonal_action_values_have_heads_of_gain_1(dueling: bool) -> None:
    network = networks.ActionValueNetwork(
        "mnih2013", 3, dueling, "per_action", "orthogonal", (4, 36, 36)
    )
    for head in (network.q, network.value) if dueling else (network.q,):
        rows = head.weight.detach()
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)))
        assert not head.bias.any()


@pytest.mark.parametrize("given", [False, True], ids=["computed", "given"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cells", [0, 8])
@pytest.mark.parametrize("trunk", ["nature", "mnih2013"])
def test_gradients_are_autograd_of_forward_step_by_step(
    monkeypatch: pytest.MonkeyPatch, trunk: str, cells: int, workers: int, given: bool
) -> None:
    """With the state cleared where `keep` is 0, whatever was in `grad`, for four lanes of five.

    Those of one worker or two, asked for in either order. Where outputs are given, nothing is
    computed a second time.
    """
    network = build_network(trunk, 3, cells, "torch", 0, (4, 44, 44))
    flat = FlatParameters(network)
    generator = torch.Generator().manual_seed(0)
    pixels = stacks.empty((5, 5, 4, 44, 44))
    pixels.copy_(torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator))
    pixels = pixels[:, 1:]
    keep = torch.ones(5, 4)
    keep[2, 1] = keep[0, 0] = keep[3, 3] = 0
    start = tuple(torch.randn(4, cells, generator=generator) for _ in range(2)) if cells else None
    wanted = torch.randn(5, 4, generator=generator)  # by step and lane
    by_worker = wanted.unflatten(1, (workers, -1)).transpose(0, 1)  # [W, T, lanes of a worker]

    def losses_of(logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return (by_worker.flatten(1) * (logits.log_softmax(-1)[..., 2] + values.square())).sum(1)

    state, logits, values, outputs = start, [], [], []
    for t in range(5):
        state = state and tuple(part * keep[t].unsqueeze(1) for part in state)
        with torch.no_grad():
            outputs.append(network.decide(pixels[t], state)[2])
        z, v, state = network(pixels[t], state)
        logits.append(z)
        values.append(v)
    terms = wanted * (torch.stack(logits).log_softmax(2)[:, :, 2] + torch.stack(values).square())
    expected = []
    for own in range(workers):
        lanes = slice(own * 4 // workers, (own + 1) * 4 // workers)
        flat.gradient.zero_()
        loss = terms[:, lanes].sum()
        loss.backward(retain_graph=True)
        expected.append((loss.detach(), flat.gradient.clone()))
    if given:
        monkeypatch.delattr(ConvolutionalNetwork, "trunk")
        monkeypatch.delattr(layers, "lstm_step")
    flat.gradient.fill_(7.0)
    write = network.gradients(pixels, start, keep, losses_of, workers, outputs if given else None)
    for own in reversed(range(workers)):
        expected_loss, gradient = expected[own]
        torch.testing.assert_close(write(own), expected_loss)
        assert (flat.gradient - gradient).norm() < 1e-5 * gradient.norm()


def test_sampled_actions_follow_the_policy() -> None:
    """Uniform numbers at even steps: each action as often as its probability says."""
    probability = torch.tensor([[0.1, 0.6, 0.3]])
    uniform = (torch.arange(1000) + 0.5) / 1000
    actions = sample_actions(probability.log().expand(1000, 3), uniform)
    assert torch.bincount(actions).tolist() == [100, 600, 300]
    assert actions.tolist() == sorted(actions.tolist())


def test_sampling_at_the_edges_takes_an_action_that_exists() -> None:
    logits = torch.zeros(2, 7)  # 7 sevenths round to less than 1
    uniform = torch.tensor([0.0, 1 - 2**-24])
    assert sample_actions(logits, uniform).tolist() == [0, 6]
