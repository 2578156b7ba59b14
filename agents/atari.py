"""Atari lanes: the only module that talks to ale-py.

A lane is one emulator inside `ale_py.vector_env.AtariVectorEnv`; all lanes of an object step
together in C++ threads. Observations are stacks of the last four 84x84 grey frames, each the
maximum of the last two of its four emulator frames (Mnih et al. 2015, "Preprocessing").
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from agents.config import FRAMES_PER_STEP

OBSERVATION_SHAPE = (4, 84, 84)
SCREEN_SHAPE = (210, 160, 3)  # of every game of the table
# An unseeded reset takes 4.5 ms, a seeded one loads the ROM again and takes 84 ms.
EPISODES_PER_SEED = 16
RESTART_BIT = 31
# In these an unseeded reset leaves memory as it was: their episodes depend on earlier actions.
# Found by playing every game of config/games.csv (the slow tests of tests/agents/test_trace.py).
SEED_EVERY_EPISODE = frozenset({"ice_hockey", "surround", "time_pilot", "yars_revenge"})
GAMES_CSV = Path(__file__).resolve().parents[1] / "config" / "games.csv"


@dataclass(frozen=True)
class Protocol:
    """How an episode starts, what the emulator does with actions and when it is cut.

    Attributes:
        noop_max_frames: an episode starts with 0 to this many less one no-op frames, drawn from
            its seed: ale-py leaves the bound out.
        repeat_action_probability: sticky actions, per emulator frame (Machado et al. 2018).
        full_action_set: 18 actions in every game, or the game's minimal set.
        max_episode_frames: the episode is truncated here.
    """

    name: str
    noop_max_frames: int = 30
    repeat_action_probability: float = 0.0
    full_action_set: bool = False
    max_episode_frames: int = 108_000


PROTOCOLS = {
    # Mnih et al. 2015, van Hasselt et al. 2016: up to 30 no-ops (their code plays 2 to 31, here
    # it is 0 to 29), 30 minutes at 60 Hz.
    "noop": Protocol("noop"),
    # Machado et al. 2018, arXiv:1709.06009: sticky actions, all 18 actions, no no-op starts.
    "sticky": Protocol(
        "sticky", noop_max_frames=0, repeat_action_probability=0.25, full_action_set=True
    ),
}


def protocol(name: str) -> Protocol:
    """Return the protocol of that name; `ValueError` names the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: unknown value {name!r}; allowed: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def games() -> list[str]:
    """Return the games of `config/games.csv`, the one place where a game is added."""
    with GAMES_CSV.open(newline="") as file:
        return [row["game"] for row in csv.DictReader(file)]


def check_game(name: str) -> str:
    """Return `name` if `config/games.csv` and ale-py have it, else raise `ValueError`."""
    known = games()
    if name not in known:
        raise ValueError(f"game: unknown value {name!r}; allowed: {', '.join(known)}")
    if roms.get_rom_path(name) is None:
        raise ValueError(f"game: ale-py {version()} has no ROM named {name!r}")
    return name


def version() -> str:
    """Return the version of ale-py: replays are exact within one."""
    return metadata.version("ale-py")


def rom_md5(game: str) -> str:
    """Return the MD5 of the ROM that ale-py would load, to tie a trace to it."""
    return hashlib.md5(Path(roms.get_rom_path(game)).read_bytes()).hexdigest()


class Step(NamedTuple):
    """What one decision of every lane returned. Shapes: [B] unless said.

    `reward` is raw (unclipped). `terminated` is the game's own end, `truncated` the frame cap,
    `life_lost` a life gone without the game's end: three different things.

    The last observation of an episode lacks the last emulator frame, which ale-py plays and does
    not draw: its newest frame is the maximum of the one before and of the last decision's newest.
    V of a state that the cap has cut is computed from it.
    """

    observation: NDArray[np.uint8]  # [B, 4, 84, 84], of the state after the decision
    reward: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    life_lost: NDArray[np.bool_]


