"""A2C whose lanes are shared among processes."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from agents import methods, processes
from agents.actor_critic import RolloutWorker
from agents.schedules import Diverged
from tests.agents import worlds
from tests.agents.test_resume import same
from tests.agents.worlds import Doors, Recall, settings, use_tiny_trunk

BUDGET = 10_000


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def build(processes: int, world=Doors, **overrides):
    chosen = {"learning_rate_schedule": "linear_to_zero", **overrides}
    chosen = settings("a2c", lanes=5, lstm_cells=4, **chosen)
    return methods.build(chosen, world, 4, BUDGET, processes=processes)


def play(training, rollouts: int):
    """Advance; return episodes (in an order of their own), state and weights."""
    try:
        episodes = [episode for _ in range(rollouts) for episode in training.advance(BUDGET)]
        state = training.state()
    finally:
        training.close()
    return sorted(episodes), state, state["weights"]


@pytest.mark.parametrize("world", [Doors, Recall])
@pytest.mark.parametrize("loss_reduction", ["mean", "sum"])
@pytest.mark.parametrize("gradient_norm_limit", [0.01, 100.0])
def test_the_number_of_processes_changes_only_roundings(
    world, loss_reduction: str, gradient_norm_limit: float
) -> None:
    """Equal episodes, seeds and actions, and weights up to float32: the gradient is one of all."""
    chosen = {"loss_reduction": loss_reduction, "gradient_norm_limit": gradient_norm_limit}
    alone, state, weights = play(build(1, world, **chosen), 20)
    for number in (2, 5):
        together, other, other_weights = play(build(number, world, **chosen), 20)
        assert together == alone
        assert other["frames"] == state["frames"] == 20 * 5 * 5 * 4
        for key in ("lanes", "generator", "starts"):
            assert other["worker"][key] == state["worker"][key]
        torch.testing.assert_close(other_weights, weights, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            other["square_average"], state["square_average"], rtol=1e-2, atol=1e-9
        )


def test_two_runs_with_as_many_processes_are_equal() -> None:
    first, second = (play(build(2), 20) for _ in range(2))
    assert same(first, second)


def test_a_state_goes_on_exactly_with_as_many_processes_and_closely_with_others() -> None:
    straight = play(build(2), 12)
    _, saved, _ = play(build(2), 5)
    assert saved["worker"]["starts"] == [False, True, False, False, True]  # not one as another
    for number in (2, 1, 3):
        training = build(number)
        training.restore(saved)
        assert same(training.state(), saved)
        _, state, weights = play(training, 7)
        torch.testing.assert_close(weights, straight[2], rtol=1e-3, atol=1e-4)
        assert state["worker"]["lanes"] == straight[1]["worker"]["lanes"]
        if number == 2:
            assert same(state, straight[1])


def test_a_process_that_dies_is_an_error_that_names_it() -> None:
    training = build(3)
    try:
        training.advance(BUDGET)
        os.kill(training._children[1].process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="A2C process 2 died with exit code -9"):
            training.advance(BUDGET)
    finally:
        training.close()


def test_a_process_that_stands_still_is_an_error_that_says_where(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "STALL_SECONDS", 1)
    training = build(2)
    try:
        training.advance(BUDGET)
        training._children[0].send(("state", 0))  # it answers, and nobody asks it for a rollout
        training._children[0].receive()
        with pytest.raises(RuntimeError, match="A2C process 1 has stood still for 1 s"):
            training._children[0].receive()
    finally:
        training.close()
    assert "in _follow" in capfd.readouterr().err


def test_a_process_that_plays_its_episodes_again_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = build(2)
    _, saved, _ = play(training, 2)
    monkeypatch.setattr(processes, "STALL_SECONDS", 1)
    restore = RolloutWorker.restore

    def slowly(worker: RolloutWorker, state: dict) -> None:
        time.sleep(2.5)
        restore(worker, state)

    monkeypatch.setattr(RolloutWorker, "restore", slowly)
    training = build(2)
    try:
        training.restore(saved)
        training.advance(BUDGET)
    finally:
        training.close()


def test_processes_that_diverge_say_so_and_end() -> None:
    training = build(2, learning_rate=1e30)
    try:
        with pytest.raises(Diverged, match=r"(loss|gradient_norm) is"):
            worlds.train(training, BUDGET)
    finally:
        training.close()


def test_the_cost_of_other_processes_is_counted_when_a_state_is_taken() -> None:
    training = build(3)
    try:
        training.advance(BUDGET)
        assert training.core_seconds_of_workers() == 0
        training.state()
        assert training.core_seconds_of_workers() > 0
        assert training.peak_memory_of_workers() > 2 * 10_000_000  # Python and torch alone
    finally:
        training.close()


def test_closed_processes_are_gone() -> None:
    training = build(3)
    training.advance(BUDGET)
    children = [child.process for child in training._children]
    training.close()
    assert len(children) == 2
    assert not any(process.is_alive() for process in children)


@pytest.mark.parametrize(
    ("method", "device", "threads", "expected"),
    [
        ("a2c", "cpu", 1, (1, 1)),
        ("a2c", "cpu", 4, (4, 1)),
        ("a2c", "cpu", 100, (16, 6)),  # no process without a lane
        ("a2c", "cuda", 4, (1, 4)),
        ("reinforce", "cpu", 4, (1, 4)),
        ("a3c_ff", "cpu", 1, (1, 1)),
        ("a3c_ff", "cpu", 4, (2, 1)),  # no process without a worker
        ("gorila", "cpu", 4, (1, 1)),
    ],
)
def test_cores_become_processes_or_threads(
    method: str, device: str, threads: int, expected: tuple[int, int]
) -> None:
    chosen = settings(method, **({"lanes": 16} if method == "a2c" else {}))
    assert methods.divide(chosen, device, threads) == expected


def test_several_processes_are_refused_on_a_gpu() -> None:
    with pytest.raises(ValueError, match="processes: 2; allowed on cuda: 1"):
        methods.build(settings("a2c"), Doors, 0, 1000, "cuda", processes=2)
