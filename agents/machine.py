"""Settings of a process that trains; they change no result but denormal numbers."""

from __future__ import annotations

import ctypes
import signal

import torch

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
PR_SET_PDEATHSIG = 1  # prctl's option, from sys/prctl.h


def prepare(threads: int = 1) -> None:
    """Set up the calling thread and its process for training with `threads` threads of arithmetic.

    Numbers below 1e-38 are taken as 0, by this thread and those forked from it: the processor
    needs a hundred cycles for each, and the statistics of unused weights decay through them.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    exact_float32()
    keep_freed_memory()


def choose_device(name: str) -> str:
    """Return "cpu" or "cuda" for `auto`, `cpu` or `cuda`; `auto` takes the GPU where there is one.

    `ValueError` if a GPU is asked for that torch does not find.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device: 'cuda' asked for, but torch finds no GPU; allowed: auto, cpu")
    return "cuda" if found and name != "cpu" else "cpu"


def exact_float32() -> None:
    """Have a GPU compute float32 in float32: by default cuDNN's convolutions round to TF32."""
    torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> None:
    """Never give freed memory back to the system, where the C library is glibc.

    A rollout's activations are tens of megabytes: by default glibc maps them again for each
    backward pass, and the page faults cost more than the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, another allocator
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 32 * 2**20)


def end_with_parent() -> None:
    """On Linux: have the kernel kill this process when its parent dies, whatever it does then."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
