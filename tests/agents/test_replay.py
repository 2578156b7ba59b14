"""The replay memory against a list that keeps everything; the sum tree against cumulative sums."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from agents import checkpoint, config, replay
from agents.replay import ReplayMemory
from agents.sum_tree import FANOUT, SumTree
from tests.agents.worlds import METHODS

STACK, SHAPE = 3, (3, 2, 2)


def memory(
    path: Path, lanes: int = 2, capacity: int = 60, expected: int | None = None, **overrides
) -> ReplayMemory:
    method = "prioritized" if "prioritisation" in overrides else "dqn"
    settings = config.load_method(METHODS / f"{method}.yaml", overrides)
    return ReplayMemory(path / "frames.bin", lanes, SHAPE, settings, capacity, expected)


def uniform(seed: int):
    generator = np.random.default_rng(seed)
    return lambda count: generator.random(count)


class Decision(NamedTuple):
    before: np.ndarray
    action: int
    reward: int
    terminal: bool
    after: np.ndarray


class Player:
    """Random episodes of random frames, written into a memory and kept whole, lane by lane."""

    def __init__(self, lanes: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.kept: list[list[Decision]] = [[] for _ in range(lanes)]
        self.lanes = lanes
        self.observation = self._frames(lanes, STACK)

    def _frames(self, *shape: int) -> np.ndarray:
        return self.rng.integers(0, 256, (*shape, 2, 2), dtype=np.uint8)

    def play(self, into: ReplayMemory, steps: int, end: float = 0.2) -> None:
        """An observation is the last frames of the one before it; episodes start with any."""
        if not self.kept[0]:
            into.begin(np.ones(self.lanes, bool), self.observation)
        for _ in range(steps):
            new = self._frames(self.lanes, 1)
            after = np.concatenate([self.observation[:, 1:], new], axis=1)
            actions = self.rng.integers(0, 18, self.lanes)
            rewards = self.rng.integers(-300, 300, self.lanes).astype(np.int32)
            over = self.rng.random(self.lanes) < end
            terminal = over & (self.rng.random(self.lanes) < 0.5)  # else cut
            into.add(actions, rewards, terminal, after)
            for lane, decisions in enumerate(self.kept):
                decisions.append(
                    Decision(
                        self.observation[lane], actions[lane], rewards[lane], terminal[lane],
                        after[lane],
                    )
                )  # fmt: skip
            self.observation = np.where(
                over[:, None, None, None], self._frames(self.lanes, STACK), after
            )
            into.begin(over, self.observation)


def check(found: ReplayMemory, kept: list[list[Decision]]) -> int:
    """Every transition that can be drawn is the one that was played; return their least age."""
    ages = []
    for lane, decisions in enumerate(kept):
        slots = np.flatnonzero(found._drawable[lane * found.ring : (lane + 1) * found.ring])
        head = int(found._head[lane])
        newest_first = sorted(slots.tolist(), key=lambda slot: (head - 1 - slot) % found.ring)
        ages.append(len(newest_first))
        slots = np.array(newest_first) + lane * found.ring
        frames = found.frames_at(slots)
        for slot, stacks, played in zip(slots, frames, reversed(decisions), strict=False):
            assert np.array_equal(stacks[:-1], played.before)
            assert np.array_equal(stacks[1:], played.after)
            assert found._actions[slot] == played.action
            assert found._rewards[slot] == played.reward
            assert found._terminal[slot] == played.terminal
    return min(ages)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("end", [0.0, 0.2, 0.7])
def test_what_is_read_is_what_was_played(tmp_path: Path, seed: int, end: float) -> None:
    """Random episodes, before the ring is full and long after, at either end of an episode."""
    found, player = memory(tmp_path), Player(2, seed)
    for _ in range(30):
        player.play(found, 11, end)
        assert check(found, player.kept) <= found.capacity
    assert found._head.min() > 2 * found.ring
    assert 0 < found.ring - found.capacity - STACK == found.slack
    if end == 0:  # all but the newest, whose decision is not made yet
        assert len(found) == 2 * (found.capacity - 1)


@pytest.mark.parametrize("prioritisation", ["none", "proportional", "rank"])
def test_what_is_drawn_is_what_was_played(tmp_path: Path, prioritisation: str) -> None:
    found, player = memory(tmp_path, prioritisation=prioritisation), Player(2, 0)
    draw = uniform(0)
    frames = {}
    for _ in range(25):
        player.play(found, 7)
        batch = found.sample(8, draw, 0.5)
        assert found._drawable[batch.slots].all()
        assert batch.frames.shape == (8, STACK + 1, 2, 2)
        for index, slot in enumerate(batch.slots.tolist()):
            assert batch.actions[index] == found._actions[slot]
            assert batch.rewards[index] == found._rewards[slot]
            assert batch.terminal[index] == found._terminal[slot]
            frames[slot] = batch.frames[index]
        if found.tree is not None:
            found.update_priorities(batch.slots, player.rng.normal(size=8))
            weights = found.tree.leaves[: found._drawable.size]
            assert np.array_equal(weights > 0, found._drawable)


def test_all_are_drawn_evenly(tmp_path: Path) -> None:
    """Chi-square of 20,000 draws from 2 lanes in which episodes end at different times."""
    found, player = memory(tmp_path), Player(2, 1)
    player.play(found, 60, 0.3)
    slots = found.sample(20_000, uniform(0), 0.5).slots
    counts = np.bincount(slots, minlength=found._drawable.size)[found._drawable]
    expected = 20_000 / len(found)
    assert counts.sum() == 20_000
    assert ((counts - expected) ** 2 / expected).sum() < len(found) + 5 * np.sqrt(2 * len(found))


@pytest.mark.parametrize("prioritisation", ["proportional", "rank"])
def test_draws_and_weights_follow_the_errors(tmp_path: Path, prioritisation: str) -> None:
    """P(i) = p_i / sum p with the errors' priorities; weights undo it fully for beta 1."""
    settings = {"priority_exponent": 1.0, "priority_epsilon": 0.5}
    found = memory(tmp_path, 1, 50, prioritisation=prioritisation, **settings)
    player = Player(1, 2)
    player.play(found, 12, 0.0)
    slots = np.flatnonzero(found._drawable)
    errors = np.arange(len(slots))[::-1] / len(slots)
    found.update_priorities(slots, -errors)
    if prioritisation == "rank":
        found._rank_all()
    batch = found.sample(40_000, uniform(3), 1.0)
    p = errors + 0.5 if prioritisation == "proportional" else 1 / np.arange(1, len(slots) + 1)
    counts = np.bincount(batch.slots, minlength=found._drawable.size)[slots]
    np.testing.assert_allclose(counts / 40_000, p / p.sum(), atol=0.004)
    by_slot = dict(zip(batch.slots.tolist(), batch.weights, strict=True))
    np.testing.assert_allclose([by_slot[slot] for slot in slots], p.min() / p)


