"""Topology `lockstep`: all lanes act together, one learner updates after each rollout (A2C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from agents.actor_critic import RolloutWorker
from agents.config import LockstepSettings
from agents.lanes import FinishedEpisode
from agents.optim import clip_gradient, rmsprop_step
from agents.schedules import corrected_update, learning_rate, require_finite


class Lockstep:
    """A2C and the one-step actor-critic; see `methods.Training` for the interface."""

    def __init__(
        self,
        settings: LockstepSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
    ) -> None:
        self.settings = settings
        self.budget_frames = budget_frames
        self.frames = 0
        self.worker = RolloutWorker(settings, make_lanes(settings.lanes), run_seed, device=device)
        self.square_average = torch.zeros_like(self.worker.flat.master)

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play one rollout and update once; return the episodes it finished."""
        worker, settings = self.worker, self.settings
        worker.collect()
        loss = worker.backward()
        gradient = worker.flat.gradient.float()
        norm = clip_gradient(gradient, settings.gradient_norm_limit)
        require_finite(loss=loss, gradient_norm=norm)
        rate = learning_rate(settings, self.frames, self.budget_frames)
        rmsprop_step(
            worker.flat.master,
            gradient,
            self.square_average,
            rate,
            settings.rmsprop_decay,
            settings.rmsprop_epsilon,
            settings.rmsprop_epsilon_place,
            corrected_update(settings, self.frames // worker.frames_per_rollout),
        )
        worker.flat.publish()
        self.frames += worker.frames_per_rollout
        return worker.lanes.take_finished()

    def take_finished(self) -> list[FinishedEpisode]:
        """Nothing is played outside `advance`."""
        return []

    def policy(self) -> dict[str, torch.Tensor]:
        """Return the network's weights, float32, by name."""
        return self.worker.flat.state_dict()

    def state_is_due(self) -> bool:
        """A state refers to no files."""
        return False

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "frames": self.frames,
            "weights": self.worker.flat.master.cpu().clone(),
            "square_average": self.square_average.cpu().clone(),
            "worker": self.worker.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, bit for bit on a CPU."""
        self.frames = state["frames"]
        self.worker.flat.master.copy_(state["weights"])
        self.worker.flat.publish()
        self.square_average.copy_(state["square_average"])
        self.worker.restore(state["worker"])

    def close(self) -> None:
        """Nothing runs beside this process."""

    def core_seconds_of_workers(self) -> float:
        """CPU time spent outside this process: none."""
        return 0.0

    def peak_memory_of_workers(self) -> int:
        """Bytes resident outside this process: none."""
        return 0
