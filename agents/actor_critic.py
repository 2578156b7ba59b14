"""Actor-critic by rollouts: act for T steps in B lanes, estimate returns, add up the gradient.

`lockstep` (A2C, one-step actor-critic) and `asynchronous` (A3C) decide what becomes of the
gradient; nothing here updates weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import stacks, targets
from agents.atari import Step
from agents.choices import choose, loss_divisor
from agents.config import FRAMES_PER_STEP, AsyncSettings, LockstepSettings
from agents.lanes import TrainingLanes
from agents.networks import build_network
from agents.optim import DTYPES, FlatParameters
from agents.seeding import derive_seed
from agents.shapes import regroup
from agents.shares import shares


def sample_actions(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw actions [B] from softmax(logits [B, A]) by inverting its distribution function.

    `uniform` [B] in [0, 1) comes from the caller's generator, one number per lane.
    """
    cumulative = torch.softmax(logits, dim=1).cumsum(dim=1)
    # The last sum may round below 1, so the last action takes what is left.
    return (uniform.unsqueeze(1) >= cumulative[:, :-1]).sum(dim=1)


Settings = LockstepSettings | AsyncSettings

# At most so many steps of several workers have their gradients computed in one batch; of one worker
# any number. More are no faster and take memory.
GRADIENT_BATCH_STEPS = 160


def _n_step(_: Settings, rewards: Tensor, discounts: Tensor, v: Tensor, v_end: Tensor) -> Tensor:
    return targets.n_step_return(rewards, discounts, v_end)


def _one_step(_: Settings, rewards: Tensor, discounts: Tensor, v: Tensor, v_end: Tensor) -> Tensor:
    v_next = torch.cat([v[1:], v_end.unsqueeze(0)])
    return targets.one_step_target(rewards, discounts, v_next)


# By `return_estimate`. Of a rollout's rewards, discounts and values V(s_t), [T, B], and the value
# of the state after it, [B].
RETURN_ESTIMATES = {"n_step": _n_step, "one_step": _one_step}


