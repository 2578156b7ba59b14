"""Learning curves: training episodes in bins, and the mean and interval over seeds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.normalise import normalise
from analysis.reference import references
from analysis.study import UNTRAINED, ResultsError, Study

AXES = {"frames": "frames", "hours": "seconds"}
MIN_BINS, MAX_BINS = 5, 40
EPISODES_PER_BIN = 4
BAND_REPS = 1000
BAND_VALUES = 2_000_000  # numbers held at a time while the band is drawn


@dataclass(frozen=True)
class Curve:
    """One line of a figure: x in frames or hours, the rest in points or percent, each [bins]."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Log:
    """The training episodes of one run, in their file: all of a large study would fill a memory.

    Attributes:
        path: of training_episodes.csv.
        episodes: how many there are.
        ends: the last value of each column of AXES, 0 without episodes.
    """

    path: Path
    episodes: int
    ends: dict[str, float]

    def read(self) -> pd.DataFrame:
        """Return frames, seconds and return of each episode, in the order of frames."""
        return _read(self.path)


Training = dict[tuple[str, str, int], Log]  # by method, game and seed


def load_training(results: Path, runs: pd.DataFrame) -> Training:
    """Return the logs of the runs that have one, each read and checked. Random play has none.

    Raises:
        ResultsError: naming file and line of what is not a number.
    """
    found = {}
    for run in runs[runs["method"] != UNTRAINED].itertuples():
        path = Path(results) / "runs" / run.method / run.game / str(run.seed)
        path /= "training_episodes.csv"
        if not path.exists():
            continue
        table = _read(path)
        ends = {name: float(table[name].max()) if len(table) else 0.0 for name in AXES.values()}
        found[run.method, run.game, int(run.seed)] = Log(path, len(table), ends)
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, usecols=["frames", "seconds", "return"], dtype=float)
    except ValueError as error:
        raise ResultsError(f"{path}: {error}") from None
    bad = ~np.isfinite(table.to_numpy()).all(axis=1)
    if bad.any():
        line = int(np.flatnonzero(bad)[0]) + 2
        raise ResultsError(f"{path}, line {line}: a value is missing or not finite")
    return table.sort_values("frames", kind="stable")


def bin_count(training: Training) -> int:
    """Return how many bins give the median run EPISODES_PER_BIN episodes each."""
    episodes = [log.episodes for log in training.values()] or [0]
    return int(np.clip(np.median(episodes) // EPISODES_PER_BIN, MIN_BINS, MAX_BINS))


def binned(at: np.ndarray, returns: np.ndarray, end: float, bins: int) -> np.ndarray:
    """Return the mean return of the episodes that ended in each of `bins` equal bins of [0, end].

    A bin in which none ended repeats the one before it; NaN before the first episode. [bins]
    """
    index = np.minimum((at / end * bins).astype(int), bins - 1)
    inside = at <= end
    count = np.bincount(index[inside], minlength=bins)
    total = np.bincount(index[inside], weights=returns[inside], minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
    return pd.Series(mean).ffill().to_numpy()


def curve(values: np.ndarray, x: np.ndarray, level: float, rng_seed: int) -> Curve:
    """Return mean and interval of `values` [seeds, games, bins] over seeds, mean over games.

    The interval is the percentile one of a stratified bootstrap: seeds are drawn with replacement
    within each game. NaN for one seed. Bins in which a run has no value yet are left out.
    """
    known = np.isfinite(values).all(axis=(0, 1))
    values, x = values[:, :, known], x[known]
    seeds, games, _ = values.shape
    mean = values.mean(axis=(0, 1))
    if seeds < 2:
        return Curve(x, mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    rng = np.random.default_rng(rng_seed)
    columns = np.arange(games)
    chunk = max(1, BAND_VALUES // max(1, values.size))
    draws = np.concatenate(
        [
            values[rng.integers(seeds, size=(reps, seeds, games)), columns].mean(axis=(1, 2))
            for reps in _chunks(BAND_REPS, chunk)
        ]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Curve(x, mean, low, high)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def curves(
    study: Study,
    training: Training,
    games: list[str],
    axis: str,
    normalised: bool,
) -> dict[str, Curve]:
    """Return one curve per method over `games`, for the seeds that have a log of each of them.

    Args:
        study: says methods, seeds, references, rule and level.
        training: as from `load_training`.
        games: the games to average over; one game for a raw curve.
        axis: `frames` or `hours`.
        normalised: percent of human instead of points.

    A curve ends where the first of its runs ends.
    """
    bins = bin_count(training)
    table = references(study.references, games).set_index("game") if normalised else None
    out = {}
    for method in study.methods:
        seeds = [s for s in study.seeds if all((method, g, s) in training for g in games)]
        own = {(g, s): training[method, g, s] for g in games for s in seeds}
        if not own or not all(log.episodes for log in own.values()):
            continue
        column = AXES[axis]
        end = study.milestones_frames[-1]
        shortest = min(log.ends[column] for log in own.values())
        if axis == "hours":
            end = shortest
        rows = np.empty((len(seeds), len(games), bins))
        for j, game in enumerate(games):
            for i, seed in enumerate(seeds):
                log = own[game, seed].read()
                returns = log["return"].to_numpy()
                if normalised:
                    random, human = table.loc[game, ["random", "human"]]
                    returns = normalise(returns, random, human, study.rule, game)
                rows[i, j] = binned(log[column].to_numpy(), returns, end, bins)
        x = (np.arange(bins) + 0.5) * end / bins
        # A run that diverged or went no further: no value is carried into a bin after its end.
        rows[:, :, x - end / bins / 2 >= shortest] = np.nan
        out[method] = curve(rows, x / 3600 if axis == "hours" else x, study.level, study.rng_seed)
    return {method: line for method, line in out.items() if len(line.x)}
