"""Random play as the published random agent: `python -m agents.random_reference --help`.

Mnih et al. 2015: an action "at 10 Hz which is every sixth frame, repeating its last action on
intervening frames", up to 30 no-ops (here 0 to 29), 30 episodes of at most 5 minutes. Writes one
row per episode; `analysis.random57` sets it beside play under the protocol of the studies and the
published scores.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import torch

from agents import atari, evaluate, files
from agents.random_play import ConstantPolicy
from agents.seeding import derive_seed

FRAMES_PER_ACTION = 6
MAX_EPISODE_FRAMES = 18_000
COLUMNS = (
    "game",
    "frames_per_action",
    "max_episode_frames",
    "action_set",
    "episode",
    "episode_seed",
    "return",
    "length_frames",
    "ended",
)


def rule(options: argparse.Namespace) -> tuple[int, int, str]:
    """Return what the episodes of one file have in common."""
    return options.frames_per_action, options.max_episode_frames, options.action_set


def stream(game: str, options: argparse.Namespace) -> tuple[int | str, ...]:
    """Return the name of a game's random streams."""
    return "random_reference", game, *rule(options)


def read(options: argparse.Namespace) -> list[list[int | str]]:
    """Return the rows that --out has; `ValueError` if they were played otherwise."""
    if not options.out.exists():
        return []
    with options.out.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    for row in rows:
        if row[1:4] != [str(value) for value in rule(options)]:
            raise ValueError(f"out: {options.out} has episodes played otherwise: {row[:4]}")
    for game, played in itertools.groupby(rows, key=lambda row: row[0]):
        seeds = [row[5] for row in played]
        expected = [
            str(derive_seed(*stream(game, options), options.seed, "episode", number))
            for number in range(options.episodes)
        ]
        if seeds != expected:
            raise ValueError(
                f"out: {options.out} has {len(seeds)} episodes of {game}, not the "
                f"{options.episodes} of --seed {options.seed}"
            )
    return rows


def play(game: str, options: argparse.Namespace) -> list[list[int | str]]:
    """Return the rows of one game, COLUMNS."""
    protocol = replace(
        atari.protocol("noop"),
        max_episode_frames=options.max_episode_frames,
        full_action_set=options.action_set == "full",
    )
    lanes = min(options.lanes, options.episodes)
    env = atari.AtariLanes(game, lanes, protocol, 1, options.frames_per_action)
    policy = ConstantPolicy(torch.zeros(env.actions))
    played = evaluate.play(
        policy, env, options.episodes, options.seed, stream(game, options), sample=True
    )
    return [
        [game, *rule(options), number, episode.trace.episode_seed, episode.episode_return,
         len(episode.trace.actions) * options.frames_per_action, episode.ended]
        for number, episode in enumerate(played)
    ]  # fmt: skip


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agents.random_reference", description=__doc__)
    parser.add_argument(
        "--games",
        nargs="+",
        default=atari.games(),
        metavar="GAME",
        help="(all of config/games.csv)",
    )
    parser.add_argument("--episodes", type=int, default=30, help="of each game (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of episodes and actions (%(default)s)"
    )
    parser.add_argument(
        "--frames-per-action",
        type=int,
        default=FRAMES_PER_ACTION,
        help="how long an action is kept, emulator frames (%(default)s)",
    )
    parser.add_argument(
        "--max-episode-frames",
        type=int,
        default=MAX_EPISODE_FRAMES,
        help="where an episode is cut (%(default)s)",
    )
    parser.add_argument(
        "--action-set",
        choices=("minimal", "full"),
        default="minimal",
        help="the game's own actions or all 18 (%(default)s)",
    )
    parser.add_argument(
        "--lanes", type=int, default=8, help="episodes played at once (%(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="CSV; its games are kept")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Play the games that --out does not have yet, one after another; return 0, 1 on bad input."""
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    try:
        for key in ("episodes", "frames_per_action", "max_episode_frames", "lanes"):
            if getattr(options, key) < 1:
                raise ValueError(f"{key}: {getattr(options, key)} must be at least 1")
        for game in options.games:
            atari.check_game(game)
        rows = read(options)
        for game in options.games:
            if game in {row[0] for row in rows}:
                continue
            rows += play(game, options)
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
            files.write_text(options.out, buffer.getvalue())
            print(f"{game}: {options.episodes} episodes", flush=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