@pytest.mark.parametrize("prioritisation", ["proportional", "rank"])
def test_one_is_drawn_of_each_nth_part(tmp_path: Path, prioritisation: str) -> None:
    """Of equal priorities as many as there are: each once, wherever in its part the draw falls."""
    found = memory(tmp_path, 1, 50, prioritisation=prioritisation)
    Player(1, 2).play(found, 12, 0.0)
    slots = np.flatnonzero(found._drawable)
    found.tree.set(slots, np.ones(len(slots)))
    batch = found.sample(len(slots), lambda count: np.full(count, 0.5), 1.0)
    assert sorted(batch.slots.tolist()) == slots.tolist()


def test_ranks_are_sorted_again_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RANK_REFRESH_UPDATES", 2)
    found = memory(tmp_path, 1, 50, prioritisation="rank", priority_exponent=1.0)
    Player(1, 2).play(found, 12, 0.0)
    slots = np.flatnonzero(found._drawable)
    errors = np.random.default_rng(0).permutation(len(slots)) + 1.0
    for _ in range(2):
        found.update_priorities(slots, errors)
    rank = len(slots) + 1 - errors
    np.testing.assert_allclose(found.tree.leaves[slots], 1 / rank)


def test_a_new_transition_has_the_largest_priority(tmp_path: Path) -> None:
    for prioritisation in ("proportional", "rank"):
        found = memory(tmp_path / prioritisation, 1, 50, prioritisation=prioritisation)
        player = Player(1, 2)
        player.play(found, 12, 0.0)
        slots = np.flatnonzero(found._drawable)
        found.update_priorities(slots, np.linspace(0, 0.9, len(slots)))
        if prioritisation == "rank":
            found._rank_all()
        player.play(found, 1, 0.0)
        (new,) = np.setdiff1d(np.flatnonzero(found._drawable), slots)
        assert found.tree.leaves.argmax() == new or found.tree.leaves[new] == 1.0


