"""Footnotes on how far a study's numbers carry: intervals, seeds, noise, single games."""

import math

import pandas as pd
from scipy import stats

from analysis.reference import game_labels, references
from analysis.render import number_text
from analysis.scores import complete_seeds, run_scores, score_matrix
from analysis.study import Study

# Above this share of the absolute scores the mean is said to be one game's.
DOMINANT_SHARE = 0.4
SEEDS_SHOWN = 9  # means of so many seeds at most are listed one by one
FEW_SEEDS = 5  # below, an interval is said to be too narrow, and how much


def coverage(seeds: int, games: int, level: float) -> float:
    """Return in which share of cases the interval of a mean holds the true one, roughly.

    Of normally distributed scores that vary alike in `games` games, where a t interval would hold
    it in `level`. The variance that the bootstrap sees is (seeds - 1) / seeds of the unbiased one,
    which has games (seeds - 1) degrees of freedom; and it knows only those. With one game and few
    seeds its percentiles are the lowest and the highest seed.
    """
    # The bootstrap's outermost draw, one seed again and again, is within the percentiles.
    if games == 1 and seeds ** -float(seeds) > (1 - level) / 2:
        return 1 - 2 * 0.5**seeds
    reach = stats.norm.ppf((1 + level) / 2) * math.sqrt((seeds - 1) / seeds)
    return 1 - 2 * float(stats.t.sf(reach, games * (seeds - 1)))


def _with_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose intervals are over seeds of this study or given to it."""
    return table[table["kind"].isin(("trained", "external"))]


def interval_note(study: Study, table: pd.DataFrame) -> str:
    """Return the note on the intervals: how they are made and how far to trust them."""
    trained = _with_seeds(table)
    text = (
        f"Brackets: {100 * study.level:g} % intervals by stratified bootstrap over seeds "
        f"(percentile, {study.reps} repetitions, generator seed {study.rng_seed}; rliable)."
    )
    one = trained[trained["seeds"] == 1]
    if len(one):
        names = []
        for method, rows in one.groupby("method", sort=False):
            every = len(rows) == (trained["method"] == method).sum()
            names.append(study.rows_label(method, [] if every else list(rows["milestone"])))
        text += f" One seed gives no interval: {', '.join(names)}."
    few = trained[(trained["seeds"] > 1) & (trained["seeds"] < FEW_SEEDS)]
    counts = sorted({int(seeds) for seeds in few["seeds"]})
    if counts:
        text += (
            f" Intervals from {' or '.join(map(str, counts))} seeds are too narrow: if scores were "
            f"normally distributed, a nominal {100 * study.level:g} % interval of a mean would "
            f"contain the true mean in about {_coverage_text(study, counts)}."
        )
    return text


def _coverage_text(study: Study, counts: list[int]) -> str:
    """Return `50 % of cases with 2 seeds`, where there are several games for one and for all."""
    alone, alike = (
        [f"{100 * coverage(seeds, games, study.level):.0f}" for seeds in counts]
        for games in (1, len(study.games))
    )
    shares = [f"{share} % with {seeds}" for share, seeds in zip(alone, counts, strict=True)]
    shares[0] = f"{alone[0]} % of cases with {counts[0]} seeds"
    if len(study.games) == 1:
        return " and ".join(shares)
    return (
        f"{' and '.join(shares)} where one game decides it, in {' and '.join(alike)} % where all "
        f"{len(study.games)} games vary alike"
    )


def seed_notes(study: Study, table: pd.DataFrame, episodes: pd.DataFrame) -> list[str]:
    """Return a note with each seed's own mean over the games, of rows with a few seeds.

    What an interval from so few seeds is made of.
    """
    scores = run_scores(study, episodes)
    parts = []
    for row in _with_seeds(table).itertuples():
        if not 1 < row.seeds <= SEEDS_SHOWN:
            continue
        at = row.milestone if row.kind == "trained" else study.milestones_frames[-1]
        matrix = score_matrix(study, scores, row.method, at)
        means = ", ".join(f"{100 * mean:.1f}" for mean in matrix.mean(axis=1))
        parts.append(f"{study.row_label(row.method, at)} {means}")
    if not parts:
        return []
    over = f" over {study.these_games}" if len(study.games) > 1 else ""
    return [f"The seeds' own means{over}, in the order of the seeds: {'; '.join(parts)}."]


def noise_notes(study: Study, table: pd.DataFrame, episodes: pd.DataFrame) -> list[str]:
    """Return a note on what the evaluation episodes and single games do to the means.

    The standard error is that of the mean over the games: of each run's mean return, from the
    spread of its episodes, over games and seeds. What the seeds differ by is not in it.
    """
    rows = table[table["kind"] == "trained"]
    scores = run_scores(study, episodes)
    if rows.empty or scores.empty:
        return []
    keys = ["method", "milestone", "game", "seed"]
    error = episodes.groupby(keys)["return"].agg(lambda returns: returns.sem())  # NaN of one
    reached = pd.MultiIndex.from_frame(
        scores[["method", "selected", "game", "seed"]].set_axis(keys, axis=1)
    )
    table_of = references(study.references, study.games).set_index("game")
    span = (table_of["human"] - table_of["random"]).abs().reindex(scores["game"]).to_numpy()
    scores = scores.assign(error=100 * error.reindex(reached).to_numpy() / span)
    errors, single, labels = [], [], game_labels()
    for row in rows.itertuples():
        own = scores[(scores["method"] == row.method) & (scores["milestone"] == row.milestone)]
        own = own[own["seed"].isin(complete_seeds(study, scores, row.method, row.milestone))]
        name = study.row_label(row.method, row.milestone)
        of_mean = math.sqrt((own["error"] ** 2).sum(skipna=False)) / len(own)
        errors.append(f"{name} {number_text(of_mean)}")
        by_game = 100 * own.groupby("game")["normalised"].mean()
        game = by_game.abs().idxmax()
        if len(by_game) > 2 and abs(by_game[game]) > DOMINANT_SHARE * by_game.abs().sum():
            without = by_game.drop(game).mean()
            single.append(f"{name} {without:.1f} ({labels[game]})")
    over = f" over {study.these_games}" if len(study.games) > 1 else ""
    out = [
        f"Standard error of the mean{over} from the evaluation episodes alone, "
        f"in percentage points; what seeds differ by comes on top: {', '.join(errors)}."
    ]
    if single:
        out.append(
            f"One game makes up more than {100 * DOMINANT_SHARE:g} % of the absolute scores behind "
            f"these means. Without it: {', '.join(single)}."
        )
    return out
