"""Atomic writes with fixed bytes: the same content always gives the same file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends without error.

    The temporary name keeps the suffix, so that writers which choose a format by it work. Folders
    are made. After an error the old file is untouched and the temporary one is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with LF line ends, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def csv_text(frame: pd.DataFrame) -> str:
    """Return `frame` as CSV without its index: LF, floats with all their digits, NaN empty."""
    # float() first: the repr of a NumPy scalar is "np.float64(0.1)".
    return frame.to_csv(
        index=False, lineterminator="\n", float_format=lambda value: repr(float(value))
    )


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write `frame` as CSV, atomically; `csv_text` says how."""
    write_text(path, csv_text(frame))
