"""Replay published evaluation episodes: `python -m agents.audit PATH ...`.

Every `traces.npz` below the paths is replayed on the emulator, action by action, and compared
with the `episodes.csv` beside it. No network, no torch and no GPU are needed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import atari, trace

HEADER = {"method", "game", "seed", "milestone_frames", "protocol", "rom_md5", "ale_py"}


class AuditError(Exception):
    """A replay that does not give what was published; the message names the episode."""


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise AuditError(f"{path}: missing beside its traces")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Evaluation:
    """The published episodes of one run at one milestone: `traces.npz`, `episodes.csv` beside it.

    Attributes:
        path: of `traces.npz`; errors name it.
        header: what the episodes were played on.
        traces: one per episode.
        rows: of `episodes.csv`, one per episode, as text.
    """

    path: Path
    header: dict[str, Any]
    traces: list[trace.Trace]
    rows: list[dict[str, str]]

    def lanes(self, lanes: int, threads: int = 1, screen: bool = False) -> atari.AtariLanes:
        """Return `lanes` emulators to replay the episodes on; `screen` as in `AtariLanes`.

        Raises:
            AuditError: if the header lacks something, the ROM here is another, or an episode has
                an action that the game has not.
            ValueError: for a game or protocol that is not known.
        """
        header = self.header
        lacking = HEADER - header.keys()
        if lacking:
            raise AuditError(f"{self.path}: its header has no {', '.join(sorted(lacking))}")
        game, protocol = atari.check_game(header["game"]), atari.protocol(header["protocol"])
        if header["rom_md5"] != atari.rom_md5(game):
            raise AuditError(
                f"{self.path}: played on ROM {header['rom_md5']} (ale-py {header['ale_py']}), "
                f"here {game} is {atari.rom_md5(game)} (ale-py {atari.version()})"
            )
        env = atari.AtariLanes(game, lanes, protocol, threads, screen=screen)
        for index, recorded in enumerate(self.traces):
            if not len(recorded.actions) or recorded.actions.max() >= env.actions:
                raise AuditError(
                    f"{self.path}: episode {index}: no actions, or one that is not in "
                    f"0..{env.actions - 1}"
                )
        return env

    def compare(self, index: int, replayed: trace.Replayed) -> None:
        """Raise `AuditError`, naming what differs, unless episode `index` was replayed alike."""
        recorded, header = self.traces[index], self.header
        if replayed.steps != len(recorded.actions):
            raise AuditError(
                f"{self.path}: episode {index}: ended after {replayed.steps} of "
                f"{len(recorded.actions)} steps"
            )
        found = {
            "method": str(header["method"]),
            "game": header["game"],
            "seed": str(header["seed"]),
            "milestone": str(header["milestone_frames"]),
            "protocol": header["protocol"],
            "episode": str(index),
            "episode_seed": str(recorded.episode_seed),
            "return": str(replayed.episode_return),
            "length_frames": str(len(recorded.actions) * atari.FRAMES_PER_STEP),
            "ended": replayed.ended,
        }
        for column, value in found.items():
            if self.rows[index].get(column) != value:
                raise AuditError(
                    f"{self.path}: episode {index}: {column} is {self.rows[index].get(column)} in "
                    f"episodes.csv, {value} when replayed (ale-py {header['ale_py']} then, "
                    f"{atari.version()} now)"
                )


def load(path: Path) -> Evaluation:
    """Read a `traces.npz` and the `episodes.csv` beside it.

    Raises:
        AuditError: if there is no `episodes.csv`, or it has another number of episodes.
        ValueError: if a file is not readable.
    """
    header, traces = trace.load(path)
    rows = _rows(path.with_name("episodes.csv"))
    if len(rows) != len(traces):
        raise AuditError(f"{path}: {len(traces)} traces, but episodes.csv has {len(rows)} rows")
    return Evaluation(path, header, traces, rows)


def audit_file(path: Path, lanes: int = 8, threads: int = 1) -> int:
    """Replay one `traces.npz`; return the number of episodes that agree, all of them.

    Raises:
        AuditError: naming file, episode, column, published and replayed value; or another ROM.
        ValueError: if a file is not readable.
    """
    evaluation = load(path)
    count = len(evaluation.traces)
    if not count:
        return 0
    env = evaluation.lanes(min(lanes, count), threads)
    for index, replayed in trace.replay(env, evaluation.traces):
        evaluation.compare(index, replayed)
    return count


def _evaluations(folder: Path) -> list[Path]:
    """Return the traces of the evaluations below `folder`, those too that are not there."""
    names = ("traces.npz", "episodes.csv")
    files = [file for name in names for file in folder.rglob(name)]
    # A study's own episodes.csv lies beside its runs and has no traces.
    return [f.with_name("traces.npz") for f in files if f.parent.parent.name == "evaluation"] + [
        f for f in files if f.name == "traces.npz"
    ]


def main(arguments: list[str] | None = None) -> int:
    """Audit everything below the paths; return 0 if all agrees, 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m agents.audit", description=__doc__)
    parser.add_argument(
        "paths", type=Path, nargs="+", help="a traces.npz, or a folder: all evaluations below it"
    )
    parser.add_argument(
        "--lanes", type=int, default=8, help="episodes replayed at once (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the emulator (%(default)s)")
    options = parser.parse_args(arguments)
    for key in ("lanes", "threads"):
        if getattr(options, key) < 1:
            print(f"error: {key}: {getattr(options, key)} must be at least 1", file=sys.stderr)
            return 1
    found: set[Path] = set()
    for path in options.paths:
        # An evaluation that has lost its traces is none that agrees.
        played = [path] if path.is_file() else _evaluations(path)
        if not played:
            print(f"error: no evaluation below {path}", file=sys.stderr)
            return 1
        found |= set(played)
    failures, episodes = [], 0
    for number, path in enumerate(sorted(found), 1):
        try:
            count = audit_file(path, options.lanes, options.threads)
        except (AuditError, ValueError, OSError) as error:
            failures.append(str(error))
            print(f"error: {error}", file=sys.stderr)
            continue
        episodes += count
        if len(found) > 1:
            print(f"{number} of {len(found)}: {path.parent}: {count} episodes", flush=True)
    print(
        f"audit: {len(found) - len(failures)} of {len(found)} evaluations agree, "
        f"{episodes} episodes replayed, ale-py {atari.version()}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
