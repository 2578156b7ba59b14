"""Does bfloat16 lose learning? `python -m benchmarks.precision`: A2C in both, one figure.

Reads two published studies that differ in `precision` alone, and trains nothing. Writes the
training curves (mean of the last 100 episodes, every seed a line) and the evaluation scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from agents import files
from agents.config import LockstepSettings
from analysis import plot_style

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ("pong_float32", "pong")
METHOD, GAME = "a2c", "pong"
WINDOW_EPISODES = 100
# Settings that came after a run's record, as they were before.
SINCE = {
    field.name: field.metadata["earlier"]
    for field in dataclasses.fields(LockstepSettings)
    if "earlier" in field.metadata
}
STYLES = {"float32": ("#D55E00", "-"), "bfloat16": ("#009E73", "-.")}


def recent_returns(path: Path) -> pd.DataFrame:
    """Return columns `frames` and `recent_return`, the mean of the last 100 returns, of a log.

    Rows begin where a hundred episodes have ended.
    """
    log = pd.read_csv(path)
    recent = log["return"].rolling(WINDOW_EPISODES).mean()
    return pd.DataFrame({"frames": log["frames"], "recent_return": recent}).dropna()


def load(results: Path) -> list[dict[str, Any]]:
    """Return the runs of both studies: precision, seed, settings, curve and evaluations.

    `ValueError` where a precision has no run, or the runs differ in more than their precision.
    """
    runs = []
    for folder in sorted(
        path for study in STUDIES for path in (results / study / "runs" / METHOD / GAME).glob("*")
    ):
        record = json.loads((folder / "run.json").read_text())
        evaluations = {}
        for episodes in folder.glob("evaluation/*/episodes.csv"):
            returns = pd.read_csv(episodes)["return"]
            evaluations[int(episodes.parent.name)] = (returns.mean(), returns.sem())
        runs.append(
            {
                "precision": record["precision"],
                "seed": record["seed"],
                "settings": SINCE | record["settings"],
                "commit": record["commit"],
                "curve": recent_returns(folder / "training_episodes.csv"),
                "evaluations": evaluations,
            }
        )
    if lacking := sorted(set(STYLES) - {run["precision"] for run in runs}):
        raise ValueError(
            f"results: {results} has no run of {METHOD} on {GAME} in {' or '.join(lacking)}; "
            f"expected in the studies {', '.join(STUDIES)}"
        )
    others = [{k: v for k, v in run["settings"].items() if k != "precision"} for run in runs]
    for run, other in zip(runs, others, strict=True):
        different = sorted(k for k in other | others[0] if other.get(k) != others[0].get(k))
        if different:
            raise ValueError(
                f"{METHOD} {GAME} seed {run['seed']}, {run['precision']}: {', '.join(different)} "
                "differ too; allowed: precision alone"
            )
    return sorted(runs, key=lambda run: (run["precision"], run["seed"]))


def markdown(runs: list[dict[str, Any]], milestone_frames: int) -> str:
    """The table of the runs at `milestone_frames`; `ValueError` where one has no evaluation."""
    for run in runs:
        if milestone_frames not in run["evaluations"]:
            raise ValueError(
                f"milestone_frames: {milestone_frames}: seed {run['seed']}, {run['precision']} "
                f"has no evaluation there; allowed: {', '.join(map(str, run['evaluations']))}"
            )
    million = f"{milestone_frames / 1e6:g}M"
    lines = [
        f"| precision | seed | last {WINDOW_EPISODES} training episodes at {million} frames "
        f"| evaluation at {million}, mean ± SE | commit |",
        "|---|---:|---:|---:|---|",
    ]
    for run in runs:
        curve = run["curve"]
        trained = curve[curve["frames"] <= milestone_frames]["recent_return"].iloc[-1]
        score, error = run["evaluations"][milestone_frames]
        lines.append(
            f"| {run['precision']} | {run['seed']} | {trained:.1f} | {score:.1f} ± {error:.1f} "
            f"| {run['commit'][:7]} |"
        )
    seeds = {p: sum(run["precision"] == p for run in runs) for p in STYLES}
    lines += [
        "",
        f"A2C, Pong, small network, the same settings but for the precision; {seeds['float32']} "
        f"of float32, {seeds['bfloat16']} of bfloat16: the seeds of bfloat16 show how far runs "
        "differ by chance.",
        "",
    ]
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], limit_frames: int) -> Figure:
    """All curves in one panel, a colour for each precision."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    named = set()
    for run in runs:
        color, line = STYLES[run["precision"]]
        label = None if run["precision"] in named else run["precision"]
        named.add(run["precision"])
        curve = run["curve"][run["curve"]["frames"] <= limit_frames]
        axes.plot(
            curve["frames"] / 1e6, curve["recent_return"], color=color, linestyle=line, label=label
        )
    axes.set(
        xlabel="frames, millions",
        ylabel=f"return, mean of {WINDOW_EPISODES} episodes",
        title="A2C on Pong, each line one seed",
        xlim=(0, limit_frames / 1e6),
    )
    axes.legend(loc="upper left")
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Read, check, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "results" / "published",
        help="folder of the studies pong and pong_float32 (%(default)s)",
    )
    parser.add_argument(
        "--milestone-frames", type=int, default=10_000_000, help="to compare at (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "benchmarks", help="folder (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        runs = load(options.results)
        text = markdown(runs, options.milestone_frames)
    except ValueError as error:
        parser.error(str(error))
    files.write_text(options.out / "precision.md", text)
    with plot_style.theme():
        plot_style.save(draw(runs, options.milestone_frames), options.out, "precision")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
