"""What Gorila's processes do: actors play, learners remember, learn and push gradients.

Source: Nair et al. 2015, arXiv:1507.04296, known from summaries (config/methods/gorila.yaml).
`gorila` starts them, hands out their work and replaces those that die; what they say to each
other goes through Ray.
"""

from __future__ import annotations

import copy
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents import q_learning, value_targets
from agents.choices import choose, loss_divisor, require_known
from agents.config import FRAMES_PER_STEP, GorilaSettings
from agents.lanes import TrainingLanes
from agents.machine import keep_freed_memory
from agents.networks import ActionValueNetwork
from agents.optim import DTYPES, FlatParameters, clip_gradient
from agents.ray_cluster import Awaited, deaths, import_ray
from agents.replay import Batch, ReplayMemory
from agents.schedules import Diverged, exploration_of_server, learning_rate, require_finite
from agents.seeding import numpy_generator
from agents.shares import shares
from agents.usage import usage


class Rollout(NamedTuple):
    """What an actor played: T decisions of its B lanes. Frames and stacks are uint8."""

    incarnation: int
    number: int  # of this incarnation's rollouts
    start: NDArray[np.uint8]  # stacks before the first decision, [B, stack, H, W]
    actions: NDArray[np.int64]  # [T, B], as all below but the last two
    rewards: NDArray[np.int32]
    terminal: NDArray[np.bool_]
    over: NDArray[np.bool_]
    frames: NDArray[np.uint8]  # newest frame after each decision, [T, B, H, W]
    restarts: NDArray[np.uint8]  # first stacks of new episodes in order, [over.sum(), stack, H, W]

    def store(self, memory: ReplayMemory, begin: bool) -> None:
        """Add all decisions to `memory`; `begin`: its last frames are not those before."""
        lanes = self.actions.shape[1]
        if begin:
            memory.begin(np.ones(lanes, bool), self.start)
        begun = 0
        for step, over in enumerate(self.over):
            memory.add(
                self.actions[step],
                self.rewards[step],
                self.terminal[step],
                self.frames[step][:, None],  # the memory keeps the newest of a stack only
            )
            if over.any():
                stacks = np.zeros_like(self.start)
                stacks[over] = self.restarts[begun : begun + over.sum()]
                begun += over.sum()
                memory.begin(over, stacks)


class OutlierFilter:
    """Names losses above mean + k standard deviations of the last ones, once there are enough.

    Every loss enters the window, or a lasting rise would end the learning.
    Source: Nair et al. 2015, section 4; window and k are not in the sources read.
    """

    def __init__(self, deviations: float, window_updates: int) -> None:
        self.deviations = deviations
        self.losses: deque[float] = deque(maxlen=window_updates)

    def is_outlier(self, loss: float) -> bool:
        """Judge `loss` by those before, then count it among them."""
        outlier = False
        if len(self.losses) == self.losses.maxlen:
            outlier = loss > np.mean(self.losses) + self.deviations * np.std(self.losses)
        self.losses.append(loss)
        return bool(outlier)


@dataclass(frozen=True)
class Plan:
    """What every process is told once. `network` travels whole, with its first weights."""

    settings: GorilaSettings
    run_seed: int
    observation_shape: tuple[int, int, int]
    network: ActionValueNetwork
    make_lanes: Callable[[int], Any]
    budget_frames: int


def require_possible(settings: GorilaSettings, stack: int, budget_frames: int) -> None:
    """Raise `ValueError` for settings that do not go together, or that nothing answers to.

    Now: the processes would say it after minutes, each by itself. `stack` is of frames.
    """
    if settings.learners > settings.actors:
        raise ValueError(
            f"learners: {settings.learners}, but each needs an actor; "
            f"allowed: 1 to {settings.actors}, the number of actors"
        )
    least = (stack + 2) * settings.actors * settings.lanes_per_actor
    if settings.replay_capacity_steps < least:
        raise ValueError(
            f"replay_capacity_steps: {settings.replay_capacity_steps} is too little for all "
            f"lanes; allowed: at least {least}"
        )
    # A learner draws evenly from all of its memories, and notes no errors in them.
    require_known("prioritisation", settings.prioritisation, ("none",))
    choose("precision", settings.precision, DTYPES)
    loss_divisor(settings.loss_reduction, settings.batch_size)
    learning_rate(settings, 0, budget_frames)


