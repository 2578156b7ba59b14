"""Arguments of short trainings by `agents.train`."""

from __future__ import annotations

from pathlib import Path

from tests.agents.worlds import METHODS


def arguments(out: Path, method: str = "a2c", **changes: str) -> list[str]:
    """Arguments of a run of one to two seconds; values are split at blanks."""
    values = {
        "method": str(METHODS / f"{method}.yaml"),
        "game": "breakout",
        "seed": "0",
        "milestones-frames": "1600 3200",
        "device": "cpu",
        "set": '{"network":"mnih2013","lanes":2,"rollout_steps":10}',
        "out": str(out),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    return [word for key, value in values.items() for word in (f"--{key}", *value.split())]
