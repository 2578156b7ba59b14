"""Gorila upon Ray: replicas, processes that are killed, and two nodes that share a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from agents import checkpoint, gorila, methods, ray_cluster
from agents.gorila_processes import KINDS
from agents.parameter_server import ParameterShard
from agents.trunk import TRUNKS
from tests.agents import worlds
from tests.agents.gorila_world import BUDGET, shard, solves, tiny
from tests.agents.worlds import METHODS, Doors, recent, use_tiny_trunk


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


upon_ray = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all tests of this module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("ray", reason="gorila needs Ray: pip install ray==2.60.0")
        handler = signal.getsignal(signal.SIGTERM)
        assert ray_cluster.connect(2)
        assert signal.getsignal(signal.SIGTERM) is handler
        yield module
        module.shutdown()


@upon_ray
def test_its_processes_run_at_the_priority_of_the_training(ray: Any) -> None:
    there = ray.get(ray.remote(lambda: os.getpriority(os.PRIO_PROCESS, 0)).remote())
    assert there == os.getpriority(os.PRIO_PROCESS, 0)


@upon_ray
def test_a_replica_is_equal_to_its_shard_when_that_dies(ray: Any) -> None:
    random = np.random.default_rng(1)
    weights = random.normal(size=7).astype(np.float32)
    alone = shard(weights, 0)
    remote = ray.remote(ParameterShard).options(num_cpus=0)
    primary, replica = remote.remote(0, 0.01), remote.remote(0, 0.01)
    ray.get(primary.restore.remote(alone.state()))
    ray.get(primary.follow.remote(replica))
    for version in (0, 1, 1, 2):  # the third is too old for none to come between
        arguments = random.normal(size=7).astype(np.float32), min(version, 1), 0.1
        assert ray.get(primary.push.remote(*arguments)) == alone.push(*arguments)
    ray.kill(primary)
    found, expected = ray.get(replica.state.remote()), alone.state()
    assert found["version"] == expected["version"] == 2
    assert found["stale"] == expected["stale"] == 2
    for name in ("weights", "square_sum"):
        assert np.array_equal(found[name], expected[name])
    gradient = np.ones(7, np.float32)
    assert ray.get(replica.push.remote(gradient, 2, 0.1)) == alone.push(gradient, 2, 0.1)
    # And a shard goes on without its replica.
    third = remote.remote(0, 0.01)
    ray.get(replica.follow.remote(third))
    assert np.array_equal(ray.get(third.state.remote())["weights"], alone.weights)
    ray.kill(third)
    assert ray.get(replica.push.remote(gradient, 3, 0.1)) == (True, 4)
    ray.kill(replica)


def versions(training: gorila.Gorila) -> list[int]:
    return [state["version"] for state in training.state()["shards"]]


@upon_ray
def test_one_of_each_is_killed_and_the_run_goes_on(
    ray: Any, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    """It solves the world within its budget, and a second run goes on from its checkpoint."""
    training = methods.build(tiny(), Doors, 0, BUDGET)
    episodes = []
    victims = [("actor", 0), ("learner", 1), ("shard", 0), ("replica", 1)]
    try:
        while training.frames < BUDGET:
            episodes += training.advance(BUDGET)
            if victims and training.frames > 1000 * (6 - len(victims)):
                kind, index = victims.pop(0)
                handle = training._processes.there[kind, index].handle
                if kind == "learner":  # from outside, as a machine out of memory does it
                    pid = ray.get(handle.__ray_call__.remote(lambda self: os.getpid()))
                    os.kill(pid, signal.SIGKILL)
                else:
                    ray.kill(handle)
        state = training.state()
        episodes += training.take_finished()
        assert not victims
        assert training.core_seconds_of_workers() > 0
        assert training.peak_memory_of_workers() > 2**20
    finally:
        training.close()
    assert ray.is_initialized()  # it was not started by the training
    assert BUDGET <= training.frames < BUDGET + 2 * 4 * 5 * 4
    assert solves(episodes)
    replaced = {key: n for key, n in state["counts"].items() if key.startswith("replaced")}
    assert replaced == {f"replaced_{kind}s": 1 for kind in KINDS}
    for line in ("actor 0 died", "learner 1 died", "shard 0 died", "replica 1 died"):
        assert f"gorila: {line}" in caplog.text
    decisions = (BUDGET - 800) / 4
    per_update = tiny().decisions_per_update
    # A learner starts with its own share, so a little before all have theirs.
    assert 0.7 * decisions < state["counts"]["updates"] * per_update <= training.frames / 4
    seeds = [(episode.lane, episode.episode_seed) for episode in episodes]
    assert len(set(seeds)) == len(seeds)

    checkpoint.save(tmp_path / "checkpoint.pt", {"training": state})
    later = methods.build(tiny(), Doors, 0, BUDGET + 2000)
    later.restore(checkpoint.load(tmp_path / "checkpoint.pt")["training"])
    try:
        assert later.frames == training.frames
        again = later.state()
        for one, other in zip(again["shards"], state["shards"], strict=True):
            assert one["version"] == other["version"] > 100
            assert torch.equal(one["weights"], other["weights"])
            assert torch.equal(one["square_sum"], other["square_sum"])
        assert again["actors"] == state["actors"]
        more = []
        while later.frames < BUDGET + 2000:
            more += later.advance(BUDGET + 2000)
        assert solves(more, 50)
        last = later.state()
        assert last["counts"]["updates"] > state["counts"]["updates"]
        assert last["counts"]["replaced_actors"] == 1
        policy = later.policy()
        flat = torch.cat([part["weights"] for part in last["shards"]])
        assert sum(weights.numel() for weights in policy.values()) == len(flat)
        assert torch.equal(torch.cat([weights.flatten() for weights in policy.values()]), flat)
    finally:
        later.close()
    assert not later._processes.there


@upon_ray
def test_what_a_replaced_actor_still_reports_is_not_counted(ray: Any) -> None:
    """Its successor plays the episodes after those reported: they would be counted twice."""
    training = methods.build(tiny(), Doors, 0, BUDGET)
    try:
        training._begin()
        reports: list[Any] = []
        while not reports:
            training._wait(0.1)
            training._dispatch(BUDGET)
            tasks = training._processes.tasks.items()
            reports = [ref for ref, task in tasks if task.kind == "play" and not task.process.index]
        ray.wait(reports, timeout=60)
        task = training._processes.tasks.pop(reports[0])
        ray.kill(task.process.handle)
        frames = training.frames
        training._replace(task.process, RuntimeError("its death is told first"))
        training._finish(task, reports[0])
        assert training.frames == frames
        episodes = training.take_finished()
        while training.frames < BUDGET and len({episode.lane for episode in episodes}) < 8:
            episodes += training.advance(BUDGET)
        seeds = [(episode.lane, episode.episode_seed) for episode in episodes]
        assert {lane for lane, _ in seeds} == set(range(8))
        assert len(set(seeds)) == len(seeds)
    finally:
        training.close()


def run_on_two_nodes() -> None:
    """Train on two nodes of this machine, one of which is lost on the way. Run as a process."""
    TRUNKS["mnih2013"] = ((), worlds.UNITS)
    os.environ.update(ray_cluster.ENVIRONMENT)
    ray = ray_cluster.import_ray()
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    other = cluster.add_node(**options)
    os.environ["RAY_ADDRESS"] = cluster.address
    training = methods.build(tiny(), Doors, 0, BUDGET)
    episodes: list = []
    try:
        episodes += training.advance(BUDGET)
        where = {
            name: ray.get(
                process.handle.__ray_call__.remote(
                    lambda self: ray.get_runtime_context().get_node_id()
                )
            )
            for name, process in training._processes.there.items()
        }
        for kind in KINDS:
            assert where[kind, 0] != where[kind, 1], (kind, where)
        assert all(where["shard", index] != where["replica", index] for index in range(2))
        print("two nodes:", sorted(set(where.values())), flush=True)
        while training.frames < 5000:
            episodes += training.advance(5000)
        cluster.remove_node(other, allow_graceful=False)
        while training.frames < BUDGET:
            episodes += training.advance(BUDGET)
        counts = training.state()["counts"]
        print("one node left:", training.frames, counts, recent(episodes, 100), flush=True)
        assert solves(episodes + training.take_finished())
        # At least: Ray may give a new process to the lost node before it knows.
        assert all(counts[f"replaced_{kind}s"] >= 1 for kind in ("actor", "learner", "shard"))
        assert counts["replaced_replicas"] >= 1
    finally:
        training.close()
        cluster.shutdown()


@pytest.mark.slow
@upon_ray
def test_two_nodes_share_a_run_and_one_is_lost() -> None:
    pytest.importorskip("ray", reason="gorila needs Ray: pip install ray==2.60.0")
    code = "from tests.agents import test_gorila_on_ray as on_ray; on_ray.run_on_two_nodes()"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=METHODS.parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout
