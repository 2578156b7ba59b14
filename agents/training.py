"""The interface between `run` and every topology."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from agents.lanes import FinishedEpisode


class Training(ABC):
    """One training that can advance, be saved and go on. Topologies derive from it.

    What is defined here is right for one that trains in this process alone and keeps all of its
    state in memory.

    Attributes:
        frames: emulator frames trained on.
    """

    frames: int

    @abstractmethod
    def advance(self, until_frames: int) -> list[FinishedEpisode]:
        """Play and learn for a while, not beyond the first update that reaches `until_frames`.

        Where several workers update, each finishes the rollout that it has begun by then.
        Returns the episodes that ended.
        """

    @abstractmethod
    def policy(self) -> dict[str, Tensor]:
        """Return the network's weights, float32, by name."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on.

        Workers may finish what they have begun: `take_finished` has the episodes that ended so.
        """

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""

    def take_finished(self) -> list[FinishedEpisode]:
        """Return the episodes that ended outside `advance`."""
        return []

    def state_is_due(self) -> bool:
        """Whether `state` must be saved before the next `advance`.

        A saved state may refer to files that are written on.
        """
        return False

    def close(self) -> None:  # noqa: B027 - nothing to do for one process
        """Stop the processes beside this one."""

    def core_seconds_of_workers(self) -> float:
        """CPU seconds spent in other processes, up to the last state."""
        return 0.0

    def peak_memory_of_workers(self) -> int:
        """Sum of the other processes' peak resident bytes (shared pages are counted in each)."""
        return 0
