"""Aggregate scores with intervals: the only importer of rliable.

`python -m analysis.aggregate --results results/STUDY` reads study.json, episodes.csv and
missing.csv and writes aggregates.csv. Scores are human-normalised fractions (0 random, 1 human);
a method's matrix is [seeds, games]. Intervals come from rliable's stratified bootstrap: seeds are
drawn with replacement within each game, and the interval is the percentile one.

Rows: `mean`, `median`, `iqm` and `optimality_gap` for each method and milestone; where the study
has its five games `atari5`, the estimate of the 57-game median (`analysis.atari5`); at the last
milestone also `probability_of_improvement:<other>` (that a run of the method scores above one of
the other, ties counted half, averaged over games) and `performance_profile:<tau>` (the share of
runs and games with a score above tau).

An incomplete games x seeds matrix is refused, unless the study says `incomplete: list`: then a
method is aggregated over the seeds that have every game of the study, and a method without such a
seed has no row. Games are never left out and nothing is imputed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from rliable import library, metrics

from analysis import atari5
from analysis.io import write_csv
from analysis.scores import (
    AGGREGATE_COLUMNS,
    MISSING_REASONS,
    command,
    load_episodes,
    load_missing,
    run_scores,
    score_matrix,
)
from analysis.study import ResultsError, Study, load_study


def interquartile_mean(matrix: np.ndarray) -> float:
    """Return the mean of the middle half of the scores in `matrix` [seeds, games].

    A score that the edge of the middle half cuts counts in part. rliable's `aggregate_iqm` rounds
    the quarters it cuts off down to whole scores, which keeps 5 of 7 and 8 of 14: methods with
    different numbers of seeds would not compare. Equal to it where 4 divides the number of scores.
    """
    ordered = np.sort(matrix, axis=None)
    count = ordered.size
    edges = np.arange(count + 1).clip(count / 4, 3 * count / 4)
    return float(np.diff(edges) @ ordered / (count / 2))


AGGREGATES = {
    "mean": metrics.aggregate_mean,
    "median": metrics.aggregate_median,
    "iqm": interquartile_mean,
    "optimality_gap": metrics.aggregate_optimality_gap,
}
PROFILE_ENDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
PROFILE_POINTS = 100


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator inside the block and restore it after.

    rliable 1.2.0 accepts a `random_state` and does not use it: it draws from the global generator.
    """
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def point_estimates(matrix: np.ndarray) -> np.ndarray:
    """Return mean, median, IQM and optimality gap of `matrix` [seeds, games]: [4].

    mean and median are taken over the games' means over seeds, the IQM is that of all runs
    (`interquartile_mean`), and the optimality gap is the mean shortfall below human level,
    1 - mean(min(score, 1)). Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.
    """
    return np.array([metric(matrix) for metric in AGGREGATES.values()])


