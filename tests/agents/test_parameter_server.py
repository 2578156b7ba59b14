"""The parameter server of Gorila: AdaGrad by hand, stale gradients, shards together."""

from __future__ import annotations

import numpy as np
import pytest

from agents.parameter_server import adagrad_step
from agents.shares import shares
from tests.agents.gorila_world import shard


def test_adagrad_by_hand() -> None:
    """G = 0 + 3^2 = 9 and 9 + 4^2 = 25; 1 - 0.5 * 3 / 3 = 0.5 and 1 + 0.5 * 4 / 5 = 1.4."""
    weights, square_sum = np.ones(2, np.float32), np.array([0, 9], np.float32)
    adagrad_step(weights, np.array([3, -4], np.float32), square_sum, 0.5, 0.0)
    assert square_sum.tolist() == [9, 25]
    assert weights == pytest.approx([0.5, 1.4])


def test_epsilon_of_adagrad_is_in_the_root() -> None:
    """1 - 0.5 * 4 / sqrt(16 + 9) = 0.6."""
    weights, square_sum = np.ones(1, np.float32), np.zeros(1, np.float32)
    adagrad_step(weights, np.array([4], np.float32), square_sum, 0.5, 9.0)
    assert weights == pytest.approx([0.6])


def test_gradients_that_are_too_old_are_discarded_and_counted() -> None:
    """At most 1 update between: the third of three gradients of version 0 is too old."""
    server, one = shard(np.zeros(1, np.float32), 1), np.ones(1, np.float32)
    assert [server.push(one, 0, 0.1) for _ in range(3)] == [(True, 1), (True, 2), (False, 2)]
    assert (server.stale, server.version) == (1, 2)
    before = server.weights.copy()
    assert server.push(one, 0, 0.1) == (False, 2)
    assert server.weights == before
    assert server.push(one, 1, 0.1) == (True, 3)


def test_shards_together_are_one_server() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=11).astype(np.float32)
    whole, parts = shard(weights), shares(11, 3)
    shards = [shard(weights[part]) for part in parts]
    for _ in range(5):
        gradient = random.normal(size=11).astype(np.float32)
        version = whole.version
        whole.push(gradient, version, 0.1)
        for one, part in zip(shards, parts, strict=True):
            one.push(gradient[part], version, 0.1)
    for name in ("weights", "square_sum"):
        together = np.concatenate([getattr(one, name) for one in shards])
        assert np.array_equal(together, getattr(whole, name))
    assert {one.version for one in shards} == {whole.version} == {5}
