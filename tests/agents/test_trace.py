"""An episode is its seed and its actions, whatever else the emulator did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents import atari, trace
from agents.lanes import TrainingLanes
from agents.trace import Trace
from tests.agents.worlds import Doors, Walk


def actions(seed: int, count: int, allowed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, allowed, count).astype(np.uint8)


def play(env: atari.AtariLanes, lane: int, wanted: Trace) -> list[tuple]:
    """Play `wanted` in one lane, the others at random; return observation, reward, end by step."""
    mask = np.arange(env.lanes) == lane
    observation = env.reset(mask, [wanted.episode_seed])
    seen = [(observation[lane].copy(), 0, False)]
    rng = np.random.default_rng(lane)
    for action in wanted.actions:
        every = rng.integers(0, env.actions, env.lanes)
        every[lane] = action
        step = env.step(every)
        over = bool(step.terminated[lane] | step.truncated[lane])
        seen.append((step.observation[lane].copy(), int(step.reward[lane]), over))
        if over:
            break
        # Others that ended reset themselves, unseeded: no business of this lane.
    return seen


def equal(a: list[tuple], b: list[tuple]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(
    ("game", "protocol"),
    [("breakout", "noop"), ("breakout", "sticky"), ("pong", "sticky"), ("boxing", "noop")],
)
def test_an_episode_is_a_function_of_seed_and_actions(game: str, protocol: str) -> None:
    """Alone; beside neighbours, in another lane; later in a lane that played something else."""
    alone = atari.AtariLanes(game, 1, atari.PROTOCOLS[protocol])
    wanted = Trace(77, actions(0, 25, alone.actions))
    first = play(alone, 0, wanted)
    many = atari.AtariLanes(game, 3, atari.PROTOCOLS[protocol])
    many.reset(np.ones(3, bool), [5, 6, 7])
    assert equal(play(many, 2, wanted), first)
    play(many, 1, Trace(8, actions(1, 10, alone.actions)))
    assert equal(play(many, 1, wanted), first)
    assert equal(play(alone, 0, wanted), first)
    assert not equal(play(alone, 0, Trace(78, wanted.actions)), first)
    assert not equal(play(alone, 0, Trace(77, actions(2, 25, alone.actions))), first)


@pytest.mark.parametrize(
    ("game", "protocol", "lengths"),
    [
        ("breakout", "noop", (0, 7, 20)),
        ("breakout", "sticky", (0, 7, 20)),
        ("breakout", "noop", (9, 9, 9)),
        ("breakout", "noop", (0, 0, 0)),
        # A lane left alone loses Assault in 158 steps: those that wait begin anew by themselves.
        ("assault", "noop", (1, 0, 170)),
    ],
)
def test_restored_lanes_are_where_the_original_ones_were(
    game: str, protocol: str, lengths: tuple[int, ...]
) -> None:
    """The observations of each lane played alone, and the same future."""
    future = [1, 2, 0, 2, 1]
    lanes = [atari.AtariLanes(game, n, atari.PROTOCOLS[protocol]) for n in (1, 3)]
    traces = [Trace(20 + i, actions(i, n, lanes[0].actions)) for i, n in enumerate(lengths)]
    expected = []
    for recorded in traces:
        seen = [play(lanes[0], 0, recorded)[-1]]
        assert not seen[0][2]  # still in play
        for action in future:
            step = lanes[0].step(np.array([action]))
            lost = bool(step.life_lost[0])
            seen.append((step.observation[0].copy(), int(step.reward[0]), lost))
        expected.append(seen)
    lanes[1].reset(np.ones(3, bool), [1, 2, 3])  # what was played before does not matter
    lanes[1].step(np.ones(3, np.int64))
    observation = trace.restore(lanes[1], traces)
    assert np.array_equal(observation, np.stack([seen[0][0] for seen in expected]))
    for t, action in enumerate(future, start=1):
        step = lanes[1].step(np.full(3, action))
        for lane, seen in enumerate(expected):
            assert np.array_equal(step.observation[lane], seen[t][0])
            assert step.reward[lane] == seen[t][1]
            assert step.life_lost[lane] == seen[t][2]


def test_restore_wants_one_trace_a_lane() -> None:
    with pytest.raises(ValueError, match="traces: 1 given for 2 lanes"):
        trace.restore(Doors(2), [Trace(0, actions(0, 1, 2))])


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_replay_returns_what_was_played_in_any_number_of_lanes(lanes: int) -> None:
    """Episodes of `Walk`, cut after 6 steps; actions 0, 1, 2 pay -1, 0, 1."""
    played = [Trace(seed, actions(seed, 6, 3)) for seed in range(7)]
    found = dict(trace.replay(Walk(lanes, cap_steps=6), played))
    assert found == {
        index: trace.Replayed(int(recorded.actions.astype(int).sum()) - 6, 6, "truncated")
        for index, recorded in enumerate(played)
    }


def test_replay_says_when_actions_and_episode_end_apart() -> None:
    short, long = Trace(1, np.full(4, 2, np.uint8)), Trace(2, np.full(9, 2, np.uint8))
    found = dict(trace.replay(Walk(2, cap_steps=6), [short, long]))
    assert found == {
        0: trace.Replayed(4, 4, "unfinished"),
        1: trace.Replayed(6, 6, "truncated"),
    }


TRACES = [
    Trace(3, actions(0, 5, 4)),
    Trace(2**31 - 1, actions(1, 2, 18)),
    Trace(0, actions(0, 0, 2)),
]


def test_save_and_load_round_trip_with_equal_bytes(tmp_path: Path) -> None:
    header = {"game": "pong", "seed": 3}
    for name in ("a.npz", "b.npz"):
        trace.save(tmp_path / name, header, TRACES)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found_header, found = trace.load(tmp_path / "a.npz")
    assert found_header == {**header, "format": trace.FORMAT}
    assert [(t.episode_seed, t.actions.tolist()) for t in found] == [
        (t.episode_seed, t.actions.tolist()) for t in TRACES
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_no_traces_are_an_archive_too(tmp_path: Path) -> None:
    trace.save(tmp_path / "none.npz", {}, [])
    assert trace.load(tmp_path / "none.npz")[1] == []


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traces.npz"
    trace.save(path, {}, TRACES)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", b"PK", whole[:middle], whole[:60] + bytes(20) + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"traces\.npz: not a readable trace archive"):
            trace.load(path)
    path.write_bytes(whole)
    assert len(trace.load(path)[1]) == 3


def test_another_format_is_refused(tmp_path: Path) -> None:
    trace.save(tmp_path / "traces.npz", {"format": 99}, TRACES)
    with pytest.raises(ValueError, match="trace format 99; allowed: 1"):
        trace.load(tmp_path / "traces.npz")


# --- training lanes


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
