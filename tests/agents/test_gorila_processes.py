"""Gorila's processes as their driver sees them; with Ray itself in test_gorila_on_ray.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agents import gorila_processes
from agents.gorila_processes import DEATHS_WITHOUT_PROGRESS, Process, Processes


def test_deaths_without_progress_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A death is told more than once and counts once; a frame between deaths forgives them."""
    monkeypatch.setattr(gorila_processes.time, "sleep", lambda _: None)
    killed: list[Any] = []
    there = Processes(SimpleNamespace(kill=killed.append))

    def dies() -> list[bool]:
        process = Process("actor", 1, 1, object(), "node", usage=(2.0, 5))
        there.there["actor", 1] = process
        first = there.bury(process, OSError())
        there.there["actor", 1] = Process("actor", 1, 2, object(), "node")
        return [first, there.bury(process, OSError())]

    for _ in range(DEATHS_WITHOUT_PROGRESS):
        assert dies() == [True, False]
    assert len(killed) == DEATHS_WITHOUT_PROGRESS
    assert there.core_seconds() == 2.0 * len(killed)
    there.progress()
    assert dies() == [True, False]
    for _ in range(DEATHS_WITHOUT_PROGRESS - 1):
        dies()
    with pytest.raises(RuntimeError, match="31 processes died without a frame between them, actor"):
        dies()


def test_what_was_not_come_to_is_waited_for_again() -> None:
    there = Processes(SimpleNamespace(wait=lambda waiting, **_: (waiting, [])))
    process = Process("actor", 0, 1, object(), "node")
    for answer in ("one", "two"):
        there.submit("play", process, answer)
    assert next(there.wait(1.0))[1] == "one"
    assert [answer for _, answer in there.wait(1.0)] == ["two"]
    assert not there.tasks