# --- checkpoints


@pytest.mark.parametrize("prioritisation", ["none", "proportional", "rank"])
@pytest.mark.parametrize("before", [5, 60, 150])
def test_a_restored_memory_is_that_of_its_state(
    tmp_path: Path, prioritisation: str, before: int
) -> None:
    """The first goes on writing until a state is due; what the second reads is untouched."""
    found, player = memory(tmp_path, prioritisation=prioritisation), Player(2, 5)
    player.play(found, before)
    if found.tree is not None:
        found.update_priorities(np.flatnonzero(found._drawable), np.array([7.0]))
    checkpoint.save(tmp_path / "state.pt", found.state())
    kept = [list(decisions) for decisions in player.kept]
    while not found.state_is_due():
        player.play(found, 1)
    assert (found._head - found._saved_head).max() > found.slack // 2
    again = memory(tmp_path, prioritisation=prioritisation)
    again.restore(checkpoint.load(tmp_path / "state.pt"))
    check(again, kept)
    if again.tree is not None:
        assert (again._largest_error, again.updates) == (7.0, 1)
        rebuilt = [level.copy() for level in again.tree._levels]
        again.tree.rebuild()
        assert all(map(np.array_equal, rebuilt, again.tree._levels))


def test_a_tree_of_many_changes_is_that_of_its_leaves() -> None:
    """Bit by bit: else a resumed run would draw others."""
    tree, rng = SumTree(3 * FANOUT**2 + 5), np.random.default_rng(0)
    for _ in range(50):
        tree.set(rng.integers(0, 3 * FANOUT**2 + 5, 100), rng.random(100))
    levels = [level.copy() for level in tree._levels]
    tree.rebuild()
    assert all(map(np.array_equal, levels, tree._levels))


def test_frames_of_a_state_are_not_overwritten(tmp_path: Path) -> None:
    found, player = memory(tmp_path), Player(2, 5)
    player.play(found, 100)
    found.state()
    with pytest.raises(RuntimeError, match="frames of the last state"):
        player.play(found, found.slack + 1)


def test_another_capacity_is_named(tmp_path: Path) -> None:
    state = memory(tmp_path).state()
    with pytest.raises(ValueError, match=r"replay memory: actions is .* in the checkpoint"):
        memory(tmp_path, capacity=80).restore(state)


def test_a_capacity_without_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"replay_capacity_steps: 3 .* at least 10"):
        memory(tmp_path, capacity=3)
    memory(tmp_path, capacity=10)


