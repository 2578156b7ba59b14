"""Named random streams: every random draw of a run starts from a seed derived here."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*names: int | str) -> int:
    """Return a seed in [0, 2**31) that depends on every name and on their order.

    The same names give the same seed on every machine and Python version. ALE takes signed
    32-bit seeds and reads negative ones as "do not seed", hence 31 bits.
    """
    text = "\x1f".join(str(name) for name in names)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x7FFF_FFFF


def numpy_generator(*names: int | str) -> np.random.Generator:
    """Return a NumPy generator seeded by `derive_seed(*names)`."""
    return np.random.Generator(np.random.PCG64(derive_seed(*names)))
