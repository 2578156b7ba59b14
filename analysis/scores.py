"""The result files of a study: their columns, how they are read, and what makes them refused.

`study.json` and `runs/` are written by the workflow and the trainer; `episodes.csv`, `runs.csv` and
`missing.csv` by `analysis.collect`; `aggregates.csv` by `analysis.aggregate`. Everything else in
`analysis` is a function of these files. Words: a run is (method, game, seed); a milestone is a
nominal number of training frames at which a policy is kept; a score is the mean return over the
evaluation episodes of one run at one milestone. Which policy a row reports, the one of its
milestone or the best up to there, is the study's `selection`; `run_scores` applies it, and
everything printed goes through that.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.normalise import normalise
from analysis.reference import references
from analysis.study import ResultsError, Study

EPISODE_COLUMNS = {
    "method": str,
    "game": str,
    "seed": int,
    "milestone": int,
    "frames": int,
    "protocol": str,
    "episode": int,
    "episode_seed": int,
    "return": float,
    "length_frames": int,
    "ended": str,
}
ENDED = ("terminated", "truncated")
RUN_COLUMNS = [
    "method",
    "game",
    "seed",
    "frames",
    "budget_frames",
    "seconds",
    "core_seconds",
    "frames_per_second",
    "peak_memory_bytes",
    "device",
    "cpu",
    "gpu",
    "network",
    "precision",
    "protocol",
    "commit",
    "dirty",
    "versions",
    "status",
    "reason",
    "version",
    "settings_hash",
    "milestones",
]
MISSING_COLUMNS = ["method", "game", "seed", "milestone", "reason"]
MISSING_REASONS = {
    "not_run": "no finished run",
    "not_reached": "the run ended before this milestone, with a smaller budget",
    "not_evaluated": "the policy has not been evaluated",
    "diverged": "the run diverged before this milestone",
    "incomplete_evaluation": "the evaluation holds fewer episodes than the study asks for",
}
AGGREGATE_COLUMNS = [
    "metric",
    "method",
    "milestone",
    "selection",
    "protocol",
    "rule",
    "games",
    "seeds",
    "point",
    "low",
    "high",
    "level",
    "reps",
    "rng_seed",
]


def load_episodes(results: Path) -> pd.DataFrame:
    """Return episodes.csv as `analysis.collect` wrote it, one row per evaluation episode."""
    return _read(results, "episodes.csv", list(EPISODE_COLUMNS), "collect")


def load_runs(results: Path) -> pd.DataFrame:
    """Return runs.csv, one row per finished or diverged run; empty cells are empty strings."""
    frame = _read(results, "runs.csv", RUN_COLUMNS, "collect")
    texts = ["device", "cpu", "gpu", "network", "precision", "commit", "reason", "milestones"]
    return frame.assign(**{name: frame[name].fillna("").astype(str) for name in texts})


def load_missing(results: Path) -> pd.DataFrame:
    """Return missing.csv: what the study asks for and `runs/` does not hold."""
    return _read(results, "missing.csv", MISSING_COLUMNS, "collect")


def load_aggregates(results: Path) -> pd.DataFrame:
    """Return aggregates.csv; low and high are NaN where one seed gives no interval."""
    return _read(results, "aggregates.csv", AGGREGATE_COLUMNS, "aggregate")


def _read(results: Path, name: str, columns: list[str], module: str) -> pd.DataFrame:
    path = Path(results) / name
    if not path.exists():
        raise ResultsError(f"{path}: there is no such file; python -m analysis.{module} writes it")
    frame = pd.read_csv(path)
    if list(frame.columns) != columns:
        raise ResultsError(
            f"{path}: columns are {','.join(frame.columns)}; expected {','.join(columns)}"
        )
    return frame


def run_scores(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and milestone with its score, raw and normalised.

    Columns: method, milestone, game, seed, frames (really trained at the milestone), episodes,
    score (points, mean return), selected (milestone of the policy that has this score) and
    normalised (fraction: 0 is the random reference, 1 the human one). The study's external scores
    are among the rows, at its last milestone, as runs with 0 episodes here.

    Where the study selects the `best` policy, score is the highest of the run's scores at this
    milestone and the ones before, in points; of equal ones the earliest is selected. It was
    selected by the episodes that it is reported on, so it is biased upwards.

    Raises:
        ResultsError: for a return that is not finite; the message names method, game and seed.
    """
    bad = ~np.isfinite(episodes["return"].astype(float))
    if bad.any():
        row = episodes[bad].iloc[0]
        raise ResultsError(
            f"return of {row['method']} / {row['game']} / seed {row['seed']}, episode "
            f"{row['episode']}: {row['return']} is not a finite number"
        )
    grouped = episodes.groupby(["method", "milestone", "game", "seed"], sort=True)
    scores = grouped.agg(
        frames=("frames", "first"), episodes=("return", "size"), score=("return", "mean")
    ).reset_index()
    scores = _select(study, scores)
    if study.external:
        scores = pd.concat([scores, _external_scores(study)], ignore_index=True)
    table = references(study.references, study.games).set_index("game")
    if scores.empty:
        return scores.assign(normalised=pd.Series(dtype=float))
    random, human = (table[name].reindex(scores["game"]).to_numpy() for name in ("random", "human"))
    percent = normalise(scores["score"], random, human, study.rule, scores["game"])
    return scores.assign(normalised=percent / 100.0)