def test_a_file_system_that_cannot_allocate_gets_zeros_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As glibc does where the file system has no fallocate: EBADF on a file opened to append."""

    def by_hand(file: int, offset: int, size: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if size > 10**8:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.ftruncate(file, max(os.fstat(file).st_size, offset + size))

    monkeypatch.setattr(os, "posix_fallocate", by_hand)
    memory(tmp_path)
    with pytest.raises(OSError, match=r"No space left on device, for .* bytes: .*frames"):
        memory(tmp_path / "full", capacity=10**8)


def test_the_disk_has_room_for_what_will_come(tmp_path: Path) -> None:
    """Of all slots if need be; what is there already stays as it is, and what is drawn is right."""
    expected, capacity, page = 2000, 200_000, 4096
    found = memory(tmp_path, capacity=capacity, expected=expected)
    path, player = tmp_path / "frames.bin", Player(2, 3)

    def on_disk() -> int:
        return path.stat().st_blocks * 512

    frame = found._frames[0].nbytes
    room = on_disk()
    assert expected * frame <= room <= 1.2 * expected * frame + 4 * page
    player.play(found, expected // 2 - STACK, end=0)
    assert on_disk() == room
    player.play(found, expected, end=0.2)  # more, and many a first stack
    assert room < on_disk() < found._frames.size
    assert check(found, player.kept) == len(player.kept[0])  # all of them
    more = memory(tmp_path, capacity=capacity, expected=capacity)
    assert on_disk() >= more._frames.size
    more.restore(found.state())
    check(more, player.kept)


def test_a_disk_that_is_full_on_the_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, player = memory(tmp_path, capacity=1000, expected=10), Player(2, 3)

    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device, for [\d,]+ bytes: .*frames"):
        player.play(found, 100)
    assert found._head.max() == found._allocated  # nothing was written beyond


def test_where_python_cannot_allocate_the_file_has_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS; what is in the file already stays."""
    found = memory(tmp_path / "here")
    monkeypatch.delattr(os, "posix_fallocate")
    other = memory(tmp_path / "there")
    other._frames[:] = 7
    other._frames.flush()
    sizes = {path.stat().st_size for path in tmp_path.glob("*/frames.bin")}
    assert sizes == {found._frames.size}
    assert (memory(tmp_path / "there")._frames == 7).all()


def test_an_empty_memory_says_so(tmp_path: Path) -> None:
    for prioritisation in ("none", "proportional"):
        with pytest.raises(ValueError, match=r"nothing to draw|no leaf"):
            memory(tmp_path, prioritisation=prioritisation).sample(2, uniform(0), 0.5)


def test_the_papers_memory_takes_less_than_8_gb() -> None:
    """A million frames of 84 x 84, slack included."""
    capacity = config.load_method(METHODS / "dqn.yaml").replay_capacity_steps
    assert (capacity + capacity // replay.SLACK_SHARE) * 84 * 84 < 7.9e9


# --- the sum tree


@pytest.mark.parametrize("size", [1, FANOUT - 1, FANOUT, FANOUT + 1, FANOUT**2 + 7])
def test_sum_tree_finds_what_cumulative_sums_find(size: int) -> None:
    rng = np.random.default_rng(size)
    tree, weights = SumTree(size), np.zeros(size)
    for _ in range(20):
        index = rng.integers(0, size, 30)
        # Whole numbers, many of them 0: sums are exact, edges are hit.
        values = rng.integers(0, 4, 30).astype(float)
        tree.set(index, values)
        weights[index] = values
        assert np.array_equal(tree.leaves[:size], weights)
        assert tree.total == weights.sum()
        if tree.total:
            mass = np.concatenate([np.arange(tree.total), rng.random(200) * tree.total])
            expected = np.searchsorted(np.cumsum(weights), mass, side="right")
            assert np.array_equal(tree.find(mass), expected)


def test_sum_tree_never_finds_a_leaf_without_weight() -> None:
    """At the very end of the range too, where sums round."""
    rng = np.random.default_rng(0)
    tree = SumTree(5000)
    index = rng.choice(5000, 400, replace=False)
    tree.set(index, rng.random(400) * 10.0 ** rng.integers(-9, 3, 400))
    total = tree.total
    mass = np.concatenate([[0.0, np.nextafter(total, 0), total], rng.random(5000) * total])
    assert (tree.leaves[tree.find(mass)] > 0).all()


@pytest.mark.parametrize("before", [1, 5, 150])
def test_frames_of_another_run_are_refused(tmp_path: Path, before: int) -> None:
    """Whatever is in the file: zeros, or frames that are not those of the state."""
    found = memory(tmp_path / "a")
    Player(2, 5).play(found, before)
    state = found.state()
    memory(tmp_path / "a").restore(state)
    other = memory(tmp_path / "b")
    with pytest.raises(checkpoint.ResumeError, match="does not have the frames of the check"):
        other.restore(state)
    Player(2, 5).play(other, before + 1)
    other.state()
    with pytest.raises(checkpoint.ResumeError, match="does not have the frames of the check"):
        memory(tmp_path / "b").restore(state)
