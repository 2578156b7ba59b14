"""A3C with real worker processes, and its workers in turn."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from agents import actor_critic, checkpoint, methods, processes, train
from agents.actor_critic import RolloutWorker
from agents.atari import AtariLanes, protocol
from agents.run import Run
from agents.schedules import Diverged
from tests.agents import worlds
from tests.agents.worlds import Doors, Walk, settings, use_tiny_trunk

BUDGET = 1_000_000


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def build(world=Doors, processes=2, **overrides):
    chosen = {"schedule": "async", "rollout_steps": 5, "lstm_cells": 4, **overrides}
    return methods.build(settings("a3c_lstm", **chosen), world, 4, BUDGET, processes=processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_state_is_taken_while_every_worker_stands_still(processes: int) -> None:
    """Nothing moves between two looks; what each worker played is what is counted."""
    training = build(processes=processes)
    try:
        episodes = training.advance(BUDGET)
        state = training.state()
        episodes += training.take_finished()
        frames, weights = training.frames, training.shared.weights.clone()
        time.sleep(0.3)
        assert training.frames == frames == int(state["frames"].sum())
        assert torch.equal(training.shared.weights, weights)
        assert torch.equal(state["weights"], weights)
        assert frames > 0
        lanes = [worker["lanes"] for worker in state["workers"]]
        assert sum(sum(lane["episode"]) for lane in lanes) == len(episodes)
        played = sum(episode.length_frames for episode in episodes)
        begun = sum(4 * len(actions) for lane in lanes for actions in lane["actions"])
        assert played + begun == frames
        assert training.advance(BUDGET)  # and on they go
        assert training.frames > frames
    finally:
        training.close()


@pytest.mark.parametrize(("processes", "later_processes"), [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_a_restored_training_goes_on_from_the_state(processes: int, later_processes: int) -> None:
    """In as many processes or another number of them."""
    first = build(lambda lanes: Walk(lanes, 50), processes)
    try:
        first.advance(BUDGET)
        state = first.state()
    finally:
        first.close()
    second = build(lambda lanes: Walk(lanes, 50), later_processes)
    second.restore(state)
    assert second.frames == int(state["frames"].sum())
    again = second.state()  # lanes replayed here, no process yet
    assert again["workers"] == state["workers"]
    assert torch.equal(again["square_average"], state["square_average"])
    try:
        episodes = second.advance(BUDGET)
        later = second.state()
        episodes += second.take_finished()
    finally:
        second.close()
    for worker, earlier in zip(later["workers"], state["workers"], strict=True):
        before, after = earlier["lanes"]["episode"], worker["lanes"]["episode"]
        assert all(b >= a for a, b in zip(before, after, strict=True))
    counted = [sum(w["lanes"]["episode"]) for s in (state, later) for w in s["workers"]]
    assert sum(counted[2:]) - sum(counted[:2]) == len(episodes)


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_stop_at_the_frames_asked_for(processes: int) -> None:
    """At most one rollout of each worker further."""
    training = build(processes=processes)
    try:
        while training.frames < 2000:
            training.advance(2000)
        time.sleep(0.3)
        assert 2000 <= training.frames <= 2000 + 2 * 4 * 5 * 4
    finally:
        training.close()


def test_a_process_that_dies_is_an_error_that_names_it() -> None:
    training = build()
    try:
        training.advance(BUDGET)
        os.kill(training._children[1].process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="A3C process 1 died with exit code -9"):
            training.state()
    finally:
        training.close()


def test_a_worker_that_diverges_says_so() -> None:
    training = build(learning_rate=1e30)
    try:
        with pytest.raises(Diverged, match=r"worker \d: (loss|gradient_norm) is"):
            worlds.train(training, BUDGET)
    finally:
        training.close()


class Stands(Doors):
    """A world that stands still from its 20th step on, as a lock that nobody opens would."""

    def step(self, actions):
        self.played = getattr(self, "played", 0) + 1
        if self.played >= 20:
            time.sleep(1000)
        return super().step(actions)


def test_workers_that_stand_still_are_an_error_that_says_where(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    training = build(Stands)
    try:
        while training.frames == 0:  # a busy machine may need its time to start them
            training.advance(BUDGET)
        monkeypatch.setattr(processes, "STALL_SECONDS", 3)
        with pytest.raises(RuntimeError, match="A3C process 0 has stood still for 3 s"):
            worlds.train(training, BUDGET)
    finally:
        training.close()
    assert "in step" in capfd.readouterr().err


def test_closed_workers_are_gone() -> None:
    training = build()
    training.advance(BUDGET)
    children = [child.process for child in training._children]
    training.close()
    assert len(children) == 2
    assert not any(process.is_alive() for process in children)


def exactly(training, until_frames: int):
    """Train to `until_frames`; return the episodes and the state there."""
    try:
        episodes = []
        while training.frames < until_frames:
            episodes += training.advance(until_frames)
        state = training.state()
        return episodes + training.take_finished(), state
    finally:
        training.close()


def test_two_trainings_in_one_process_are_equal_bit_by_bit() -> None:
    """Also one that is stopped and goes on from its state. In two processes they are not."""
    whole_episodes, whole = exactly(build(processes=1, workers=3), 12_000)
    episodes, state = exactly(build(processes=1, workers=3), 6_000)
    second = build(processes=1, workers=3)
    second.restore(state)
    later_episodes, later = exactly(second, 12_000)
    assert episodes + later_episodes == whole_episodes != []
    assert torch.equal(later["weights"], whole["weights"])
    assert torch.equal(later["square_average"], whole["square_average"])
    assert later["workers"] == whole["workers"]
    assert not torch.equal(state["weights"], later["weights"])


@pytest.mark.parametrize("processes", [0, 3])
def test_a_number_of_processes_that_the_workers_cannot_fill_is_refused(processes: int) -> None:
    with pytest.raises(ValueError, match=f"parts: {processes}; allowed for 2 things: 1 to 2"):
        build(processes=processes)


def pong(lanes: int) -> AtariLanes:
    return AtariLanes("pong", lanes, protocol("noop"))


@pytest.mark.parametrize(
    ("world", "chosen"),
    [
        (lambda lanes: Walk(lanes, 7), {"lstm_cells": 0}),
        (lambda lanes: Walk(lanes, 7), {"lstm_cells": 4, "return_estimate": "one_step"}),
        (pong, {"lstm_cells": 4, "network": "nature"}),
    ],
)
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_workers_together_find_the_gradients_that_each_finds_alone(
    monkeypatch: pytest.MonkeyPatch, world, chosen, at_once: int
) -> None:
    """With the weights that they have read together; then each updates the shared ones.

    Whether the gradients of one worker, of two or of all are computed in one batch.
    """
    monkeypatch.setattr(actor_critic, "GRADIENT_BATCH_STEPS", 10 * at_once)
    together, alone = (build(world, workers=3, lanes_per_worker=2, **chosen) for _ in range(2))
    group = together._build_worker(slice(0, 3))
    singles = [alone._build_worker(slice(index, index + 1)) for index in range(3)]
    gradients, update = [], together._update

    def recorded(worker: RolloutWorker, loss: torch.Tensor) -> None:
        gradients.append(worker.flat.gradient.clone())
        update(worker, loss)

    together._update = recorded
    for turn in range(4):
        weights = together.shared.weights.clone()
        together._turn(0, group)
        for index, single in enumerate(singles):
            single.flat.publish(weights)
            single.collect()
            loss = single.backward()
            gradient = single.flat.gradient
            difference = gradients.pop(0) - gradient
            assert difference.norm() < 1e-4 * gradient.norm()  # batches differ, and so roundings
            alone._update(single, loss)
            alone.shared.frames[index] += single.frames_per_rollout
        step = alone.shared.weights - weights
        assert (together.shared.weights - alone.shared.weights).norm() < 1e-2 * step.norm()
        assert together.shared.frames.tolist() == [40 * (turn + 1)] * 3
    for state, single in zip(group.states(), singles, strict=True):
        (own,) = single.states()
        for key in ("lanes", "generator", "starts"):
            assert state[key] == own[key]
        if own["lstm"] is not None:
            torch.testing.assert_close(torch.tensor(state["lstm"]), torch.tensor(own["lstm"]))


def test_a_gradient_is_of_the_last_rollout_though_one_before_was_not_asked_for() -> None:
    found = []
    for asked in ([], [0]):
        group = build(Doors, workers=2)._build_worker(slice(0, 2))
        group.collect()
        for worker in asked:
            group.backward(worker)
        group.collect()
        found.append((group.backward(1), group.flat.gradient.clone()))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_workers_in_turn_differ_in_what_they_play() -> None:
    """Each has its own episodes and its own random stream."""
    training = build(lambda lanes: Walk(lanes, 50), schedule="round_robin")
    training.advance(BUDGET)
    first, second = training.state()["workers"]
    assert first["lanes"]["actions"] != second["lanes"]["actions"]
    assert first["generator"] != second["generator"]
    lanes = [worker.lanes for worker in training._workers]
    seeds = {each._seed(lane) for each in lanes for lane in range(each.lanes)}
    assert len(seeds) == 8


def test_a_repeated_update_with_learning_rate_0_has_the_same_gradient_norm() -> None:
    """A worker's gradient is copied to the update, not accumulated in it."""
    training = build(Doors, 1, schedule="round_robin", workers=1, learning_rate=0.0)
    training.advance(BUDGET)
    start, norms = training.state(), []
    for _ in range(4):
        training._workers[0].restore(start["workers"][:1])
        training._turn(0, training._workers[0])
        norms.append(float(training._workers[0].flat.gradient.norm()))
    assert norms[0] > 0.01
    assert norms == [norms[0]] * 4


