"""Rollouts of A2C, actor-critic and A3C: what is recorded, its returns, the gradient from it."""

from __future__ import annotations

import pytest
import torch

from agents.actor_critic import RolloutWorker, join_states
from tests.agents.worlds import Doors, Recall, Walk, settings, use_tiny_trunk


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
        state = tuple(part.clone() for part in worker._rollout_state)
        learnt_from = []

        def loss_of(z: torch.Tensor, v: torch.Tensor, found=learnt_from) -> torch.Tensor:
            found.append(z.detach())
            return z.sum() + v.sum()

        worker.network.backward(worker._observations, state, worker._keep, loss_of)
        logits.append(learnt_from[0].unflatten(0, (4, 3)))
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
        worker.flat.gradient.fill_(7.0)
    assert norms[0] > 0.01
    assert norms == [norms[0]] * 4


def test_states_of_before_none_stood_for_no_sum_are_joined() -> None:
    """Of two lanes each, the first pair not begun."""
    lanes = {"episode": [0, 0], "actions": [b"", b""]}
    begun, not_begun = (
        {"lanes": {**lanes, "observations_crc32": sums}, "starts": [False, False], "lstm": None}
        for sums in ([3, 4], [])
    )
    joined = join_states([not_begun, begun])
    assert joined["lanes"]["observations_crc32"] == [None, None, 3, 4]
    assert joined["lanes"]["episode"] == [0] * 4
