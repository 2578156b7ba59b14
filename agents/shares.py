"""How a number of things is divided among processes."""

from __future__ import annotations

from itertools import pairwise


def shares(size: int, parts: int) -> list[slice]:
    """Return `parts` neighbouring slices of 0..size, whose lengths differ by one at most.

    `ValueError` if there are fewer things than parts.
    """
    if not 1 <= parts <= size:
        raise ValueError(f"parts: {parts}; allowed for {size} things: 1 to {size}")
    edges = [size * index // parts for index in range(parts + 1)]
    return [slice(begin, end) for begin, end in pairwise(edges)]
