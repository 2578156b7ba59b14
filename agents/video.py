"""Show a published episode: `python -m agents.video EVALUATION --episode 3 --out breakout.gif`.

Its actions are played again on an emulator that shows its screen in colour; every decision is a
picture, at the speed of the game. Like the audit, it needs neither the policy nor torch, and an
episode whose return, length or end is not the published one is an error.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agents import atari, audit, files, trace

FRAMES_PER_SECOND = 60
# Formats that Pillow animates: the least time that each can tell, milliseconds, and how to save.
FORMATS = {
    ".gif": (10, {}),
    ".webp": (1, {"lossless": True}),
    ".png": (1, {}),
}
MAX_FRAMES = 7200


class Camera:
    """One lane that keeps the pictures of the emulator frames `first` to `last`.

    Attributes:
        pictures: the screen at the start of the episode and after each decision, uint8
            [210, 160, 3], of those within.
    """

    lanes = 1

    def __init__(self, env: atari.AtariLanes, first: int, last: int) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self._env = env
        self._window = first, last
        self._frame = 0

    def _take(self, observation: NDArray[np.uint8]) -> None:
        first, last = self._window
        if first <= self._frame <= last:
            self.pictures.append(observation[0, 0].copy())

    def reset(self, mask: NDArray[np.bool_], seeds: list[int]) -> NDArray[np.uint8]:
        """Start the episode."""
        observation = self._env.reset(mask, seeds)
        self._take(observation)
        return observation

    def step(self, actions: NDArray[np.int64]) -> atari.Step:
        """Play one decision."""
        step = self._env.step(actions)
        self._frame += atari.FRAMES_PER_STEP
        self._take(step.observation)
        return step


def film(
    evaluation: audit.Evaluation, episode: int, first_frame: int, frames: int
) -> tuple[trace.Replayed, list[NDArray[np.uint8]]]:
    """Replay one episode to its end; return what it gave and the pictures of the part asked for.

    Raises:
        AuditError: if it is not the episode that was published.
        ValueError: for an episode or a first frame that is not there.
    """
    count = len(evaluation.traces)
    if not 0 <= episode < count:
        raise ValueError(f"episode: {episode} is not there; allowed: 0 to {count - 1}")
    recorded = evaluation.traces[episode]
    length = len(recorded.actions) * atari.FRAMES_PER_STEP
    if not 0 <= first_frame <= length:
        raise ValueError(
            f"first_frame: {first_frame} is not in episode {episode}; allowed: 0 to {length}"
        )
    camera = Camera(evaluation.lanes(1, screen=True), first_frame, first_frame + frames)
    _, replayed = next(trace.replay(camera, [recorded]))
    evaluation.compare(episode, replayed)
    return replayed, camera.pictures


def animation(pictures: list[NDArray[np.uint8]], suffix: str, scale: int) -> bytes:
    """Return `pictures` [210, 160, 3] as an animation, each side `scale` times as long.

    Every picture stays for the time of one decision, as exactly as the format can tell.
    """
    tick, how = FORMATS[suffix]
    decision = 1000 * atari.FRAMES_PER_STEP / FRAMES_PER_SECOND
    ends = np.round(np.arange(len(pictures) + 1) * decision / tick) * tick
    height, width = (scale * side for side in atari.SCREEN_SHAPE[:2])
    images = (  # one by one: a minute of them would be 400 MB
        Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
        for picture in pictures
    )
    buffer = io.BytesIO()
    options: dict[str, Any] = {"duration": np.diff(ends).astype(int).tolist(), "loop": 0, **how}
    first, rest = next(images), images
    if suffix == ".png":
        rest = list(images)  # Pillow wants to know how many there are
    first.save(buffer, suffix[1:].upper(), save_all=True, append_images=rest, **options)
    return buffer.getvalue()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agents.video", description=__doc__)
    parser.add_argument(
        "evaluation",
        type=Path,
        metavar="EVALUATION",
        help="a folder METHOD/GAME/SEED/evaluation/FRAMES, with traces.npz and episodes.csv",
    )
    parser.add_argument("--episode", type=int, default=0, help="its number (%(default)s)")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"file to write: {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "--first-frame", type=int, default=0, help="of the emulator, to begin with (%(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=MAX_FRAMES,
        help="of the emulator, to show at most, 60 a second (%(default)s)",
    )
    parser.add_argument(
        "--scale", type=int, default=2, help="times the screen's 160 x 210 pixels (%(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Write the animation; return 0, or 1 if the episode is not there or not the published one."""
    options = parse_arguments(arguments)
    try:
        suffix = options.out.suffix.lower()
        if suffix not in FORMATS:
            raise ValueError(f"out: {options.out} must end in one of {', '.join(FORMATS)}")
        for key, least in (("frames", atari.FRAMES_PER_STEP), ("scale", 1)):
            if getattr(options, key) < least:
                raise ValueError(f"{key}: {getattr(options, key)} must be at least {least}")
        path = options.evaluation / "traces.npz"
        if not path.exists():
            raise ValueError(
                f"EVALUATION: {path} does not exist: a folder "
                "results/STUDY/runs/METHOD/GAME/SEED/evaluation/FRAMES"
            )
        evaluation = audit.load(path)
        replayed, pictures = film(evaluation, options.episode, options.first_frame, options.frames)
        files.write_bytes(options.out, animation(pictures, suffix, options.scale))
    except (audit.AuditError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    header, shown = evaluation.header, (len(pictures) - 1) * atari.FRAMES_PER_STEP
    print(
        f"{options.out}: {header['method']}, {header['game']}, seed {header['seed']} at "
        f"{header['milestone_frames']} frames, episode {options.episode} of "
        f"{len(evaluation.traces)}: return {replayed.episode_return} after "
        f"{replayed.steps * atari.FRAMES_PER_STEP} frames, as published; {shown} of them shown"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
