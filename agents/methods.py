"""Settings -> a training that can advance, be saved and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.asynchronous import Asynchronous
from agents.choices import choose
from agents.config import CPU_ONLY, MethodSettings
from agents.episodes import Episodes
from agents.experience_replay import ExperienceReplay
from agents.gorila import Gorila
from agents.lockstep import Lockstep
from agents.random_play import RandomPlay
from agents.training import Training

TRAININGS = {
    "lockstep": Lockstep,
    "async": Asynchronous,
    "episodes": Episodes,
    "random": RandomPlay,
    "replay": ExperienceReplay,
    "gorila": Gorila,
}

MakeLanes = Callable[[int], Any]  # number of lanes -> lanes like atari.AtariLanes


def divide(settings: MethodSettings, device: str, threads: int) -> tuple[int, int]:
    """Return how many processes share the lanes of a run that has `threads` cores, and the
    threads of each: of its emulators, and of the first one's arithmetic.

    The others' arithmetic has one: a library with threads must not be forked. A3C's processes,
    none of which is the run's own, have a worker each or more. Gorila counts its own; each of
    these has one thread.
    """
    if settings.topology == "async":
        return min(threads, settings.workers), 1
    if settings.topology in CPU_ONLY:
        return 1, 1
    if settings.topology == "lockstep" and device == "cpu":
        processes = min(threads, settings.lanes)
        return processes, threads // processes
    return 1, threads


def build(
    settings: MethodSettings,
    make_lanes: MakeLanes,
    run_seed: int,
    budget_frames: int,
    device: str = "cpu",
    folder: Path | None = None,
    processes: int = 1,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Training:
    """Build the training that `settings` describe; nothing plays before its first `advance`.

    `folder` is for files that states refer to; only topology `replay` needs it. `processes` is
    what `divide` returned; only topologies `lockstep` and `async` take more than one. `stop_asked`
    says whether the run is to stop; only topology `episodes` asks, whose `advance` may take many
    minutes.
    """
    cls = choose("topology", settings.topology, TRAININGS)
    more: dict[str, Any] = {}
    if settings.topology == "replay":
        more["folder"] = folder
    if settings.topology in ("lockstep", "async"):
        more["processes"] = processes
    if settings.topology == "episodes":
        more["stop_asked"] = stop_asked
    return cls(settings, make_lanes, run_seed, budget_frames, device, **more)
