"""Gorila: the server's rules by hand, its parts in turn without Ray, and the whole upon Ray."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agents import (
    checkpoint,
    gorila,
    gorila_workers,
    methods,
    networks,
    parameter_server,
    ray_cluster,
    value_targets,
)
from agents.lanes import TrainingLanes
from agents.optim import FlatParameters
from agents.parameter_server import ParameterShard, adagrad_step
from agents.shares import shares
from tests.agents import worlds
from tests.agents.worlds import METHODS, Doors, recent, settings, use_tiny_trunk

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
    "loss_reduction": "mean",
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def tiny(**overrides: Any):
    return settings("gorila", **{**TINY, **overrides})


def solves(episodes: list, count: int = 100) -> bool:
    """Whether the last episodes are close to the optimum: 5 in 3 steps; leaving at once pays 2."""
    length = sum(episode.length_frames for episode in episodes[-count:]) / count / 4
    return recent(episodes, count) > 4.5 and length < 5


# --- the server's rules


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


def shard(weights: np.ndarray, max_staleness_updates: int = 10) -> ParameterShard:
    """A shard with these weights and no updates yet."""
    made = ParameterShard(max_staleness_updates, 0.01)
    state = {"weights": weights, "square_sum": np.zeros_like(weights), "version": 0, "stale": 0}
    made.restore(state)
    return made


def test_gradients_that_are_too_old_are_discarded_and_counted() -> None:
    """At most 1 update between: the third of three gradients of version 0 is too old."""
    server, one = shard(np.zeros(1, np.float32), 1), np.ones(1, np.float32)
    assert [server.push(one, 0, 0.1) for _ in range(3)] == [(True, 1), (True, 2), (False, 2)]
    assert (server.stale, server.version) == (1, 2)
    before = server.weights.copy()
    assert server.push(one, 0, 0.1) == (False, 2)
    assert server.weights == before
    assert server.push(one, 1, 0.1) == (True, 3)


def test_losses_far_above_the_last_ones_are_outliers() -> None:
    """1, 1, 3, 3: mean 2, deviation 1; 2 deviations above is 4."""
    losses = gorila_workers.OutlierFilter(2.0, 4)
    assert [losses.is_outlier(loss) for loss in (1, 1, 100, 3)] == [False] * 4  # too few so far
    for last, expected in ((3.99, False), (4.01, True), (-9.0, False)):
        losses = gorila_workers.OutlierFilter(2.0, 4)
        assert not any(losses.is_outlier(loss) for loss in (1, 1, 3, 3))
        assert losses.is_outlier(last) is expected


def test_a_lasting_rise_of_the_loss_is_let_in() -> None:
    losses = gorila_workers.OutlierFilter(1.0, 4)
    judged = [losses.is_outlier(loss) for loss in (1, 1, 1, 1, 9, 9, 9, 9)]
    assert judged == [False] * 4 + [True, True, False, False]


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


# --- the parts in turn, without Ray


class Here:
    """A handle like Ray's of an object of this process."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.content, name))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made at once, in this process."""
    nothing = SimpleNamespace(RayActorError=type("RayActorError", (Exception,), {}))
    here = SimpleNamespace(get=lambda answer: answer, cloudpickle=pickle, exceptions=nothing)
    for module in (gorila_workers, parameter_server):
        monkeypatch.setattr(module, "import_ray", lambda: here)


def parts(chosen: Any, seed: int = 0) -> tuple[list, list, list]:
    """Return actors, learners and handles of shards, as the driver makes them."""
    env = Doors(1)
    network = networks.build_action_values(chosen, env.actions, seed, env.observation_shape)
    plan = pickle.dumps(gorila_workers.Plan(chosen, seed, env.observation_shape, network, Doors))
    flat = FlatParameters(network)
    shards = [
        shard(flat.master.numpy()[part], chosen.max_staleness_updates)
        for part in shares(flat.size, chosen.shards)
    ]
    made = []
    for kind, count in (
        (gorila_workers.Actor, chosen.actors),
        (gorila_workers.Learner, chosen.learners),
    ):
        workers = [kind() for _ in range(count)]
        for index, worker in enumerate(workers):
            worker.prepare(plan, index, 1, None)
        made.append(workers)
    return *made, [Here(one) for one in shards]


