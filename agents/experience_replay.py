"""Topology `replay`: act epsilon-greedily, learn from a replay memory (DQN and its kin)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import q_learning, value_targets
from agents.choices import choose
from agents.config import FRAMES_PER_STEP, ReplaySettings
from agents.lanes import FinishedEpisode, TrainingLanes
from agents.networks import build_action_values
from agents.optim import DTYPES, FlatParameters, centred_rmsprop_step, clip_gradient
from agents.replay import Batch, ReplayMemory
from agents.schedules import exploration, importance_exponent, learning_rate, require_finite
from agents.seeding import derive_seed
from agents.training import Training


class ExperienceReplay(Training):
    """DQN, Double DQN, Dueling and Prioritized; see `training.Training` for the interface.

    All lanes decide together; for every `decisions_per_update` decisions, over all lanes, one
    batch is learnt from. `folder` keeps the memory's frames, to which `state` refers.
    """

    def __init__(
        self,
        settings: ReplaySettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
        folder: Path | None = None,
    ) -> None:
        if folder is None:
            raise ValueError("folder: None; topology replay keeps its memory in a folder")
        self.settings = settings
        self.budget_frames = budget_frames
        self.device = torch.device(device)
        self.frames = 0
        self.updates = 0
        env = make_lanes(settings.lanes)
        self.lanes = TrainingLanes(env, run_seed)
        self.network, self.target_network = (
            build_action_values(
                settings, env.actions, derive_seed(run_seed, "weights"), env.observation_shape
            )
            for _ in range(2)
        )
        dtype = choose("precision", settings.precision, DTYPES)
        self.flat = FlatParameters(self.network, dtype, device)
        self.target = FlatParameters(self.target_network, dtype, device)
        self.average = torch.zeros_like(self.flat.master)
        self.square_average = torch.zeros_like(self.flat.master)
        self.memory = ReplayMemory(
            folder / "frames.bin",
            settings.lanes,
            env.observation_shape,
            settings,
            settings.replay_capacity_steps,
            budget_frames // FRAMES_PER_STEP,
        )
        # Drawn on the CPU on every device: the same numbers whatever trains.
        self._actions = torch.Generator().manual_seed(derive_seed(run_seed, "actions"))
        self._replay = torch.Generator().manual_seed(derive_seed(run_seed, "replay"))
        self._observation: NDArray[np.uint8] | None = None

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play one decision in every lane, then learn as often as is due."""
        settings = self.settings
        if self._observation is None:
            self._observation = self.lanes.start()
        if not self.frames:
            self.memory.begin(np.ones(self.lanes.lanes, bool), self._observation)
        self._play()
        before, self.frames = self.frames, self.frames + self.lanes.lanes * FRAMES_PER_STEP
        learnt_from = max(0, self.frames - settings.learning_starts_frames) // FRAMES_PER_STEP
        while self.updates < learnt_from // settings.decisions_per_update:
            self.learn(self._draw())
        if before // settings.target_period_frames < self.frames // settings.target_period_frames:
            self.copy_to_target()
        return self.lanes.take_finished()

    def _play(self) -> None:
        settings = self.settings
        epsilon = exploration(settings, self.frames)
        actions = value_targets.epsilon_greedy(
            self._q(self._observation), epsilon, self._uniform(self._actions, self.lanes.lanes)
        )
        step, self._observation = self.lanes.step(actions)
        terminal = step.terminated
        if settings.life_loss_is_terminal:
            terminal = terminal | step.life_lost
        self.memory.add(actions, step.reward, terminal, step.observation)
        self.memory.begin(step.terminated | step.truncated, self._observation)

    @torch.inference_mode()
    def _q(self, observation: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.network.q_values(torch.from_numpy(observation).to(self.device)).cpu().numpy()

    @staticmethod
    def _uniform(generator: torch.Generator, count: int) -> NDArray[np.float64]:
        return torch.rand(count, generator=generator, dtype=torch.float64).numpy()

    def _draw(self) -> Batch:
        return self.memory.sample(
            self.settings.batch_size,
            lambda count: self._uniform(self._replay, count),
            importance_exponent(self.settings, self.frames),
        )

    def learn(self, batch: Batch) -> None:
        """Step along the batch's gradient, note its errors."""
        settings = self.settings
        loss, delta = self.backward(batch)
        gradient = self.flat.gradient
        if settings.gradient_norm_limit:
            gradient = gradient.float()
            clip_gradient(gradient, settings.gradient_norm_limit)
        require_finite(loss=loss)
        centred_rmsprop_step(
            self.flat.master,
            gradient,
            self.average,
            self.square_average,
            learning_rate(settings, self.frames, self.budget_frames),
            settings.rmsprop_decay,
            settings.rmsprop_epsilon,
            settings.rmsprop_epsilon_place,
        )
        self.flat.publish()
        self.updates += 1
        if settings.prioritisation != "none":
            limit = settings.error_limit
            errors = delta.clamp(-limit, limit).cpu().numpy()
            self.memory.update_priorities(batch.slots, errors)

    def backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave the gradient of the batch's loss in `flat.gradient`.

        Returns the loss (0-d) and the errors y - Q(s, a), [N].
        """
        return q_learning.backward(
            self.settings,
            self.network,
            self.target_network,
            batch,
            self.device,
        )

    def copy_to_target(self) -> None:
        """Give the target network the weights of the one that is trained."""
        self.target.master.copy_(self.flat.master)
        self.target.publish()

    def policy(self) -> dict[str, Tensor]:
        """Return the network's weights, float32, by name."""
        return self.flat.state_dict()

    def state_is_due(self) -> bool:
        """Whether the frames of the last state would soon be overwritten."""
        return self.memory.state_is_due()

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, but the memory's frames."""
        tensors = {name: tensor.cpu().clone() for name, tensor in self._tensors().items()}
        return {
            "frames": self.frames,
            "updates": self.updates,
            **tensors,
            "lanes": self.lanes.state(),
            "memory": self.memory.state(),
            "actions": self._actions.get_state(),
            "replay": self._replay.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, bit for bit on a CPU."""
        self.frames, self.updates = state["frames"], state["updates"]
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])
        self.flat.publish()
        self.target.publish()
        self._observation = self.lanes.restore(state["lanes"])
        self.memory.restore(state["memory"])
        self._actions.set_state(state["actions"])
        self._replay.set_state(state["replay"])

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "weights": self.flat.master,
            "target_weights": self.target.master,
            "average": self.average,
            "square_average": self.square_average,
        }
