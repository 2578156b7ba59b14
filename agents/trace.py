"""An episode as a trace: its seed and its actions. Resume, audit and replays all stand on it.

Replaying needs neither torch nor a network: only this module and `atari`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents import files

FORMAT = 1


@dataclass(frozen=True)
class Trace:
    """One episode, whole or begun: its seed and its actions so far (uint8 [steps])."""

    episode_seed: int
    actions: NDArray[np.uint8]


class Lanes(Protocol):
    """What replaying needs of a set of lanes; `atari.AtariLanes` has it."""

    lanes: int

    def reset(self, mask: NDArray[np.bool_], seeds: list[int]) -> NDArray[np.uint8]: ...

    def step(self, actions: NDArray[np.int64]) -> Any: ...


def restore(env: Lanes, traces: Sequence[Trace]) -> NDArray[np.uint8]:
    """Bring lane i to the state that `traces[i]` leaves it in; return the observations [B, ...].

    Lanes only step together, so lane i starts as many steps late as its trace is shorter than
    the longest: until then it plays action 0 in episodes that its own reset throws away.
    """
    if len(traces) != env.lanes:
        raise ValueError(f"traces: {len(traces)} given for {env.lanes} lanes")
    lengths = np.array([len(trace.actions) for trace in traces])
    longest = int(lengths.max())
    observation = env.reset(np.ones(env.lanes, bool), [trace.episode_seed for trace in traces])
    actions = np.zeros(env.lanes, np.int64)
    for step in range(longest):
        late = longest - step
        starting = (lengths == late) & (lengths < longest)
        if starting.any():
            seeds = [traces[lane].episode_seed for lane in np.flatnonzero(starting)]
            env.reset(starting, seeds)
        for lane in np.flatnonzero(lengths >= late):
            actions[lane] = traces[lane].actions[lengths[lane] - late]
        played = env.step(actions)
        observation = played.observation
        over = (played.terminated | played.truncated) & (lengths < late)
        if over.any():  # a lane that still waits
            env.reset(over, [traces[lane].episode_seed for lane in np.flatnonzero(over)])
    unstarted = (lengths == 0) & (longest > 0)
    if unstarted.any():
        seeds = [traces[lane].episode_seed for lane in np.flatnonzero(unstarted)]
        observation = env.reset(unstarted, seeds)
    return observation


@dataclass(frozen=True)
class Replayed:
    """What replaying one trace gave: raw return, length and how it ended."""

    episode_return: int
    steps: int
    ended: str


def replay(env: Lanes, traces: Sequence[Trace]) -> Iterator[tuple[int, Replayed]]:
    """Replay whole episodes, as many at a time as there are lanes; yield (index, result).

    `ended` is "terminated", "truncated", or "unfinished" where the actions ran out first; a
    trace whose episode ends before its actions do is returned with the steps really played.
    """
    waiting = list(range(len(traces)))[::-1]
    playing = [-1] * env.lanes
    played = np.zeros(env.lanes, np.int64)
    returns = np.zeros(env.lanes, np.int64)
    actions = np.zeros(env.lanes, np.int64)
    fresh = np.ones(env.lanes, bool)
    while True:
        start = fresh
        seeds = []
        for lane in np.flatnonzero(start):
            playing[lane] = waiting.pop() if waiting else -1
            seeds.append(traces[playing[lane]].episode_seed if playing[lane] >= 0 else 0)
        if all(index < 0 for index in playing):
            return
        if start.any():
            env.reset(start, seeds)
            played[start] = returns[start] = 0
        for lane, index in enumerate(playing):
            actions[lane] = traces[index].actions[played[lane]] if index >= 0 else 0
        step = env.step(actions)
        played += 1
        returns += step.reward
        over = step.terminated | step.truncated
        fresh = over.copy()
        for lane, index in enumerate(playing):
            if index < 0:
                continue
            if over[lane]:
                ended = "terminated" if step.terminated[lane] else "truncated"
            elif played[lane] == len(traces[index].actions):
                ended = "unfinished"
            else:
                continue
            fresh[lane] = True
            yield index, Replayed(int(returns[lane]), int(played[lane]), ended)


def save(path: Path, header: dict[str, Any], traces: Sequence[Trace]) -> None:
    """Write whole episodes to a compressed .npz: the header as JSON, seeds, lengths, actions.

    The same traces give the same bytes. `header` says what they were played on (game, protocol,
    ROM, ale-py version).
    """
    lengths = np.array([len(trace.actions) for trace in traces], np.int64)
    arrays = {
        "header": np.frombuffer(
            json.dumps({"format": FORMAT, **header}, sort_keys=True).encode(), np.uint8
        ),
        "episode_seeds": np.array([trace.episode_seed for trace in traces], np.int64),
        "lengths_steps": lengths,
        "actions": np.concatenate([np.zeros(0, np.uint8), *[trace.actions for trace in traces]]),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue())


def load(path: Path) -> tuple[dict[str, Any], list[Trace]]:
    """Read what `save` wrote. `ValueError` names the file if it is not such an archive."""
    try:
        with path.open("rb") as file, np.load(file) as archive:
            header = json.loads(archive["header"].tobytes())
            seeds, lengths = archive["episode_seeds"], archive["lengths_steps"]
            actions = archive["actions"]
    except Exception as error:
        raise ValueError(f"{path}: not a readable trace archive ({error})") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: trace format {header.get('format')!r}; allowed: {FORMAT}")
    if lengths.sum() != len(actions):
        raise ValueError(f"{path}: {len(actions)} actions for {lengths.sum()} steps")
    edges = np.concatenate([[0], np.cumsum(lengths)])
    return header, [
        Trace(int(seed), actions[edges[i] : edges[i + 1]]) for i, seed in enumerate(seeds)
    ]
