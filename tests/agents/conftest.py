"""One thread per test process, and one short evaluated run that several tests only read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agents import atari, checkpoint, evaluate, files, networks, train
from agents.run import Run
from tests.agents.worlds import METHODS

torch.set_num_threads(1)


def save_run(run: Path, game: str, protocol: str = "noop", seed: int = 0) -> Path:
    """Write a finished run of A2C with random weights, as `agents.train` leaves one."""
    arguments = ["--method", str(METHODS / "a2c.yaml"), "--game", game, "--seed", str(seed)]
    arguments += ["--milestones-frames", "1000", "--out", str(run), "--protocol", protocol]
    arguments += ["--set", '{"network": "mnih2013"}']
    spec = train.build_spec(train.parse_arguments(arguments))
    actions = atari.AtariLanes(game, 1, spec.protocol).actions
    network = networks.build_network("mnih2013", actions, 0, "torch", 0)
    training = Run(spec, run, "cpu", 1, 120)
    training.training = type("Trained", (), {"frames": 1000, "policy": network.state_dict})()
    training._keep_policy(1000)
    record = {"method": "a2c", "game": game, "seed": seed, "protocol": protocol}
    record |= {"status": "finished", "milestones": training.milestones}
    files.write_json(run / "run.json", record)
    assert checkpoint.load(run / "policies" / "1000.pt")["frames"] == 1000
    return run


def evaluation(run: Path, out: Path, **options: object) -> Path:
    """Evaluate `run` into `out` and return `out`; the command must succeed."""
    options = {"episodes": 3, "lanes": 3, **options}
    arguments = ["--run", str(run), "--milestone-frames", "1000", "--device", "cpu"]
    for key, value in options.items():
        arguments += [f"--{key.replace('_', '-')}", str(value)]
    assert evaluate.main([*arguments, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on Breakout; not to be changed."""
    return save_run(tmp_path_factory.mktemp("run"), "breakout")


@pytest.fixture(scope="session")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its evaluation, 3 sampled episodes; not to be changed."""
    return evaluation(run, tmp_path_factory.mktemp("evaluated"))
