"""CPU time and peak memory of this process so far."""

from __future__ import annotations

import resource
import sys

MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of getrusage's ru_maxrss


def usage() -> tuple[float, int]:
    """Return CPU seconds and peak resident bytes of this process."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime, own.ru_maxrss * MAXRSS_BYTES
