"""Gorila's processes as their driver sees them: begun, watched, given tasks, and replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from agents.gorila_workers import Actor, Learner
from agents.parameter_server import ParameterShard

PATIENT_DEATHS = 10  # without a frame between them; from then on with a pause
DEATHS_WITHOUT_PROGRESS = 30  # then the fault is not a process's own

logger = logging.getLogger(__name__)

KINDS = {"actor": Actor, "learner": Learner, "shard": ParameterShard, "replica": ParameterShard}


@dataclass
class Process:
    """A process of Ray."""

    kind: str
    index: int
    incarnation: int
    handle: Any
    node: str
    busy: int = 0  # tasks of it that the driver waits for
    adding: int = 0  # of them, rollouts of this actor that its learner has not stored yet
    usage: tuple[float, int] = (0.0, 0)
    stored_decisions: int = 0


@dataclass
class Task:
    """What the driver waits for: work of a process, or its death."""

    kind: str  # prepare | play | add | learn | death
    process: Process
    content: dict[str, Any] = field(default_factory=dict)


class Processes:
    """The processes of one training, by kind and index, and the tasks they are at.

    One that dies is told by its task `death`, and by whatever else it was at.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray
        self.there: dict[tuple[str, int], Process] = {}
        self.tasks: dict[Any, Task] = {}  # by Ray's reference to the answer
        self.incarnations = dict.fromkeys(KINDS, 0)  # begun so far, of all indices
        self._deaths = 0  # since `progress`
        self._past_core_seconds = 0.0

    def of(self, kind: str) -> list[Process]:
        """Return the processes of `kind`, by index."""
        return [p for _, p in sorted(self.there.items()) if p.kind == kind]

    def is_there(self, process: Process) -> bool:
        """Return whether `process` has not been replaced."""
        return self.there.get((process.kind, process.index)) is process

    def begin(self, kind: str, index: int, *arguments: Any) -> Process:
        """Begin a process of `kind`, whose constructor takes `arguments`, and watch it."""
        ray = self._ray
        node = self._node(kind, index)
        # Not soft: Ray places a process that reserves no CPU anywhere then.
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        # The watch has a thread of its own; all else of a process is done in turn.
        remote = ray.remote(concurrency_groups={"watch": 1})(KINDS[kind])
        options = remote.options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy)
        handle = options.remote(*arguments)
        self.incarnations[kind] += 1
        process = Process(kind, index, self.incarnations[kind], handle, node)
        self.there[kind, index] = process
        watch = handle.until_death.options(concurrency_group="watch").remote()
        self.tasks[watch] = Task("death", process)
        return process

    def _node(self, kind: str, index: int) -> str:
        """Return the node for a process: in turn, but a replica not beside its shard."""
        nodes = sorted(node["NodeID"] for node in self._ray.nodes() if node["Alive"])
        partner = {"replica": "shard", "shard": "replica"}.get(kind)
        beside = self.there.get((partner, index))
        others = [node for node in nodes if beside is None or node != beside.node] or nodes
        return others[index % len(others)]

    def submit(self, kind: str, process: Process, answer: Any, **content: Any) -> None:
        """Wait from now on for `answer`, of a task of `kind` that `process` was given."""
        process.busy += 1
        self.tasks[answer] = Task(kind, process, content)

    def at(self, kind: str) -> list[Task]:
        """Return the tasks of `kind` that are waited for."""
        return [task for task in self.tasks.values() if task.kind == kind]

    def wait(self, timeout_seconds: float) -> Iterator[tuple[Task, Any]]:
        """Wait for something to happen; yield all that has, tasks with their answers.

        What the caller does not come to, for an error, is waited for again.
        """
        waiting = list(self.tasks)
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout_seconds)
        if ready:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for answer in ready:
            yield self.tasks.pop(answer), answer

    def progress(self) -> None:
        """Forget the deaths so far: there has been a frame since."""
        self._deaths = 0

    def bury(self, process: Process, error: Exception) -> bool:
        """Make sure that a process that died is gone; return whether it is to be replaced.

        That is so once, however often its death is told.

        Raises:
            RuntimeError: for too many deaths without `progress` between them.
        """
        if not self.is_there(process):
            return False
        self._deaths += 1
        kind, index = process.kind, process.index
        if self._deaths > DEATHS_WITHOUT_PROGRESS:
            raise RuntimeError(
                f"gorila: {self._deaths} processes died without a frame between them, "
                f"{kind} {index} last"
            ) from error
        if self._deaths > PATIENT_DEATHS:
            time.sleep(3.0)  # Ray may list a node that was lost for some seconds more
        logger.warning("gorila: %s %d died (%s) and is replaced", kind, index, type(error).__name__)
        self._ray.kill(process.handle)  # where it was cut off only
        self._past_core_seconds += process.usage[0]
        return True

    def promote(self, replica: Process) -> None:
        """Make `replica` the shard of its index; the place of the replica is empty then."""
        del self.there["replica", replica.index]
        replica.kind = "shard"
        self.there["shard", replica.index] = replica

    def core_seconds(self) -> float:
        """Return CPU seconds of all processes, the dead ones too, as last reported."""
        return self._past_core_seconds + sum(p.usage[0] for p in self.there.values())

    def peak_memory(self) -> int:
        """Return the sum of the processes' peak resident bytes, as last reported."""
        return sum(process.usage[1] for process in self.there.values())

    def end(self) -> None:
        """End all processes."""
        for process in self.there.values():
            self._ray.kill(process.handle)
        self.there, self.tasks = {}, {}