def train_in_turn(seed: int = 0, frames: int = BUDGET, **overrides: Any) -> list:
    """Play and learn in turn; return the episodes."""
    chosen = tiny(**overrides)
    actors, learners, shards = parts(chosen, seed)
    played, due, episodes = 0, 0, []
    while played < frames:
        for index, actor in enumerate(actors):
            report, rollout = actor.play(shards)
            learners[index % len(learners)].add(index, rollout)
            played += report["decisions"] * 4
            episodes += report["finished"]
            due += report["decisions"] * (played > chosen.learning_starts_frames)
        updates = due // chosen.decisions_per_update // len(learners)
        for learner in learners:
            due -= updates * chosen.decisions_per_update
            report = learner.learn(shards, updates, chosen.learning_rate)
            assert (report["updates"], report["diverged"]) == (updates, "")
    return episodes


@pytest.mark.usefixtures("no_ray")
def test_the_parts_in_turn_solve_a_tiny_world() -> None:
    assert solves(train_in_turn())


@pytest.mark.usefixtures("no_ray")
def test_fails_when_the_value_runs_past_the_end_of_an_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q_target = value_targets.q_target
    monkeypatch.setattr(
        value_targets, "q_target", lambda r, d, q: q_target(r, torch.full_like(d, 0.99), q)
    )
    assert not solves(train_in_turn())


@pytest.mark.usefixtures("no_ray")
def test_fails_when_every_gradient_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParameterShard, "apply", lambda self, gradient, rate: None)
    assert not solves(train_in_turn())


@pytest.mark.usefixtures("no_ray")
def test_a_memory_has_what_the_lanes_showed() -> None:
    """Rollouts sent in pieces fill the memory as decisions added one by one do."""
    chosen = tiny(actors=1, learners=1)
    (actor,), (learner,), shards = parts(chosen)
    rollouts = [actor.play(shards)[1] for _ in range(6)]
    for rollout in rollouts:
        assert learner.add(0, rollout) == 20
    lanes = TrainingLanes(Doors(4), 0)
    memory = learner._memory(chosen)
    memory.begin(np.ones(4, bool), lanes.start())
    for actions in np.concatenate([rollout.actions for rollout in rollouts]):
        step, observation = lanes.step(actions)
        memory.add(actions, step.reward, step.terminated, step.observation)
        memory.begin(step.terminated | step.truncated, observation)
    found = learner.memories[0]
    assert len(found) == len(memory) == 120
    slots = np.flatnonzero(memory._drawable)
    assert np.array_equal(found.frames_at(slots), memory.frames_at(slots))
    for name in ("_drawable", "_actions", "_rewards", "_terminal"):
        assert np.array_equal(getattr(found, name), getattr(memory, name)), name