def _external_scores(study: Study) -> pd.DataFrame:
    last = study.milestones_frames[-1]
    rows = [
        (method, last, game, seed, external.frames, 0, external.scores[game][seed], last)
        for method, external in study.external.items()
        for game in study.games
        for seed in external.seeds
    ]
    columns = ["method", "milestone", "game", "seed", "frames", "episodes", "score", "selected"]
    return pd.DataFrame(rows, columns=columns)


def _select(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    scores = scores.assign(selected=scores["milestone"])
    best = scores["method"].map(study.selection_of) == "best"
    for _, run in scores[best].groupby(["method", "game", "seed"]):
        run = run.sort_values("milestone")
        first_best = [run["score"].iloc[: end + 1].idxmax() for end in range(len(run))]
        scores.loc[run.index, "score"] = run.loc[first_best, "score"].to_numpy()
        scores.loc[run.index, "selected"] = run.loc[first_best, "milestone"].to_numpy()
    return scores


def complete_seeds(study: Study, scores: pd.DataFrame, method: str, milestone: int) -> list[int]:
    """Return the seeds of `method` that have a score in every game of the study at `milestone`.

    This is the rule by which an incomplete study is aggregated: whole seeds leave, games never do,
    so that every number of a table is over the same games. Nothing is imputed.
    """
    rows = scores[(scores["method"] == method) & (scores["milestone"] == milestone)]
    games = rows.groupby("seed")["game"].nunique().to_dict()
    return [seed for seed in study.seeds_of(method) if games.get(seed, 0) == len(study.games)]


def score_matrix(study: Study, scores: pd.DataFrame, method: str, milestone: int) -> np.ndarray:
    """Return the normalised scores of `complete_seeds`, [seeds, games], fractions."""
    rows = scores[(scores["method"] == method) & (scores["milestone"] == milestone)]
    seeds = complete_seeds(study, scores, method, milestone)
    wide = rows.pivot(index="seed", columns="game", values="normalised")
    return wide.reindex(index=seeds, columns=study.games).to_numpy(dtype=float)


def command(
    module: str, description: str, work: Callable[[Path], str], arguments: list[str] | None
) -> int:
    """Run `work` on the folder named by --results; bad input ends with one message and status 1."""
    parser = argparse.ArgumentParser(prog=f"python -m analysis.{module}", description=description)
    parser.add_argument("--results", type=Path, required=True, help="folder of one study")
    results = parser.parse_args(arguments).results
    try:
        print(work(results))
    except (ResultsError, ValueError, OSError) as error:
        print(f"analysis.{module}: {error}", file=sys.stderr)
        return 1
    return 0