class _Worker(Awaited):
    """What actors and learners have in common: a copy of the network, pulled from the shards."""

    def prepare(self, plan: bytes, index: int, incarnation: int, state: Any) -> None:
        """Build everything; here, not in `__init__`, so that an error is told from a death."""
        torch.set_num_threads(1)
        keep_freed_memory()
        self.plan: Plan = import_ray().cloudpickle.loads(plan)
        self.settings = self.plan.settings
        self.index, self.incarnation = index, incarnation
        self.network = self.plan.network
        self.dtype = choose("precision", self.settings.precision, DTYPES)
        self.flat = FlatParameters(self.network, self.dtype)
        self.slices = shares(self.flat.size, self.settings.shards)
        self.versions: list[int] = []
        self.begin(state)

    def begin(self, state: Any) -> None:
        raise NotImplementedError

    def pull(self, shards: list[Any]) -> None:
        """Copy the newest weights here. One of `ray_cluster.deaths` if a shard is dead."""
        pulled = import_ray().get([shard.pull.remote() for shard in shards])
        for part, (weights, _) in zip(self.slices, pulled, strict=True):
            self.flat.master.numpy()[part] = weights
        self.flat.publish()
        self.versions = [version for _, version in pulled]


class Actor(_Worker):
    """Plays its lanes epsilon-greedily with weights pulled before every rollout."""

    def begin(self, state: dict[str, Any] | None) -> None:
        """Begin, or go on from a state of `TrainingLanes`."""
        settings = self.settings
        self.lanes = TrainingLanes(
            self.plan.make_lanes(settings.lanes_per_actor),
            self.plan.run_seed,
            first_lane=self.index * settings.lanes_per_actor,
        )
        self.rollouts = 0
        self.random = numpy_generator(
            self.plan.run_seed, "actor", self.index, "actions", self.incarnation
        )
        self.observation = self.lanes.restore(state) if state else self.lanes.start()

    def play(self, shards: list[Any]) -> tuple[dict[str, Any], Rollout | None]:
        """Play a rollout; return what the driver counts, and the rollout for a learner.

        With the weights at hand where a shard is dead; without any, nothing is played.
        """
        try:
            self.pull(shards)
        except deaths():
            if not self.versions:
                return {"decisions": 0, "finished": [], "usage": usage()}, None
        rollout = self.collect(exploration_of_server(self.settings, self.versions[0]))
        return {
            "decisions": rollout.actions.size,
            "finished": self.lanes.take_finished(),
            "usage": usage(),
        }, rollout

    @torch.inference_mode()
    def collect(self, epsilon: float) -> Rollout:
        """Play `rollout_steps` decisions in every lane."""
        settings, start = self.settings, self.observation.copy()
        rows, restarts = [], []
        for _ in range(settings.rollout_steps):
            q = self.network.q_values(torch.from_numpy(self.observation)).numpy()
            uniform = self.random.random(self.lanes.lanes)
            actions = value_targets.epsilon_greedy(q, epsilon, uniform)
            step, self.observation = self.lanes.step(actions)
            terminal = step.terminated
            if settings.life_loss_is_terminal:
                terminal = terminal | step.life_lost
            over = step.terminated | step.truncated
            rows.append((actions, step.reward, terminal, over, step.observation[:, -1].copy()))
            restarts.append(self.observation[over])
        self.rollouts += 1
        columns = (np.stack(column) for column in zip(*rows, strict=True))
        return Rollout(self.incarnation, self.rollouts, start, *columns, np.concatenate(restarts))

    def state(self) -> dict[str, Any]:
        """Return the lanes' state."""
        return self.lanes.state()