class AtariLanes:
    """`lanes` emulators of one game in lockstep.

    An episode is a pure function of (ROM, ale-py version, protocol, episode seed, actions):
    neither earlier episodes nor neighbours matter. The low 31 bits of an episode seed seed the
    emulator; the number above them says how many unseeded resets follow.

    Args:
        screen: observe the screen in colour, [B, 1, 210, 160, 3], the maximum of the same two
            frames. What is played is the same.

    Attributes:
        episodes_per_seed: so many episodes may share their low bits; 1 where an unseeded reset
            does not undo what was played (four games, and sticky actions, which draw at random).
    """

    def __init__(
        self,
        game: str,
        lanes: int,
        protocol: Protocol,
        threads: int = 1,
        frames_per_step: int = FRAMES_PER_STEP,
        screen: bool = False,
    ) -> None:
        self.game = check_game(game)
        self.lanes = lanes
        self.protocol = protocol
        self.observation_shape = (1, *SCREEN_SHAPE) if screen else OBSERVATION_SHAPE
        stack, height, width = self.observation_shape[:3]
        self._env = AtariVectorEnv(
            game,
            lanes,
            num_threads=min(threads, lanes),
            frameskip=frames_per_step,
            stack_num=stack,
            img_height=height,
            img_width=width,
            grayscale=not screen,
            maxpool=True,
            noop_max=protocol.noop_max_frames,
            use_fire_reset=False,  # the papers leave FIRE to the agent
            repeat_action_probability=protocol.repeat_action_probability,
            full_action_space=protocol.full_action_set,
            max_num_frames_per_episode=protocol.max_episode_frames,
            reward_clipping=False,
            episodic_life=False,
        )
        self.actions = int(self._env.single_action_space.n)
        inexact = game in SEED_EVERY_EPISODE or protocol.repeat_action_probability > 0
        self.episodes_per_seed = 1 if inexact else EPISODES_PER_SEED
        self._lives = np.zeros(lanes, np.int32)
        self._seeds = np.full(lanes, -1, np.int64)

    def reset(
        self, mask: NDArray[np.bool_], seeds: NDArray[np.int64] | list[int]
    ) -> NDArray[np.uint8]:
        """Start new episodes in the lanes of `mask` [B], seeded in lane order by `seeds`.

        Quick where a lane's seed is that of its last episode with one restart more. Must be
        called right after the step that ended a lane's episode: at the next step the emulator
        would reset that lane by itself. Returns observations [B, 4, 84, 84]. `ValueError` if a
        seed has restarts and the game has none.
        """
        wanted = np.full(self.lanes, -1, np.int64)
        wanted[mask] = seeds
        restarts = np.where(mask, wanted >> RESTART_BIT, 0)
        if restarts.max() >= self.episodes_per_seed:
            raise ValueError(
                f"episode seed: {restarts.max()} restarts; "
                f"{self.game} ({self.protocol.name}) allows 0 to {self.episodes_per_seed - 1}"
            )
        quick = mask & (restarts > 0) & (wanted == self._seeds + (1 << RESTART_BIT))
        seeded = mask & ~quick
        if seeded.any():
            emulator_seeds = wanted & ((1 << RESTART_BIT) - 1)
            if (self._seeds < 0).all():  # ale-py wants one full reset before a partial one
                observation, info = self._env.reset(seed=np.where(seeded, emulator_seeds, 0))
            else:
                options = {"reset_mask": seeded}
                observation, info = self._env.reset(seed=emulator_seeds[seeded], options=options)
        unseeded = np.where(quick, 1, restarts)  # resets that each lane still needs
        while unseeded.any():
            observation, info = self._env.reset(options={"reset_mask": unseeded > 0})
            unseeded -= unseeded > 0
        self._seeds[mask] = wanted[mask]
        self._lives = info["lives"].copy()
        return observation

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Repeat each lane's action [B] for `frames_per_step` frames; see `Step`."""
        if actions.min() < 0 or actions.max() >= self.actions:  # ale-py would hang for ever
            raise ValueError(f"actions: {actions.tolist()} are not all in 0..{self.actions - 1}")
        observation, reward, terminated, truncated, info = self._env.step(actions)
        lives = info["lives"]
        life_lost = (lives < self._lives) & ~terminated
        self._lives = lives.copy()
        return Step(observation, reward, terminated, truncated & ~terminated, life_lost)
