"""The C library's allocator, told to keep what training frees and soon asks for again."""

from __future__ import annotations

import ctypes

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Never give freed memory back to the system, where the C library is glibc.

    A rollout's activations are tens of megabytes: by default glibc maps them anew for each
    backward pass, and the page faults cost more than the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, another allocator
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 32 * 2**20)
