"""The profile's arithmetic, and that it runs."""

from __future__ import annotations

import time

import pytest

from benchmarks import breakdown


def test_a_part_is_printed_without_what_lies_in_it() -> None:
    """Of 10 s of acting 6 are the emulator's and 3 inference: 1 is left."""
    parts = {"emulator": ("", "acting"), "inference": ("", "acting"), "acting": ("", "")}
    seconds = {"emulator": 6.0, "inference": 3.0, "acting": 10.0}
    assert breakdown.own_seconds(seconds, parts) == {"emulator": 6, "inference": 3, "acting": 1}


def test_wrapped_methods_are_timed_and_still_work() -> None:
    class Worker:
        def act(self, seconds: float) -> str:
            time.sleep(seconds)
            return "done"

    worker, timer = Worker(), breakdown.Timer()
    timer.wrap(worker, "act", "acting")
    assert [worker.act(0.02), worker.act(0.01)] == ["done"] * 2
    assert 0.03 <= timer.seconds["acting"] < 1


@pytest.mark.parametrize(
    ("method", "sets"),
    [("a2c", {}), ("a3c_lstm", {}), ("reinforce", {"lanes": 1, "episodes_per_update": 1})],
)
def test_parts_add_up_to_the_time_of_a_decision(method: str, sets: dict[str, int]) -> None:
    found = breakdown.breakdown(method, {"network": "mnih2013"} | sets, "breakout", 0.2)
    speed = found.pop("frames/s")
    assert sum(found.values()) == pytest.approx(4e6 / speed)
    assert min(found.values()) > 0


def test_a_method_without_known_parts_is_refused() -> None:
    known = "lockstep, async, episodes, replay"
    with pytest.raises(ValueError, match=f"gorila: topology gorila; allowed: {known}"):
        breakdown.breakdown("gorila", {}, "pong", 0.1)
