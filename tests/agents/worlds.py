"""Tiny worlds with a known optimum and the interface of `atari.AtariLanes`, and their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from agents import config
from agents.atari import Step
from agents.lanes import FinishedEpisode
from agents.trunk import TRUNKS

METHODS = Path(__file__).resolve().parents[2] / "config" / "methods"
UNITS = 32  # of the trunk without convolutions that `use_tiny_trunk` puts in

# Settings that fit worlds of a few steps; everything else stays as the method's file has it.
TINY = {
    "network": "mnih2013",
    "learning_rate": 0.01,
    "learning_rate_schedule": "constant",
    "rmsprop_epsilon": 1e-5,
    "rmsprop_epsilon_place": "outside_sqrt",
    "clip_rewards": False,
}
ASYNC = {"workers": 2, "lanes_per_worker": 4, "schedule": "round_robin"}


def use_tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the smallest trunk by one hidden layer without convolutions."""
    monkeypatch.setitem(TRUNKS, "mnih2013", ((), UNITS))


def settings(method: str, **overrides: Any) -> config.MethodSettings:
    """Settings of a method's file, made fit for a tiny world, with `overrides`."""
    path = METHODS / f"{method}.yaml"
    known = yaml.safe_load(path.read_text())
    fit = {key: value for key, value in TINY.items() if key in known}
    values = {**fit, **(ASYNC if method.startswith("a3c") else {}), **overrides}
    return config.load_method(path, values)


class World:
    """Lanes of a tiny world. An episode is a function of its seed and its actions.

    A subclass has `actions`, `width` (of an observation [1, 1, width]) and the three methods
    `begin`, `observe` and `play` on one lane's state.
    """

    actions: int
    width: int
    episodes_per_seed = 3

    def __init__(self, lanes: int, cap_steps: int = 100) -> None:
        self.lanes = lanes
        self.cap_steps = cap_steps
        self.observation_shape = (1, 1, self.width)
        self._states: list[Any] = [None] * lanes
        self._steps = np.zeros(lanes, np.int64)
        self._over = np.ones(lanes, bool)

    def begin(self, rng: np.random.Generator) -> Any:
        """Return the state at the start of an episode."""
        raise NotImplementedError

    def observe(self, state: Any) -> list[int]:
        """Return what the agent sees, `width` numbers."""
        raise NotImplementedError

    def play(self, state: Any, action: int) -> tuple[Any, int, bool]:
        """Return next state, reward, terminated."""
        raise NotImplementedError

    def _observations(self) -> NDArray[np.uint8]:
        rows = np.array([self.observe(state) for state in self._states], np.uint8)
        return rows.reshape(self.lanes, *self.observation_shape)

    def reset(self, mask: NDArray[np.bool_], seeds: Any) -> NDArray[np.uint8]:
        lanes = np.flatnonzero(mask)
        assert len(lanes) == len(seeds)
        for lane, seed in zip(lanes, seeds, strict=True):
            self._states[lane] = self.begin(np.random.default_rng(int(seed)))
            self._steps[lane] = 0
            self._over[lane] = False
        return self._observations()

    def step(self, actions: NDArray[np.int64]) -> Step:
        assert not self._over.any(), "a lane was not reset after its episode's end"
        reward = np.zeros(self.lanes, np.int32)
        terminated = np.zeros(self.lanes, bool)
        for lane, action in enumerate(actions):
            assert 0 <= action < self.actions
            state, reward[lane], terminated[lane] = self.play(self._states[lane], int(action))
            self._states[lane] = state
        self._steps += 1
        truncated = (self._steps >= self.cap_steps) & ~terminated
        self._over = terminated | truncated
        lost = np.zeros(self.lanes, bool)
        return Step(self._observations(), reward, terminated, truncated, lost)


class Doors(World):
    """`length` rooms; the bit that is seen names the door on. The last room pays `prize`.

    Actions: the two doors (a wrong one leads nowhere) or to leave with a reward of `exit_reward`.
    Optimum: `prize` in `length` steps; twice as many without looking. Whoever expects to earn
    after the episode's end, or sees no further than its rollout, leaves at once.
    """

    actions = 3
    length, prize, exit_reward = 3, 5, 2
    width = length + 2

    def begin(self, rng: np.random.Generator) -> Any:
        return 0, rng.integers(0, 2, self.length).tolist()

    def observe(self, state: Any) -> list[int]:
        room, bits = state
        seen = [0] * self.width
        if room < self.length:
            seen[room] = seen[self.length + bits[room]] = 1
        return seen

    def play(self, state: Any, action: int) -> tuple[Any, int, bool]:
        room, bits = state
        if action == 2:
            return state, self.exit_reward, True
        room += action == bits[room]
        return (room, bits), self.prize * (room == self.length), room == self.length


class Lives(Doors):
    """Doors in which every step loses a life."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        step = super().step(actions)
        return step._replace(life_lost=~step.terminated)


class Recall(World):
    """A bit is shown once; `delay` blank steps later the action must name it (reward 1 or 0).

    Optimum: 1; without memory 0.5. The steps before the last ignore the action.
    """

    actions = 2
    delay = 2
    width = 4

    def begin(self, rng: np.random.Generator) -> Any:
        return 0, int(rng.integers(2))

    def observe(self, state: Any) -> list[int]:
        time, bit = state
        return [
            int(time == 0 and bit == 0),
            int(time == 0 and bit == 1),
            int(time == self.delay),
            1,
        ]

    def play(self, state: Any, action: int) -> tuple[Any, int, bool]:
        time, bit = state
        last = time == self.delay
        return (time + 1, bit), int(last and action == bit), last


class Walk(World):
    """Never ends by itself: pays the action, moves around a ring. Every episode is truncated."""

    actions = 3
    width = 5

    def begin(self, rng: np.random.Generator) -> Any:
        return int(rng.integers(self.width))

    def observe(self, state: Any) -> list[int]:
        return [int(state == place) for place in range(self.width)]

    def play(self, state: Any, action: int) -> tuple[Any, int, bool]:
        return (state + action) % self.width, action - 1, False


def train(training: Any, budget_frames: int) -> list[FinishedEpisode]:
    """Advance `training` to its budget; return its episodes in their order."""
    episodes = []
    try:
        while training.frames < budget_frames:
            episodes += training.advance(budget_frames)
    finally:
        training.close()
    return episodes


def recent(episodes: list[FinishedEpisode], count: int = 200) -> float:
    """Mean return of the last `count` episodes."""
    return float(np.mean([episode.episode_return for episode in episodes[-count:]]))
