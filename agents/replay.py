"""The replay memory: single frames in a mapped file, stacked on reading, drawn by weight or evenly.

Every decision of a lane takes one slot of the lane's ring: the newest frame of what was seen, the
action and the reward. An episode is a run of slots: the older frames of its first stack, one slot
a decision, the frame after its last. So a stack and the one after it are always neighbouring
slots of one episode, and what is read is what the emulator gave, at either end of an episode too.
"""

from __future__ import annotations

import os
import weakref
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents import value_targets
from agents.checkpoint import ResumeError
from agents.choices import choose
from agents.config import GorilaSettings, ReplaySettings
from agents.sum_tree import SumTree

SLACK_SHARE = 10  # one slot for so many of the capacity may be overwritten between checkpoints
RANK_REFRESH_UPDATES = 1000  # sorting a million errors takes 0.1 s, so many updates some 20 s

# Whether a priority is by rank, of those that are not none.
RANKED = {"proportional": False, "rank": True}


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
        path: the file; made if it is not there, without the room on the disk for all slots.
        lanes: B, lanes that write side by side.
        observation_shape: of a stack of frames, (frames, height, width).
        settings: all on priorities.
        capacity_steps: frames kept, over all lanes.
        expected_steps: decisions that will come, over all lanes: for so many the file has room on
            the disk from the start, for more when they come. By default for the capacity.

    Raises:
        ValueError: if the capacity gives a lane less than two slots.
        OSError: if the disk has no room; also from `begin` and `add`.
    """

    def __init__(
        self,
        path: Path,
        lanes: int,
        observation_shape: tuple[int, int, int],
        settings: ReplaySettings | GorilaSettings,
        capacity_steps: int,
        expected_steps: int | None = None,
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
        self._file, self._frames = _mapped(path, (lanes * self.ring, *observation_shape[1:]))
        weakref.finalize(self, os.close, self._file)
        self._allocated = 0  # slots of each ring, from its first, that have room on the disk
        expected = (capacity_steps if expected_steps is None else expected_steps) // lanes
        # Episodes begin with a stack besides; where many do, more is allocated on the way.
        self._allocate(expected + expected // SLACK_SHARE + 8 * (self.stack + 1))
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
        if self._allocated < self.ring and head.max() >= self._allocated:
            self._allocate(int(head.max()) + 1 + self.slack)
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

    def _allocate(self, slots: int) -> None:
        """Give each ring's first `slots` room on the disk; what they hold already stays.

        Before they are written: without room, writing to a mapped file kills the process without
        a word.
        """
        slots = min(slots, self.ring)
        frame = self._frames[0].nbytes
        size = (slots - self._allocated) * frame
        if hasattr(os, "posix_fallocate"):  # not on macOS
            for first in range(self._allocated, self.lanes * self.ring, self.ring):
                try:
                    os.posix_fallocate(self._file, first * frame, size)
                except OSError as error:
                    words = f"{error.strerror}, for {self.lanes * size:,} bytes"
                    raise OSError(error.errno, words, str(self._path)) from error
        self._allocated = slots

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
            self._rank_all()

    def _set_errors(self, slots: NDArray[np.int64], errors: NDArray[np.float64]) -> None:
        settings = self.settings
        if choose("prioritisation", settings.prioritisation, RANKED):
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

    def _rank_all(self) -> None:
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
                "continues only with its whole folder resume/, and begins again without it"
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


def _mapped(path: Path, shape: tuple[int, ...]) -> tuple[int, np.memmap]:
    """Open and map the file of that many bytes, kept as it is where it is there already."""
    size = int(np.prod(shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not to append: where the file system cannot allocate, glibc writes zeros, and cannot then.
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if os.fstat(file).st_size < size:
        os.ftruncate(file, size)
    return file, np.memmap(path, np.uint8, "r+", shape=shape)
