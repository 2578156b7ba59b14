"""Topology `gorila`: actors, learners and a sharded parameter server, processes of Ray.

Source: Nair et al. 2015, arXiv:1507.04296, known from summaries (config/methods/gorila.yaml). The
driver, `Gorila`, hands out the work and counts it: an actor's task is a rollout, a learner's a few
updates (`gorila_workers`). Rollouts go from actor to learner and gradients from learner to shard
(`parameter_server`) without it. It waits for tasks and for deaths alike, and replaces a process
that dies.

On several machines, in a checkout on each, with the same Ray token where Ray asks for one:

    ray start --head                            on the first
    ray start --address=FIRST:6379              on the others
    RAY_ADDRESS=FIRST:6379 python -m agents.train --method config/methods/gorila.yaml ...
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.config import FRAMES_PER_STEP, GorilaSettings
from agents.gorila_processes import KINDS, Process, Processes, Task
from agents.gorila_workers import Plan, require_possible
from agents.lanes import FinishedEpisode, state_at_starts
from agents.networks import build_action_values
from agents.optim import FlatParameters
from agents.processes import RestoreError
from agents.ray_cluster import connect, deaths, import_ray
from agents.schedules import Diverged, learning_rate, warmup
from agents.seeding import derive_seed
from agents.shares import shares
from agents.training import Training

UPDATES_PER_TASK = 16  # at most; a rollout that arrives meanwhile waits for them

logger = logging.getLogger(__name__)


class Gorila(Training):
    """Gorila; see `training.Training` for the interface.

    Asynchronous, so two runs of one seed differ, though every random draw comes from a named
    seed. Learning keeps step with playing: for `decisions_per_update` decisions reported, one
    update over all learners, and actors wait for learners that are a round behind. So a slow
    machine trains the same experiment. A discarded gradient counts as an update here, not at the
    server.

    A process that dies is replaced, and `counts` says how often:
    - an actor: frames and episodes that it had not reported are not counted; its lanes begin new
      episodes, those that were interrupted are not in the log;
    - a learner: its memory is lost, and it learns again when it has its share of
      `learning_starts_frames`; its target network begins with the newest weights;
    - a shard: its replica, equal to it, takes over, and a new replica follows. Both at once is
      an error: the run goes on from its last checkpoint.

    A checkpoint has no replay memories: after a resume they are filled again, and learning waits
    for `learning_starts_frames` of new experience, acted by the epsilon reached.

    Runs on the cluster that `RAY_ADDRESS` names, whose nodes must be able to import `agents`,
    else on a Ray of its own on this machine.
    """

    def __init__(
        self,
        settings: GorilaSettings,
        make_lanes: Callable[[int], Any],
        run_seed: int,
        budget_frames: int,
        device: str = "cpu",
    ) -> None:
        if device != "cpu":
            raise ValueError(f"device: {device!r}; topology gorila runs on: cpu")
        env = make_lanes(1)
        require_possible(settings, env.observation_shape[0], budget_frames)
        network = build_action_values(
            settings, env.actions, derive_seed(run_seed, "weights"), env.observation_shape
        )
        self._ray = import_ray()
        self.settings = settings
        self.budget_frames = budget_frames
        self.frames = 0
        self.counts = dict.fromkeys(
            ("updates", "outliers", "stale_pushes", *(f"replaced_{kind}s" for kind in KINDS)), 0
        )
        # Packed now: what `make_lanes` refers to may hold this training later.
        self._plan = self._ray.cloudpickle.dumps(
            Plan(settings, run_seed, env.observation_shape, network, make_lanes, budget_frames)
        )
        self._layout = FlatParameters(network)
        self._slices = shares(self._layout.size, settings.shards)
        self._credit_decisions = 0  # reported, not yet learnt for
        self._round_decisions = settings.actors * settings.lanes_per_actor * settings.rollout_steps
        self._start: dict[str, Any] = {
            "shards": [
                {"weights": weights, "square_sum": np.zeros_like(weights), "version": 0, "stale": 0}
                for weights in (self._layout.master.numpy()[part] for part in self._slices)
            ],
            "actors": [None] * settings.actors,
            "learners": [None] * settings.learners,
        }
        self._processes = Processes(self._ray)
        self._pending: list[FinishedEpisode] = []
        self._episode = np.zeros((settings.actors, settings.lanes_per_actor), np.int64)
        self._own_ray = False

    # --- interface of Training

    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Let the processes work for about a second, or until the frames are reached."""
        self._begin()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and self.frames < until_frames:
            self._dispatch(until_frames)
            self._wait(0.1)
        return self.take_finished()

    def take_finished(self) -> list[FinishedEpisode]:
        """Return the episodes reported since the last call."""
        finished, self._pending = self._pending, []
        return finished

    def policy(self) -> dict[str, Tensor]:
        """Return the server's weights, float32, by name."""
        shards = self._standstill()["shards"]
        weights = np.concatenate([shard["weights"] for shard in shards])
        return self._layout.state_dict(torch.from_numpy(weights))

    def state(self) -> dict[str, Any]:
        """Return server, lanes, target networks and counts, taken while nobody works."""
        found = self._standstill()
        return {
            "frames": self.frames,
            "credit_decisions": self._credit_decisions,
            "counts": dict(self.counts),
            "shards": [_with_tensors(shard) for shard in found["shards"]],
            "actors": found["actors"],
            "learners": [_with_tensors(learner) for learner in found["learners"]],
            "incarnations": dict(self._processes.incarnations),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, with empty memories."""
        self.frames = state["frames"]
        self._credit_decisions = state["credit_decisions"]
        self.counts = dict(state["counts"])
        self._processes.incarnations = dict(state["incarnations"])
        self._start = {
            "shards": [_with_arrays(shard) for shard in state["shards"]],
            "actors": state["actors"],
            "learners": state["learners"],
        }
        for index, actor in enumerate(state["actors"]):
            if actor:
                self._episode[index] = actor["episode"]

    def close(self) -> None:
        """End the processes, and Ray where it was started here."""
        self._processes.end()
        if self._own_ray:
            self._ray.shutdown()
            self._own_ray = False

    def core_seconds_of_workers(self) -> float:
        """CPU seconds of all processes as last reported; Ray's own are not among them."""
        return self._processes.core_seconds()

    def peak_memory_of_workers(self) -> int:
        """Sum of the processes' peak resident bytes (pages they share are counted in each)."""
        return self._processes.peak_memory()

    # --- processes

    def _begin(self) -> None:
        if self._processes.there:
            return
        settings, get = self.settings, self._ray.get
        self._own_ray = connect(settings.actors + settings.learners)
        for index in range(settings.shards):
            shard = self._begin_server("shard", index)
            replica = self._begin_server("replica", index)
            get(shard.handle.restore.remote(self._start["shards"][index]))
            get(shard.handle.follow.remote(replica.handle))
        for index in range(settings.actors):
            self._begin_worker("actor", index, self._start["actors"][index])
        for index in range(settings.learners):
            self._begin_worker("learner", index, _with_arrays(self._start["learners"][index]))

    def _begin_server(self, kind: str, index: int) -> Process:
        limits = self.settings.max_staleness_updates, self.settings.adagrad_epsilon
        return self._processes.begin(kind, index, *limits)

    def _begin_worker(self, kind: str, index: int, state: Any = None) -> None:
        process = self._processes.begin(kind, index)
        answer = process.handle.prepare.remote(self._plan, index, process.incarnation, state)
        self._processes.submit("prepare", process, answer)

    def _replace(self, process: Process, error: Exception) -> None:
        """Put a new process in the place of one that died."""
        if not self._processes.bury(process, error):
            return
        kind, index = process.kind, process.index
        self.counts[f"replaced_{kind}s"] += 1
        if kind == "actor":
            self._episode[index] += 1  # the next episode of each lane, the one begun is lost
            self._begin_worker(kind, index, state_at_starts(self._episode[index]))
        elif kind == "learner":
            self._begin_worker(kind, index)
        else:
            self._take_over(kind, index, error)

    def _take_over(self, kind: str, index: int, error: Exception) -> None:
        """Make the one left of a shard and its replica the shard, and a new process its replica."""
        there = self._processes.there
        if kind == "shard":
            self._processes.promote(there["replica", index])
        try:
            replica = self._begin_server("replica", index)
            self._ray.get(there["shard", index].handle.follow.remote(replica.handle))
        except self._ray.exceptions.RayTaskError:
            pass  # the new replica is dead already: its own death is told next
        except deaths():
            raise RuntimeError(
                f"gorila: shard {index} and its replica are dead; "
                "the run goes on from its last checkpoint"
            ) from error

    # --- work

    def _ready_learners(self) -> list[Process]:
        """Learners with their share of what is played before learning starts."""
        settings, learners = self.settings, self._processes.of("learner")
        of_actor = settings.learning_starts_frames / FRAMES_PER_STEP / settings.actors
        needed = {
            learner.index: of_actor * len(range(learner.index, settings.actors, settings.learners))
            for learner in learners
        }
        return [p for p in learners if p.stored_decisions >= max(needed[p.index], 1)]

    def _dispatch(self, until_frames: int) -> None:
        """Give work to who has none: rollouts up to `until_frames`, updates as far as due."""
        settings = self.settings
        shards = [process.handle for process in self._processes.of("shard")]
        ready = self._ready_learners()
        # Not before an update is due, or nobody would have work.
        enough = max(self._round_decisions, settings.decisions_per_update)
        behind = bool(ready) and self._credit_decisions >= enough
        per_rollout = settings.lanes_per_actor * settings.rollout_steps * FRAMES_PER_STEP
        playing = len(self._processes.at("play"))
        for actor in self._processes.of("actor"):
            if behind or self.frames + playing * per_rollout >= until_frames:
                break
            if actor.busy == 0 and actor.adding < 2:
                report, rollout = actor.handle.play.options(num_returns=2).remote(shards)
                self._processes.submit("play", actor, report, rollout=rollout)
                playing += 1
        due = self._credit_decisions // settings.decisions_per_update
        busy = {id(task.process) for task in self._processes.at("learn")}
        idle = [process for process in ready if id(process) not in busy]
        for learner in idle:
            updates = min(UPDATES_PER_TASK, math.ceil(due / len(ready)))
            updates = min(updates, self._credit_decisions // settings.decisions_per_update)
            if updates:
                self._credit_decisions -= updates * settings.decisions_per_update
                rate = learning_rate(settings, self.frames, self.budget_frames)
                rate *= warmup(settings, self.counts["updates"])
                answer = learner.handle.learn.remote(shards, updates, rate)
                self._processes.submit("learn", learner, answer, updates=updates)

    def _wait(self, timeout_seconds: float) -> None:
        """Wait for something to happen, and see to all that has."""
        for task, answer in self._processes.wait(timeout_seconds):
            self._finish(task, answer)

    def _finish(self, task: Task, answer: Any) -> None:
        errors, process = self._ray.exceptions, task.process
        result, error = None, None
        try:
            result = self._ray.get(answer)
        except errors.RayTaskError as raised:
            if task.kind == "prepare" and isinstance(raised.cause, ValueError):
                name = f"Gorila {process.kind} {process.index}"
                raise RestoreError(f"{name}: {raised.cause}") from None
            if not isinstance(raised.cause, errors.ObjectLostError):
                raise
            logger.warning("gorila: a rollout was lost with its node")
        except deaths() as raised:
            error = raised
        if task.kind != "death":
            process.busy -= 1
        if task.kind == "play" and result is not None:
            # A report that comes after its actor's death: the successor plays these episodes.
            if self._processes.is_there(process):
                self._played(process, result, task.content["rollout"])
        elif task.kind == "add":
            task.content["actor"].adding -= 1
            self._stored(process, result or 0)
        elif task.kind == "learn":
            self._learnt(process, result, task.content["updates"])
        if error is not None:
            self._replace(process, error)

    def _stored(self, learner: Process, decisions: int) -> None:
        learner.stored_decisions += decisions
        if self._ready_learners():
            self._credit_decisions += decisions

    def _played(self, actor: Process, report: dict[str, Any], rollout: Any) -> None:
        actor.usage = report["usage"]
        if not report["decisions"]:
            time.sleep(0.05)  # a shard is dead, and its death not told yet
            return
        self._processes.progress()
        self.frames += report["decisions"] * FRAMES_PER_STEP
        self._pending += report["finished"]
        for episode in report["finished"]:
            self._episode.reshape(-1)[episode.lane] += 1
        learner = self._processes.there["learner", actor.index % self.settings.learners]
        actor.adding += 1
        answer = learner.handle.add.remote(actor.index, rollout)
        self._processes.submit("add", learner, answer, actor=actor)

    def _learnt(self, learner: Process, report: dict[str, Any] | None, updates: int) -> None:
        left = updates - (report["updates"] if report else 0)
        self._credit_decisions += left * self.settings.decisions_per_update
        if report is None:
            return
        if report["diverged"]:
            raise Diverged(f"learner {learner.index}: {report['diverged']}")
        learner.usage = report["usage"]
        for name in ("updates", "outliers", "stale_pushes"):
            self.counts[name] += report[name]
        if left:
            time.sleep(0.05)  # as above

    # --- standing still

    def _settle(self) -> None:
        """Return when every rollout is stored, every update that is due is done, and all wait."""
        self._dispatch(self.frames)
        while any(task.kind != "death" for task in self._processes.tasks.values()):
            self._wait(1.0)
            self._dispatch(self.frames)

    def _standstill(self) -> dict[str, list[Any]]:
        """Return the states of all processes while nobody works; asked again if one dies."""
        self._begin()
        of, get = self._processes.of, self._ray.get
        while True:
            self._settle()
            try:
                found = {
                    f"{kind}s": get([process.handle.state.remote() for process in of(kind)])
                    for kind in ("shard", "actor", "learner")
                }
                for process in (*of("shard"), *of("replica")):
                    process.usage = get(process.handle.usage.remote())
                return found
            except deaths():
                self._wait(1.0)  # the watch tells whose death it was


def _with_tensors(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return `state` with tensors for its arrays: what a checkpoint may hold."""
    if state is None:
        return None
    return {
        key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for key, value in state.items()
    }


def _with_arrays(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Undo `_with_tensors`."""
    if state is None:
        return None
    return {
        key: value.numpy() if isinstance(value, Tensor) else value for key, value in state.items()
    }
