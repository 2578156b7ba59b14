"""A3C by the number of workers: `python -m benchmarks.scaling`; after Table 2 of Mnih et al. 2016.

Trains A3C-FF with 1, 2, 4, 8 and 16 workers for the same number of frames on all cores and writes
frames per second and score, with the paper's speed-ups beside them. The paper had 16 cores and
timed the way to a score; with fewer cores than workers, those of a core act in one batch.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from agents import files, provenance
from analysis import plot_style

ROOT = Path(__file__).resolve().parents[1]
WORKERS = (1, 2, 4, 8, 16)
# Mean speed-up of A3C over seven games by threads: Mnih et al. 2016, table 2.
PUBLISHED_SPEEDUP = {1: 1.0, 2: 2.1, 4: 3.7, 8: 6.9, 16: 12.5}
SETTINGS = {"network": "mnih2013", "learning_rate_schedule": "constant"}
RECENT_EPISODES = 50


def train(workers: int, game: str, frames: int, seed: int) -> dict[str, Any]:
    """Train once in a folder that goes away; return speed, cost and score."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "agents.train", "--method", "config/methods/a3c_ff.yaml"]
        command += ["--game", game, "--seed", str(seed), "--milestones-frames", str(frames)]
        command += ["--set", json.dumps(SETTINGS | {"workers": workers}), "--out", folder]
        command += ["--threads", str(len(os.sched_getaffinity(0)))]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        record = json.loads((Path(folder) / "run.json").read_text())
        with (Path(folder) / "training_episodes.csv").open(newline="") as file:
            returns = [float(row["return"]) for row in csv.DictReader(file)][-RECENT_EPISODES:]
    return {
        "workers": workers,
        "seed": seed,
        "frames": record["frames"],
        "frames_per_second": record["frames_per_second"],
        "core_seconds": record["core_seconds"],
        "peak_memory_bytes": record["peak_memory_bytes"],
        "episodes": len(returns),
        "score": mean(returns) if returns else None,
        "score_standard_error": stdev(returns) / len(returns) ** 0.5 if len(returns) > 1 else None,
    }


def markdown(report: dict[str, Any]) -> str:
    """The table of the runs."""
    first = report["runs"][0]["frames_per_second"]
    lines = [
        "| workers | frames/s | speed-up | paper's, 16 cores | last "
        f"{RECENT_EPISODES} training episodes, mean ± SE | peak memory, MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for run in report["runs"]:
        score = "" if run["score"] is None else f"{run['score']:,.1f}"
        if run["score_standard_error"] is not None:
            score += f" ± {run['score_standard_error']:,.1f}"
        lines.append(
            f"| {run['workers']} | {run['frames_per_second']:,.0f} "
            f"| {run['frames_per_second'] / first:.2f} | {PUBLISHED_SPEEDUP[run['workers']]} "
            f"| {score} | {run['peak_memory_bytes'] / 1e6:,.0f} |"
        )
    lines += [
        "",
        f"A3C-FF, {report['game']}, {report['frames']:,} frames, one seed, small network, one lane "
        f"a worker; {report['cpu']}; {report['date']}; commit {report['commit'][:7]}. The paper's "
        "column is the time to a reference score, ours the frames per second.",
        "",
    ]
    return "\n".join(lines)


def draw(report: dict[str, Any]) -> Figure:
    """Speed-up and score by the number of workers, side by side."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    speed, score = figure.subplots(1, 2)
    runs = report["runs"]
    workers = [run["workers"] for run in runs]
    first = runs[0]["frames_per_second"]
    look = dict(zip(("color", "marker", "linestyle"), plot_style.STYLES["a3c_ff"], strict=True))
    speed.plot(
        workers,
        [run["frames_per_second"] / first for run in runs],
        label=f"frames/s here, {report['cores']} cores",
        **look,
    )
    speed.plot(
        list(PUBLISHED_SPEEDUP),
        list(PUBLISHED_SPEEDUP.values()),
        color="#6b737c",
        linestyle=":",
        marker="o",
        label="time to a score, Mnih et al. 2016, 16 cores",
    )
    speed.set(yscale="log", ylim=(0.85, 45), xlabel="workers", title="Speed-up over one worker")
    speed.legend(loc="upper left")
    scored = [run for run in runs if run["score"] is not None]
    score.errorbar(
        [run["workers"] for run in scored],
        [run["score"] for run in scored],
        [run["score_standard_error"] or 0 for run in scored],
        capsize=3,
        **look,
    )
    score.set(
        xlabel="workers",
        title=f"Return after {report['frames']:,} frames, ± SE",
    )
    for axes in (speed, score):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(list(WORKERS)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    speed.yaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16]))
    speed.yaxis.set_major_formatter(ScalarFormatter())
    speed.yaxis.set_minor_locator(NullLocator())
    return figure


def main() -> int:
    """Train, and write scaling.json, scaling.md and the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--game", default="kung_fu_master", help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=300_000, help="of each run (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of each run (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "benchmarks", help="folder (%(default)s)"
    )
    options = parser.parse_args()
    runs = []
    for workers in WORKERS:
        runs.append(train(workers, options.game, options.frames, options.seed))
        print(f"{workers} workers: {runs[-1]['frames_per_second']:,.0f} frames/s", flush=True)
    cores = len(os.sched_getaffinity(0))
    report = {
        "game": options.game,
        "frames": options.frames,
        "cpu": f"{cores} cores of {provenance.cpu_name()}",
        "cores": cores,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": provenance.commit()[0],
        "versions": provenance.versions(),
        "runs": runs,
    }
    files.write_json(options.out / "scaling.json", report)
    files.write_text(options.out / "scaling.md", markdown(report))
    with plot_style.theme():
        plot_style.save(draw(report), options.out, "scaling")
    print(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
