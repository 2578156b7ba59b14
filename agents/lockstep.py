"""Topology `lockstep`: all lanes act together, one learner updates after each rollout (A2C)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents import actor_critic
from agents.actor_critic import RolloutWorker
from agents.config import FRAMES_PER_STEP, LockstepSettings
from agents.lanes import FinishedEpisode
from agents.optim import clipping_divisor, rmsprop_step
from agents.processes import RESTORE_SECONDS, Child, Parent
from agents.schedules import Diverged, corrected_update, learning_rate, require_finite
from agents.shares import shares
from agents.training import Training
from agents.usage import usage

Gather = Callable[[float], list[float]]  # own number -> those of all processes, in their order


class Lockstep(Training):
    """A2C and the one-step actor-critic; see `training.Training` for the interface.

    With several `processes` each has its share of the lanes, on a core of its own: it plays them,
    adds up their part of the gradient, and updates its share of the weights. All draw the same
    random numbers for all lanes, so that their number changes nothing but roundings; two runs
    with as many are equal, bit by bit. This process is the first of them.
    """

    def __init__(
        self,
        settings: LockstepSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
        processes: int = 1,
    ) -> None:
        if device != "cpu" and processes > 1:
            raise ValueError(f"processes: {processes}; allowed on {device}: 1")
        self.settings = settings
        self.budget_frames = budget_frames
        self.frames = 0
        self._frames_per_rollout = settings.lanes * settings.rollout_steps * FRAMES_PER_STEP
        self._make_lanes = make_lanes
        self._run_seed = run_seed
        self._lanes = shares(settings.lanes, processes)
        self.worker = self._build_worker(0, device)
        self.weights = self.worker.flat.master  # of all processes
        self.square_average = torch.zeros_like(self.weights)
        self._parts = shares(self.weights.numel(), processes)
        self._children: list[Child] = []
        self._start_states: list[dict[str, Any]] | None = None
        self._core_seconds = [0.0] * (processes - 1)
        self._peak_memory = [0] * (processes - 1)
        if processes > 1:
            self.weights.share_memory_()
            self.square_average.share_memory_()
            # No copy: each process adds up its part of the gradient where the others read it.
            own = self.worker.flat.gradient
            self._gradients = own.new_zeros(processes, own.numel()).share_memory_()
            self.worker.flat.keep_gradient_in(self._gradients[0])

    def _build_worker(self, index: int, device: str = "cpu") -> RolloutWorker:
        own = self._lanes[index]
        return RolloutWorker(
            self.settings,
            self._make_lanes(own.stop - own.start),
            self._run_seed,
            first_lane=own.start,
            drawn_lanes=self.settings.lanes,
            device=device,
        )

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play one rollout and update once; return the episodes it finished."""
        if len(self._children) < len(self._lanes) - 1:
            self._start_children()
        for child in self._children:
            child.send(("rollout", self.frames))
        self._rollout(0, self.worker, self._gather)
        finished = self.worker.lanes.take_finished()
        for child in self._children:
            finished += child.receive()
        self.worker.flat.publish()  # after every process has updated its part
        self.frames += self._frames_per_rollout
        return finished

    def _rollout(self, index: int, worker: RolloutWorker, gather: Gather) -> None:
        """One rollout of the lanes of process `index`, and its part of the common update."""
        settings, part = self.settings, self._parts[index]
        worker.collect()
        losses = gather(float(worker.backward()))
        if len(self._parts) == 1:
            gradient = worker.flat.gradient.float()
        else:  # one after the other: a third of the time that one `sum` of all takes
            # In float32 written over the first one, which nobody needs before the next one.
            gradient = self._gradients[0, part].float()
            for other in self._gradients[1:, part]:
                gradient += other
        norms = gather(float(torch.linalg.vector_norm(gradient)))
        norm = torch.tensor(math.hypot(*norms), device=gradient.device)
        require_finite(loss=torch.tensor(sum(losses)), gradient_norm=norm)
        rmsprop_step(
            self.weights[part],
            gradient,
            self.square_average[part],
            learning_rate(settings, self.frames, self.budget_frames),
            settings.rmsprop_decay,
            settings.rmsprop_epsilon,
            settings.rmsprop_epsilon_place,
            corrected_update(settings, self.frames // self._frames_per_rollout),
            clipping_divisor(norm, settings.gradient_norm_limit),
        )

    # --- several processes: this one leads, and answers each number with those of all

    def _start_children(self) -> None:
        for index in range(1, len(self._lanes)):
            name = f"{self.settings.label} process {index}"
            self._children.append(Child(name, self._follow, index))
        for child in self._children:
            child.receive(RESTORE_SECONDS)  # its lanes are where they were

    def _gather(self, own: float) -> list[float]:
        numbers = [own, *(child.receive() for child in self._children)]
        for child in self._children:
            child.send(numbers)
        return numbers

    def _follow(self, parent: Parent, index: int) -> None:
        """A process beside the first: rollouts and states, as asked for.

        `self.worker` is the first one's, whose emulators' threads no fork takes along: only
        `worker` is touched here.
        """

        def gather(own: float) -> list[float]:
            parent.send(own)
            return parent.receive()

        worker = self._build_worker(index)
        worker.flat.keep_gradient_in(self._gradients[index])
        states = self._start_states
        if states is not None and not parent.restored(worker.restore, [states[index]]):
            return
        parent.send("begun")
        while True:
            request, self.frames = parent.receive()
            if request == "state":
                parent.send((*worker.states(), *usage()))
                continue
            worker.flat.publish(self.weights)
            try:
                self._rollout(index, worker, gather)
            except Diverged:  # the first process has the same numbers, and says so
                return
            parent.send(worker.lanes.take_finished())

    # --- saving

    def policy(self) -> dict[str, Tensor]:
        """Return the network's weights, float32, by name."""
        return self.worker.flat.state_dict()

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, however many processes run."""
        if len(self._children) < len(self._lanes) - 1:
            self._start_children()
        for child in self._children:
            child.send(("state", self.frames))
        states = self.worker.states()
        for index, child in enumerate(self._children):
            state, self._core_seconds[index], self._peak_memory[index] = child.receive()
            states.append(state)
        return {
            "frames": self.frames,
            "weights": self.weights.cpu().clone(),
            "square_average": self.square_average.cpu().clone(),
            "worker": actor_critic.join_states(states),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, bit for bit on a CPU with as many processes."""
        self.frames = state["frames"]
        self.weights.copy_(state["weights"])
        self.worker.flat.publish()
        self.square_average.copy_(state["square_average"])
        self._start_states = [
            actor_critic.state_of_lanes(state["worker"], own) for own in self._lanes
        ]
        self.worker.restore(self._start_states[:1])

    def close(self) -> None:
        """Stop the other processes."""
        for child in self._children:
            child.kill()
        self._children = []

    def core_seconds_of_workers(self) -> float:
        """CPU seconds of the other processes up to the last state."""
        return sum(self._core_seconds)

    def peak_memory_of_workers(self) -> int:
        """Sum of the other processes' peak resident bytes (shared pages are counted in each)."""
        return sum(self._peak_memory)
