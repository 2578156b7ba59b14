"""The value-based methods solve a tiny world whose optimum is known; a broken copy does not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents import (
    experience_replay,
    methods,
    networks,
    q_learning,
    replay,
    stacks,
    value_targets,
)
from agents.experience_replay import ExperienceReplay
from agents.optim import FlatParameters, centred_rmsprop_step
from tests.agents.worlds import (
    METHODS,
    Doors,
    Lives,
    Walk,
    recent,
    settings,
    train,
    use_tiny_trunk,
)

SEEDS = (0, 1, 2)
MAJORITY = 2
FRAMES = 12_000
SETTINGS = {
    "lanes": 4,
    "replay_capacity_steps": 2000,
    "learning_starts_frames": 400,
    "target_period_frames": 400,
    "epsilon_end": 0.02,
    "epsilon_anneal_frames": 6000,
    "importance_anneal_frames": FRAMES,
    "learning_rate": 1e-3,
    "rmsprop_epsilon": 0.01,
    "rmsprop_epsilon_place": "inside_sqrt",
}
VALUE_BASED = ("dqn", "double_dqn", "dueling", "prioritized")


def build(method: str, folder: Path, world=Doors, seed: int = 0, **overrides) -> ExperienceReplay:
    """A training of a tiny world with nothing played yet."""
    chosen = settings(method, **{**SETTINGS, **overrides})
    return methods.build(chosen, world, seed, FRAMES, folder=folder)


def solved(method: str, folder: Path, seed: int = 0, **overrides) -> bool:
    """Whether the method ends close to the optimum: prize 5 in 3 steps."""
    training = build(method, folder / f"{method}{seed}", seed=seed, **overrides)
    episodes = train(training, FRAMES)
    length = sum(episode.length_frames for episode in episodes[-100:]) / 100 / 4
    return recent(episodes, 100) > 4.7 and length < 4


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def test_every_method_is_here() -> None:
    topology = re.compile(r"^topology: replay\b", re.MULTILINE)
    files = [file for file in METHODS.glob("*.yaml") if topology.search(file.read_text())]
    assert {file.stem for file in files} == set(VALUE_BASED)


@pytest.mark.parametrize("method", VALUE_BASED)
def test_solves_its_world(tmp_path: Path, method: str) -> None:
    assert solved(method, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", VALUE_BASED)
def test_solves_its_world_for_most_seeds(tmp_path: Path, method: str) -> None:
    assert sum(solved(method, tmp_path, seed) for seed in SEEDS) >= MAJORITY


@pytest.mark.slow
def test_rank_based_priorities_solve_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RANK_REFRESH_UPDATES", 50)
    assert solved("prioritized", tmp_path, prioritisation="rank", priority_exponent=0.7)


# --- broken copies


@pytest.mark.parametrize("method", ["dqn", pytest.param("double_dqn", marks=pytest.mark.slow)])
def test_fails_when_it_earns_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Whoever expects more after leaving leaves at once."""
    target = q_learning._target

    def past(settings, network, target_network, rewards, discount, s_next):
        earning = torch.full_like(discount, 0.99)
        return target(settings, network, target_network, rewards, earning, s_next)

    monkeypatch.setattr(q_learning, "_target", past)
    assert not solved(method, tmp_path)


@pytest.mark.parametrize("method", ["dqn", pytest.param("dueling", marks=pytest.mark.slow)])
def test_fails_when_the_target_is_never_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(ExperienceReplay, "copy_to_target", lambda self: None)
    assert not solved(method, tmp_path)


def test_fails_when_errors_have_the_wrong_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = value_targets.clipped_error_loss
    monkeypatch.setattr(value_targets, "clipped_error_loss", lambda *given: -loss(*given))
    assert not solved("dqn", tmp_path)


@pytest.mark.slow
def test_fails_when_the_next_state_is_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames_at = replay.ReplayMemory.frames_at

    def same(self, slots):
        frames = frames_at(self, slots).copy()
        frames[:, 1:] = frames[:, :-1]
        return frames

    monkeypatch.setattr(replay.ReplayMemory, "frames_at", same)
    assert not solved("dqn", tmp_path)


# --- one update


def draws(count: int) -> np.ndarray:
    """Evenly spread numbers of [0, 1)."""
    return np.modf(0.3 + np.arange(count) * 0.618)[0]


def filled(method: str, folder: Path, **overrides) -> ExperienceReplay:
    """A training that has played 200 decisions and learnt nothing; its two networks differ."""
    training = build(method, folder, learning_starts_frames=10**9, epsilon_start=1.0, **overrides)
    for _ in range(50):
        training.advance(FRAMES)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(training.target.master.shape, generator=generator)
    training.target.master.add_(noise, alpha=0.3)
    return training


