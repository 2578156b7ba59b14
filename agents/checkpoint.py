"""Checkpoints, policies, records, and the lock on a run's folder: whole or absent, never half."""

from __future__ import annotations

import fcntl
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agents import files

FORMAT = 1
MILESTONE = {"milestone_frames", "frames", "policy"}  # what each of a record must have


class ResumeError(ValueError):
    """What is on disk does not let this run go on."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and bytes to `path` in one step."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    files.write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; `ResumeError` names the file if it is damaged or another format's."""
    try:
        # Empty bytes, a lane at the start of its episode, are pickled as a call of `bytes`.
        with torch.serialization.safe_globals([bytes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):  # of the machine: the file may be whole
        raise
    except Exception as error:
        raise ResumeError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(content, dict):
        raise ResumeError(
            f"{path}: not a readable checkpoint (it holds a {type(content).__name__})"
        )
    if content.get("format") != FORMAT:
        raise ResumeError(f"{path}: checkpoint format {content.get('format')!r}; allowed: {FORMAT}")
    return content


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a run, run.json at `path`; `ResumeError` if it is none or not there."""
    if not path.exists():
        raise ResumeError(f"run: {path} does not exist: not a finished run")
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
        lacking = {"milestones", "protocol", "status"} - record.keys()
        if lacking:
            raise ValueError(f"no {', '.join(sorted(lacking))}")
        for milestone in record["milestones"]:
            if not isinstance(milestone, dict) or MILESTONE - milestone.keys():
                raise ValueError(f"a milestone needs {', '.join(sorted(MILESTONE))}: {milestone}")
    except ValueError as error:
        raise ResumeError(f"run: {path} is not a record of a run ({error})") from None
    return record


def check_policy(
    policy: dict[str, Any], path: Path, record: dict[str, Any], milestone_frames: int
) -> None:
    """Refuse a policy that is not of the run and milestone it is kept for."""
    expected = {key: record.get(key) for key in ("game", "seed", "protocol", "settings_hash")}
    for key, value in {**expected, "milestone_frames": milestone_frames}.items():
        if value is not None and policy.get(key, value) != value:
            raise ResumeError(
                f"{path}: is of another training: {key} {policy[key]!r}, the run's is {value!r}"
            )


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold a lock on the run in folder `out`, so that two trainings never write it.

    What killed writers have left half-written of the run is removed.
    """
    folder = out / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResumeError(f"{folder}: another process is training this run") from None
        except OSError as error:  # Lustre without -o flock, NFS without its lock service
            raise ResumeError(
                f"{folder}: the file system grants no lock ({error.strerror}), so that two "
                "trainings could write one run; put results/ on one that does (flock)"
            ) from error
        half = f".*{files.PART}"
        for part in [*folder.rglob(half), *out.glob(half), *(out / "policies").glob(half)]:
            part.unlink(missing_ok=True)
        yield