@pytest.mark.usefixtures("no_ray")
def test_a_rollout_that_does_not_follow_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a rollout that was lost, or of an actor that was replaced."""
    (actor,), (learner,), shards = parts(tiny(actors=1, learners=1))
    begun = []
    store = gorila_workers.Rollout.store
    monkeypatch.setattr(
        gorila_workers.Rollout,
        "store",
        lambda self, m, begin: (begun.append(begin), store(self, m, begin)),
    )
    first, second, _, fourth = (actor.play(shards)[1] for _ in range(4))
    for rollout in (first, second, fourth, fourth._replace(incarnation=2, number=5)):
        learner.add(0, rollout)
    assert begun == [True, False, True, True]


@pytest.mark.usefixtures("no_ray")
def test_the_target_network_follows_the_servers_updates() -> None:
    """Copied at once, then by the first pull of every period of 5 updates."""
    chosen = tiny(actors=1, learners=1, target_period_updates=5)
    (actor,), (learner,), shards = parts(chosen)
    for _ in range(3):
        learner.add(0, actor.play(shards)[1])
    copied = []
    for _ in range(12):
        learner.learn(shards, 1, 0.1)
        copied.append(learner.target_version)
    assert copied == [0] * 5 + [5] * 5 + [10] * 2
    assert not torch.equal(learner.target.master, learner.flat.master)


@pytest.mark.usefixtures("no_ray")
def test_an_outlier_is_not_pushed_and_a_loss_that_is_not_finite_is_said() -> None:
    (actor,), (learner,), shards = parts(tiny(actors=1, learners=1, outlier_window_updates=2))
    learner.add(0, actor.play(shards)[1])
    learner.outliers.losses.extend([0.0, 0.0])
    report = learner.learn(shards, 1, 0.1)
    assert (report["updates"], report["outliers"], shards[0].content.version) == (1, 1, 0)
    shards[0].content.weights[:] = np.nan
    assert "loss is nan" in learner.learn(shards, 1, 0.1)["diverged"]


@pytest.mark.usefixtures("no_ray")
def test_a_learner_goes_on_from_its_state() -> None:
    """With its target network and its last losses, an empty memory and another random stream."""
    chosen = tiny(actors=1, learners=1, target_period_updates=2)
    (actor,), (learner,), shards = parts(chosen)
    assert learner.state() is None
    learner.add(0, actor.play(shards)[1])
    learner.learn(shards, 4, 0.1)
    state = learner.state()
    assert state["target_version"] == 2
    _, (other,), _ = parts(chosen)
    plan = pickle.dumps(other.plan)
    other.prepare(plan, 0, 2, gorila._with_arrays(gorila._with_tensors(state)))
    again = other.state()
    assert np.array_equal(again.pop("target_weights"), state.pop("target_weights"))
    assert again == state
    assert len(again["losses"]) == 4
    assert len(other.memories[0]) == 0
    assert other.random.random() != learner.random.random()


def test_epsilon_falls_with_the_servers_updates() -> None:
    """From 1 to 0.1 in a million: 0.55 half-way."""
    chosen = settings("gorila")
    found = [
        gorila_workers.epsilon_after(chosen, updates) for updates in (0, 500_000, 10**6, 10**7)
    ]
    assert found == pytest.approx([1.0, 0.55, 0.1, 0.1])


# --- settings


def test_it_is_dqn_but_for_what_its_paper_changes() -> None:
    dqn, other = (
        yaml.safe_load((METHODS / f"{name}.yaml").read_text()) for name in ("dqn", "gorila")
    )
    differ = {key for key in dqn.keys() & other.keys() if dqn[key] != other[key]}
    assert differ == {"method", "label", "topology", "learning_rate"}
    unused = {"priority_exponent", "priority_epsilon"}
    unused |= {"importance_exponent_start", "importance_anneal_frames"}
    by_updates = {"target_period_frames", "epsilon_anneal_frames"}
    rmsprop = {"rmsprop_decay", "rmsprop_epsilon", "rmsprop_epsilon_place"}  # AdaGrad instead
    assert dqn.keys() - other.keys() == unused | by_updates | rmsprop | {"lanes"}


def test_every_number_has_a_comment() -> None:
    lines = (METHODS / "gorila.yaml").read_text().splitlines()
    bare = {line.split(":")[0] for line in lines if not line.startswith("#") and " #" not in line}
    assert bare == {"method", "label", "version"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learners": 3}, "learners: 3, but each needs an actor; allowed: 1 to 2"),
        ({"replay_capacity_steps": 15}, "replay_capacity_steps: 15 .* at least 16"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.build(tiny(**overrides), Doors, 0, BUDGET)


def test_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="device: 'cuda'; topology gorila runs on: cpu"):
        methods.build(tiny(), Doors, 0, BUDGET, "cuda")


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="gorila needs Ray: pip install ray=="):
        methods.build(tiny(), Doors, 0, BUDGET)


def test_other_methods_never_import_ray() -> None:
    code = "import sys, agents.train, agents.gorila; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=METHODS.parents[1], check=True, timeout=300)


# --- upon Ray

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
                handle = training._processes[kind, index].handle
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
    assert replaced == {f"replaced_{kind}s": 1 for kind in gorila.KINDS}
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
    assert not later._processes


def run_on_two_nodes() -> None:
    """Train on two nodes of this machine, one of which is lost on the way. Run as a process."""
    networks.TRUNKS["mnih2013"] = ((), worlds.UNITS)
    os.environ.update(ray_cluster.PATIENCE)
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
            for name, process in training._processes.items()
        }
        for kind in gorila.KINDS:
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
    code = "from tests.agents import test_gorila; test_gorila.run_on_two_nodes()"
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
