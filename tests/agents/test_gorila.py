"""Gorila's parts in turn, without Ray, and its settings."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agents import (
    gorila,
    gorila_workers,
    methods,
    networks,
    parameter_server,
    schedules,
    value_targets,
)
from agents.gorila_processes import Processes
from agents.lanes import TrainingLanes
from agents.optim import FlatParameters
from agents.parameter_server import ParameterShard
from agents.shares import shares
from tests.agents.gorila_world import BUDGET, shard, solves, tiny
from tests.agents.worlds import METHODS, Doors, Lives, settings, use_tiny_trunk


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


class Here:
    """A handle like Ray's of an object of this process."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.content, name))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made at once, in this process."""
    here = SimpleNamespace(get=lambda answer: answer, cloudpickle=pickle)
    for module in (gorila_workers, parameter_server):
        monkeypatch.setattr(module, "import_ray", lambda: here)


def parts(chosen: Any, seed: int = 0, world: type = Doors) -> tuple[list, list, list]:
    """Return actors, learners and handles of shards, as the driver makes them."""
    env = world(1)
    network = networks.build_action_values(chosen, env.actions, seed, env.observation_shape)
    plan = gorila_workers.Plan(chosen, seed, env.observation_shape, network, world, 4000)
    plan = pickle.dumps(plan)
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
def test_fails_when_no_gradient_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
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
    memory = learner._memory()
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
def test_a_learner_draws_evenly_from_transitions_not_from_memories() -> None:
    """Of an actor that has played nine times as much, nine times as many."""
    _, (learner,), _ = parts(tiny(actors=2, learners=1))
    actors, _, shards = parts(tiny(actors=2, learners=1))
    assert sum(m.capacity * m.lanes for m in learner.memories.values()) <= 4000
    for actor, rollouts in ((0, 1), (1, 9)):
        for _ in range(rollouts):
            learner.add(actor, actors[actor].play(shards)[1])
    few, many = (len(memory) for memory in learner.memories.values())
    assert 5 * few < many
    ids = {id(memory): actor for actor, memory in learner.memories.items()}
    drawn = dict.fromkeys(learner.memories, 0)
    for memory in learner.memories.values():
        sample = memory.sample

        def count(n, uniform, beta, memory=memory, sample=sample):
            drawn[ids[id(memory)]] += n
            return sample(n, uniform, beta)

        memory.sample = count
    learner.sample(4000)
    assert drawn[0] / 4000 == pytest.approx(few / (few + many), abs=0.03)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_lost_life_ends_what_is_learnt_not_what_is_played(terminal: bool) -> None:
    """Every step of Lives loses one; some end the game."""
    chosen = tiny(actors=1, learners=1, life_loss_is_terminal=terminal)
    (actor,), (learner,), shards = parts(chosen, world=Lives)
    rollout = actor.play(shards)[1]
    assert rollout.over.any()
    assert not rollout.over.all()
    assert np.array_equal(rollout.terminal, rollout.over | terminal)
    learner.add(0, rollout)
    memory = learner.memories[0]
    assert int(memory._terminal[memory._drawable].sum()) == int(rollout.terminal.sum())


@pytest.mark.usefixtures("no_ray")
def test_what_is_pushed_is_the_clipped_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of norm 0.01 over all shards where that is the limit; 0 is none."""
    pushed: list[np.ndarray] = []
    push = ParameterShard.push
    monkeypatch.setattr(
        ParameterShard, "push", lambda self, g, *to: pushed.append(g.copy()) or push(self, g, *to)
    )
    found = []
    for limit in (0.0, 0.01):
        chosen = tiny(actors=1, learners=1, shards=3, gradient_norm_limit=limit)
        (actor,), (learner,), shards = parts(chosen)
        learner.add(0, actor.play(shards)[1])
        pushed.clear()
        assert learner.learn(shards, 1, 0.1)["updates"] == 1
        assert len(pushed) == 3
        found.append(np.concatenate(pushed))
    whole, clipped = found
    norm = np.linalg.norm(whole)
    assert norm > 0.1
    np.testing.assert_allclose(clipped, whole * (0.01 / norm), rtol=1e-3, atol=1e-8)


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


def test_epsilon_falls_with_the_servers_updates() -> None:
    """From 1 to 0.1 in a million: 0.55 half-way."""
    chosen = settings("gorila")
    found = [
        schedules.exploration_of_server(chosen, updates) for updates in (0, 500_000, 10**6, 10**7)
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
        ({"replay_capacity_steps": 15}, "replay_capacity_steps: 15 .* at least 24"),
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


def dispatched(chosen: Any, credit: int, updates: int = 0) -> list[tuple]:
    """Return what a driver with `credit` decisions to learn for gives its idle workers to do."""
    driver = object.__new__(gorila.Gorila)
    given = []
    handle = SimpleNamespace(
        play=SimpleNamespace(
            options=lambda **_: SimpleNamespace(
                remote=lambda _: (given.append(("play",)), object())
            )
        ),
        learn=SimpleNamespace(remote=lambda *work: given.append(("learn", *work[1:]))),
    )
    process = {"handle": handle, "index": 0, "busy": 0, "adding": 0, "stored_decisions": 10**9}
    driver._processes = Processes(SimpleNamespace())
    driver._processes.there = {
        (kind, 0): SimpleNamespace(kind=kind, **process) for kind in ("actor", "learner", "shard")
    }
    driver.settings, driver.frames, driver.budget_frames = chosen, 0, 10**6
    driver.counts = {"updates": updates}
    driver._credit_decisions, driver._round_decisions = credit, 200
    driver._dispatch(10**6)
    return given


@pytest.mark.parametrize(("decisions_per_update", "credit"), [(4, 199), (256, 200), (256, 255)])
def test_somebody_always_has_work(decisions_per_update: int, credit: int) -> None:
    """A round of 200 decisions: actors wait only for an update that is due."""
    assert dispatched(tiny(decisions_per_update=decisions_per_update), credit)


def test_learners_begin_when_their_actors_have_played_their_part() -> None:
    """Three actors, two learners: of 1,200 decisions the first one waits for 800, the other 400."""
    driver = object.__new__(gorila.Gorila)
    driver.settings = tiny(actors=3, learning_starts_frames=4800)
    for stored, ready in (((799, 399), []), ((800, 399), [0]), ((799, 400), [1])):
        driver._processes = Processes(SimpleNamespace())
        driver._processes.there = {
            ("learner", index): SimpleNamespace(
                kind="learner", index=index, stored_decisions=decisions
            )
            for index, decisions in enumerate(stored)
        }
        assert [learner.index for learner in driver._ready_learners()] == ready


def test_learners_are_told_the_rate_of_the_warmup() -> None:
    """Of 0.4, over 100 updates: the 50th has the half, from the 100th on it is whole."""
    told = {"learning_rate": 0.4, "decisions_per_update": 4}
    for updates, warmup_updates, rate in ((49, 100, 0.2), (99, 100, 0.4), (300, 100, 0.4),
                                          (0, 0, 0.4)):  # fmt: skip
        chosen = tiny(**told, learning_rate_warmup_updates=warmup_updates)
        assert ("learn", 1, pytest.approx(rate)) in dispatched(chosen, 4, updates)
