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
from agents.actor_critic import RolloutWorker
from agents.optim import rmsprop_step
from agents.schedules import Diverged
from tests.agents.worlds import Doors, Recall, Walk, World, settings, use_tiny_trunk

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
        found[-1].gradient = found[-1].gradient.clone()
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


# --- rollouts


def test_reinforce_ends_with_the_update_that_breaks_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not only with the next: until then they would play up to the limit of frames."""
    use_tiny_trunk(monkeypatch)
    chosen = settings("reinforce", lanes=2, episodes_per_update=3, learning_rate=1e38)
    training = methods.build(chosen, Doors, 0, 10_000)
    with pytest.raises(Diverged, match=r"^weights is"):
        training.advance(10_000)


def collected(monkeypatch: pytest.MonkeyPatch, method: str, world, **overrides) -> RolloutWorker:
    """A worker in a tiny world."""
    use_tiny_trunk(monkeypatch)
    chosen = settings(method, initialisation="torch", **overrides)
    lanes = 3
    return RolloutWorker(chosen, world(lanes), 7)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(
    ("method", "world"),
    [
        ("a2c", Doors),
        ("actor_critic", Doors),
        ("a2c", lambda lanes: Walk(lanes, cap_steps=4)),
        ("actor_critic", lambda lanes: Walk(lanes, cap_steps=4)),
    ],
)
def test_gradient_of_a_rollout_is_that_of_the_formula_step_by_step(
    monkeypatch: pytest.MonkeyPatch, method: str, world, reduction: str
) -> None:
    """Loops over lanes and steps, replaying the actions in a second copy of the world."""
    worker = collected(
        monkeypatch, method, world, rollout_steps=6, gamma=0.8, loss_reduction=reduction
    )
    replayed = worker.lanes.__class__(world(3), 7)
    worker.collect()
    worker.backward()
    gradient = worker.flat.gradient.clone()

    network, chosen = worker.network, worker.settings
    observation = replayed.start()
    history = []  # per step: logits, v, action, reward, over, v of the state that followed
    for t in range(6):
        logits, v, _ = network(torch.from_numpy(observation.copy()))
        step, observation = replayed.step(worker._actions[t].numpy())
        v_after = network(torch.from_numpy(step.observation))[1].detach()
        history.append((logits, v, worker._actions[t], step, v_after))
    loss = torch.zeros(())
    for lane in range(3):
        for t in range(6):
            g, weight = 0.0, 1.0
            for k in range(t, 6):
                _, _, _, step, v_after = history[k]
                g += weight * float(step.reward[lane])
                weight *= 0.8
                last = k == 5 or step.truncated[lane] or method == "actor_critic"
                if step.terminated[lane]:
                    break
                if last:
                    g += weight * float(v_after[lane])
                    break
            logits, v, action, _, _ = history[t]
            log_pi = torch.log_softmax(logits[lane], 0)
            loss = loss - log_pi[action[lane]] * (g - v[lane].detach())
            loss = loss + chosen.value_loss_weight * (g - v[lane]) ** 2
            loss = loss + chosen.entropy_weight * (log_pi.exp() * log_pi).sum()
    if reduction == "mean":
        loss = loss / 18
    ended = [bool((step.terminated | step.truncated).any()) for _, _, _, step, _ in history]
    assert any(ended[:-1])  # an episode's end inside the rollout
    worker.flat.gradient.zero_()
    loss.backward()
    torch.testing.assert_close(gradient, worker.flat.gradient, rtol=1e-4, atol=1e-5)


class Pays(Walk):
    """Walk that pays five times as much; the last action loses a life besides."""

    def play(self, state, action):
        state, reward, over = super().play(state, action)
        return state, 5 * reward, over

    def step(self, actions):
        return super().step(actions)._replace(life_lost=actions == 2)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_rewards_are_clipped_and_lost_lives_end_returns_where_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, clip: bool, terminal: bool
) -> None:
    """Rewards -5, 0, 5 are -1, 0, 1; the discount 0.8 is 0 with a life. No episode starts anew."""
    worker = collected(
        monkeypatch,
        "a2c",
        Pays,
        rollout_steps=8,
        gamma=0.8,
        clip_rewards=clip,
        life_loss_is_terminal=terminal,
    )
    worker.collect()
    assert worker._actions.unique().tolist() == [0, 1, 2]
    rewards = torch.tensor([-1.0, 0.0, 1.0] if clip else [-5.0, 0.0, 5.0])
    discounts = torch.tensor([0.8, 0.8, 0.0 if terminal else 0.8])
    assert torch.equal(worker._rewards, rewards[worker._actions])
    assert torch.equal(worker._discounts, discounts[worker._actions])
    assert worker._keep.all()


def test_a_cut_episode_is_valued_from_the_lstms_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after 4 steps: 0.8 V(s_4) is added, of the state that the 4 steps have left.

    It is added to the clipped reward: the sum is not clipped.
    """

    def world(lanes: int) -> Pays:
        return Pays(lanes, cap_steps=4)

    chosen = {"rollout_steps": 6, "lstm_cells": 8, "gamma": 0.8, "clip_rewards": True}
    worker = collected(monkeypatch, "a3c_lstm", world, **chosen)
    worker.collect()
    replayed, network = worker.lanes.__class__(world(3), 7), worker.network
    observation, state = replayed.start(), network.initial_state(3)
    with torch.no_grad():
        for t in range(4):
            _, state, _ = network.decide(torch.from_numpy(observation), state)
            step, observation = replayed.step(worker._actions[t].numpy())
        last = torch.from_numpy(step.observation)
        v, v_without = network(last, state)[1], network(last)[1]
    assert step.truncated.all()
    assert (v - v_without).abs().min() > 0.01
    expected = torch.from_numpy(step.reward.clip(-1, 1)) + 0.8 * v
    assert expected.abs().max() > 1
    torch.testing.assert_close(worker._rewards[3], expected)


