"""Gradients against exactly computed objectives and against longer ways to the same number."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from agents import asynchronous, atari, episodes, lockstep, methods, targets
from agents.optim import rmsprop_step
from agents.schedules import Diverged
from tests.agents.worlds import Doors, Walk, World, settings, use_tiny_trunk

GAMMA = 0.6
STEPS = 3
# P[s, a] is the probability of state 1 after action a in state s, REWARD[s, a] the reward.
P = [[0.2, 0.7], [0.9, 0.4]]
REWARD = [[1.0, -2.0], [0.5, 3.0]]

ESTIMATES = [("total", "kept"), ("reward_to_go", "kept"), ("discounted_reward_to_go", "kept")]


def trajectories(theta: Tensor) -> Iterator[tuple[Tensor, list[int], list[int], list[float]]]:
    """Every (probability, states, actions, rewards) of 3 steps from state 0."""
    pi = torch.softmax(theta, dim=1)
    for actions in itertools.product((0, 1), repeat=STEPS):
        for later in itertools.product((0, 1), repeat=STEPS - 1):
            states = [0, *later]
            probability = torch.ones((), dtype=theta.dtype)
            for t, (s, a) in enumerate(zip(states, actions, strict=True)):
                probability = probability * pi[s, a]
                if t + 1 < STEPS:
                    probability = probability * (P[s][a] if states[t + 1] else 1 - P[s][a])
            rewards = [REWARD[s][a] for s, a in zip(states, actions, strict=True)]
            yield probability, states, list(actions), rewards


def objective(theta: Tensor) -> float:
    """J(theta) = sum over trajectories of p(tau) sum_k gamma^k R_k, without `targets`."""
    return sum(
        float(p) * sum(GAMMA**k * r for k, r in enumerate(rewards))
        for p, _, _, rewards in trajectories(theta)
    )


def finite_difference(theta: Tensor, step: float = 1e-5) -> Tensor:
    gradient = torch.zeros_like(theta)
    for s, a in itertools.product((0, 1), repeat=2):
        shift = torch.zeros_like(theta)
        shift[s, a] = step
        gradient[s, a] = (objective(theta + shift) - objective(theta - shift)) / (2 * step)
    return gradient


def expected_gradient(theta: Tensor, estimate: str, factor: str, baseline: Tensor) -> Tensor:
    """Expectation over trajectories of the gradient that REINFORCE follows."""
    chosen = settings("reinforce", return_estimate=estimate, gamma_t_factor=factor, gamma=GAMMA)
    total = torch.zeros_like(theta)
    for probability, states, actions, rewards in trajectories(theta):
        logits = theta.clone().requires_grad_()
        log_pi = targets.action_log_probability(logits[states], torch.tensor(actions))
        weight = episodes.episode_weights(chosen, torch.tensor(rewards, dtype=theta.dtype))
        loss = targets.policy_gradient_loss(log_pi, targets.advantage(weight, baseline[states]))
        total -= probability * torch.autograd.grad(loss, logits)[0]
    return total


THETA = torch.tensor([[0.3, -0.4], [-1.0, 0.8]], dtype=torch.float64)


@pytest.mark.parametrize("baseline", [[0.0, 0.0], [2.5, -1.5]])
@pytest.mark.parametrize(("estimate", "factor"), ESTIMATES)
def test_expected_reinforce_gradient_is_that_of_the_objective(
    estimate: str, factor: str, baseline: list[float]
) -> None:
    b = torch.tensor(baseline, dtype=torch.float64)
    gradient = expected_gradient(THETA, estimate, factor, b)
    torch.testing.assert_close(gradient, finite_difference(THETA), rtol=1e-7, atol=1e-9)


def test_ignoring_gamma_to_the_t_follows_another_direction() -> None:
    none = torch.zeros(2, dtype=torch.float64)
    ignored = expected_gradient(THETA, "discounted_reward_to_go", "ignored", none)
    exact = finite_difference(THETA)
    assert torch.cosine_similarity(ignored.flatten(), exact.flatten(), dim=0) < 0.999


# --- the same through the code that trains


def fast_reinforce(make_lanes, **overrides) -> episodes.Episodes:
    """REINFORCE with nothing played yet."""
    return methods.build(settings("reinforce", **overrides), make_lanes, 3, 1000)


class Tree(World):
    """The small decision process above."""

    actions = 2
    width = 2

    def observe(self, state: int) -> list[int]:
        return [int(state == 0), int(state == 1)]


@pytest.mark.parametrize(("estimate", "factor"), ESTIMATES)
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_gradient_of_a_whole_update_is_that_of_the_objective(
    monkeypatch: pytest.MonkeyPatch, estimate: str, factor: str, baseline: str
) -> None:
    """`Episodes.add_gradient` over all trajectories against autograd through the exact J."""
    use_tiny_trunk(monkeypatch)
    rewards_int = [[2, -4], [1, 6]]  # the reward table, doubled to whole numbers
    training = fast_reinforce(
        Tree,
        return_estimate=estimate,
        gamma_t_factor=factor,
        baseline=baseline,
        gamma=GAMMA,
        entropy_weight=0.0,
        value_loss_weight=0.0,
        initialisation="torch",
    )
    seen = torch.eye(2, dtype=torch.uint8).reshape(2, 1, 1, 2)
    logits = training.network(seen)[0]
    gradient = torch.zeros_like(training.flat.master)
    exact = torch.zeros(())
    for probability, states, actions, _ in trajectories(logits):
        rewards = [rewards_int[s][a] for s, a in zip(states, actions, strict=True)]
        exact = exact + probability * sum(GAMMA**k * r for k, r in enumerate(rewards))
        recording = episodes._Recording(0, seen[states[0]].numpy())
        following = [*states[1:], 0]
        for action, reward, state in zip(actions, rewards, following, strict=True):
            recording.add(action, reward, seen[state].numpy())
        training.gradient.zero_()
        training.add_gradient(recording)
        gradient -= probability.detach() * training.gradient
    training.flat.gradient.zero_()
    exact.backward()
    assert training.flat.gradient.norm() > 0.01
    torch.testing.assert_close(gradient, training.flat.gradient, rtol=1e-4, atol=1e-6)


def test_chunks_add_up_to_the_whole_episode() -> None:
    """A real episode, its gradient 7 steps at a time and all at once."""
    env = atari.AtariLanes("breakout", 1, atari.PROTOCOLS["noop"])
    recording = episodes._Recording(5, env.reset(np.ones(1, bool), [5])[0])
    rng, stacks = np.random.default_rng(0), []
    for _ in range(60):
        action = rng.integers(0, env.actions, 1)
        step = env.step(action)
        recording.add(int(action[0]), int(step.reward[0]), step.observation[0])
        stacks.append(step.observation[0].copy())
    recording.rewards[20] = 3  # a reward for certain
    assert np.array_equal(recording.observations(1, 60).numpy(), np.array(stacks[:59]))
    gradients, losses = [], []
    for chunk_steps in (7, 10_000):
        training = fast_reinforce(
            lambda lanes: env, chunk_steps=chunk_steps, clip_rewards=True, lanes=1
        )
        losses.append(training.add_gradient(recording))
        gradients.append(training.gradient.clone())
    assert gradients[0].norm() > 0.1
    scale = float(gradients[1].abs().max())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


# --- updates

# With episodes of 5 steps: 10 decisions an update, so 40 frames.
UPDATING = {
    "a2c": {"lanes": 2, "rollout_steps": 5},
    "a3c_ff": {"lanes_per_worker": 2, "rollout_steps": 5, "workers": 1},
    "reinforce": {"lanes": 2, "episodes_per_update": 2},
}


def updates(
    monkeypatch: pytest.MonkeyPatch, method: str, count: int = 1, world=Doors, **overrides
) -> list[SimpleNamespace]:
    """What the first calls of `rmsprop_step` were given, by name; budget: 400 frames."""
    use_tiny_trunk(monkeypatch)
    found = []

    def spy(*given, **named) -> None:
        arguments = inspect.signature(rmsprop_step).bind(*given, **named).arguments
        found.append(SimpleNamespace(**arguments))
        found[-1].gradient = found[-1].gradient / found[-1].divisor
        rmsprop_step(*given, **named)

    for module in (lockstep, asynchronous, episodes):
        monkeypatch.setattr(module, "rmsprop_step", spy)
    chosen = settings(method, initialisation="torch", **UPDATING[method], **overrides)
    training = methods.build(chosen, world, 3, 400)
    for _ in range(count):
        training.advance(400)
    return found


@pytest.mark.parametrize("method", UPDATING)
def test_updates_follow_the_schedules(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """0.5 falls to 0 in 400 frames: by 0.05 an update. REINFORCE counts those it learns from too.

    Updates are counted from 1, for RMSProp's bias correction.
    """
    found = updates(
        monkeypatch,
        method,
        3,
        lambda lanes: Walk(lanes, cap_steps=5),
        learning_rate=0.5,
        learning_rate_schedule="linear_to_zero",
        rmsprop_bias_correction=True,
    )
    rates = [0.45, 0.4, 0.35] if method == "reinforce" else [0.5, 0.45, 0.4]
    assert [update.learning_rate for update in found] == pytest.approx(rates)
    assert [update.corrected_update for update in found] == [1, 2, 3]


@pytest.mark.parametrize("method", UPDATING)
def test_updates_are_along_the_clipped_gradient(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Of norm 0.01 where that is the limit, else the same at its own length."""
    (whole,) = updates(monkeypatch, method, gradient_norm_limit=1e9)
    (clipped,) = updates(monkeypatch, method, gradient_norm_limit=0.01)
    norm = whole.gradient.norm()
    assert norm > 0.1
    expected = whole.gradient * (0.01 / norm)
    torch.testing.assert_close(clipped.gradient, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("clip", [False, True])
def test_an_update_of_reinforce_is_along_the_formula_step_by_step(
    monkeypatch: pytest.MonkeyPatch, clip: bool
) -> None:
    """Policy, value and entropy of two episodes, each step by itself; half of their sum."""
    played, add_gradient = [], episodes.Episodes.add_gradient
    monkeypatch.setattr(
        episodes.Episodes,
        "add_gradient",
        lambda self, recording: played.append(recording) or add_gradient(self, recording),
    )
    chosen = {
        "gamma": 0.8,
        "entropy_weight": 0.7,
        "value_loss_weight": 0.3,
        "clip_rewards": clip,
    }
    (update,) = updates(monkeypatch, "reinforce", gradient_norm_limit=1e9, chunk_steps=2, **chosen)
    assert len(played) == 2
    assert max(len(recording.actions) for recording in played) > 2  # more than a chunk
    # It has the weights of before the update.
    fresh = fast_reinforce(Doors, initialisation="torch", **chosen)
    loss = torch.zeros(())
    for recording in played:
        g = 0.0
        for t in reversed(range(len(recording.actions))):
            reward = recording.rewards[t]
            g = (min(reward, 1) if clip else reward) + 0.8 * g
            logits, v, _ = fresh.network(recording.observations(t, t + 1))
            log_pi = torch.log_softmax(logits[0], 0)
            entropy = -(log_pi.exp() * log_pi).sum()
            loss = loss - log_pi[recording.actions[t]] * (g - v[0].detach())
            loss = loss + 0.3 * (g - v[0]) ** 2 - 0.7 * entropy
        assert max(recording.rewards) > 1
    fresh.flat.gradient.zero_()
    (loss / 2).backward()
    torch.testing.assert_close(update.gradient, fresh.flat.gradient, rtol=1e-4, atol=1e-6)


def test_reinforce_ends_with_the_update_that_breaks_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not only with the next: until then they would play up to the limit of frames."""
    use_tiny_trunk(monkeypatch)
    chosen = settings("reinforce", lanes=2, episodes_per_update=3, learning_rate=1e38)
    training = methods.build(chosen, Doors, 0, 10_000)
    with pytest.raises(Diverged, match=r"^weights is"):
        training.advance(10_000)
