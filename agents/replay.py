"""The replay memory: single frames in a mapped file, stacked on reading, drawn by weight or evenly.

Every decision of a lane takes one slot of the lane's ring: the newest frame of what was seen, the
action and the reward. An episode is a run of slots: the older frames of its first stack, one slot
a decision, the frame after its last. So a stack and the one after it are always neighbouring
slots of one episode, and what is read is what the emulator gave, at either end of an episode too.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents import value_targets
from agents.checkpoint import ResumeError
from agents.config import GorilaSettings, ReplaySettings

SLACK_SHARE = 10  # one slot for so many of the capacity may be overwritten between checkpoints
FANOUT = 64  # children of a node: a million leaves are four levels, so few calls of NumPy
RANK_REFRESH_UPDATES = 1000  # sorting a million errors takes 0.1 s, so many updates some 20 s


class SumTree:
    """Sums of non-negative weights, by which leaves are drawn. All methods are vectorised.

    A node is always summed anew from its children: it depends on the leaves alone, not on the
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
        """Sum all nodes anew, after a change of `leaves`."""
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


class Batch(NamedTuple):
    """Transitions drawn from the memory. Shapes: [N] unless said.

    `frames` holds both stacks: s is [:, :-1], s' is [:, 1:].
    """

    slots: NDArray[np.int64]
    frames: NDArray[np.uint8]  # [N, stack + 1, H, W]
    actions: NDArray[np.int64]
    rewards: NDArray[np.int32]
    terminal: NDArray[np.bool_]
    weights: NDArray[np.float64]  # importance weights; ones where all are drawn evenly


