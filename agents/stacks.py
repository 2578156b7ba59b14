"""Stacks of frames laid out as convolutions read them fastest on a CPU: pixel by pixel.

A stack is [C, H, W] to all who use it; here its bytes lie as [H, W, C], so that the C frames of a
pixel are neighbours ("channels last"). A stack of four is then one 32-bit number a pixel, and the
stack after it is that number shifted by one byte, with the newest frame in the byte left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHIFTS = sys.byteorder == "little"  # the oldest frame is the lowest byte


def empty(shape: tuple[int, ...], pin_memory: bool = False) -> Tensor:
    """Return uint8 zeros [..., C, H, W] that lie as [..., H, W, C]."""
    *outer, frames, height, width = shape
    zeros = torch.zeros((*outer, height, width, frames), dtype=torch.uint8, pin_memory=pin_memory)
    return zeros.movedim(-1, -3)


def follow(
    before: Tensor, observation: NDArray[np.uint8], begun: NDArray[np.bool_], out: Tensor
) -> None:
    """Write the stacks `observation` [B, C, H, W] into `out`, which follow those of `before`.

    `before` and `out` are as `empty` makes them. Lanes of `begun` [B] do not follow: their
    episode has just begun.
    """
    stacks, pixels = _pixels(before), _pixels(out)
    if SHIFTS and stacks.shape[-1] == 4:
        np.right_shift(stacks.view(np.uint32), 8, out=pixels.view(np.uint32))
        pixels[..., 3] = observation[:, 3]
        copied = np.flatnonzero(begun)
    else:
        copied = np.arange(len(observation))
    for lane in copied:
        pixels[lane] = observation[lane].transpose(1, 2, 0)


def windows(frames: Sequence[NDArray[np.uint8]], count: int) -> Tensor:
    """Return the stacks of `count` frames each, in turn, of N + count - 1 frames [H, W].

    They are [N, count, H, W], laid out pixel by pixel.
    """
    found = empty((len(frames) - count + 1, count, *frames[0].shape))
    pixels = _pixels(found)
    for first, stack in enumerate(pixels):
        for age in range(count):
            stack[..., age] = frames[first + age]
    return found


def neighbours(frames: NDArray[np.uint8], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the stacks s and s' of a batch's frames [N, C + 1, H, W], both [N, C, H, W]."""
    if device.type != "cpu" or frames.shape[1] != 5 or not SHIFTS:
        on_device = torch.from_numpy(frames).to(device)
        return on_device[:, :-1], on_device[:, 1:]
    count, _, height, width = frames.shape
    s = np.empty((count, height, width, 4), np.uint8)
    for age in range(4):
        s[..., age] = frames[:, age]
    s_next = (s.view(np.uint32) >> 8).view(np.uint8)
    s_next[..., 3] = frames[:, 4]
    return torch.from_numpy(s).permute(0, 3, 1, 2), torch.from_numpy(s_next).permute(0, 3, 1, 2)


def _pixels(stacks: Tensor) -> NDArray[np.uint8]:
    """The bytes of stacks as they lie, [B, H, W, C]; a view."""
    return stacks.movedim(-3, -1).numpy()
