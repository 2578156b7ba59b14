"""Sums over many weights, for drawing by priority."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FANOUT = 64  # children of a node: a million leaves are four levels, so few calls of NumPy


class SumTree:
    """Sums of non-negative weights, by which leaves are drawn. All methods are vectorised.

    A node is always summed again from its children: it depends on the leaves alone, not on the
    order in which they came, and does not drift.

    Args:
        size: number of leaves.
    """

    def __init__(self, size: int) -> None:
        self._levels: list[NDArray[np.float64]] = []
        while True:
            nodes = -(-size // FANOUT)
            self._levels.append(np.zeros((nodes, FANOUT)))
            if nodes == 1:
                break
            size = nodes

    @property
    def leaves(self) -> NDArray[np.float64]:
        """The weights, [size] and zeros up to a whole node; a view."""
        return self._levels[0].reshape(-1)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._levels[-1].sum())

    def set(self, index: NDArray[np.int64], weight: NDArray[np.float64] | float) -> None:
        """Give leaves `index` [K] their `weight` [K]; of a leaf named twice the last counts."""
        self.leaves[index] = weight
        for level, above in zip(self._levels, self._levels[1:], strict=False):
            index = index // FANOUT
            above.reshape(-1)[index] = level[index].sum(axis=1)

    def rebuild(self) -> None:
        """Sum all nodes again, after a change of `leaves`."""
        for level, above in zip(self._levels, self._levels[1:], strict=False):
            above.reshape(-1)[: len(level)] = level.sum(axis=1)

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the leaves [K] in whose part of 0..total the numbers `mass` [K] lie.

        A leaf without weight is never returned. `ValueError` if all are without.
        """
        if self.total <= 0:
            raise ValueError("sum tree: no leaf has a weight")
        index = np.zeros(len(mass), np.int64)
        for level in reversed(self._levels):
            edges = level[index].cumsum(axis=1)
            # A node and the sum of its children may differ by a rounding.
            mass = np.minimum(mass, np.nextafter(edges[:, -1], 0))
            child = (edges <= mass[:, None]).sum(axis=1)
            row = np.arange(len(mass))
            mass = mass - np.where(child > 0, edges[row, child - 1], 0.0)
            index = index * FANOUT + child
        return index
