"""What a run needs of a machine: processes, memory, a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.config import CPU_ONLY, FRAMES_PER_STEP
from workflow.study import UNTRAINED, trained_with

BASE_MB = 4000  # one process takes up to 1.5 GB, REINFORCE's with its whole episodes
# Of A3C; 16, a process each, take 4.3 to 6.0 GB where the pages that they share count for each.
WORKER_MB = 250
REPLAY_BYTES_PER_STEP = (
    7800  # a frame of 84 x 84 and what belongs to it; the pages of its file count
)
GORILA_PROCESS_MB = 500  # each has a PyTorch of its own; measured 420


def processes(study: Mapping[str, Any], method: str, root: Path) -> int:
    """Return how many processes of a run of `method` can compute: A3C's workers, Gorila's, or one.

    With fewer cores A3C has fewer.
    """
    values = trained_with(study, method, root)
    if "actors" in values:
        return int(values["actors"]) + int(values["learners"])
    return int(values.get("workers", 1))


def memory_mb(study: Mapping[str, Any], method: str, root: Path) -> int:
    """Return how much memory to ask a cluster for, in MB, for a run of `method`."""
    values = trained_with(study, method, root)
    played = study["milestones_frames"][-1] // FRAMES_PER_STEP
    kept = min(int(values.get("replay_capacity_steps", 0)), played)
    replay = REPLAY_BYTES_PER_STEP * kept // 10**6
    shards = 2 * int(values.get("shards", 0))  # each has a replica
    of_ray = processes(study, method, root) + shards if shards else 0
    workers = WORKER_MB * int(values.get("workers", 0))
    return BASE_MB + workers + replay + GORILA_PROCESS_MB * of_ray


def device(study: Mapping[str, Any], method: str, root: Path) -> str:
    """Return the study's device, or "cpu" for a method that trains nowhere else, or not at all."""
    topology = trained_with(study, method, root)["topology"]
    return "cpu" if topology in {*CPU_ONLY, UNTRAINED} else study["device"]