def performance_profile(matrix: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Return the share of the scores in `matrix` [seeds, games] above each of `taus`: [taus]."""
    ordered = np.sort(matrix, axis=None)
    return (ordered.size - np.searchsorted(ordered, taus, side="right")) / ordered.size


def probability_of_improvement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return P(one > other) + P(one = other) / 2 over pairs of seeds, mean over games: [1].

    `one` is [seeds, games], `other` [other seeds, games]. Equal to rliable's function of this name,
    which calls a rank test per game: too slow for 57 games and 50,000 repetitions.
    """
    difference = one[:, None, :] - other[None, :, :]  # [seeds, other seeds, games]
    return np.array([np.mean((np.sign(difference) + 1.0) / 2.0)])


def intervals(
    scores: np.ndarray | list[np.ndarray],
    function: Callable[..., np.ndarray],
    reps: int,
    level: float,
    rng_seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return point, low and high of `function`, each [values]; low and high NaN for one seed.

    Args:
        scores: one matrix [seeds, games], or two for a comparison; fractions.
        function: from the matrices to a vector [values].
        reps: bootstrap repetitions.
        level: coverage of the interval, 0 to 1.
        rng_seed: seed of the draws. Each call starts from it, so that adding a method to a study
            leaves the intervals of the others as they are.

    Raises:
        ResultsError: for a score that is not finite; rliable would return NaN.
    """
    matrices = scores if isinstance(scores, list) else [scores]
    for matrix in matrices:
        if not np.isfinite(matrix).all():
            seed, game = np.argwhere(~np.isfinite(matrix))[0]
            raise ResultsError(
                f"score in row {seed}, column {game} of a [seeds, games] matrix is "
                f"{matrix[seed, game]}; expected a finite number"
            )
    if any(len(matrix) < 2 for matrix in matrices):
        point = function(*matrices)
        return point, np.full(point.shape, np.nan), np.full(point.shape, np.nan)
    with numpy_seed(rng_seed):
        points, bounds = library.get_interval_estimates(
            {"it": scores}, function, reps=reps, confidence_interval_size=level
        )
    return points["it"], bounds["it"][0], bounds["it"][1]


def profile_taus(matrices: list[np.ndarray]) -> np.ndarray:
    """Return the thresholds of the performance profiles, [at most PROFILE_POINTS + 2], fractions.

    The scores themselves (rounded up to 0.01 %), where a profile has its steps; of more than
    PROFILE_POINTS as many, evenly by rank. They lie between the lowest score (rounded down to a
    tenth, at most 0, at least -1) and the first of PROFILE_ENDS that covers the highest; both
    ends are thresholds too.
    """
    pooled = np.sort(np.concatenate([matrix.ravel() for matrix in matrices]))
    start = float(np.clip(np.floor(pooled[0] * 10) / 10, -1.0, 0.0))
    end = next((end for end in PROFILE_ENDS if end >= pooled[-1]), PROFILE_ENDS[-1])
    steps = np.unique(np.ceil(pooled * 1e4) / 1e4)
    steps = steps[(steps > start) & (steps < end)]
    if len(steps) > PROFILE_POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, PROFILE_POINTS).round().astype(int)]
    return np.concatenate([[start], steps, [end]])


def aggregate(study: Study, episodes: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of aggregates.csv.

    Raises:
        ResultsError: when something is missing and the study says `incomplete: refuse`.
    """
    if study.incomplete == "refuse" and len(missing):
        raise ResultsError(_missing_message(missing))
    scores = run_scores(study, episodes)
    last = study.milestones_frames[-1]
    rows: list[dict] = []
    matrices = {}
    for milestone in study.milestones_frames:
        for method in study.compared:
            matrix = score_matrix(study, scores, method, milestone)
            if len(matrix):
                matrices[method, milestone] = matrix
    final = {method: matrix for (method, at), matrix in matrices.items() if at == last}
    taus = profile_taus(list(final.values())) if final else np.array([])
    profiles: list[dict] = []
    for (method, milestone), matrix in matrices.items():
        names = list(AGGREGATES)
        functions: list[Callable[[np.ndarray], np.ndarray]] = [point_estimates]
        if atari5.applies(study):
            names.append("atari5")
            functions.append(lambda one: np.array([atari5.estimate_of_matrix(one, study.games)]))
        if milestone == last:
            names += [f"performance_profile:{tau:g}" for tau in taus]
            functions.append(lambda one: performance_profile(one, taus))

        def function(one: np.ndarray, parts: tuple = tuple(functions)) -> np.ndarray:
            return np.concatenate([part(one) for part in parts])

        values = intervals(matrix, function, study.reps, study.level, study.rng_seed)
        for name, point, low, high in zip(names, *values, strict=True):
            target = profiles if name.startswith("performance_profile") else rows
            target.append(_row(study, name, method, milestone, len(matrix), point, low, high))
    order = [method for method in study.compared if method in final]
    for position, method in enumerate(order):
        for other in order[:position]:
            pair = [final[method], final[other]]
            values = intervals(
                pair, probability_of_improvement, study.reps, study.level, study.rng_seed
            )
            name = f"probability_of_improvement:{other}"
            seeds = min(map(len, pair))
            rows.append(_row(study, name, method, last, seeds, *(value[0] for value in values)))
    return pd.DataFrame(rows + profiles, columns=AGGREGATE_COLUMNS)


def _row(
    study: Study,
    metric: str,
    method: str,
    milestone: int,
    seeds: int,
    point: float,
    low: float,
    high: float,
) -> dict:
    values = (metric, method, milestone, study.selection_label(method), study.protocol, study.rule)
    values += (len(study.games), seeds, point, low, high, study.level, study.reps, study.rng_seed)
    return dict(zip(AGGREGATE_COLUMNS, values, strict=True))


def _missing_message(missing: pd.DataFrame, shown: int = 20) -> str:
    lines = [
        f"  {row.method} / {row.game} / seed {row.seed} at {row.milestone} frames: "
        f"{MISSING_REASONS.get(row.reason, row.reason)}"
        for row in missing.head(shown).itertuples()
    ]
    if len(missing) > shown:
        lines.append(f"  and {len(missing) - shown} more in missing.csv")
    return "\n".join(
        [
            f"incomplete games x seeds matrix, {len(missing)} missing, and the study says "
            "incomplete: refuse (allowed: refuse, list)",
            *lines,
        ]
    )


def write(results: Path) -> str:
    """Write aggregates.csv and return one line that says what is in it."""
    study = load_study(results)
    table = aggregate(study, load_episodes(results), load_missing(results))
    write_csv(results / "aggregates.csv", table)
    return f"{len(table)} rows, {study.reps} bootstrap repetitions: {results / 'aggregates.csv'}"


def main(arguments: list[str] | None = None) -> int:
    """Write aggregates.csv of the study in --results."""
    return command("aggregate", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
