"""Training that stops and goes on is training that never stopped."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from agents import checkpoint, methods
from tests.agents.worlds import METHODS, Doors, Recall, Walk, settings, use_tiny_trunk

ROOT = Path(__file__).resolve().parents[2]

IN_TURN = {"workers": 2, "lanes_per_worker": 1, "rollout_steps": 10, "schedule": "round_robin"}
REPLAY = {  # a memory that is written over several times
    "lanes": 8,
    "replay_capacity_steps": 400,
    "decisions_per_update": 16,
    "batch_size": 4,
    "learning_starts_frames": 64,
    "target_period_frames": 256,
    "epsilon_end": 0.5,  # a greedy policy may never serve the ball
    "epsilon_anneal_frames": 2000,
    "importance_anneal_frames": 4000,
}
METHOD_SETTINGS = {
    "reinforce": {"lanes": 2, "episodes_per_update": 3, "chunk_steps": 64},
    "actor_critic": {"lanes": 2},
    "a2c": {"lanes": 3},
    "a3c_ff": IN_TURN,
    "a3c_lstm": {**IN_TURN, "lstm_cells": 16},
    "dqn": REPLAY,
    "double_dqn": REPLAY,
    "dueling": REPLAY,
    "prioritized": REPLAY,
}


def same(a: object, b: object) -> bool:
    """Equality of nested states with tensors, bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("method", METHOD_SETTINGS)
@pytest.mark.parametrize("world", [Doors, Recall, lambda lanes: Walk(lanes, 7)])
def test_restored_training_goes_on_exactly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, world
) -> None:
    """In a tiny world: 12 advances at once, or 6, saved to a file, read by a new training, 6."""
    use_tiny_trunk(monkeypatch)
    chosen = settings(method, **METHOD_SETTINGS[method], learning_rate_schedule="linear_to_zero")

    def build(name: str):
        return methods.build(chosen, world, 4, 10_000, folder=tmp_path / name)

    straight, first = build("straight"), build("stopped")
    episodes = [episode for _ in range(12) for episode in straight.advance(10_000)]
    stopped = [episode for _ in range(6) for episode in first.advance(10_000)]
    state, expected = first.state(), straight.policy()
    for _ in range(3):  # the saved state is a copy: it does not move with the training
        first.advance(10_000)
    checkpoint.save(tmp_path / "state.pt", state)
    second = build("stopped")
    saved = checkpoint.load(tmp_path / "state.pt")
    second.restore(saved)
    stopped += [episode for _ in range(6) for episode in second.advance(10_000)]
    assert stopped == episodes
    assert len(episodes) > 5
    assert second.frames == straight.frames
    assert same(second.state(), straight.state())
    assert same(second.policy(), expected)
    assert not torch.equal(saved["weights"], second.state()["weights"])  # something was learnt


@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_a_state_of_before_the_first_advance_goes_on_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    use_tiny_trunk(monkeypatch)
    chosen = settings(method, **METHOD_SETTINGS[method])
    first, second = (
        methods.build(chosen, Doors, 4, 10_000, folder=tmp_path / name) for name in ("a", "b")
    )
    second.restore(first.state())
    episodes = [
        [episode for _ in range(12) for episode in training.advance(10_000)]
        for training in (first, second)
    ]
    assert episodes[0] == episodes[1] != []
    assert same(first.state(), second.state())


def generators(training: object) -> list[bytes]:
    """Return the states of all random streams of a training and of its workers."""
    owners = [training, *vars(training).get("_workers", [])]
    owners += [worker for name, worker in vars(training).items() if name == "worker"]
    values = [value for owner in owners for value in vars(owner).values()]
    values += [each for value in values if isinstance(value, list) for each in value]
    return [
        bytes(value.get_state().tolist()) for value in values if isinstance(value, torch.Generator)
    ]


