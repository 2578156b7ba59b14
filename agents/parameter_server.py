"""The parameter server of Gorila: slices of the parameters, each with a replica, under AdaGrad.

Nothing here needs Ray to be imported; only a shard that has a replica calls it. No torch: a shard
is a small process that starts quickly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.ray_cluster import Awaited, deaths, import_ray
from agents.usage import usage


def adagrad_step(
    weights: NDArray[np.float32],
    gradient: NDArray[np.float32],
    square_sum: NDArray[np.float32],
    learning_rate: float,
    epsilon: float,
) -> None:
    """AdaGrad; in place, all arrays [P].

        G <- G + dtheta^2
        theta <- theta - eta dtheta / sqrt(G + epsilon)

    Source: Duchi et al. 2011; Dean et al. 2012 (DistBelief), which has no epsilon.
    """
    square_sum += gradient * gradient
    weights -= learning_rate * gradient / np.sqrt(square_sum + np.float32(epsilon))


class ParameterShard(Awaited):
    """A slice of the parameters and the count of its updates, `version`; one process of Ray.

    A primary forwards to its replica all that changes it, and answers when both have changed. So
    whatever a learner has been told is in the replica when the primary dies. What a primary did
    and did not live to tell of may be in the replica too: it is not repeated.
    """

    def __init__(self, max_staleness_updates: int, epsilon: float) -> None:
        self.max_staleness_updates = max_staleness_updates
        self.epsilon = epsilon
        self.weights = np.zeros(0, np.float32)
        self.square_sum = np.zeros(0, np.float32)
        self.version = 0
        self.stale = 0  # gradients discarded
        self._replica: Any = None

    def push(
        self, gradient: NDArray[np.float32], computed_at_version: int, learning_rate: float
    ) -> tuple[bool, int]:
        """Take a gradient, unless more than `max_staleness_updates` came between.

        Args:
            gradient: of this slice, [P].
            computed_at_version: `version` of the weights that it was computed with.
            learning_rate: eta.

        Returns:
            Whether it was applied, and the version after.
        """
        if self.version - computed_at_version > self.max_staleness_updates:
            self._both("discard")
            return False, self.version
        self._both("apply", gradient, learning_rate)
        return True, self.version

    def _both(self, method: str, *arguments: Any) -> None:
        """Change this shard and its replica; a dead replica is let go."""
        if self._replica is None:
            getattr(self, method)(*arguments)
            return
        answer = getattr(self._replica, method).remote(*arguments)
        getattr(self, method)(*arguments)
        try:
            import_ray().get(answer)
        except deaths():
            self._replica = None

    def apply(self, gradient: NDArray[np.float32], learning_rate: float) -> None:
        """One AdaGrad step."""
        adagrad_step(self.weights, gradient, self.square_sum, learning_rate, self.epsilon)
        self.version += 1

    def discard(self) -> None:
        """Count a gradient that came too late."""
        self.stale += 1

    def pull(self) -> tuple[NDArray[np.float32], int]:
        """Return the weights, [P], and their version."""
        return self.weights.copy(), self.version

    def follow(self, replica: Any) -> None:
        """Make `replica`, a handle of Ray, equal to this shard, and keep it so.

        One call, so that no gradient comes between. One of `deaths` if it is dead.
        """
        import_ray().get(replica.restore.remote(self.state()))
        self._replica = replica

    def state(self) -> dict[str, Any]:
        """Return weights and sums of squares, [P] each, and the counts."""
        return {
            "weights": self.weights.copy(),
            "square_sum": self.square_sum.copy(),
            "version": self.version,
            "stale": self.stale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        # Copies: what comes through Ray is read-only.
        self.weights = np.array(state["weights"], np.float32)
        self.square_sum = np.array(state["square_sum"], np.float32)
        self.version, self.stale = state["version"], state["stale"]

    def usage(self) -> tuple[float, int]:
        """Return CPU seconds and peak resident bytes of this process."""
        return usage()
