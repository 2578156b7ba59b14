"""A made-up study on disk, in the shape the trainer and the evaluator write: input for the tests.

Nothing in it was trained. Returns rise from the random reference towards a fraction of the human
one that differs between methods; a seeded generator makes the same files every time.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.reference import load_games, references
from analysis.scores import EPISODE_COLUMNS
from analysis.study import METHODS, UNTRAINED

LEVELS = dict(zip(METHODS, (0.0, 0.1, 0.25, 0.5, 0.7, 0.75, 0.9, 0.95, 1.1, 0.8, 1.0), strict=True))
TRAINED = [method for method in METHODS if method != UNTRAINED]
SECONDS_PER_FRAME = {
    UNTRAINED: 1.0e-4,
    **dict(zip(TRAINED, np.linspace(2.0e-4, 5.0e-4, len(TRAINED)), strict=True)),
}


def study_json(**changes: Any) -> dict[str, Any]:
    """Return a small valid study.json; `changes` replace its keys."""
    study = {
        "study": "synthetic",
        "label": "Synthetic study, nothing in it was trained.",
        "games": ["pong", "breakout"],
        "methods": ["reinforce", "a2c"],
        "seeds": [0, 1, 2],
        "milestones_frames": [400_000, 1_000_000],
        "protocol": "noop",
        "device": "auto",
        "checkpoint_seconds": 120,
        "overrides": {"all": {"network": "mnih2013"}, "a2c": {"lanes": 8}},
        "evaluation": {"episodes": 4, "action_selection": "sample", "seed": 1000},
        "normalisation": {"references": "noop_starts", "rule": "plain"},
        "statistics": {"reps": 200, "level": 0.95, "rng_seed": 0},
        "incomplete": "refuse",
    } | changes
    study["method_files"] = {
        method: {
            "label": METHODS[method],
            "text": (
                f"# {METHODS[method]}\nlabel: {METHODS[method]}\nnetwork: nature\n"
                "gamma: 0.99  # per decision\n"
                "epsilon: 1.0e-5  # inside the root   deviates: the paper does not give it\n"
                "lanes: 16  # deviates: no\n"
            ),
            "settings": {"network": "nature", "gamma": 0.99, "epsilon": 1e-5, "lanes": 16},
        }
        for method in study["methods"]
    }
    return study


def write_study(results: Path, **changes: Any) -> Path:
    """Write study.json and a finished run for every method, game and seed; return `results`."""
    study = study_json(**changes)
    results.mkdir(parents=True, exist_ok=True)
    (results / "study.json").write_text(json.dumps(study, indent=2))
    table = references("noop_starts", study["games"]).set_index("game")
    games = load_games().set_index("game")
    for method in study["methods"]:
        for game in study["games"]:
            for seed in study["seeds"]:
                _write_run(results, study, method, game, seed, table.loc[game], games.loc[game])
    return results


def run_folder(results: Path, method: str, game: str, seed: int) -> Path:
    """Return the folder of one run."""
    return results / "runs" / method / game / str(seed)


def _write_run(
    results: Path, study: dict, method: str, game: str, seed: int, reference: Any, bounds: Any
) -> None:
    budget = study["milestones_frames"][-1]
    rng = np.random.default_rng([sorted(METHODS).index(method), *game.encode(), seed])
    pace = SECONDS_PER_FRAME[method] * rng.uniform(0.9, 1.1)
    level = LEVELS[method] * rng.uniform(0.8, 1.2)
    span = reference["human"] - reference["random"]

    def episode_return(share: float) -> float:
        value = reference["random"] + span * (level * share + rng.normal(0, 0.05))
        low, high = np.nan_to_num([bounds["score_min"], bounds["score_max"]], nan=np.nan)
        value = value if np.isnan(low) else max(value, low)
        value = value if np.isnan(high) else min(value, high)
        return float(np.round(value))

    folder = run_folder(results, method, game, seed)
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.sort(rng.integers(4_000, budget, size=60))
    with (folder / "training_episodes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frames", "seconds", "lane", "episode_seed", "return", "length_frames"])
        for number, at in enumerate(frames):
            share = 1 / (1 + np.exp(-8 * (at / budget - 0.5)))
            writer.writerow(
                [at, f"{at * pace:.3f}", number % 16, number, episode_return(share), 4_000]
            )
    trained = {milestone: milestone + 320 for milestone in study["milestones_frames"]}
    for milestone in study["milestones_frames"]:
        share = 1 / (1 + np.exp(-8 * (milestone / budget - 0.5)))
        rows = [
            [method, game, seed, milestone, trained[milestone], study["protocol"], number,
             1_000_000 * (seed + 1) + number, episode_return(share), 8_000 + number, "terminated"]
            for number in range(study["evaluation"]["episodes"])
        ]  # fmt: skip
        write_evaluation(folder, milestone, rows)
    seconds = float(np.round(trained[budget] * pace, 3))
    settings = study["method_files"][method]["settings"] | study["overrides"].get("all", {})
    settings |= study["overrides"].get(method, {})
    write_record(
        folder,
        {
            "method": method,
            "label": METHODS[method],
            "game": game,
            "seed": seed,
            "frames": trained[budget],
            "budget_frames": budget,
            "seconds": seconds,
            "core_seconds": round(1.5 * seconds, 3),
            "frames_per_second": round(trained[budget] / seconds, 1),
            "device": "cpu",
            "cpu": "Example CPU, 2 cores",
            "gpu": None,
            "threads": 1,
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "versions": {"ale-py": "0.12.1", "torch": "2.13.0", "python": "3.11.7"},
            "status": "finished",
            "reason": None,
            "settings_hash": f"{method}-hash",
            "spec_hash": f"{method}-{game}-{seed}",
            "version": 1,
            "network": settings["network"],
            "precision": "fp32",
            "protocol": study["protocol"],
            "peak_memory_bytes": 512 * 2**20,
            "attempts": 1,
            "milestones": [
                {
                    "milestone_frames": milestone,
                    "frames": trained[milestone],
                    "seconds": float(np.round(trained[milestone] * pace, 3)),
                    "policy": f"policies/{milestone}.pt",
                }
                for milestone in study["milestones_frames"]
            ],
            "settings": settings,
            "started_at": 1_700_000_000,
            "finished_at": 1_700_000_000 + seconds,
        },
    )


def write_evaluation(folder: Path, milestone: int, rows: list[list[Any]]) -> None:
    """Write evaluation/<milestone>/episodes.csv of a run."""
    path = folder / "evaluation" / str(milestone) / "episodes.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(EPISODE_COLUMNS)
        writer.writerows(rows)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json of a run."""
    (folder / "run.json").write_text(json.dumps(record, indent=2))


