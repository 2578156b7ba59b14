"""Every method solves a tiny world whose optimum is known; a broken copy of it does not."""

from __future__ import annotations

import re

import pytest
import torch

from agents import actor_critic, methods, networks, targets
from tests.agents.worlds import METHODS, Doors, Recall, recent, settings, train, use_tiny_trunk

SEEDS = (0, 1, 2)
MAJORITY = 2
FRAMES = {"a3c_lstm": 48_000}
SETTINGS = {
    "reinforce": {},
    "actor_critic": {"lanes": 8, "rollout_steps": 2},
    "a2c": {"lanes": 8, "rollout_steps": 2},
    "a3c_ff": {"rollout_steps": 2},
    "a3c_lstm": {"rollout_steps": 5, "lstm_cells": 16},
}


def solved(method: str, seed: int, processes: int = 1, **overrides) -> bool:
    """Whether the method ends close to the optimum of its world."""
    world = Recall if method == "a3c_lstm" else Doors
    frames = FRAMES.get(method, 16_000)
    chosen = settings(method, **{"entropy_weight": 0.02, **SETTINGS[method], **overrides})
    episodes = train(methods.build(chosen, world, seed, frames, processes=processes), frames)
    if world is Recall:
        return recent(episodes) > 0.95  # 0.5 without memory
    length = sum(episode.length_frames for episode in episodes[-200:]) / 200 / 4
    return recent(episodes) > 4.8 and length < 5  # leaving at once: 2; without looking: 6 steps


def wins(method: str, **overrides) -> int:
    """Number of seeds that solve it."""
    return sum(solved(method, seed, **overrides) for seed in SEEDS)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def test_every_method_is_here() -> None:
    """The policy-based methods of `config/methods`; a new one needs a row above."""
    topology = re.compile(r"^topology: (lockstep|episodes|async)\b", re.MULTILINE)
    files = [file for file in METHODS.glob("*.yaml") if topology.search(file.read_text())]
    assert {file.stem for file in files} == set(SETTINGS)


@pytest.mark.parametrize("method", SETTINGS)
def test_solves_its_world(method: str) -> None:
    assert solved(method, SEEDS[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_solves_its_world_for_most_seeds(method: str) -> None:
    assert wins(method) >= MAJORITY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimate", "factor"), [("total", "kept"), ("discounted_reward_to_go", "kept")]
)
def test_other_forms_of_reinforce_solve_it(estimate: str, factor: str) -> None:
    assert wins("reinforce", return_estimate=estimate, gamma_t_factor=factor) >= MAJORITY


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a3c_in_processes_of_its_own_solves_it(processes: int) -> None:
    assert wins("a3c_ff", schedule="async", processes=processes) >= MAJORITY


# --- broken copies


@pytest.mark.parametrize(
    "method",
    [
        "actor_critic",
        "a2c",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("reinforce", "a3c_ff", "a3c_lstm")
        ),
    ],
)
def test_fails_with_the_advantage_sign_flipped(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    advantage = targets.advantage
    monkeypatch.setattr(targets, "advantage", lambda g, v: -advantage(g, v))
    assert not solved(method, SEEDS[0])


BOOTSTRAPPING = (
    "actor_critic",
    "a2c",
    pytest.param("a3c_ff", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("method", BOOTSTRAPPING)
def test_fails_without_the_bootstrapped_value(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    n_step, one_step = targets.n_step_return, targets.one_step_target
    zero = torch.zeros_like
    monkeypatch.setattr(targets, "n_step_return", lambda r, d, v: n_step(r, d, zero(v)))
    monkeypatch.setattr(targets, "one_step_target", lambda r, d, v: one_step(r, d, zero(v)))
    assert not solved(method, SEEDS[0])


@pytest.mark.parametrize("method", BOOTSTRAPPING)
def test_fails_when_returns_run_past_the_end_of_an_episode(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    n_step, one_step = targets.n_step_return, targets.one_step_target

    def past(discount):
        return torch.full_like(discount, 0.99)

    monkeypatch.setattr(targets, "n_step_return", lambda r, d, v: n_step(r, past(d), v))
    monkeypatch.setattr(targets, "one_step_target", lambda r, d, v: one_step(r, past(d), v))
    assert not solved(method, SEEDS[0])


@pytest.mark.parametrize("method", BOOTSTRAPPING)
def test_fails_when_the_value_is_of_the_state_before(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """One-step rollouts; bootstrapped from the state acted in instead of the one reached."""
    assert solved(method, SEEDS[0], rollout_steps=1)

    @torch.inference_mode()
    def value_of_last(worker):
        return worker.network(worker._observations[-1], None)[1]

    monkeypatch.setattr(actor_critic.RolloutWorker, "_value_of_next", value_of_last)
    assert not solved(method, SEEDS[0], rollout_steps=1)


def test_recall_needs_the_lstm_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state cleared at each step leaves chance."""
    network = networks.ActorCriticNetwork
    decide, gradients = network.decide, network.gradients

    def without_state(self, o, state, keep, losses_of, workers, outputs):
        return gradients(self, o, state, 0 * keep, losses_of, workers)

    monkeypatch.setattr(network, "decide", lambda self, o, state=None: decide(self, o, None))
    monkeypatch.setattr(network, "gradients", without_state)
    assert not solved("a3c_lstm", SEEDS[0])


@pytest.mark.slow
def test_recall_needs_an_lstm() -> None:
    assert not solved("a3c_lstm", SEEDS[0], lstm_cells=0)