def test_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="device: 'cuda'; topology async runs on: cpu"):
        methods.build(settings("a3c_ff"), Doors, 0, 1000, "cuda")


def test_a_checkpoint_has_the_episodes_that_ended_on_the_way_to_the_halt(tmp_path: Path) -> None:
    """Rows of its log are the episodes that its lanes have counted."""
    method = str(worlds.METHODS / "a3c_ff.yaml")
    arguments = ["--method", method, "--game", "pong", "--seed", "0", "--out", str(tmp_path)]
    spec = train.build_spec(train.parse_arguments([*arguments, "--milestones-frames", "1000"]))
    run = Run(spec, tmp_path, "cpu", 1, 0)
    run.training = build(lstm_cells=0)
    try:
        for _ in range(2):
            run._record(run.training.advance(BUDGET))
            run.save_checkpoint()
            saved = checkpoint.load(run.checkpoint_path)
            lanes = [worker["lanes"] for worker in saved["training"]["workers"]]
            counted = sum(sum(lane["episode"]) for lane in lanes)
            assert len(saved["log"].splitlines()) == counted > 0
    finally:
        run.training.close()


class Slow(Walk):
    """A world that plays slowly when `delay_seconds` is set."""

    delay_seconds = 0.0

    def step(self, actions):
        time.sleep(self.delay_seconds)
        return super().step(actions)


def test_a_worker_that_plays_its_episode_again_does_not_stand_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two seconds to be where it was, with a patience of one."""

    def build_slow():
        return build(lambda lanes: Slow(lanes, 1_000_000))

    training = build_slow()
    try:
        while training.frames < 2_000:
            training.advance(training.frames + 400)
        state = training.state()
    finally:
        training.close()
    played = [max(map(len, worker["lanes"]["actions"])) for worker in state["workers"]]
    monkeypatch.setattr(Slow, "delay_seconds", 2 / min(played))  # of whoever is there first
    monkeypatch.setattr(processes, "STALL_SECONDS", 1)
    training = build_slow()
    training.restore(state)
    try:
        begun, before = time.monotonic(), training.frames
        while training.frames == before:
            training.advance(before + 40)
        assert time.monotonic() - begun > 1
    finally:
        training.close()