@pytest.mark.parametrize("stack", [1, 3, 4, 5])
def test_both_stacks_of_a_batch(stack: int) -> None:
    """Whatever their layout: s is all frames but the newest, s' all but the oldest."""
    frames = np.random.default_rng(0).integers(0, 256, (6, stack + 1, 9, 7), np.uint8)
    s, s_next = stacks.neighbours(frames, torch.device("cpu"))
    assert np.array_equal(s.numpy(), frames[:, :-1])
    assert np.array_equal(s_next.numpy(), frames[:, 1:])
    if stack == 4:
        assert s.is_contiguous(memory_format=torch.channels_last)
        assert s_next.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("method", VALUE_BASED)
def test_gradient_is_that_of_the_formula(tmp_path: Path, method: str, reduction: str) -> None:
    """One transition at a time, with Huber's loss and autograd, against a whole batch."""
    training = filled(method, tmp_path, loss_reduction=reduction, error_limit=0.5)
    batch = training.memory.sample(16, draws, 0.5)
    batch = batch._replace(weights=np.linspace(0.1, 1, 16))
    assert batch.terminal.any()
    assert not batch.terminal.all()
    loss, delta = training.backward(batch)
    gradient = training.flat.gradient.clone()
    training.flat.gradient.zero_()
    total = 0.0
    for i in range(16):
        frames = torch.from_numpy(batch.frames[i : i + 1])
        with torch.no_grad():
            rated = training.target_network(frames[:, 1:])[0][0]
            chosen = training.network(frames[:, 1:])[0][0] if training.settings.double else rated
            y = float(batch.rewards[i])
            if not batch.terminal[i]:
                y += training.settings.gamma * rated[chosen.argmax()]
        q = training.network(frames[:, :-1])[0][0, batch.actions[i]]
        assert abs(delta[i] - (y - q)) < 1e-4
        part = torch.nn.functional.huber_loss(q, torch.as_tensor(y).float(), delta=0.5)
        part = part * batch.weights[i] / (16 if reduction == "mean" else 1)
        part.backward()
        total += part.item()
    if training.settings.dueling:
        for parameter in training.network.convolutions.parameters():
            parameter.grad.mul_(networks.DUELING_GRADIENT_SCALE)
    torch.testing.assert_close(loss.item(), total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, training.flat.gradient, rtol=1e-3, atol=1e-5)


def update_of(
    monkeypatch: pytest.MonkeyPatch, training: ExperienceReplay, batch: replay.Batch
) -> SimpleNamespace:
    """What `centred_rmsprop_step` is given when `training` learns from `batch`, by name."""
    found = []

    def spy(*given, **named) -> None:
        arguments = inspect.signature(centred_rmsprop_step).bind(*given, **named).arguments
        found.append(SimpleNamespace(**arguments))
        found[-1].gradient = found[-1].gradient.clone()

    monkeypatch.setattr(experience_replay, "centred_rmsprop_step", spy)
    training.learn(batch)
    (update,) = found
    return update


def test_an_update_is_along_the_clipped_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of norm 0.01 where that is the limit; 0 is none. Dueling's is 10."""
    assert settings("dueling").gradient_norm_limit == 10
    found = []
    for limit in (0.0, 0.01):
        training = filled("dueling", tmp_path / str(limit), gradient_norm_limit=limit)
        batch = training.memory.sample(16, draws, 0.5)
        found.append(update_of(monkeypatch, training, batch).gradient)
    whole, clipped = found
    assert whole.norm() > 0.1
    torch.testing.assert_close(clipped, whole * (0.01 / whole.norm()), rtol=1e-3, atol=1e-8)


def test_an_update_has_the_rate_of_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the budget: 0.02 has fallen to 0.015."""
    for schedule, expected in (("constant", 0.02), ("linear_to_zero", 0.015)):
        training = filled(
            "dqn", tmp_path / schedule, learning_rate=0.02, learning_rate_schedule=schedule
        )
        training.frames = FRAMES // 4
        batch = training.memory.sample(16, draws, 0.5)
        update = update_of(monkeypatch, training, batch)
        assert update.learning_rate == pytest.approx(expected)


def test_priorities_are_of_clipped_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(0.25 + 0.5)^2 is the most, though errors beyond 0.25 are among them; all others are less."""
    training = filled(
        "prioritized",
        tmp_path,
        error_limit=0.25,
        priority_exponent=2.0,
        priority_epsilon=0.5,
    )
    batch = training.memory.sample(16, draws, 0.5)
    _, delta = training.backward(batch)
    errors = delta.abs().numpy()
    assert errors.min() < 0.25 < errors.max()
    update_of(monkeypatch, training, batch)
    found = training.memory.tree.leaves[batch.slots]
    np.testing.assert_allclose(found, (errors.clip(max=0.25) + 0.5) ** 2, rtol=1e-5)
    assert found.max() == pytest.approx(0.5625)


