"""The same code on a GPU; skipped with a reason where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from agents import atari, train
from agents.actor_critic import RolloutWorker
from tests.agents.command_line import arguments
from tests.agents.conftest import evaluation
from tests.agents.worlds import settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.mark.parametrize("method", ["a2c", "actor_critic"])
def test_cpu_and_cuda_agree_on_a_rollout(method: str) -> None:
    """The first rollout of equal weights, seeds and random numbers: actions, loss, gradient."""
    chosen = settings(method, lanes=4, clip_rewards=True)
    workers = []
    for device in ("cpu", "cuda"):
        env = atari.AtariLanes("breakout", 4, atari.PROTOCOLS["noop"])
        worker = RolloutWorker(chosen, env, 0, device=device)
        worker.collect()
        workers.append((worker, worker.backward()))
    (cpu, loss), (cuda, cuda_loss) = workers
    assert cuda.flat.gradient.is_cuda
    assert torch.equal(cpu._actions, cuda._actions)
    assert torch.equal(cpu._observations, cuda._observations)
    torch.testing.assert_close(cuda_loss.cpu(), loss, rtol=1e-3, atol=1e-4)
    gradient = cuda.flat.gradient.cpu()
    similarity = torch.cosine_similarity(gradient, cpu.flat.gradient, dim=0)
    assert similarity > 0.999
    torch.testing.assert_close(gradient.norm(), cpu.flat.gradient.norm(), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("a2c", {"lanes": 4}),
        ("a2c", {"lanes": 4, "precision": "bfloat16"}),
        ("a2c", {"lanes": 4, "lstm_cells": 8}),
        ("a2c", {"lanes": 4, "lstm_cells": 8, "precision": "bfloat16"}),
        ("actor_critic", {"lanes": 4}),
        ("reinforce", {"lanes": 2, "episodes_per_update": 2}),
        ("dqn", {"replay_capacity_steps": 400, "learning_starts_frames": 160}),
        ("dueling", {"replay_capacity_steps": 400, "learning_starts_frames": 160}),
        ("prioritized", {"replay_capacity_steps": 400, "precision": "bfloat16"}),
    ],
)
def test_trains_resumes_and_evaluates_on_cuda(tmp_path: Path, method: str, sets: dict) -> None:
    sets = json.dumps({"network": "mnih2013", "learning_rate_schedule": "constant", **sets})
    changes = {"device": "cuda", "set": sets.replace(" ", "")}
    assert train.main(arguments(tmp_path, method, milestones_frames="800", **changes)) == 0
    assert train.main(arguments(tmp_path, method, milestones_frames="800 1600", **changes)) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["device"], record["attempts"]) == ("finished", "cuda", 2)
    assert record["gpu"]
    last = str(record["milestones"][-1]["milestone_frames"])
    out = evaluation(
        tmp_path, tmp_path / "out", device="cuda", episodes=2, **{"milestone-frames": last}
    )
    assert len((out / "episodes.csv").read_text().splitlines()) == 3
