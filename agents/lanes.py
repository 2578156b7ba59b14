"""Training lanes: emulators that start their next episode by themselves and record their traces."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents import trace
from agents.atari import RESTART_BIT, Step
from agents.config import FRAMES_PER_STEP
from agents.seeding import derive_seed


class FinishedEpisode(NamedTuple):
    """One finished training episode; `episode_return` is raw and undiscounted."""

    lane: int
    episode_seed: int
    episode_return: int
    length_frames: int


def training_seed(run_seed: int, lane: int, episode: int, episodes_per_seed: int) -> int:
    """Seed of a lane's episode number `episode`: drawn again for every `episodes_per_seed`-th."""
    restarts = episode % episodes_per_seed
    drawn = derive_seed(run_seed, "lane", lane, "episode", episode - restarts)
    return drawn + (restarts << RESTART_BIT)


def state_at_starts(episode: NDArray[np.int64]) -> dict[str, Any]:
    """Return a `TrainingLanes.state` of lanes that are about to begin `episode`, a number each."""
    lanes = len(episode)
    return {"episode": episode.tolist(), "returns": [0] * lanes, "actions": [b""] * lanes}


class TrainingLanes:
    """Steps `env` and restarts every lane whose episode ended, each with a seed of its own.

    The seed of an episode depends on the run's seed, the lane and the episode's number in that
    lane, never on a generator that lanes share: that makes `restore` exact.

    Args:
        env: `atari.AtariLanes`, or anything with its `lanes`, `reset` and `step`.
        run_seed: the run's seed.
        first_lane: number of this object's first lane among all lanes of the run.
    """

    def __init__(self, env: Any, run_seed: int, first_lane: int = 0) -> None:
        self.env = env
        self.lanes = env.lanes
        self._run_seed = run_seed
        self._first_lane = first_lane
        self._episode = np.zeros(self.lanes, np.int64)
        self._returns = np.zeros(self.lanes, np.int64)
        self._actions = [bytearray() for _ in range(self.lanes)]
        self._finished: list[FinishedEpisode] = []
        self._observation: NDArray[np.uint8] | None = None

    def _seed(self, lane: int) -> int:
        return training_seed(
            self._run_seed,
            self._first_lane + lane,
            int(self._episode[lane]),
            self.env.episodes_per_seed,
        )

    def start(self) -> NDArray[np.uint8]:
        """Begin the first episode of every lane; return observations [B, ...]."""
        seeds = [self._seed(lane) for lane in range(self.lanes)]
        self._observation = self.env.reset(np.ones(self.lanes, bool), seeds)
        return self._observation

    def step(self, actions: NDArray[np.int64]) -> tuple[Step, NDArray[np.uint8]]:
        """Play one decision in every lane.

        Returns the step as the emulators gave it (its observations are the last of an ended
        episode) and the observations to act on next, where ended lanes have started again.
        """
        step = self.env.step(actions)
        self._returns += step.reward
        for lane, action in enumerate(actions.tolist()):
            self._actions[lane].append(action)
        over = step.terminated | step.truncated
        observation = step.observation
        if over.any():
            seeds = []
            for lane in np.flatnonzero(over).tolist():
                self._finished.append(
                    FinishedEpisode(
                        self._first_lane + lane,
                        self._seed(lane),
                        int(self._returns[lane]),
                        len(self._actions[lane]) * FRAMES_PER_STEP,
                    )
                )
                self._episode[lane] += 1
                self._returns[lane] = 0
                self._actions[lane] = bytearray()
                seeds.append(self._seed(lane))
            observation = self.env.reset(over, seeds)
        self._observation = observation
        return step, observation

    def take_finished(self) -> list[FinishedEpisode]:
        """Return the episodes finished since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: no emulator state, only numbers and actions.

        `observations_crc32` are of what each lane is about to act on; None before `start`.
        """
        return {
            "episode": self._episode.tolist(),
            "returns": self._returns.tolist(),
            "actions": [bytes(actions) for actions in self._actions],
            "observations_crc32": self._checksums(),
        }

    def _checksums(self) -> list[int | None]:
        if self._observation is None:
            return [None] * self.lanes
        return [zlib.crc32(np.ascontiguousarray(own)) for own in self._observation]

    def restore(self, state: dict[str, Any]) -> NDArray[np.uint8]:
        """Replay every lane's episode to where `state` left it; return observations [B, ...].

        `ValueError` names game and lane where the replay shows another observation than `state`
        saw: a training that goes on from there would be another one. What differs only inside the
        emulator, and does not show yet, is not seen.
        """
        self._episode[:] = state["episode"]
        self._returns[:] = state["returns"]
        self._actions = [bytearray(actions) for actions in state["actions"]]
        self._observation = trace.restore(
            self.env,
            [
                trace.Trace(self._seed(lane), np.frombuffer(bytes(actions), np.uint8))
                for lane, actions in enumerate(self._actions)
            ],
        )
        # A checkpoint of before these sums has none: it is taken as it is.
        saved = state.get("observations_crc32", [])
        for lane, (found, expected) in enumerate(zip(self._checksums(), saved, strict=False)):
            if expected is not None and found != expected:
                raise ValueError(
                    f"{getattr(self.env, 'game', 'game')}, lane {self._first_lane + lane}: the "
                    f"replayed episode does not show what the checkpoint saw (CRC32 {found:08x}, "
                    f"saved {expected:08x}); was it made with another ale-py, or does the game "
                    f"belong in atari.SEED_EVERY_EPISODE?"
                )
        return self._observation
