"""Where the time of a training goes: `python -m benchmarks.breakdown a2c a3c_ff dqn`.

Trains each method in this process, A3C's workers together, and times its parts from outside;
prints microseconds a decision as a table. A part that contains another is printed without it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from agents import atari, files, machine, methods, provenance
from agents.config import FRAMES_PER_STEP, load_method
from benchmarks.cases import METHODS

# Part -> the attribute that does it, from the worker or the training, and the part it lies in.
ROLLOUT_PARTS = {
    "emulator and lanes": ("lanes.step", "acting, the rest"),
    "inference": ("network.decide", "acting, the rest"),
    "acting, the rest": ("collect", ""),
    "value after the rollout": ("_value_of_next", "acting, the rest"),
    "gradient": ("backward", ""),
}
PARTS = {
    "lockstep": ROLLOUT_PARTS,
    "async": ROLLOUT_PARTS,
    "episodes": {
        "emulator and lanes": ("_env.step", ""),
        "inference": ("network.decide", "acting, the rest"),
        "acting, the rest": ("_act", ""),
        "gradient": ("add_gradient", ""),
    },
    "replay": {
        "emulator and lanes": ("lanes.step", "acting, the rest"),
        "inference": ("_q", "acting, the rest"),
        "acting, the rest": ("_play", ""),
        "drawing": ("memory.sample", ""),
        "gradient": ("backward", ""),
    },
}


REST = "update and the rest"


class Timer:
    """Seconds spent in functions that it has wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, path: str, part: str) -> None:
        """Time `owner.path`, a method, as `part`."""
        *way, name = path.split(".")
        for step in way:
            owner = getattr(owner, step)
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            result = function(*arguments, **named)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin
            return result

        setattr(owner, name, timed)


def own_seconds(seconds: dict[str, float], parts: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Return the seconds of each part without those of the parts in it."""
    own = {part: seconds.get(part, 0.0) for part in parts}
    for part, (_, around) in parts.items():
        if around:
            own[around] -= seconds.get(part, 0.0)
    return own


def breakdown(method: str, sets: dict[str, Any], game: str, seconds: float) -> dict[str, float]:
    """Train `method` and return microseconds a decision, by part, and frames per second.

    `ValueError` for a method whose parts are not known here.
    """
    settings = load_method(METHODS / f"{method}.yaml", sets)
    if settings.topology not in PARTS:
        raise ValueError(f"{method}: topology {settings.topology}; allowed: {', '.join(PARTS)}")
    parts, timer = PARTS[settings.topology], Timer()
    with tempfile.TemporaryDirectory() as folder:
        training = methods.build(
            settings,
            lambda lanes: atari.AtariLanes(game, lanes, atari.protocol("noop")),
            0,
            10**12,
            folder=Path(folder),
        )
        owner, advance = training, partial(training.advance, 10**12)
        if settings.topology == "lockstep":
            owner = training.worker
        if settings.topology == "async":  # as in the one process of a run that has one core
            owner = training._build_worker(slice(0, settings.workers))
            advance = partial(training._turn, 0, owner)
        while training.frames <= getattr(settings, "learning_starts_frames", 0):
            advance()
        for part, (path, _) in parts.items():
            timer.wrap(owner, path, part)
        first, begin = training.frames, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            advance()
        elapsed = time.perf_counter() - begin
        training.close()
    frames = training.frames - first
    decisions = frames / FRAMES_PER_STEP
    own = own_seconds(timer.seconds, parts)
    own[REST] = elapsed - sum(own.values())
    return {part: spent / decisions * 1e6 for part, spent in own.items()} | {
        "frames/s": frames / elapsed
    }


def markdown(breakdowns: dict[str, dict[str, float]]) -> str:
    """The table: a column for each method."""
    rows = dict.fromkeys(part for parts in PARTS.values() for part in parts)
    rows = [*rows, REST, "frames/s"]
    lines = [
        f"| µs a decision | {' | '.join(breakdowns)} |",
        f"|---|{'---:|' * len(breakdowns)}",
    ]
    for row in rows:
        cells = [f"{own[row]:,.0f}" if row in own else "" for own in breakdowns.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Profile and print; return 0, or 1 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.breakdown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("methods", nargs="+", help="methods of config/methods")
    parser.add_argument("--game", default="pong", help="(%(default)s)")
    parser.add_argument("--set", default="{}", dest="sets", help="settings to override, as JSON")
    parser.add_argument("--seconds", type=float, default=5, help="of each method (%(default)s)")
    parser.add_argument("--out", type=Path, help="write it there too, as JSON")
    options = parser.parse_args()
    machine.prepare()
    try:
        sets = json.loads(options.sets)
        found = {
            name: breakdown(name, sets, atari.check_game(options.game), options.seconds)
            for name in options.methods
        }
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(found))
    if options.out:
        report = {
            "game": options.game,
            "settings": sets,
            "cpu": provenance.cpu_name(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": provenance.commit()[0],
            "microseconds_per_decision": found,
        }
        files.write_json(options.out, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
