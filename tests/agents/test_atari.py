"""The emulator's side of the protocol, on real games."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import ALEInterface, roms
from numpy.typing import NDArray

from agents import atari
from agents.atari import AtariLanes, Protocol


def start(game: str, lanes: int = 1, **options) -> AtariLanes:
    env = AtariLanes(game, lanes, Protocol("test", **options))
    env.reset(np.ones(lanes, bool), list(range(lanes)))
    return env


def test_every_game_of_the_table_has_a_rom() -> None:
    games = atari.games()
    assert len(games) == len(set(games)) >= 57
    assert [game for game in games if roms.get_rom_path(game) is None] == []


@pytest.mark.parametrize(
    ("game", "actions"), [("pong", 6), ("breakout", 4), ("freeway", 3), ("seaquest", 18)]
)
def test_minimal_and_full_action_sets(game: str, actions: int) -> None:
    assert start(game).actions == actions
    assert start(game, full_action_set=True).actions == 18


def test_types_and_shapes_of_a_step() -> None:
    env = start("pong", lanes=2)
    step = env.step(np.zeros(2, np.int64))
    assert (step.observation.shape, step.observation.dtype) == ((2, 4, 84, 84), np.uint8)
    assert (step.reward.shape, step.reward.dtype) == ((2,), np.int32)
    for flags in (step.terminated, step.truncated, step.life_lost):
        assert (flags.shape, flags.dtype) == ((2,), bool)


def test_observations_are_stacks_of_the_last_four_frames() -> None:
    env = start("pong")
    rng, before = np.random.default_rng(0), None
    for _ in range(30):
        observation = env.step(rng.integers(0, 6, 1)).observation[0].copy()
        if before is not None:
            assert np.array_equal(observation[:-1], before[1:])
        before = observation
    assert not np.array_equal(before[0], before[-1])


def covered(pixels: int) -> NDArray[np.float64]:
    """Share of each of `pixels` in the mean of each of 84 equal parts of them, [84, pixels]."""
    edges, left = np.arange(85) * pixels / 84, np.arange(pixels)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return overlap.clip(min=0) * 84 / pixels


def test_frames_are_the_maximum_of_the_last_two_of_the_emulator() -> None:
    """As of the emulator by itself, shrunk by area and rounded; Asteroids draws by turns."""
    env = AtariLanes("asteroids", 1, Protocol("test", noop_max_frames=0))
    env.reset(np.ones(1, bool), [5])
    emulator = ALEInterface()
    emulator.setInt("random_seed", 5)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(roms.get_rom_path("asteroids"))
    rows, columns = covered(210), covered(160).T
    actions = emulator.getMinimalActionSet()
    for action in range(10):
        frames = []
        for _ in range(4):
            emulator.act(actions[action])
            frames.append(emulator.getScreenGrayscale())
        found = env.step(np.array([action])).observation[0, -1]
        expected = rows @ np.maximum(*frames[2:]) @ columns
        assert np.abs(found - expected).max() < 0.51
        assert np.abs(found - rows @ frames[3] @ columns).max() > 50  # not the last alone


@pytest.mark.parametrize("noop_max_frames", [0, 30])
@pytest.mark.parametrize(("cap", "steps"), [(400, 100), (401, 101)])
def test_the_cap_counts_frames_after_the_no_ops(cap: int, steps: int, noop_max_frames: int) -> None:
    """400 frames are 100 decisions, however many no-ops came before; a begun one is played out."""
    env = start("pong", noop_max_frames=noop_max_frames, max_episode_frames=cap)
    ended = []
    for _ in range(steps):
        step = env.step(np.zeros(1, np.int64))
        ended.append((bool(step.terminated[0]), bool(step.truncated[0])))
    assert ended == [(False, False)] * (steps - 1) + [(False, True)]


@pytest.mark.parametrize("protocol", ["sticky", "noop"])
def test_only_noop_episodes_start_with_no_ops(protocol: str) -> None:
    """Freeway's cars move meanwhile: it has as many starts as numbers of no-ops."""
    env = AtariLanes("freeway", 8, atari.PROTOCOLS[protocol])
    start = env.reset(np.ones(8, bool), list(range(8)))
    alike = all(np.array_equal(start[0], other) for other in start[1:])
    assert alike == (protocol == "sticky")