class ReplayMemory:
    """A ring of slots for each lane, the frames of all in one mapped file.

    Checkpoints hold all but the frames: `state` writes those that have changed through to the
    file, and the slots that it refers to are not overwritten before the next `state`. For that
    each ring has slots beyond its capacity. `state_is_due` says when they are nearly used up.
    Positions of a ring, the newest, head - 1, to the right:

        slack                  stack                      capacity
        kept for the last      only complete the stacks   drawn, but for slots whose next frame
        state, or overwritten  of those behind them       is another episode's or not there yet

    Args:
        path: the file; made if it is not there, with its whole size.
        lanes: B, lanes that write side by side.
        observation_shape: of a stack of frames, (frames, height, width).
        settings: all on priorities.
        capacity_steps: frames kept, over all lanes.

    Raises:
        ValueError: if the capacity gives a lane less than two slots.
        OSError: if the disk has no room.
    """

    def __init__(
        self,
        path: Path,
        lanes: int,
        observation_shape: tuple[int, int, int],
        settings: ReplaySettings | GorilaSettings,
        capacity_steps: int,
    ) -> None:
        self.settings = settings
        self._path = path
        self.lanes = lanes
        self.stack = observation_shape[0]
        self.capacity = capacity_steps // lanes  # of each ring
        least = self.stack + 2  # a new episode's first stack drives out as many, and one to draw
        if self.capacity < least:
            raise ValueError(
                f"replay_capacity_steps: {capacity_steps} is too little for {lanes} lanes; "
                f"allowed: at least {least * lanes}"
            )
        self.slack = self.capacity // SLACK_SHARE + 8 * (self.stack + 1)
        self.ring = self.capacity + self.stack + self.slack
        self._frames = _mapped(path, (lanes * self.ring, *observation_shape[1:]))
        # Slots of all rings in one row: that of lane b at position t is b * ring + t % ring.
        self._actions = np.zeros(lanes * self.ring, np.uint8)
        self._rewards = np.zeros(lanes * self.ring, np.int32)
        self._terminal = np.zeros(lanes * self.ring, bool)
        self._drawable = np.zeros(lanes * self.ring, bool)
        self._head = np.zeros(lanes, np.int64)  # position that each ring writes next
        self._saved_head: NDArray[np.int64] | None = None
        self._stack_offsets = np.arange(1 - self.stack, 2)
        self.updates = 0  # of priorities
        self._largest_error = 1.0
        prioritised = settings.prioritisation != "none"
        self.tree = SumTree(lanes * self.ring) if prioritised else None
        # |delta| of each slot, for ranks; as they were sorted last, ascending.
        ranked = settings.prioritisation == "rank"
        self._errors = np.zeros(lanes * self.ring if ranked else 0)
        self._sorted_errors = np.zeros(0)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return int(np.count_nonzero(self._drawable))

    # --- writing

    def _push(self, lanes: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """Write one frame [K, H, W] in each of `lanes` [K]; what is as old as the capacity goes."""
        head = self._head[lanes]
        if self._saved_head is not None and (head - self._saved_head[lanes] >= self.slack).any():
            raise RuntimeError("replay memory: frames of the last state would be overwritten")
        slots = lanes * self.ring + head % self.ring
        self._frames[slots] = frames
        self._drawable[slots] = False
        gone = lanes * self.ring + (head - self.capacity) % self.ring
        self._drawable[gone] = False
        if self.tree is not None:
            self.tree.set(np.concatenate([slots, gone]), 0.0)
        self._head[lanes] += 1

    def begin(self, over: NDArray[np.bool_], observation: NDArray[np.uint8]) -> None:
        """Begin an episode in the lanes of `over` [B] with their stacks [B, stack, H, W]."""
        lanes = np.flatnonzero(over)
        for age in range(self.stack if len(lanes) else 0):
            self._push(lanes, observation[lanes, age])

    def add(
        self,
        actions: NDArray[np.int64],
        rewards: NDArray[np.int32],
        terminal: NDArray[np.bool_],
        observation: NDArray[np.uint8],
    ) -> None:
        """Add one decision of every lane, all [B], and the stacks after it, [B, stack, H, W].

        After an episode's last decision `observation` is its last, and `begin` follows.
        """
        lanes = np.arange(self.lanes)
        slots = lanes * self.ring + (self._head - 1) % self.ring
        self._actions[slots] = actions
        self._rewards[slots] = rewards
        self._terminal[slots] = terminal
        self._push(lanes, observation[:, -1])
        self._drawable[slots] = True
        if self.tree is not None:
            self._set_errors(slots, np.full(self.lanes, self._largest_error))

    # --- reading

    def sample(self, count: int, uniform: Any, importance_exponent: float) -> Batch:
        """Draw `count` transitions.

        Args:
            count: N.
            uniform: uniform(n) returns n new uniform numbers in [0, 1), float64 [n].
            importance_exponent: beta of `value_targets.importance_weights`.

        Raises:
            ValueError: if there is nothing to draw from.
        """
        if self.tree is None:
            slots = self._draw_evenly(count, uniform)
            weights = np.ones(count)
        else:
            total = self.tree.total
            mass = (np.arange(count) + uniform(count)) / count * total  # one of each N-th part
            slots = self.tree.find(mass)
            probability = self.tree.leaves[slots] / total
            weights = value_targets.importance_weights(probability, len(self), importance_exponent)
        return Batch(
            slots,
            self.frames_at(slots),
            self._actions[slots].astype(np.int64),
            self._rewards[slots],
            self._terminal[slots],
            weights,
        )

    def frames_at(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return stack and next frame of the decisions in `slots` [N], [N, stack + 1, H, W]."""
        start = slots // self.ring * self.ring
        near = (slots - start)[:, None] + self._stack_offsets
        return self._frames[start[:, None] + near % self.ring]

    def _draw_evenly(self, count: int, uniform: Any) -> NDArray[np.int64]:
        sizes = np.minimum(self._head, self.capacity)
        edges = sizes.cumsum()
        if not self._drawable.any():
            raise ValueError("replay memory: nothing to draw from")
        found = np.empty(count, np.int64)
        wanted = np.arange(count)
        while len(wanted):  # the few slots that only complete a stack are drawn again
            drawn = (uniform(len(wanted)) * edges[-1]).astype(np.int64)
            lane = np.searchsorted(edges, drawn, side="right")
            age = edges[lane] - drawn  # 1 is the newest
            found[wanted] = lane * self.ring + (self._head[lane] - age) % self.ring
            wanted = wanted[~self._drawable[found[wanted]]]
        return found

    # --- priorities

    def update_priorities(self, slots: NDArray[np.int64], delta: NDArray[np.float64]) -> None:
        """Note the new errors [N] of the transitions in `slots` [N], just drawn."""
        errors = np.abs(delta).astype(np.float64)
        self._largest_error = max(self._largest_error, float(errors.max()))
        self.updates += 1
        self._set_errors(slots, errors)
        if len(self._errors) and self.updates % RANK_REFRESH_UPDATES == 0:
            self._rank_anew()

    def _set_errors(self, slots: NDArray[np.int64], errors: NDArray[np.float64]) -> None:
        settings = self.settings
        if settings.prioritisation == "rank":
            self._errors[slots] = errors
            # The rank that it would have had when they were sorted last.
            rank = 1 + len(self._sorted_errors)
            rank = rank - np.searchsorted(self._sorted_errors, errors, side="right")
            weight = value_targets.rank_priority(rank, settings.priority_exponent)
        else:
            weight = value_targets.proportional_priority(
                errors, settings.priority_exponent, settings.priority_epsilon
            )
        self.tree.set(slots, weight)

    def _rank_anew(self) -> None:
        slots = np.flatnonzero(self._drawable)
        order = np.argsort(-self._errors[slots], kind="stable")
        rank = np.empty(len(slots), np.int64)
        rank[order] = np.arange(1, len(slots) + 1)
        self._sorted_errors = self._errors[slots[order]][::-1].copy()
        self.tree.leaves[slots] = value_targets.rank_priority(rank, self.settings.priority_exponent)
        self.tree.rebuild()

    # --- checkpoints

    def state_is_due(self) -> bool:
        """Whether a step more might overwrite what the last `state` refers to."""
        if self._saved_head is None:
            return False
        return bool((self._head - self._saved_head).max() + self.stack + 1 > self.slack)

    def state(self) -> dict[str, Any]:
        """Return all but the frames; those are in the file when this returns."""
        self._frames.flush()
        self._saved_head = self._head.copy()
        arrays: dict[str, Any] = {"frames_crc": self._frames_crc()}
        arrays |= {name: torch.from_numpy(array.copy()) for name, array in self._arrays().items()}
        return {**arrays, "updates": self.updates, "largest_error": self._largest_error}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`, whose frames are in the file.

        Raises:
            ResumeError: if the settings make another size, or the file has other frames.
        """
        self.updates, self._largest_error = state["updates"], state["largest_error"]
        self._sorted_errors = np.zeros(len(state["sorted_errors"]))
        for name, array in self._arrays().items():
            if array.shape != tuple(state[name].shape):
                raise ResumeError(
                    f"replay memory: {name} is {tuple(state[name].shape)} in the checkpoint, "
                    f"{array.shape} by the settings"
                )
            array[:] = state[name].numpy()
        if state.get("frames_crc", self._frames_crc()) != self._frames_crc():
            raise ResumeError(
                f"replay memory: {self._path} does not have the frames of the checkpoint; a run "
                "goes on only with its whole folder resume/, and anew without it"
            )
        self._saved_head = self._head.copy()
        if self.tree is not None:
            self.tree.rebuild()

    def _frames_crc(self) -> int:
        """Checksum of each lane's newest frame and of the oldest that can be drawn."""
        crc = 0
        for lane, head in enumerate(self._head.tolist()):
            first = lane * self.ring
            drawable = np.flatnonzero(self._drawable[first : first + self.ring])
            ages = (head - 1 - drawable) % self.ring
            for slot in [(head - 1) % self.ring, *drawable[ages == ages.max(initial=-1)]]:
                crc = zlib.crc32(self._frames[first + slot], crc)
        return crc

    def _arrays(self) -> dict[str, NDArray]:
        return {
            "actions": self._actions,
            "rewards": self._rewards,
            "terminal": self._terminal,
            "drawable": self._drawable,
            "head": self._head,
            "errors": self._errors,
            "sorted_errors": self._sorted_errors,
            "weights": np.zeros(0) if self.tree is None else self.tree.leaves,
        }


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Map the file of that many bytes, kept as it is where it is there already."""
    size = int(np.prod(shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not to append: where the file system cannot allocate, glibc writes zeros, and cannot then.
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Now: writing to a mapped file without room kills the process without a word.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        elif os.fstat(file).st_size < size:  # macOS
            os.ftruncate(file, size)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, for {size:,} bytes", str(path)) from error
    finally:
        os.close(file)
    return np.memmap(path, np.uint8, "r+", shape=shape)