def test_lstm_state_crosses_the_edge_of_a_rollout_and_not_the_end_of_an_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three rollouts unrolled one by one give the logits of each episode unrolled alone."""
    worker = collected(
        monkeypatch, "a3c_lstm", lambda lanes: Recall(lanes), rollout_steps=4, lstm_cells=8
    )
    logits, observations, starts, acted = [], [], [], []
    decide = worker.network.decide

    def record(observation, state=None):
        result = decide(observation, state)
        acted.append(result[0])
        return result

    monkeypatch.setattr(worker.network, "decide", record)
    for _ in range(3):
        worker.collect()
        with torch.no_grad():
            state = tuple(part.clone() for part in worker._rollout_state)
            unrolled, _ = worker.network.unroll(worker._observations, state, worker._keep)
        logits.append(unrolled.unflatten(0, (4, 3)))
        observations.append(worker._observations.clone())
        starts.append(worker._keep.clone() == 0)
    logits, observations = torch.cat(logits), torch.cat(observations)
    starts, acted = torch.cat(starts), torch.stack(acted)
    torch.testing.assert_close(logits, acted)  # what was learnt from is what was played
    for lane in range(3):
        state = None
        for t in range(12):
            if t % 3 == 0:  # episodes of Recall last three steps
                state = worker.network.initial_state(1)
            with torch.no_grad():
                alone, state, _ = decide(observations[t, lane : lane + 1], state)
            torch.testing.assert_close(logits[t, lane], alone[0])
    assert starts[3::3].all()
    assert int(starts.sum()) == 9


def test_gradient_does_not_accumulate_over_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rollout's gradient again and again has the same norm."""
    worker = collected(monkeypatch, "a3c_ff", Doors, rollout_steps=5)
    worker.collect()
    norms = []
    for _ in range(4):
        worker.backward()
        norms.append(float(worker.flat.gradient.norm()))
    assert norms[0] > 0.01
    assert norms == [norms[0]] * 4
