"""Random play is a method: recorded, evaluated and audited like the others, without training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import atari, audit, config, evaluate, methods, trace, train
from agents.random_play import ConstantPolicy
from tests.agents.worlds import METHODS, Doors

MILESTONES = ("1000", "50000000")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random play on Breakout, 3 episodes at each of two milestones."""
    run = tmp_path_factory.mktemp("random")
    arguments = ["--method", str(METHODS / "random.yaml"), "--game", "breakout", "--seed", "0"]
    arguments += ["--milestones-frames", *MILESTONES, "--out", str(run)]
    assert train.main(arguments) == 0
    for milestone in MILESTONES:
        arguments = ["--run", str(run), "--milestone-frames", milestone, "--episodes", "3"]
        arguments += ["--action-selection", "greedy" if milestone == "1000" else "sample"]
        arguments += ["--lanes", "2", "--device", "cpu", "--out", str(run / milestone)]
        assert evaluate.main(arguments) == 0
    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "episodes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_record_says_that_nothing_was_trained(played: Path) -> None:
    record = json.loads((played / "run.json").read_text())
    assert (record["status"], record["frames"], record["budget_frames"]) == (
        "finished",
        0,
        50_000_000,
    )
    assert [m["frames"] for m in record["milestones"]] == [0, 0]
    assert (record["network"], record["precision"]) == ("none", "none")
    assert set(record["settings"]) == {"method", "label", "version", "topology"}
    assert len((played / "training_episodes.csv").read_text().splitlines()) == 1
    assert record["seconds"] < 5


def test_every_milestone_has_the_same_episodes_sampled_and_replayable(played: Path) -> None:
    """Also where the study asks for greedy actions: the likeliest of equal ones is always no-op."""
    first, last = (trace.load(played / milestone / "traces.npz") for milestone in MILESTONES)
    assert first[0]["action_selection"] == last[0]["action_selection"] == "sample"
    assert len(first[1]) == 3
    for a, b in zip(first[1], last[1], strict=True):
        assert a.episode_seed == b.episode_seed
        assert np.array_equal(a.actions, b.actions)
    assert {row["frames"] for row in rows(played / "1000")} == {"0"}
    assert audit.main([str(played)]) == 0


def test_actions_are_uniform_and_differ_between_episodes(played: Path) -> None:
    """Chi-square with 3 degrees of freedom: 16.3 is passed once in 1000 times."""
    _, traces = trace.load(played / "1000" / "traces.npz")
    counts = np.bincount(np.concatenate([t.actions for t in traces]), minlength=4)
    expected = counts.sum() / 4
    assert counts.sum() > 300
    assert ((counts - expected) ** 2 / expected).sum() < 16.3
    assert not np.array_equal(traces[0].actions[:50], traces[1].actions[:50])


@pytest.mark.parametrize("actions", [3, 6, 18])
def test_every_action_has_its_share_of_the_random_number(actions: int) -> None:
    policy = ConstantPolicy(torch.zeros(actions))
    logits, _, state = policy(torch.zeros(actions, 4, 84, 84), policy.initial_state(actions))
    assert state is None
    uniform = (np.arange(actions) + 0.5) / actions
    assert evaluate.choose_actions(logits.numpy(), uniform).tolist() == list(range(actions))


def test_the_policy_has_the_actions_of_the_protocol() -> None:
    settings = config.load_method(METHODS / "random.yaml")
    for protocol, actions in (("noop", 4), ("sticky", 18)):
        training = methods.build(
            settings,
            lambda n, name=protocol: atari.AtariLanes("breakout", n, atari.protocol(name)),
            0,
            1,
        )
        assert training.policy()["policy.bias"].tolist() == [0.0] * actions


def test_nothing_is_played_in_training() -> None:
    training = methods.build(config.load_method(METHODS / "random.yaml"), Doors, 0, 100)
    assert training.advance(100) == training.take_finished() == []
    assert training.frames == 0
    training.restore(training.state())


def test_it_has_no_settings_to_override() -> None:
    with pytest.raises(ValueError, match="overrides: random: unknown key 'gamma'"):
        config.load_method(METHODS / "random.yaml", {"gamma": 0.9})
