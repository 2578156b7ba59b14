"""Replay published evaluation episodes: `python -m agents.audit PATH ...`.

Every `traces.npz` below the paths is replayed on the emulator, action by action, and compared
with the `episodes.csv` beside it. No network, no torch and no GPU are needed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from agents import atari, trace


class AuditError(Exception):
    """A replay that does not give what was published; the message names the episode."""


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise AuditError(f"{path}: missing beside its traces")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def audit_file(path: Path, lanes: int = 8, threads: int = 1) -> int:
    """Replay one `traces.npz`; return the number of episodes that agree, all of them.

    Raises:
        AuditError: naming file, episode, column, published and replayed value; or another ROM.
        ValueError: if a file is not readable.
    """
    header, traces = trace.load(path)
    rows = _rows(path.with_name("episodes.csv"))
    if len(rows) != len(traces):
        raise AuditError(f"{path}: {len(traces)} traces, but episodes.csv has {len(rows)} rows")
    if not traces:
        return 0
    game, protocol = atari.check_game(header["game"]), atari.protocol(header["protocol"])
    if header["rom_md5"] != atari.rom_md5(game):
        raise AuditError(
            f"{path}: played on ROM {header['rom_md5']} (ale-py {header['ale_py']}), "
            f"here {game} is {atari.rom_md5(game)} (ale-py {atari.version()})"
        )
    env = atari.AtariLanes(game, min(lanes, len(traces)), protocol, threads)
    for index, recorded in enumerate(traces):
        if not len(recorded.actions) or recorded.actions.max() >= env.actions:
            raise AuditError(
                f"{path}: episode {index}: no actions, or one that is not in 0..{env.actions - 1}"
            )
    for index, replayed in trace.replay(env, traces):
        row, found = (
            rows[index],
            {
                "method": str(header["method"]),
                "game": header["game"],
                "seed": str(header["seed"]),
                "milestone": str(header["milestone_frames"]),
                "protocol": header["protocol"],
                "episode": str(index),
                "episode_seed": str(traces[index].episode_seed),
                "return": str(replayed.episode_return),
                "length_frames": str(len(traces[index].actions) * atari.FRAMES_PER_STEP),
                "ended": replayed.ended,
            },
        )
        if replayed.steps != len(traces[index].actions):
            raise AuditError(
                f"{path}: episode {index}: ended after {replayed.steps} of "
                f"{len(traces[index].actions)} steps"
            )
        for column, value in found.items():
            if row.get(column) != value:
                raise AuditError(
                    f"{path}: episode {index}: {column} is {row.get(column)} in episodes.csv, "
                    f"{value} when replayed (ale-py {header['ale_py']} then, "
                    f"{atari.version()} now)"
                )
    return len(traces)


def main(arguments: list[str] | None = None) -> int:
    """Audit everything below the paths; return 0 if all agrees, 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m agents.audit", description=__doc__)
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    found = sorted(
        {
            file
            for path in options.paths
            for file in ([path] if path.is_file() else path.rglob("traces.npz"))
        }
    )
    if not found:
        print(f"error: no traces.npz below {', '.join(map(str, options.paths))}", file=sys.stderr)
        return 1
    failures, episodes = [], 0
    for path in found:
        try:
            episodes += audit_file(path, options.lanes, options.threads)
        except (AuditError, ValueError) as error:
            failures.append(str(error))
            print(f"error: {error}", file=sys.stderr)
    print(
        f"audit: {len(found) - len(failures)} of {len(found)} evaluations agree, "
        f"{episodes} episodes replayed, ale-py {atari.version()}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