@pytest.mark.parametrize(
    ("noop_max_frames", "episodes", "starts"), [(30, 300, range(30)), (1, 20, [0]), (0, 20, [0])]
)
def test_no_ops_at_the_start(noop_max_frames: int, episodes: int, starts: list[int]) -> None:
    """Each number of no-ops has some episodes; the bound itself is not drawn."""
    env = AtariLanes("pong", 4, Protocol("test", noop_max_frames=noop_max_frames))
    found = set()
    for seed in range(episodes // 4):
        seeds = [4 * seed + lane for lane in range(4)]
        _, info = env._env.reset(seed=np.array(seeds))
        found |= set(info["episode_frame_number"].tolist())
    assert found == set(starts)


def test_the_last_observation_lacks_the_last_frame() -> None:
    """Beside an episode that goes on: the cap's frame is played and not drawn."""
    short, long = (start("pong", max_episode_frames=frames) for frames in (400, 800))
    actions = np.random.default_rng(0).integers(0, 6, (100, 1))
    for action in actions:
        cut, whole = short.step(action), long.step(action)
    assert cut.truncated
    assert not whole.truncated
    assert cut.reward == whole.reward
    assert np.array_equal(cut.observation[0, :-1], whole.observation[0, :-1])
    assert not np.array_equal(cut.observation[0, -1], whole.observation[0, -1])


def test_a_lost_life_is_not_the_end() -> None:
    """Breakout has five lives: four are lost before the one that ends the game."""
    env = start("breakout")
    lost, steps = 0, 0
    while True:
        step = env.step(np.array([1 + steps % 2]))  # FIRE and right, by turns
        steps += 1
        lost += int(step.life_lost[0])
        assert not (step.life_lost[0] and step.terminated[0])
        assert not step.truncated[0]
        if step.terminated[0]:
            break
    assert lost == 4


def test_rewards_are_raw() -> None:
    """Q*bert pays 25 points for a cube."""
    env = start("qbert", lanes=4)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        seen |= set(env.step(rng.integers(0, env.actions, 4)).reward.tolist())
    assert 25 in seen


def test_no_op_starts_differ_by_seed_and_are_repeated_by_it() -> None:
    env = AtariLanes("pong", 4, atari.PROTOCOLS["noop"])
    every = np.ones(4, bool)
    first = env.reset(every, [1, 2, 1, 3]).copy()
    assert np.array_equal(first[0], first[2])
    steps = [env.step(np.zeros(4, np.int64)).observation.copy() for _ in range(15)]
    assert all(np.array_equal(step[0], step[2]) for step in steps)
    assert not all(np.array_equal(step[0], step[1]) for step in steps)


def test_sticky_actions_depend_on_the_seed() -> None:
    sticky = AtariLanes("pong", 2, atari.PROTOCOLS["sticky"])
    sticky.reset(np.ones(2, bool), [1, 2])
    rng = np.random.default_rng(0)
    same = True
    for _ in range(40):
        observation = sticky.step(np.full(2, rng.integers(0, 18))).observation
        same = same and np.array_equal(observation[0], observation[1])
    assert not same


@pytest.mark.parametrize("action", [-1, 4, 200])
def test_an_action_that_does_not_exist_is_refused(action: int) -> None:
    """ale-py 0.12.1 would wait for ever."""
    with pytest.raises(ValueError, match=rf"{action}.* not all in 0\.\.3"):
        start("breakout", lanes=2).step(np.array([0, action]))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"game: unknown value 'pongg'; allowed: .*pong"):
        atari.check_game("pongg")
    with pytest.raises(ValueError, match="protocol: unknown value 'human'; allowed: noop, sticky"):
        atari.protocol("human")


def test_the_screen_is_the_emulators_in_colour() -> None:
    """The maximum of the same two frames, pixel by pixel, and the same play."""
    protocol = Protocol("test", noop_max_frames=0)
    env = AtariLanes("asteroids", 1, protocol, screen=True)
    assert env.observation_shape == (1, 210, 160, 3)
    env.reset(np.ones(1, bool), [5])
    grey = AtariLanes("asteroids", 1, protocol)
    grey.reset(np.ones(1, bool), [5])
    emulator = ALEInterface()
    emulator.setInt("random_seed", 5)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(roms.get_rom_path("asteroids"))
    actions = emulator.getMinimalActionSet()
    for action in np.random.default_rng(0).integers(0, len(actions), 100):
        frames, reward = [], 0
        for _ in range(4):
            reward += emulator.act(actions[action])
            frames.append(emulator.getScreenRGB())
        step, other = env.step(np.array([action])), grey.step(np.array([action]))
        assert np.array_equal(step.observation[0, 0], np.maximum(*frames[2:]))
        assert step.reward[0] == other.reward[0] == reward
