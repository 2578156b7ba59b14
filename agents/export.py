"""Write finished runs' last policies in half precision: `python -m agents.export --help`.

A policy then is half as large, small enough to publish, and `agents.evaluate` plays it as it is.
Its weights are rounded (relative error up to 2^-11, more below 6e-5), so it plays nearly, not
exactly, as the policy whose episodes were recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from agents import checkpoint

MAX_BYTES = 2_000_000


def halved(policy: dict[str, Any]) -> dict[str, Any]:
    """Return `policy` with its weights in float16 and all else as it is.

    Raises:
        ValueError: for a weight that float16 cannot hold: above 65504, or not finite.
    """
    weights = {name: value.half() for name, value in policy["weights"].items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"weights: {name} has a value that half precision cannot hold")
    return policy | {"weights": weights}


def export(run: Path, out: Path, max_bytes: int = MAX_BYTES) -> str:
    """Write the policy of a run's last milestone below `out`; return what was done, one line.

    It gets the same name below `out` as below `run`, next to where `run.json` belongs. A run that
    is not finished has none, and a file above `max_bytes` is not written.
    """
    if not (run / "run.json").exists():
        raise ValueError(
            f"RUN: {run / 'run.json'} does not exist: METHOD/GAME/SEED of a finished run "
            "below --results, which is results/STUDY/runs"
        )
    record = json.loads((run / "run.json").read_text())
    if record["status"] != "finished":
        return f"{run}: {record['status']}, no policy"
    last = max(record["milestones"], key=lambda milestone: milestone["milestone_frames"])
    source, target = run / last["policy"], out / last["policy"]
    if source.resolve() == target.resolve():
        raise ValueError(f"out: {target} is the policy itself; allowed: another folder")
    if not source.exists():
        return f"{run}: {source.name} is not there, no policy"
    checkpoint.save(target, halved(checkpoint.load(source)))
    size = target.stat().st_size
    if size > max_bytes:
        target.unlink()
        return f"{run}: {size:,} bytes in half precision, above {max_bytes:,}: no policy"
    return f"{target}: {size:,} bytes"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agents.export", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="METHOD/GAME/SEED")
    parser.add_argument(
        "--results", type=Path, required=True, help="results/STUDY/runs, the folder of all runs"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for METHOD/GAME/SEED/...")
    parser.add_argument(
        "--max-bytes", type=int, default=MAX_BYTES, help="of one policy (%(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Export every run named; return 0, or 1 for a run or policy that cannot be read."""
    options = parse_arguments(arguments)
    try:
        for run in options.runs:
            if run.is_absolute():
                raise ValueError(f"RUN: {run} must be relative to --results: METHOD/GAME/SEED")
            print(export(options.results / run, options.out / run, options.max_bytes))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
