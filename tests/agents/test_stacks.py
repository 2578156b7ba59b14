"""Stacks laid out pixel by pixel show what the emulator gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import atari, stacks
from agents.actor_critic import RolloutWorker
from agents.episodes import Episodes
from tests.agents.worlds import settings


def played(stack: int, lanes: int = 3, steps: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T, B, stack, H, W] of random frames, and where an episode begins [T, B]."""
    rng = np.random.default_rng(0)
    begun = rng.random((steps, lanes)) < 0.3
    observation = rng.integers(0, 256, (lanes, stack, 6, 5), dtype=np.uint8)
    found = []
    for starts in begun:
        newest = rng.integers(0, 256, (lanes, 1, 6, 5), dtype=np.uint8)
        fresh = rng.integers(0, 256, observation.shape, dtype=np.uint8)
        followed = np.concatenate([observation[:, 1:], newest], axis=1)
        observation = np.where(starts[:, None, None, None], fresh, followed)
        found.append(observation)
    return np.stack(found), begun


@pytest.mark.parametrize("stack", [4, 3])
def test_stacks_follow_each_other(stack: int) -> None:
    """Shifted where there are four frames, copied elsewhere and where an episode begins."""
    observations, begun = played(stack)
    found = stacks.empty(observations.shape)
    found[0].copy_(torch.from_numpy(observations[0]))
    for t in range(1, len(observations)):
        stacks.follow(found[t - 1], observations[t], begun[t], out=found[t])
    assert np.array_equal(found.numpy(), observations)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [4, 3])
def test_windows_are_the_stacks_of_consecutive_frames(count: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 6, 5), dtype=np.uint8)
    found = stacks.windows(list(frames), count)
    expected = np.stack([frames[first : first + count] for first in range(10 - count)])
    assert np.array_equal(found.numpy(), expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_reinforce_acts_on_what_the_emulator_shows() -> None:
    """Over the ends of episodes, and learns from the same stacks."""
    env = atari.AtariLanes("breakout", 2, atari.protocol("noop"))
    training = Episodes(
        settings("reinforce", lanes=2, episodes_per_update=5), lambda _: env, 0, 10**6
    )
    given, acted, episodes, act = [], [], 0, training._act
    for name in ("reset", "step"):
        function = getattr(env, name)

        def recorded(*arguments, function=function):
            result = function(*arguments)
            given.append(np.array(result if isinstance(result, np.ndarray) else result.observation))
            return result

        setattr(env, name, recorded)

    def seen(observation: torch.Tensor) -> np.ndarray:
        acted.append(observation.numpy().copy())
        assert np.array_equal(acted[-1], given[-1])
        return act(observation)

    training._act = seen
    for lane, recording in training._play():
        steps = len(recording.actions)
        shown = np.stack([observation[lane] for observation in acted[-steps:]])
        assert np.array_equal(recording.observations(0, steps).numpy(), shown)
        episodes += 1
    assert episodes == 5


def test_a_worker_acts_on_what_the_emulator_shows() -> None:
    """Over the ends of episodes and of rollouts."""
    env = atari.AtariLanes("breakout", 2, atari.protocol("noop"))
    worker = RolloutWorker(settings("a2c", lanes=2, rollout_steps=50), env, 0)
    seen, step, start = [], worker.lanes.step, worker.lanes.start
    worker.lanes.start = lambda: (seen.append(start()), seen[-1])[1]

    def recorded(actions: np.ndarray):
        result = step(actions)
        seen.append(result[1].copy())
        return result

    worker.lanes.step = recorded
    acted = []
    for _ in range(6):
        worker.collect()
        acted.append(worker._observations.numpy().copy())
    assert len(worker.lanes.take_finished()) >= 2
    assert np.array_equal(np.concatenate(acted), np.stack(seen[:-1]))
    assert np.array_equal(worker._stacks[-1].numpy(), seen[-1])
