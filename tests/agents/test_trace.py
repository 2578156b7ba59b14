"""An episode is its seed and its actions, whatever else the emulator did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents import atari, trace
from agents.atari import RESTART_BIT
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


# --- restarts: an unseeded reset instead of another load of the ROM


def restarted(seed: int, restarts: int) -> int:
    return seed + (restarts << RESTART_BIT)


def unseeded_resets(env: atari.AtariLanes, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows by one entry for every reset of the emulators: was it unseeded?"""
    calls, reset = [], env._env.reset

    def record(**options):
        calls.append(options.get("seed") is None)
        return reset(**options)

    monkeypatch.setattr(env._env, "reset", record)
    return calls


def quick_and_slow(
    game: str, monkeypatch: pytest.MonkeyPatch, last: int, steps: int
) -> tuple[list, list]:
    """Episodes of seed 77 with 1 and `last` restarts, each reached quickly and slowly.

    Quickly: one lane of three plays an episode of every number of restarts, each cut after `steps`
    at most, its actions of no business to the next. Slowly: from another seed, and backwards.
    """
    env = atari.AtariLanes(game, 3, atari.PROTOCOLS["noop"])
    wanted = {r: Trace(restarted(77, r), actions(r, steps, env.actions)) for r in (1, last)}
    env.reset(np.ones(3, bool), [5, 6, 7])
    play(env, 1, Trace(77, actions(100, steps, env.actions)))
    calls = unseeded_resets(env, monkeypatch)
    quick = []
    for restarts in range(1, last + 1):
        # What is played in between must not matter.
        between = Trace(restarted(77, restarts), actions(100 + restarts, steps, env.actions))
        seen = play(env, 1, wanted.get(restarts, between))
        if restarts in wanted:
            quick.append(seen)
    assert calls == [True] * last
    play(env, 1, Trace(1234, actions(200, 3, env.actions)))
    slow = []
    for restarts in (last, 1):  # backwards: not even the same seed is quick
        del calls[:]
        slow.append(play(env, 1, wanted[restarts]))
        assert calls == [False] + [True] * restarts
    return quick, slow[::-1]


@pytest.mark.parametrize("game", ["breakout", "pong", "assault"])
def test_a_quick_reset_gives_the_episode_of_the_slow_one(
    monkeypatch: pytest.MonkeyPatch, game: str
) -> None:
    quick, slow = quick_and_slow(game, monkeypatch, last=3, steps=40)
    assert all(map(equal, quick, slow))
    assert not equal(quick[0][:1], quick[1][:1]) or not equal(quick[0], quick[1])


# About 1.5 CPU seconds a game; all of them, since which game is not exact is not known before.
@pytest.mark.slow
@pytest.mark.parametrize("game", [g for g in atari.games() if g not in atari.SEED_EVERY_EPISODE])
def test_quick_resets_are_exact_in_every_game_that_uses_them(
    monkeypatch: pytest.MonkeyPatch, game: str
) -> None:
    quick, slow = quick_and_slow(game, monkeypatch, last=2, steps=60)
    assert all(map(equal, quick, slow))


@pytest.mark.parametrize("game", sorted(atari.SEED_EVERY_EPISODE))
def test_where_resets_are_not_exact_every_episode_has_a_seed(
    monkeypatch: pytest.MonkeyPatch, game: str
) -> None:
    """The reason for the list: what was played before shows in the next episode."""
    with monkeypatch.context() as patched:
        patched.setattr(atari, "SEED_EVERY_EPISODE", frozenset())
        quick, slow = quick_and_slow(game, patched, last=2, steps=60)
    assert not all(map(equal, quick, slow))


@pytest.mark.parametrize(
    ("game", "protocol"), [("ice_hockey", "noop"), ("yars_revenge", "noop"), ("pong", "sticky")]
)
def test_a_seed_with_restarts_is_refused_where_they_are_not_exact(game: str, protocol: str) -> None:
    env = atari.AtariLanes(game, 2, atari.PROTOCOLS[protocol])
    assert env.episodes_per_seed == 1
    named = rf"episode seed: 1 restarts; {game} \({protocol}\) allows 0 to 0"
    with pytest.raises(ValueError, match=named):
        env.reset(np.ones(2, bool), [3, restarted(3, 1)])


def test_more_restarts_than_a_seed_has_are_refused() -> None:
    env = atari.AtariLanes("pong", 1, atari.PROTOCOLS["noop"])
    with pytest.raises(ValueError, match=r"16 restarts; pong \(noop\) allows 0 to 15"):
        env.reset(np.ones(1, bool), [restarted(3, atari.EPISODES_PER_SEED)])


# --- replays


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


def test_a_lane_that_waits_may_end_its_episode_meanwhile() -> None:
    """Doors that action 0 goes through to the end, while another lane has seven steps to replay."""
    easy, hard = (
        next(seed for seed in range(1000) if bits(seed)[0] == first and len(set(bits(seed))) == 1)
        for first in (0, 1)
    )
    waits = Trace(easy, np.array([1], np.uint8))  # the wrong door: still in the first room
    replays = Trace(hard, np.zeros(7, np.uint8))
    observation = trace.restore(Doors(2), [waits, replays])
    expected = Doors(2)
    first_room = expected.reset(np.ones(2, bool), [easy, hard])
    assert (observation == first_room).all()


def bits(seed: int) -> list[int]:
    return Doors(1).begin(np.random.default_rng(seed))[1]


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


def test_an_archive_without_some_of_its_actions_is_refused(tmp_path: Path) -> None:
    trace.save(tmp_path / "traces.npz", {}, TRACES)
    with np.load(tmp_path / "traces.npz") as archive:
        arrays = dict(archive)
    arrays["actions"] = arrays["actions"][:-1]
    np.savez(tmp_path / "traces.npz", **arrays)
    with pytest.raises(ValueError, match=r"traces\.npz: \d+ actions for \d+ steps"):
        trace.load(tmp_path / "traces.npz")


def test_another_format_is_refused(tmp_path: Path) -> None:
    trace.save(tmp_path / "traces.npz", {"format": 99}, TRACES)
    with pytest.raises(ValueError, match="trace format 99; allowed: 1"):
        trace.load(tmp_path / "traces.npz")
