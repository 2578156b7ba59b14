"""Training lanes: whose episodes they play, what they tell of them, how they come back."""

from __future__ import annotations

import numpy as np
import pytest

from agents import atari, trace
from agents.atari import RESTART_BIT
from agents.lanes import TrainingLanes, training_seed
from agents.trace import Trace
from tests.agents.worlds import Doors


def test_episodes_of_a_lane_share_a_seed_for_a_while() -> None:
    """A restart more, quick, up to so many; then a seed of its own."""
    first = training_seed(3, 1, 0, 16)
    for episode in range(16):
        assert training_seed(3, 1, episode, 16) == first + (episode << RESTART_BIT)
    assert training_seed(3, 1, 16, 16) not in {first, first + (16 << RESTART_BIT)}
    assert training_seed(3, 1, 16, 16) < 1 << RESTART_BIT


def test_lanes_restart_ended_episodes_and_know_what_was_played() -> None:
    """Returns, lengths and seeds of finished episodes, against a replay of the actions."""
    lanes = TrainingLanes(Doors(2), run_seed=5, first_lane=4)
    lanes.start()
    rng, played, finished = np.random.default_rng(0), [[], []], []
    episodes = {4: [], 5: []}
    for _ in range(60):
        chosen = rng.integers(0, 3, 2)
        step, observation = lanes.step(chosen)
        for lane in range(2):
            played[lane].append(int(chosen[lane]))
            if step.terminated[lane] or step.truncated[lane]:
                episodes[4 + lane].append(played[lane])
                played[lane] = []
                assert observation[lane, 0, 0, 0] == 1  # back in the first room
        finished += lanes.take_finished()
    assert lanes.take_finished() == []
    assert len(finished) == len(episodes[4]) + len(episodes[5]) > 10
    assert len({episode.episode_seed for episode in finished}) == len(finished)
    for lane, expected in episodes.items():
        own = [episode for episode in finished if episode.lane == lane]
        traces = [
            Trace(episode.episode_seed, np.array(actions, np.uint8))
            for episode, actions in zip(own, expected, strict=True)
        ]
        for index, replayed in trace.replay(Doors(1), traces):
            assert replayed.ended == "terminated"
            assert replayed.episode_return == own[index].episode_return
            assert replayed.steps * 4 == own[index].length_frames


def restarted_lanes(game: str, cap_steps: int, first_lane: int = 0) -> TrainingLanes:
    protocol = atari.Protocol("noop", max_episode_frames=4 * cap_steps)
    return TrainingLanes(atari.AtariLanes(game, 2, protocol), run_seed=3, first_lane=first_lane)


@pytest.mark.parametrize(("game", "cap_steps"), [("breakout", 50), ("pong", 30), ("breakout", 999)])
def test_restored_lanes_go_on_after_several_restarts(game: str, cap_steps: int) -> None:
    """The same observations, rewards and ends, through further quick resets."""
    lanes, again = restarted_lanes(game, cap_steps), restarted_lanes(game, cap_steps)
    observation = lanes.start()
    rng, episodes = np.random.default_rng(0), 0
    # A random game of Breakout has about 190 steps: three end before the state is taken.
    for _ in range(3 * min(cap_steps, 250) + 17):
        step, observation = lanes.step(rng.integers(0, lanes.env.actions, 2))
        episodes += int((step.terminated | step.truncated).sum())
    assert episodes >= 4
    state = lanes.state()
    assert np.array_equal(again.restore(state), observation)
    assert again.state() == state
    ends = 0
    for _ in range(min(cap_steps, 250) + 5):
        chosen = rng.integers(0, lanes.env.actions, 2)
        (a, next_a), (b, next_b) = lanes.step(chosen), again.step(chosen)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert np.array_equal(next_a, next_b)
        ends += int((a.terminated | a.truncated).sum())
    assert ends >= 1
    assert lanes.state() == again.state()


def test_an_observation_that_differs_after_the_replay_is_named() -> None:
    lanes = restarted_lanes("pong", 30, first_lane=4)
    lanes.start()
    rng = np.random.default_rng(0)
    for _ in range(28):
        lanes.step(rng.integers(0, 6, 2))
    state = lanes.state()
    state["actions"][1] = state["actions"][1][:-1]
    with pytest.raises(ValueError, match=r"pong, lane 5: .* does not show .*SEED_EVERY_EPISODE"):
        restarted_lanes("pong", 30, first_lane=4).restore(state)


@pytest.mark.parametrize("game", sorted(atari.SEED_EVERY_EPISODE))
def test_a_game_without_exact_resets_does_not_resume_silently(
    monkeypatch: pytest.MonkeyPatch, game: str
) -> None:
    """Were it not on the list: the replay gives it away, in one lane at least."""
    monkeypatch.setattr(atari, "SEED_EVERY_EPISODE", frozenset())
    lanes = restarted_lanes(game, 60)
    lanes.start()
    rng = np.random.default_rng(0)
    for _ in range(2 * 60 + 40):
        lanes.step(rng.integers(0, lanes.env.actions, 2))
    with pytest.raises(ValueError, match=rf"{game}, lane [01]: "):
        restarted_lanes(game, 60).restore(lanes.state())


def test_a_state_of_lanes_that_have_not_started_restores_to_their_start() -> None:
    lanes = restarted_lanes("pong", 30)
    state = lanes.state()
    assert state["observations_crc32"] == [None] * lanes.lanes
    assert np.array_equal(restarted_lanes("pong", 30).restore(state), lanes.start())