@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_trainings_of_two_seeds_have_nothing_random_in_common(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    """Nor has one training a stream twice."""
    use_tiny_trunk(monkeypatch)
    chosen = settings(method, **METHOD_SETTINGS[method])
    weights, streams, episodes = [], [], []
    for seed in (4, 5):
        training = methods.build(chosen, Doors, seed, 10_000, folder=tmp_path / str(seed))
        weights.append(training.policy())
        # A3C's workers begin with the first advance.
        played = training.advance(10_000) if method.startswith("a3c") else []
        streams += generators(training)
        played += [e for _ in range(12) for e in training.advance(10_000)]
        episodes.append({episode.episode_seed for episode in played})
    assert len(set(streams)) == len(streams) >= 2
    assert episodes[0].isdisjoint(episodes[1])
    assert min(map(len, episodes)) > 2
    for name, one in weights[0].items():
        if "bias" not in name:  # these begin at 0
            assert not torch.equal(one, weights[1][name]), name


# --- real games, real processes, kill -9

IN_ONE_PROCESS = {"a3c_ff": {"schedule": "async"}}  # beside the run's own
FRAMES = {"a3c_ff": 40_000}  # a second of play between its checkpoints


def command(method: str, out: Path, frames: int, *more: str) -> list[str]:
    sets = {"network": "mnih2013", **METHOD_SETTINGS[method], **IN_ONE_PROCESS.get(method, {})}
    return [
        *(sys.executable, "-m", "agents.train", "--method", str(METHODS / f"{method}.yaml")),
        *("--game", "breakout", "--seed", "1", "--milestones-frames", str(frames)),
        # A replay memory is written on between its checkpoints.
        *("--checkpoint-seconds", "2" if METHOD_SETTINGS[method] is REPLAY else "0"),
        *("--device", "cpu", "--set", json.dumps(sets)),
        *("--out", str(out), *more),
    ]


def start(method: str, out: Path, frames: int) -> subprocess.Popen:
    return subprocess.Popen(
        command(method, out, frames), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(method: str, out: Path, frames: int) -> None:
    result = subprocess.run(
        command(method, out, frames), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def wait_for_checkpoint(process: subprocess.Popen, out: Path, frames: int) -> dict:
    """Return the first checkpoint that is at `frames` or later, read while training goes on."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in (out / "resume").glob("*/checkpoint.pt"):
            saved = checkpoint.load(path)
            if int(torch.as_tensor(saved["training"]["frames"]).sum()) >= frames:
                return saved
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.02)
    raise AssertionError("no checkpoint")


def log(out: Path) -> list[dict[str, str]]:
    with (out / "training_episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row.pop("seconds")) > 0
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_killed_and_resumed_run_is_the_uninterrupted_one(method: str, tmp_path: Path) -> None:
    """Weights bit by bit and the log in all columns but seconds, of A3C's process also frames."""
    frames = 12_000 if METHOD_SETTINGS[method] is REPLAY else FRAMES.get(method, 6000)
    finish(method, tmp_path / "whole", frames)
    process = start(method, tmp_path / "killed", frames)
    wait_for_checkpoint(process, tmp_path / "killed", frames // 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "run.json").exists()
    finish(method, tmp_path / "killed", frames)

    policies = [tmp_path / name / "policies" / f"{frames}.pt" for name in ("whole", "killed")]
    assert same(*(checkpoint.load(path) for path in policies))
    logs = [log(tmp_path / name) for name in ("whole", "killed")]
    if method in IN_ONE_PROCESS:  # told when the run's own process asks
        for row in chain(*logs):
            del row["frames"]
    assert logs[0] == logs[1]
    assert len(logs[0]) >= 3
    record = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert (record["status"], record["attempts"] >= 2) == ("finished", True)


@pytest.mark.slow
def test_sigterm_saves_and_says_so(tmp_path: Path) -> None:
    """Exit code 3, a checkpoint, no record; the same command goes on from there."""
    process = start("a2c", tmp_path, 20_000)
    wait_for_checkpoint(process, tmp_path, 500)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0].decode()
    assert process.returncode == 3, output
    assert not (tmp_path / "run.json").exists()
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["status"] == "stopped"
    (path,) = (tmp_path / "resume").glob("*/checkpoint.pt")
    assert checkpoint.load(path)["training"]["frames"] == progress["frames"] < 20_000
    process = start("a2c", tmp_path, 20_000)
    saved = wait_for_checkpoint(process, tmp_path, progress["frames"] + 1)
    process.kill()
    process.communicate()
    assert saved["costs"]["attempts"] == 2


@pytest.mark.slow
def test_two_trainings_never_write_one_run(tmp_path: Path) -> None:
    process = start("a2c", tmp_path, 20_000)
    wait_for_checkpoint(process, tmp_path, 100)
    second = subprocess.run(
        command("a2c", tmp_path, 20_000), cwd=ROOT, capture_output=True, text=True, check=False
    )
    process.kill()
    process.communicate()
    assert second.returncode != 0
    assert "another process is training this run" in second.stderr


# --- asynchronous workers


def children(pid: int) -> list[int]:
    """Return the process ids of the children of `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent_and_the_run_goes_on(tmp_path: Path) -> None:
    sets = {"network": "mnih2013", **IN_TURN, "schedule": "async", "rollout_steps": 20}
    more = ("--set", json.dumps(sets), "--threads", "2")
    arguments = command("a3c_ff", tmp_path, 10_000_000, *more)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        saved = wait_for_checkpoint(process, tmp_path, 1)
        workers = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(running, workers))
    counted = [worker["lanes"]["episode"][0] for worker in saved["training"]["workers"]]
    assert sum(counted) == len(saved["log"].splitlines())  # none lost on the way to the halt
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        before = int(saved["training"]["frames"].sum())
        later = wait_for_checkpoint(process, tmp_path, before + 500)
    finally:
        process.kill()
        process.wait()
    assert later["costs"]["attempts"] == 2