def change_record(folder: Path, **changes: Any) -> None:
    """Replace keys of a run's run.json."""
    record = json.loads((folder / "run.json").read_text())
    write_record(folder, record | changes)


def change_cell(folder: Path, milestone: int, row: int, column: str, value: Any) -> None:
    """Replace one cell of a run's evaluation episodes."""
    path = folder / "evaluation" / str(milestone) / "episodes.csv"
    with path.open(newline="") as stream:
        lines = list(csv.reader(stream))
    lines[1 + row][list(EPISODE_COLUMNS).index(column)] = str(value)
    write_evaluation(folder, milestone, lines[1:])


def untrain(folder: Path) -> None:
    """Make a run one of random play: no frames, no log, the same episodes at every milestone."""
    record = json.loads((folder / "run.json").read_text())
    milestones = [m | {"frames": 0, "seconds": 0.1} for m in record["milestones"]]
    settings = {"method": UNTRAINED, "label": "Random", "version": 1, "topology": "random"}
    change_record(
        folder, frames=0, frames_per_second=0.0, milestones=milestones, settings=settings,
        network="none", precision="none",
    )  # fmt: skip
    log = folder / "training_episodes.csv"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    first = milestones[0]["milestone_frames"]
    for milestone in milestones:
        at = milestone["milestone_frames"]
        with (folder / "evaluation" / str(first) / "episodes.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        changed = [row | {"milestone": at, "frames": 0} for row in rows]
        write_evaluation(folder, at, [list(row.values()) for row in changed])


def diverge(folder: Path, at_frames: int) -> None:
    """Make a run one that stopped being finite at `at_frames`; later milestones have no episode."""
    record = json.loads((folder / "run.json").read_text())
    kept = [m for m in record["milestones"] if m["frames"] <= at_frames]
    for milestone in record["milestones"]:
        if milestone not in kept:
            write_evaluation(folder, milestone["milestone_frames"], [])
    change_record(
        folder,
        status="diverged",
        reason=f"loss is nan at {at_frames} frames",
        frames=at_frames,
        milestones=kept,
    )
