"""A tiny Gorila: settings, a server's shard, and what counts as solved."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.parameter_server import ParameterShard
from tests.agents.worlds import recent, settings

BUDGET = 14_000
TINY = {
    "actors": 2,
    "learners": 2,
    "shards": 2,
    "lanes_per_actor": 4,
    "rollout_steps": 5,
    "replay_capacity_steps": 4000,
    "learning_starts_frames": 800,
    "decisions_per_update": 12,  # a call through Ray costs more than a tiny world's update
    "batch_size": 64,
    "target_period_updates": 15,
    "epsilon_end": 0.05,
    "epsilon_anneal_updates": 70,
    "learning_rate": 0.08,
    "learning_rate_schedule": "linear_to_zero",  # constant, a run in forty ends unsolved
    "loss_reduction": "mean",
}


def tiny(**overrides: Any):
    return settings("gorila", **{**TINY, **overrides})


def solves(episodes: list, count: int = 100) -> bool:
    """Whether the last episodes are close to the optimum: 5 in 3 steps; leaving at once pays 2."""
    length = sum(episode.length_frames for episode in episodes[-count:]) / count / 4
    return recent(episodes, count) > 4.5 and length < 5


def shard(weights: np.ndarray, max_staleness_updates: int = 10) -> ParameterShard:
    """A shard with these weights and no updates yet."""
    made = ParameterShard(max_staleness_updates, 0.01)
    state = {"weights": weights, "square_sum": np.zeros_like(weights), "version": 0, "stale": 0}
    made.restore(state)
    return made
