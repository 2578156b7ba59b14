"""Topology `episodes`: REINFORCE, Monte-Carlo over whole episodes of one policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import stacks, targets
from agents.actor_critic import sample_actions
from agents.choices import choose, require_known
from agents.config import FRAMES_PER_STEP, EpisodeSettings
from agents.lanes import FinishedEpisode, training_seed
from agents.networks import build_network
from agents.optim import DTYPES, FlatParameters, clipping_divisor, rmsprop_step
from agents.schedules import corrected_update, learning_rate, require_finite
from agents.seeding import derive_seed
from agents.training import Training

# By `return_estimate`, then by `gamma_t_factor`.
RETURN_ESTIMATES = {
    "total": {"kept": targets.total_return, "ignored": targets.total_return},
    "reward_to_go": {"kept": targets.reward_to_go},
    "discounted_reward_to_go": {
        "kept": targets.reward_to_go,
        "ignored": targets.discounted_reward_to_go,
    },
}


class _Recording:
    """One episode while it is played: single frames, not stacks, so a quarter of the bytes."""

    def __init__(self, seed: int, observation: NDArray[np.uint8]) -> None:
        self.seed = seed
        self.frames = [frame.copy() for frame in observation]
        self.stack = len(observation)
        self.actions: list[int] = []
        self.rewards: list[int] = []

    def add(self, action: int, reward: int, observation: NDArray[np.uint8]) -> None:
        self.actions.append(action)
        self.rewards.append(reward)
        self.frames.append(observation[-1].copy())

    def observations(self, start: int, stop: int) -> Tensor:
        """Stacks of the steps start..stop-1, uint8 [stop - start, stack, H, W]."""
        return stacks.windows(self.frames[start : stop + self.stack - 1], self.stack)


class Episodes(Training):
    """REINFORCE; see `training.Training` for the interface.

    One update: N episodes under one policy, the gradient of each added up in chunks as soon as
    it is over, then one step along the sum divided by N. One that the limit of frames has cut
    counts as ended: its return has nothing of what would follow. Memory is bounded by the
    episodes in play (7 kB a step), not by the update. A lane that finds no episode left to start
    waits.
    """

    def __init__(
        self,
        settings: EpisodeSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        require_known("life_loss_is_terminal", settings.life_loss_is_terminal, (False,))
        self.settings = settings
        self.budget_frames = budget_frames
        self.device = torch.device(device)
        self.stop_asked = stop_asked
        self.frames = 0
        self.updates = 0
        self._run_seed = run_seed
        self._env = make_lanes(min(settings.lanes, settings.episodes_per_update))
        self.network = build_network(
            settings.network,
            self._env.actions,
            settings.lstm_cells,
            settings.initialisation,
            derive_seed(run_seed, "weights"),
            self._env.observation_shape,
        )
        dtype = choose("precision", settings.precision, DTYPES)
        self.flat = FlatParameters(self.network, dtype, device)
        # Episodes begun in each lane, those included that a waiting lane plays to no purpose.
        self._begun = np.zeros(self._env.lanes, np.int64)
        self.gradient = torch.zeros_like(self.flat.master)
        self.square_average = torch.zeros_like(self.flat.master)
        self.generator = torch.Generator().manual_seed(derive_seed(run_seed, "actions"))

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play N episodes and update once; return the episodes.

        When asked to stop it is as before at once: no episode, no frames, no update.
        """
        settings = self.settings
        begun = self.state()
        self.gradient.zero_()
        finished = []
        for lane, recording in self._play():
            loss = self.add_gradient(recording)
            require_finite(loss=loss)
            finished.append(
                FinishedEpisode(
                    lane,
                    recording.seed,
                    sum(recording.rewards),
                    len(recording.actions) * FRAMES_PER_STEP,
                )
            )
            self.frames += finished[-1].length_frames
        if len(finished) < settings.episodes_per_update:
            self.restore(begun)
            return []
        self.gradient /= settings.episodes_per_update
        norm = torch.linalg.vector_norm(self.gradient)
        require_finite(gradient_norm=norm)
        rmsprop_step(
            self.flat.master,
            self.gradient,
            self.square_average,
            learning_rate(settings, self.frames, self.budget_frames),
            settings.rmsprop_decay,
            settings.rmsprop_epsilon,
            settings.rmsprop_epsilon_place,
            corrected_update(settings, self.updates),
            clipping_divisor(norm, settings.gradient_norm_limit),
        )
        # Here, not only at the next gradient: NaN weights play action 0 up to the frame cap first.
        require_finite(weights=self.flat.master.sum())
        self.flat.publish()
        self.updates += 1
        return finished

    def _seed(self, lane: int) -> int:
        begun, episodes_per_seed = int(self._begun[lane]), self._env.episodes_per_seed
        return training_seed(self._run_seed, lane, begun, episodes_per_seed)

    def _play(self):
        """Yield (lane, recording) of each of the update's episodes when it is over.

        All of them, unless asked to stop.
        """
        lanes = self._env.lanes
        waiting = self.settings.episodes_per_update  # episodes that no lane has begun
        playing: list[_Recording | None] = [None] * lanes
        observation = None
        before, shown = (stacks.empty((lanes, *self._env.observation_shape)) for _ in range(2))
        restart = np.ones(lanes, bool)
        while not self.stop_asked():
            if restart.any():
                starting = np.flatnonzero(restart).tolist()
                seeds = [self._seed(lane) for lane in starting]
                self._begun[restart] += 1
                observation = self._env.reset(restart, seeds)
                for lane, seed in zip(starting, seeds, strict=True):
                    playing[lane] = _Recording(seed, observation[lane]) if waiting else None
                    waiting = max(0, waiting - 1)
                if all(recording is None for recording in playing):
                    return
            before, shown = shown, before
            stacks.follow(before, observation, restart, shown)
            actions = self._act(shown)
            step = self._env.step(actions)
            observation = step.observation
            restart = step.terminated | step.truncated
            for lane, recording in enumerate(playing):
                if recording is not None:
                    recording.add(int(actions[lane]), int(step.reward[lane]), observation[lane])
                    if restart[lane]:
                        yield lane, recording

    @torch.inference_mode()
    def _act(self, observation: Tensor) -> NDArray[np.int64]:
        logits, _, _ = self.network.decide(observation.to(self.device))
        uniform = torch.rand(len(observation), generator=self.generator)
        return sample_actions(logits, uniform.to(self.device)).cpu().numpy()

    def add_gradient(self, recording: _Recording) -> Tensor:
        """Add the gradient of one whole episode's loss to `gradient`; return the loss (0-d).

            L = - sum_t log pi(a_t | s_t) (w_t - b(s_t)) + c_v sum_t (w_t - V(s_t))^2 - beta H

        It is computed `chunk_steps` steps at a time; their sum is the whole episode's gradient.
        """
        settings = self.settings
        rewards = torch.tensor(recording.rewards, dtype=torch.float32)
        if settings.clip_rewards:
            rewards.clamp_(-1, 1)
        weight = episode_weights(settings, rewards).to(self.device)
        actions = torch.tensor(recording.actions).to(self.device)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(actions), settings.chunk_steps):
            stop = min(start + settings.chunk_steps, len(actions))
            total += self.network.backward(
                recording.observations(start, stop).to(self.device).unsqueeze(1),
                None,
                torch.ones(stop - start, 1, device=self.device),
                partial(self._loss, actions[start:stop], weight[start:stop]),
            )
            self.gradient += self.flat.gradient
        return total

    def _loss(self, actions: Tensor, w: Tensor, logits: Tensor, values: Tensor) -> Tensor:
        """L of `add_gradient` over some steps."""
        settings = self.settings
        log_pi = targets.action_log_probability(logits, actions)
        if choose("baseline", settings.baseline, {"none": False, "value": True}):
            policy_weight = targets.advantage(w, values)
            loss = settings.value_loss_weight * targets.value_loss(values, w)
        else:
            policy_weight, loss = w, 0 * values.sum()  # of which V's weights get a gradient, 0
        loss = loss + targets.policy_gradient_loss(log_pi, policy_weight)
        return loss - settings.entropy_weight * targets.entropy(logits).sum()

    def policy(self) -> dict[str, Tensor]:
        """Return the network's weights, float32, by name."""
        return self.flat.state_dict()

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on: between updates no lane plays."""
        return {
            "frames": self.frames,
            "updates": self.updates,
            "weights": self.flat.master.cpu().clone(),
            "square_average": self.square_average.cpu().clone(),
            "generator": self.generator.get_state(),
            "begun": self._begun.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, bit for bit on a CPU."""
        self.frames, self.updates = state["frames"], state["updates"]
        self.flat.master.copy_(state["weights"])
        self.flat.publish()
        self.square_average.copy_(state["square_average"])
        self.generator.set_state(state["generator"])
        self._begun[:] = state["begun"]


def episode_weights(settings: EpisodeSettings, rewards: Tensor) -> Tensor:
    """Return the weight w_t of each log-probability of one whole episode, [T].

    The names are the lecture's: `total` G(tau), `reward_to_go` gamma^t G_t, and
    `discounted_reward_to_go` G_t with the factor gamma^t kept or ignored.
    """
    by_factor = choose("return_estimate", settings.return_estimate, RETURN_ESTIMATES)
    weight = choose("gamma_t_factor", settings.gamma_t_factor, by_factor)
    return weight(rewards, settings.gamma)
