"""Train one run: `python -m agents.train --help`.

A run is (method, game, seed). It resumes by itself from its last checkpoint; its record is
written last, so a run that has one is whole.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from pathlib import Path

from agents import atari, checkpoint, machine
from agents.config import CPU_ONLY, MethodSettings, check_budget, load_method
from agents.processes import RestoreError
from agents.run import Run, RunSpec, check_folder


def choose_device(name: str, settings: MethodSettings) -> str:
    """Return "cpu" or "cuda"; `auto` takes the GPU where there is one and the method can use it."""
    if settings.topology not in CPU_ONLY:
        return machine.choose_device(name)
    if name == "cuda":
        raise ValueError(f"device: 'cuda'; topology {settings.topology} runs on: auto, cpu")
    return "cpu"


def frames(text: str) -> int:
    """Read a number of frames as studies have them: 1000000 or 1e6; `ValueError` on anything else.

    Its name is in what `argparse` says then.
    """
    number = float(text)
    if not number.is_integer():  # nor are nan and infinity
        raise ValueError(text)
    return int(number)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agents.train", description=__doc__)
    parser.add_argument("--method", type=Path, required=True, help="config/methods/NAME.yaml")
    parser.add_argument("--game", required=True, help="a game of config/games.csv")
    parser.add_argument("--seed", type=int, required=True, help="0 or more; all that is random")
    parser.add_argument(
        "--milestones-frames",
        type=frames,
        nargs="+",
        required=True,
        metavar="N",
        help="emulator frames at which a policy is kept, ascending; training ends at the last",
    )
    parser.add_argument(
        "--protocol", default="noop", help=f"{', '.join(atari.PROTOCOLS)} (%(default)s)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="auto: the GPU where there is one and the method can use it (%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="cores of the run, of A3C one a worker at most; Gorila counts its own (%(default)s)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=120,
        metavar="SECONDS",
        help="between two resume states (%(default)s)",
    )
    parser.add_argument(
        "--set", default="{}", help="settings to override, as JSON ({})", dest="sets"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the run's folder, results/STUDY/runs/METHOD/GAME/SEED",
    )
    return parser.parse_args(arguments)


def build_spec(options: argparse.Namespace) -> RunSpec:
    """Check the options; `ValueError` names key, value and what is allowed."""
    if options.seed < 0:
        raise ValueError(f"seed: {options.seed} must not be negative")
    if options.threads < 1:
        raise ValueError(f"threads: {options.threads} must be at least 1")
    if not options.checkpoint_seconds >= 0:  # nan is neither
        raise ValueError(f"checkpoint_seconds: {options.checkpoint_seconds} must be 0 or more")
    milestones = options.milestones_frames
    if milestones != sorted(set(milestones)) or milestones[0] <= 0:
        raise ValueError(f"milestones_frames: {milestones} must be positive and ascending")
    try:
        overrides = json.loads(options.sets)
    except json.JSONDecodeError as error:
        raise ValueError(f"--set: {options.sets!r} is not JSON ({error})") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"--set: expected a JSON object of settings, got {options.sets!r}")
    settings = load_method(options.method, overrides)
    check_budget(settings, milestones[-1])
    return RunSpec(
        settings,
        atari.check_game(options.game),
        options.seed,
        tuple(milestones),
        atari.protocol(options.protocol),
    )


def main(arguments: list[str] | None = None) -> int:
    """Train; return 0 when the record is written, 3 when stopped by a signal, 1 on bad input."""
    options = parse_arguments(arguments)
    try:
        spec = build_spec(options)
        device = choose_device(options.device, spec.settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        return train_exclusively(options, spec, device)
    except (checkpoint.ResumeError, RestoreError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def train_exclusively(options: argparse.Namespace, spec: RunSpec, device: str) -> int:
    """Train in `options.out` while nobody else does; return the exit status of `main`."""
    with checkpoint.exclusive(options.out):
        check_folder(spec, options.out)
        run = Run(spec, options.out, device, options.threads, options.checkpoint_seconds)
        attempts = options.out / "resume" / "attempts.log"

        def stop(*_: object) -> None:
            run.stopping = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, stop)
        try:
            try:
                run.build()
            except ValueError as error:  # settings or saved episodes that do not fit the game
                raise checkpoint.ResumeError(str(error)) from error
            append(attempts, f"{run.attempt_text()}\n")
            status = run.train()
            if status != "stopped":
                run.write_record(status)
            run.write_progress(status)
            append(attempts, f"{status} at {run.training.frames} frames\n")
        except BaseException:
            append(attempts, traceback.format_exc())
            raise
        finally:
            if run.training is not None:
                run.training.close()
    print(f"{spec.settings.method} {spec.game} seed {spec.seed}: {status}")
    return 3 if status == "stopped" else 0


def append(path: Path, text: str) -> None:
    """Add `text` to the log that outlives an attempt."""
    with path.open("a") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