@pytest.mark.parametrize("clip", [False, True])
def test_rewards_are_clipped_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: bool
) -> None:
    training = filled("dqn", tmp_path, clip_rewards=clip, gamma=0.0)
    batch = training.memory.sample(64, draws, 0.5)
    assert batch.rewards.max() > 1  # the memory keeps them as they were
    seen, target = [], value_targets.q_target
    monkeypatch.setattr(value_targets, "q_target", lambda r, *to: seen.append(r) or target(r, *to))
    training.backward(batch)
    expected = batch.rewards.clip(-1, 1) if clip else batch.rewards
    assert seen[0].tolist() == expected.tolist()


def test_importance_is_annealed_by_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0.4 to 1 in 12,000 frames, whatever the number of updates."""
    training, betas = build("prioritized", tmp_path, importance_exponent_start=0.4), {}
    sample = training.memory.sample

    def note(count, uniform, beta):
        betas[training.frames] = beta
        return sample(count, uniform, beta)

    monkeypatch.setattr(training.memory, "sample", note)
    while training.frames < 6000:
        training.advance(FRAMES)
    assert training.updates != training.frames
    assert betas[6000] == pytest.approx(0.7)
    assert betas[3008] == pytest.approx(0.4 + 0.6 * 3008 / 12_000)


def test_a_cut_episode_is_not_an_ended_one(tmp_path: Path) -> None:
    """Walk never ends by itself: nothing is terminal, and its last state is bootstrapped from."""
    training = build("dqn", tmp_path, lambda lanes: Walk(lanes, 5), learning_starts_frames=10**9)
    for _ in range(40):
        training.advance(FRAMES)
    memory = training.memory
    slots = np.flatnonzero(memory._drawable)
    assert not memory._terminal[slots].any()
    before, after = memory.frames_at(slots).swapaxes(0, 1).reshape(2, len(slots), -1)
    moved = (before.argmax(1) + memory._actions[slots]) % Walk.width
    assert np.array_equal(after.argmax(1), moved)  # also over the cut, where an episode starts anew
    assert len(slots) == 40 * 4


@pytest.mark.parametrize("terminal", [False, True])
def test_a_lost_life_ends_what_is_learnt_not_what_is_played(tmp_path: Path, terminal: bool) -> None:
    training = build(
        "dqn", tmp_path, Lives, learning_starts_frames=10**9, life_loss_is_terminal=terminal
    )
    episodes = [episode for _ in range(40) for episode in training.advance(FRAMES)]
    drawn = training.memory._terminal[training.memory._drawable]
    assert drawn.all() == terminal
    assert max(episode.length_frames for episode in episodes) > 4


@pytest.mark.parametrize(("lanes", "per_update"), [(1, 4), (4, 4), (8, 4), (3, 4)])
def test_one_update_for_so_many_decisions(tmp_path: Path, lanes: int, per_update: int) -> None:
    """Over all lanes, from the frame on at which learning starts."""
    training = build("dqn", tmp_path, lanes=lanes, decisions_per_update=per_update)
    while training.frames < 800:
        training.advance(FRAMES)
    assert training.updates == (training.frames - 400) // 4 // per_update


def test_the_target_is_copied_once_a_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    training = build("dqn", tmp_path, target_period_frames=100)
    monkeypatch.setattr(training, "copy_to_target", lambda: copied.append(training.frames))
    while training.frames < 800:
        training.advance(FRAMES)
    assert copied == [112, 208, 304, 400, 512, 608, 704, 800]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("trunk", ["nature", "mnih2013"])
def test_gradient_is_autograds(trunk: str, dueling: bool, dtype: torch.dtype) -> None:
    """Whatever was in `grad`; into the convolutions by 1 / sqrt 2 where two streams enter."""
    torch.manual_seed(0)
    network = networks.ActionValueNetwork(trunk, 3, dueling, output_bias="shared")
    FlatParameters(network, dtype)
    frames = np.random.default_rng(0).integers(0, 256, (5, 5, 84, 84), np.uint8)
    wanted = torch.randn(5, 3)
    network.q_values(torch.from_numpy(frames[:, :-1])).mul(wanted).sum().backward()
    theirs = {name: p.grad.clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad.fill_(7.0)
    s, _ = stacks.neighbours(frames, torch.device("cpu"))
    loss, q = network.backward(s, lambda q: (q * wanted).sum())
    torch.testing.assert_close(loss, (q * wanted).sum())
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    for name, parameter in network.named_parameters():
        expected = theirs[name].float()
        if dueling and name.startswith("convolutions"):
            expected = expected * 2**-0.5
        difference = (parameter.grad.float() - expected).norm() / expected.norm()
        assert difference < tolerance, name


def test_a_memory_without_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="folder: None"):
        methods.build(settings("dqn", **SETTINGS), Doors, 0, FRAMES)
