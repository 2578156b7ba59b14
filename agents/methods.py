"""Settings -> a training that can advance, be saved and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from agents.asynchronous import Asynchronous
from agents.config import MethodSettings
from agents.episodes import Episodes
from agents.experience_replay import ExperienceReplay
from agents.gorila import Gorila
from agents.lanes import FinishedEpisode
from agents.lockstep import Lockstep
from agents.random_play import RandomPlay

TOPOLOGIES = {
    "lockstep": Lockstep,
    "async": Asynchronous,
    "episodes": Episodes,
    "random": RandomPlay,
    "replay": ExperienceReplay,
    "gorila": Gorila,
}

MakeLanes = Callable[[int], Any]  # number of lanes -> lanes like atari.AtariLanes


class Training(Protocol):
    """What `train` needs of a topology.

    `frames` is the number of emulator frames trained on. `advance` plays and learns for a while,
    at most to the first update that reaches `until_frames`. `state` may let workers finish what
    they have begun: `take_finished` has the episodes that ended on the way. Once saved, a state
    must be followed by another when `state_is_due`: it may refer to files, which are written on.
    """

    frames: int

    def advance(self, until_frames: int) -> list[FinishedEpisode]: ...

    def take_finished(self) -> list[FinishedEpisode]: ...

    def policy(self) -> dict[str, Tensor]: ...

    def state_is_due(self) -> bool: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...

    def core_seconds_of_workers(self) -> float: ...

    def peak_memory_of_workers(self) -> int: ...


def divide(settings: MethodSettings, device: str, threads: int) -> tuple[int, int]:
    """Return how many processes share the lanes of a run that has `threads` cores, and the
    threads of each: of its emulators, and of the first one's arithmetic.

    The others' arithmetic has one: a library with threads must not be forked. Topology `async` and
    Gorila count their processes themselves; each has one thread.
    """
    if settings.topology in ("async", "gorila"):
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
    what `divide` returned; only topology `lockstep` takes more than one. `stop_asked` says whether
    the run is to stop; only topology `episodes` asks, whose `advance` may take many minutes.
    """
    cls = TOPOLOGIES[settings.topology]
    more: dict[str, Any] = {}
    if settings.topology == "replay":
        more["folder"] = folder
    if settings.topology == "lockstep":
        more["processes"] = processes
    if settings.topology == "episodes":
        more["stop_asked"] = stop_asked
    return cls(settings, make_lanes, run_seed, budget_frames, device, **more)