class RolloutWorker:
    """Lanes, a network and the gradient of a rollout. Serial, lockstep and A3C alike.

    A worker is what adds up one gradient, in A3C an actor-learner. This may be several of them
    together: they act in one batch, with the same weights, and each has as many of the lanes,
    neighbours, a random stream and a gradient of its own.

    Args:
        settings: of the method.
        env: lanes as `atari.AtariLanes`.
        run_seed: the run's seed.
        names: of the workers' random streams, [("worker", 3), ("worker", 4)]; of one by default.
        first_lane: number of its first lane among all lanes of the run.
        drawn_lanes: for how many lanes a random stream is, where others have the same one and
            this worker takes what is for its own lanes; by default it is for them alone.
        device: "cpu" or "cuda".

    Attributes:
        workers: how many they are.
    """

    def __init__(
        self,
        settings: Settings,
        env: Any,
        run_seed: int,
        names: Sequence[tuple[str | int, ...]] = ((),),
        first_lane: int = 0,
        drawn_lanes: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.lanes = TrainingLanes(env, run_seed, first_lane)
        self.network = build_network(
            settings.network,
            env.actions,
            settings.lstm_cells,
            settings.initialisation,
            derive_seed(run_seed, "weights"),
            env.observation_shape,
        )
        dtype = choose("precision", settings.precision, DTYPES)
        self.flat = FlatParameters(self.network, dtype, device)
        self._estimate = choose("return_estimate", settings.return_estimate, RETURN_ESTIMATES)
        # Drawn on the CPU on every device: the same numbers whatever trains.
        self._generators = [
            torch.Generator().manual_seed(derive_seed(run_seed, "actions", *name)) for name in names
        ]
        steps, lanes = settings.rollout_steps, env.lanes
        self.workers = len(names)
        self._lanes_of = shares(lanes, self.workers)  # of each worker
        per_worker = lanes // self.workers
        first_drawn = 0 if drawn_lanes is None else first_lane
        self._drawn = steps, drawn_lanes or per_worker
        self._loss_divisor = loss_divisor(settings.loss_reduction, math.prod(self._drawn))
        self._kept_draws = slice(first_drawn, first_drawn + per_worker)
        # Of each step, and of what follows the last.
        self._stacks = stacks.empty(
            (steps + 1, lanes, *env.observation_shape), pin_memory=self.device.type == "cuda"
        )
        self._observations = self._stacks[:-1]
        self._actions = torch.zeros((steps, lanes), dtype=torch.int64)
        self._rewards = torch.zeros((steps, lanes))
        self._discounts = torch.zeros((steps, lanes))
        self._keep = torch.ones((steps, lanes))  # 0 where an episode starts with that step
        self._starts = np.zeros(lanes, bool)
        self._state = self.network.initial_state(lanes)
        self._rollout_state = self._state
        self._outputs: list[Any] = [None] * steps  # of the network's layers, per step
        self._v_end = torch.zeros(lanes)  # V of the states after the rollout
        # Workers whose gradients are computed in one batch, and those of them not yet asked for.
        self._at_once = max(1, GRADIENT_BATCH_STEPS // (steps * per_worker))
        self._left: set[int] = set()
        self._write: Callable[[int], Tensor] | None = None
        self._begun = False

    @property
    def frames_per_rollout(self) -> int:
        """Emulator frames of one rollout of a worker, over its lanes."""
        return self._actions.numel() // self.workers * FRAMES_PER_STEP

    def _masked_state(self) -> tuple[Tensor, Tensor] | None:
        if self._state is None or not self._starts.any():
            return self._state
        keep = torch.from_numpy(~self._starts).to(self._state[0]).unsqueeze(1)
        return self._state[0] * keep, self._state[1] * keep

    @torch.inference_mode()
    def collect(self) -> None:
        """Play one rollout with the current weights into the buffers."""
        settings = self.settings
        self._left, self._write = set(), None
        if not self._begun:
            self._begin(self.lanes.start())
        self._stacks[0].copy_(self._stacks[-1])
        self._rollout_state = self._state
        drawn = [torch.rand(self._drawn, generator=each) for each in self._generators]
        uniform = torch.cat([each[:, self._kept_draws] for each in drawn], dim=1).to(self.device)
        starts, played, bonuses = [], [], {}
        # What is known only at the end of a step is put into tensors at the end of the rollout:
        # with few lanes each small operation counts.
        for t in range(settings.rollout_steps):
            starts.append(self._starts)
            logits, self._state, self._outputs[t] = self.network.decide(
                self._stacks[t].to(self.device, non_blocking=True), self._masked_state()
            )
            actions = sample_actions(logits, uniform[t]).cpu()
            self._actions[t] = actions
            step, observation = self.lanes.step(actions.numpy())
            played.append(step._replace(observation=None))
            if step.truncated.any():
                bonuses[t] = self._value_of_truncated(step)
            self._starts = step.terminated | step.truncated
            stacks.follow(self._stacks[t], observation, self._starts, out=self._stacks[t + 1])
        rewards, terminated, truncated, life_lost = (
            torch.from_numpy(np.stack(column)) for column in list(zip(*played, strict=True))[1:]
        )
        self._rewards.copy_(rewards)
        if settings.clip_rewards:
            self._rewards.clamp_(-1, 1)
        for t, bonus in bonuses.items():
            self._rewards[t] += bonus
        ended = terminated | truncated
        if settings.life_loss_is_terminal:
            ended |= life_lost
        torch.mul(~ended, settings.gamma, out=self._discounts)
        self._keep.copy_(torch.from_numpy(~np.stack(starts)))
        self._v_end = self._value_of_next()

    def _begin(self, observation: NDArray[np.uint8]) -> None:
        self._stacks[-1].copy_(torch.from_numpy(observation))
        self._begun = True

    def _value_of_truncated(self, step: Step) -> Tensor:
        """gamma V(s') of lanes cut by the frame cap, 0 elsewhere, [B]: no end of the game."""
        observation = torch.from_numpy(step.observation).to(self.device)
        value = self.network(observation, self._state)[1].cpu()
        return self.settings.gamma * value * torch.from_numpy(step.truncated)

    @torch.inference_mode()
    def _value_of_next(self) -> Tensor:
        observation = self._stacks[-1].to(self.device, non_blocking=True)
        return self.network(observation, self._masked_state())[1]

    def backward(self, worker: int = 0) -> Tensor:
        """Leave the gradient of a worker's loss in `flat.gradient`; return the loss (0-d).

        L = policy loss + c_v value loss - beta entropy, summed or averaged over T B steps, of all
        lanes that share the random stream: what their workers find adds up. The weights are to be
        those that have played the rollout.
        """
        first = worker - worker % self._at_once
        if worker not in self._left:
            together = range(first, min(first + self._at_once, self.workers))
            self._write = None  # its memory is needed
            self._write, self._left = self._gradients(together), set(together)
        self._left.remove(worker)
        write = self._write
        if not self._left:
            self._write = None
        return write(worker - first)

    def _gradients(self, together: range) -> Callable[[int], Tensor]:
        """Return what leaves the gradient of one of those workers in `flat.gradient`."""
        own = slice(self._lanes_of[together[0]].start, self._lanes_of[together[-1]].stop)
        start = self._rollout_state
        return self.network.gradients(
            self._observations[:, own].to(self.device, non_blocking=True),
            None if start is None else tuple(part[own] for part in start),
            self._keep[:, own].to(self.device),
            partial(self._losses, own),
            len(together),
            # A GPU is quicker with one batch of its own than with what many small ones left.
            None
            if self.device.type == "cuda"
            else [[part[own] for part in outputs] for outputs in self._outputs],
        )

    def _losses(self, own: slice, logits: Tensor, values: Tensor) -> Tensor:
        """L of `backward`, [W], of W workers with the lanes `own`: logits [W, N, A], values [W, N].

        N is T times the lanes of one worker.
        """
        settings, workers = self.settings, len(logits)
        rewards, discounts, actions = (
            part[:, own].to(self.device) for part in (self._rewards, self._discounts, self._actions)
        )
        v = regroup(values.detach(), len(rewards))
        estimate = self._estimate(settings, rewards, discounts, v, self._v_end[own])
        estimate, actions = regroup(estimate, workers), regroup(actions, workers)
        log_pi = targets.action_log_probability(logits, actions)
        losses = (
            targets.policy_gradient_loss(log_pi, targets.advantage(estimate, values))
            + settings.value_loss_weight * targets.value_loss(values, estimate)
            - settings.entropy_weight * targets.entropy(logits).sum(-1)
        )
        return losses / self._loss_divisor

    def states(self) -> list[dict[str, Any]]:
        """Of each worker, all but the weights that its next rollout depends on, without tensors.

        A tensor sent through a pipe would keep its sender's memory open.
        """
        state = {
            "lanes": self.lanes.state(),
            "starts": self._starts.tolist(),
            "lstm": None if self._state is None else [part.tolist() for part in self._state],
        }
        return [
            {
                **state_of_lanes(state, own),
                "generator": bytes(generator.get_state().tolist()),
            }
            for own, generator in zip(self._lanes_of, self._generators, strict=True)
        ]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Continue where each worker's state was taken; the lanes replay their episodes."""
        state = join_states(states)
        self._begin(self.lanes.restore(state["lanes"]))
        for generator, each in zip(self._generators, states, strict=True):
            generator.set_state(torch.tensor(list(each["generator"]), dtype=torch.uint8))
        self._starts = np.array(state["starts"])
        if state["lstm"] is not None:
            self._state = tuple(
                torch.tensor(part, dtype=own.dtype, device=self.device)
                for part, own in zip(state["lstm"], self._state, strict=True)
            )


def join_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of all lanes, with the first one's random stream if they have one."""

    def joined(lists: Iterable[list[Any]]) -> list[Any]:
        return list(chain.from_iterable(lists))

    def of_lanes(state: dict[str, Any], key: str) -> list[Any]:
        # Before they were None, a checkpoint had no sums of lanes that had not begun.
        return state["lanes"][key] or [None] * len(state["starts"])

    first = states[0]
    return {
        **first,
        "lanes": {key: joined(of_lanes(s, key) for s in states) for key in first["lanes"]},
        "starts": joined(s["starts"] for s in states),
        "lstm": first["lstm"]
        and [joined(parts) for parts in zip(*(s["lstm"] for s in states), strict=True)],
    }


def state_of_lanes(state: dict[str, Any], own: slice) -> dict[str, Any]:
    """Return the state of a worker that has only the lanes `own` of those in `state`."""
    return {
        **state,
        "lanes": {key: values[own] for key, values in state["lanes"].items()},
        "starts": state["starts"][own],
        "lstm": state["lstm"] and [part[own] for part in state["lstm"]],
    }
