"""Topology `async`: A3C, actor-learners whose processes share weights without locks."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import torch
from torch import Tensor

from agents import processes
from agents.actor_critic import RolloutWorker
from agents.choices import choose
from agents.config import AsyncSettings
from agents.lanes import FinishedEpisode
from agents.optim import clipping_divisor, rmsprop_step
from agents.processes import Child, Parent
from agents.schedules import Diverged, corrected_update, learning_rate, require_finite
from agents.shares import shares
from agents.training import Training
from agents.usage import usage

# Whether the workers take turns, by the name of a method's `schedule`.
IN_TURN = {"async": False, "round_robin": True}


class _Shared:
    """What all workers read and write: weights, RMSProp statistics, frames per worker."""

    def __init__(self, weights: Tensor, workers: int) -> None:
        self.weights = weights.clone().share_memory_()
        self.square_average = torch.zeros_like(weights).share_memory_()
        self.frames = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.limit_frames = torch.zeros((), dtype=torch.int64).share_memory_()
        self.pause = torch.zeros((), dtype=torch.int64).share_memory_()


class Asynchronous(Training):
    """A3C; see `training.Training` for the interface.

    Schedule `async`: the workers are divided among `processes`, which update the shared weights
    whenever their rollouts are done. Those of one process act in one batch: they read the weights
    at the same moment, and then each updates them, one after the other. With as many processes as
    workers each worker is on its own, as in the paper. Two runs of one seed differ, but with one
    process, which is exact. A checkpoint is taken while every process stands still between two
    turns; another number of processes can go on from it.

    Schedule `round_robin`: the workers take turns in this process, each with the weights that the
    one before has left.
    """

    def __init__(
        self,
        settings: AsyncSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
        processes: int = 1,
    ) -> None:
        if device != "cpu":
            raise ValueError(f"device: {device!r}; topology async runs on: cpu")
        self.settings = settings
        self.budget_frames = budget_frames
        self._make_lanes = make_lanes
        self._run_seed = run_seed
        self._workers: list[RolloutWorker] = []
        self._workers_of = shares(settings.workers, processes)  # of each process
        self._children: list[Child] = []
        self._paused: dict[int, list[dict[str, Any]]] = {}  # by process, its workers' states
        self._begun = 0  # processes whose lanes are where they were
        self._start_states: list[dict[str, Any]] | None = None
        self._pending: list[FinishedEpisode] = []
        self._frames_seen = 0
        self._still_seconds = 0.0
        self._core_seconds = [0.0] * processes
        self._peak_memory = [0] * processes
        self._layout = self._build_worker(slice(0, 1)).flat
        self.shared = _Shared(self._layout.master, settings.workers)

    @property
    def frames(self) -> int:
        """Frames trained on, over all workers."""
        return int(self.shared.frames.sum())

    def _build_worker(self, own: slice) -> RolloutWorker:
        """Return the workers of the numbers `own`, together."""
        per_worker = self.settings.lanes_per_worker
        return RolloutWorker(
            self.settings,
            self._make_lanes((own.stop - own.start) * per_worker),
            self._run_seed,
            [("worker", index) for index in range(own.start, own.stop)],
            first_lane=own.start * per_worker,
        )

    def _turn(self, first: int, worker: RolloutWorker) -> None:
        """One rollout with the shared weights, and their update by each worker, `first` and on."""
        worker.flat.publish(self.shared.weights)
        worker.collect()
        for number in range(worker.workers):
            loss = worker.backward(number)
            try:
                self._update(worker, loss)
            except Diverged as error:
                raise Diverged(f"worker {first + number}: {error}") from None
            self.shared.frames[first + number] += worker.frames_per_rollout

    def _update(self, worker: RolloutWorker, loss: Tensor) -> None:
        """Update the shared weights by the gradient of a worker, whose loss is given."""
        shared, settings = self.shared, self.settings
        gradient = worker.flat.gradient.float()  # in float32 the vector itself, the worker's own
        norm = torch.linalg.vector_norm(gradient)
        require_finite(loss=loss, gradient_norm=norm)
        rmsprop_step(
            shared.weights,
            gradient,
            shared.square_average,
            learning_rate(settings, self.frames, self.budget_frames),
            settings.rmsprop_decay,
            settings.rmsprop_epsilon,
            settings.rmsprop_epsilon_place,
            corrected_update(settings, self.frames // worker.frames_per_rollout),
            clipping_divisor(norm, settings.gradient_norm_limit),
        )

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """One turn of every worker in order (`round_robin`), or about a second (`async`)."""
        if choose("schedule", self.settings.schedule, IN_TURN):
            return self._advance_in_turn()
        self.shared.limit_frames.fill_(until_frames)
        if not self._children:
            self._start_children()
        self._release()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and self.frames < until_frames:
            self._receive(timeout_seconds=0.1)
        return self.take_finished()

    def take_finished(self) -> list[FinishedEpisode]:
        """Return the episodes finished since the last call, those on the way to a halt too."""
        finished, self._pending = self._pending, []
        return finished

    def _advance_in_turn(self) -> list[FinishedEpisode]:
        finished = []
        for index, worker in enumerate(self._workers_here()):
            self._turn(index, worker)
            finished += worker.lanes.take_finished()
        return finished

    def _workers_here(self) -> list[RolloutWorker]:
        if not self._workers:
            for index in range(self.settings.workers):
                self._workers.append(self._build_worker(slice(index, index + 1)))
                if self._start_states:
                    self._workers[index].restore(self._start_states[index : index + 1])
        return self._workers

    # --- schedule async: this process starts the others, listens, and halts them to save

    def _start_children(self) -> None:
        for index, own in enumerate(self._workers_of):
            self._children.append(Child(f"A3C process {index}", self._work, own))

    def _work(self, parent: Parent, own: slice) -> None:
        """A process: turns until told to pause, then its workers' states, then a wait for "go"."""
        worker = self._build_worker(own)
        states = self._start_states
        if states is not None and not parent.restored(worker.restore, states[own]):
            return
        parent.send(("begun",))
        shared = self.shared
        while parent.lives():
            if shared.pause or self.frames >= shared.limit_frames:
                parent.send(("paused", worker.states(), *usage()))
                parent.receive()
            try:
                self._turn(own.start, worker)
            except Diverged as error:
                parent.send(("diverged", str(error)))
                return
            finished = worker.lanes.take_finished()
            if finished:
                parent.send(("finished", finished))

    def _receive(self, timeout_seconds: float) -> None:
        """Take what the processes say; those that stand still go into `_paused`."""
        pipes = [child.pipe for child in self._children]
        ready = connection.wait(pipes, timeout_seconds)
        self._watch(timeout_seconds if not ready else 0.0)
        for pipe in ready:
            index = pipes.index(pipe)
            kind, *content = self._children[index].receive()
            if kind == "begun":
                self._begun += 1
            elif kind == "finished":
                self._pending += content[0]
            elif kind == "diverged":
                raise Diverged(content[0])
            else:
                states, self._core_seconds[index], self._peak_memory[index] = content
                self._paused[index] = states

    def _watch(self, silent_seconds: float) -> None:
        """Raise when the processes that were not told to pause neither speak nor count frames.

        One that plays its episodes again, after a restore, does neither for a while.
        """
        if not silent_seconds or self.frames != self._frames_seen:
            self._frames_seen, self._still_seconds = self.frames, 0.0
            return
        self._still_seconds += silent_seconds
        begun = self._begun == len(self._children)
        limit = processes.STALL_SECONDS if begun else processes.RESTORE_SECONDS
        if self._still_seconds >= limit:
            index = next(i for i in range(len(self._children)) if i not in self._paused)
            raise self._children[index].stalled(limit)

    def _release(self) -> None:
        for index in list(self._paused):
            self._children[index].send("go")
        self._paused = {}

    def _halt(self) -> None:
        """Return when every process stands still; they stay so until the next `advance`."""
        self.shared.pause.fill_(1)
        while len(self._paused) < len(self._children):
            self._receive(timeout_seconds=1.0)
        self.shared.pause.fill_(0)

    # --- saving

    def policy(self) -> dict[str, Tensor]:
        """Return the shared weights, float32, by name."""
        self._halt()
        return self._layout.state_dict(self.shared.weights)

    def state(self) -> dict[str, Any]:
        """Return weights, statistics and every worker's lanes, LSTM state and random state."""
        self._halt()
        if self._children:
            workers = [state for index in sorted(self._paused) for state in self._paused[index]]
        else:
            workers = [state for worker in self._workers_here() for state in worker.states()]
        return {
            "frames": self.shared.frames.clone(),
            "weights": self.shared.weights.clone(),
            "square_average": self.shared.square_average.clone(),
            "workers": workers,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken: exact in turn and in one process, else consistent."""
        self.shared.frames.copy_(state["frames"])
        self.shared.weights.copy_(state["weights"])
        self.shared.square_average.copy_(state["square_average"])
        self._start_states = state["workers"]

    def close(self) -> None:
        """Stop the processes."""
        for child in self._children:
            child.kill()  # nothing of a process is lost: its state is in the last checkpoint
        self._children, self._paused, self._begun = [], {}, 0

    def core_seconds_of_workers(self) -> float:
        """CPU seconds of the processes up to their last standstill."""
        return sum(self._core_seconds)

    def peak_memory_of_workers(self) -> int:
        """Sum of the processes' peak resident bytes (pages they share are counted in each)."""
        return sum(self._peak_memory)