class Learner(_Worker):
    """Learns from the rollouts of its actors, each in a memory of its own."""

    def begin(self, state: dict[str, Any] | None) -> None:
        """Begin with an empty memory; `state` has the target network and the last losses."""
        settings = self.settings
        self.target_network = copy.deepcopy(self.network)
        self.target = FlatParameters(self.target_network, self.dtype)
        self.outliers = OutlierFilter(settings.outlier_deviations, settings.outlier_window_updates)
        self.target_version: int | None = None  # of the weights in the target network
        if state:
            self.target.master.numpy()[:] = state["target_weights"]
            self.target.publish()
            self.target_version = state["target_version"]
            self.outliers.losses.extend(state["losses"])
        self.random = numpy_generator(
            self.plan.run_seed, "learner", self.index, "replay", self.incarnation
        )
        self.memories = {
            actor: self._memory() for actor in range(self.index, settings.actors, settings.learners)
        }
        self._last: dict[int, tuple[int, int]] = {}  # rollout stored last, by actor

    def _memory(self) -> ReplayMemory:
        settings = self.settings
        with tempfile.TemporaryDirectory(prefix="retable-replay-") as folder:
            # The file loses its name at once: it goes with this process, however that dies.
            return ReplayMemory(
                Path(folder) / "frames.bin",
                settings.lanes_per_actor,
                self.plan.observation_shape,
                settings,
                settings.replay_capacity_steps // settings.actors,
                self.plan.budget_frames // FRAMES_PER_STEP // settings.actors,
            )

    def add(self, actor: int, rollout: Rollout) -> int:
        """Store a rollout; return its decisions."""
        last = (rollout.incarnation, rollout.number - 1)
        rollout.store(self.memories[actor], begin=self._last.get(actor) != last)
        self._last[actor] = (rollout.incarnation, rollout.number)
        return rollout.actions.size

    def sample(self, count: int) -> Batch:
        """Draw `count` transitions evenly from all memories."""
        sizes = np.array([len(memory) for memory in self.memories.values()])
        drawn = np.searchsorted(sizes.cumsum(), self.random.random(count) * sizes.sum(), "right")
        counts = np.bincount(drawn, minlength=len(sizes))
        batches = [
            memory.sample(int(n), self.random.random, 1.0)
            for memory, n in zip(self.memories.values(), counts, strict=True)
            if n
        ]
        return Batch(*map(np.concatenate, zip(*batches, strict=True)))

    def learn(self, shards: list[Any], updates: int, rate: float) -> dict[str, Any]:
        """Push `updates` gradients, but for those discarded; fewer if a shard is dead."""
        report = {"updates": 0, "outliers": 0, "stale_pushes": 0, "diverged": ""}
        try:
            while report["updates"] < updates:
                self._update(shards, rate, report)
        except Diverged as error:
            report["diverged"] = str(error)
        except deaths():
            pass  # the driver learns of the death by itself
        return {**report, "usage": usage()}

    def _update(self, shards: list[Any], rate: float, report: dict[str, Any]) -> None:
        settings = self.settings
        self.pull(shards)
        self.copy_to_target()
        loss, _ = q_learning.backward(
            settings,
            self.network,
            self.target_network,
            self.sample(settings.batch_size),
            torch.device("cpu"),
        )
        gradient = self.flat.gradient.float()
        if settings.gradient_norm_limit:
            clip_gradient(gradient, settings.gradient_norm_limit)
        require_finite(loss=loss, gradient_sum=gradient.sum())
        if self.outliers.is_outlier(float(loss)):
            report["outliers"] += 1
        else:
            parts = (gradient.numpy()[part] for part in self.slices)
            answers = import_ray().get(
                [
                    shard.push.remote(part, version, rate)
                    for shard, part, version in zip(shards, parts, self.versions, strict=True)
                ]
            )
            report["stale_pushes"] += sum(not applied for applied, _ in answers)
            self.versions = [version for _, version in answers]
        report["updates"] += 1

    def copy_to_target(self) -> None:
        """Refresh the target network where the first shard has begun a new period."""
        period, version = self.settings.target_period_updates, self.versions[0]
        if self.target_version is None or version // period > self.target_version // period:
            self.target.master.copy_(self.flat.master)
            self.target.publish()
            self.target_version = version

    def state(self) -> dict[str, Any] | None:
        """Return all but the memories; None before the first update."""
        if self.target_version is None:
            return None
        return {
            "target_weights": self.target.master.clone().numpy(),
            "target_version": self.target_version,
            "losses": list(self.outliers.losses),
        }
