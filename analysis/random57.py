"""Random play measured here beside the published random scores, game by game.

`python -m analysis.random57 --results results/random57` reads study.json, episodes.csv and
tables/random_reference.csv and writes tables/random.csv and tables/random.md. The published scores
are the ones to normalise with. random_reference.csv is random play under the published agent's
protocol (`python -m agents.random_reference`): it tells a difference of the protocols from one of
the reference.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.io import write_csv, write_text
from analysis.reference import check_scores, game_labels, load_games, references
from analysis.render import DASH, number_text
from analysis.scores import command, load_episodes
from analysis.study import UNTRAINED, ResultsError, Study, load_study

COLUMNS = [
    "game",
    "label",
    "episodes",
    "mean",
    "standard_error",
    "published",
    "difference",
    "standard_errors",
    "difference_percent",
    "shows_from_percent",
    "verdict",
    "longer_than_5_minutes",
    "truncated",
    "reference_episodes",
    "reference_mean",
    "reference_standard_error",
    "reference_difference",
    "reference_standard_errors",
    "reference_verdict",
    "cause",
]
REFERENCE_COLUMNS = [
    "game",
    "frames_per_action",
    "max_episode_frames",
    "action_set",
    "episode",
    "episode_seed",
    "return",
    "length_frames",
    "ended",
]
PUBLISHED_CAP_FRAMES = 18_000
PUBLISHED_PROTOCOL = {
    "frames_per_action": 6,
    "max_episode_frames": PUBLISHED_CAP_FRAMES,
    "action_set": "minimal",
}
# With 57 games and normal errors, 0.15 of them would be further apart than this by chance.
AGREES_STANDARD_ERRORS = 3.0
ROUNDING = 0.05  # of a printed score
VERDICTS = ("agrees", "higher", "lower")
JOINT_REPS = 10_000


def load_reference(results: Path) -> pd.DataFrame:
    """Return tables/random_reference.csv, one row per episode, REFERENCE_COLUMNS; empty without it.

    Raises:
        ResultsError: for other columns, or another protocol than the published agent's.
        ValueError: for a return that the game cannot give.
    """
    path = results / "tables" / "random_reference.csv"
    if not path.exists():
        return pd.DataFrame(columns=REFERENCE_COLUMNS)
    rows = pd.read_csv(path)
    if list(rows.columns) != REFERENCE_COLUMNS:
        raise ResultsError(
            f"{path}: columns are {','.join(rows.columns)}; expected {','.join(REFERENCE_COLUMNS)}"
        )
    for column, allowed in PUBLISHED_PROTOCOL.items():
        found = rows[column].unique().tolist()
        if found != [allowed]:
            raise ResultsError(f"{path}: {column} is {found}; the published agent's is {allowed}")
    check_scores(rows, load_games(), "return", path.name)
    return rows


def compare(study: Study, episodes: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Return one row per game that has episodes of random play, COLUMNS.

    mean and standard_error are over episodes, in points; difference is mean minus published.
    `standard_errors` is the difference in standard errors of the difference, sqrt(2) times ours:
    nobody publishes the spread of the published score, which Mnih et al. 2015 average over 30
    episodes too. It is infinite where all of our returns are equal and the difference is more than
    rounding. `verdict`: agrees to 3 standard errors, or our mean is higher or lower.
    `difference_percent` is the difference in percent of human minus random, `shows_from_percent`
    three of its standard errors: a smaller one agrees.

    `reference_*` are the same numbers of `reference`, as from `load_reference`; empty where it has
    no episodes of the game. `cause` of a difference: `protocol` where the reference's protocol
    gives the published score, `open` where it does not, `not checked` without episodes of it.

    Raises:
        ResultsError: for a game with fewer than two episodes.
    """
    table = references(study.references, study.games).set_index("game")
    labels = game_labels()
    own = episodes[
        (episodes["method"] == UNTRAINED) & (episodes["milestone"] == study.milestones_frames[-1])
    ]
    records = []
    for game in study.games:
        published = table.loc[game, "random"]
        rows, others = own[own["game"] == game], reference[reference["game"] == game]
        if rows.empty:
            continue
        row = {"game": game, "label": labels[game], "published": published}
        row |= _measured(game, rows["return"], published)
        percent = 100 / abs(table.loc[game, "human"] - published)
        row["difference_percent"] = row["difference"] * percent
        of_difference = math.sqrt(2) * row["standard_error"]
        row["shows_from_percent"] = AGREES_STANDARD_ERRORS * of_difference * percent
        row["longer_than_5_minutes"] = int((rows["length_frames"] > PUBLISHED_CAP_FRAMES).sum())
        row["truncated"] = int((rows["ended"] == "truncated").sum())
        if len(others):
            measured = _measured(game, others["return"], published)
            row |= {f"reference_{name}": value for name, value in measured.items()}
        if row["verdict"] != "agrees":
            agrees = {"agrees": "protocol", None: "not checked"}
            row["cause"] = agrees.get(row.get("reference_verdict"), "open")
        records.append(row)
    return pd.DataFrame(records, columns=COLUMNS)


def _measured(game: str, returns: pd.Series, published: float) -> dict:
    if len(returns) < 2:
        raise ResultsError(f"episodes of {game}: {len(returns)}; a standard error needs 2 or more")
    mean, error = returns.mean(), returns.std(ddof=1) / math.sqrt(len(returns))
    apart = _standard_errors(mean - published, math.sqrt(2) * error)
    return {
        "episodes": len(returns),
        "mean": mean,
        "standard_error": error,
        "difference": mean - published,
        "standard_errors": apart,
        "verdict": _verdict(apart),
    }


def _standard_errors(difference: float, error: float) -> float:
    if abs(difference) <= ROUNDING:
        return 0.0 if error == 0 else difference / error
    return difference / error if error else math.copysign(math.inf, difference)


def _verdict(apart: float) -> str:
    if abs(apart) <= AGREES_STANDARD_ERRORS:
        return "agrees"
    return "higher" if apart > 0 else "lower"


MARKDOWN_COLUMNS = {
    "Game": "---",
    "Mean": "--:",
    "Standard error": "--:",
    "Published": "--:",
    "Difference": "--:",
    "in standard errors": "--:",
    "in percent of human": "--:",
    "shows from, percent of human": "--:",
    "Verdict": "---",
    "Longer than 5 min": "--:",
    "Cut at 30 min": "--:",
    "Every 6th frame: mean": "--:",
    "Its standard error": "--:",
    "Its difference in standard errors": "--:",
    "Its verdict": "---",
    "Cause": "---",
}
PROTOCOLS = """\
**Two protocols.** Ours is that of every row trained here: a new action every 4 frames, episodes to
their end or to 108,000 frames (30 minutes). The published agent of Mnih et al. 2015 "chose a random
action at 10 Hz which is every sixth frame, repeating its last action on intervening frames", in 30
episodes of at most 5 minutes (18,000 frames). The columns "every 6th frame" are that agent, played
here with the emulator of today: where it agrees with the published score and ours does not, the
difference is the protocol's and neither is wrong. For the games that Mnih et al. 2015 do not have,
frequency and limit of the published agent were not checked."""


def markdown(
    study: Study, table: pd.DataFrame, episodes: pd.DataFrame, reference: pd.DataFrame
) -> str:
    """Return `compare` for people: the counts, then the games, largest difference first."""
    missing = [game for game in study.games if game not in set(table["game"])]
    lines = [
        "# Random play, measured here and published",
        "",
        f"{len(table)} games: {_counts(table['verdict'])}.",
        "",
        _resolution(table),
        "",
        *_causes(table),
        *_together(study, table, episodes, reference),
        " ".join(PROTOCOLS.splitlines()),
        "",
        f"| {' | '.join(MARKDOWN_COLUMNS)} |",
        f"|{'|'.join(MARKDOWN_COLUMNS.values())}|",
    ]
    order = table["standard_errors"].abs().sort_values(ascending=False, kind="stable").index
    for row in table.loc[order].itertuples():
        cells = [
            row.label,
            number_text(row.mean),
            number_text(row.standard_error),
            number_text(row.published),
            f"{row.difference:+.1f}",
            f"{row.standard_errors:+.1f}",
            f"{row.difference_percent:+.1f}",
            number_text(row.shows_from_percent),
            row.verdict,
            f"{row.longer_than_5_minutes} of {row.episodes}",
            f"{row.truncated}",
            *[DASH] * 4,
            DASH if pd.isna(row.cause) else row.cause,
        ]
        if not pd.isna(row.reference_mean):
            cells[-5:-1] = [
                number_text(row.reference_mean),
                number_text(row.reference_standard_error),
                f"{row.reference_standard_errors:+.1f}",
                row.reference_verdict,
            ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "- Means are over episodes, in points; a standard error is of the mean before it. The "
        "difference is given in sqrt(2) of them, as if the published mean had our spread and "
        "number of episodes; inf: all our returns are equal. It shows from three of them on: "
        "`agrees` means that these episodes do not tell the means apart.",
        "- Cause of a difference: `protocol`, the published agent's protocol gives the published "
        "score; `open`, it does not.",
        "- Scores of all methods are normalised with the published random score, not with ours.",
    ]
    if missing:
        lines.append(f"- Not played: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _counts(verdicts: pd.Series) -> str:
    counts = {verdict: int((verdicts == verdict).sum()) for verdict in VERDICTS}
    return (
        f"{counts['agrees']} agree to {AGREES_STANDARD_ERRORS:g} standard errors of the "
        f"difference, our mean is higher in {counts['higher']} and lower in {counts['lower']}"
    )


def _causes(table: pd.DataFrame) -> list[str]:
    played = table["reference_verdict"].dropna()
    if played.empty:
        return []
    open_ones = ", ".join(table.loc[table["cause"] == "open", "label"]) or "none"
    return [
        f"With an action every 6th frame and at most 5 minutes, {len(played)} games: "
        f"{_counts(played)}. Of the games that differ under our protocol "
        f"{(table['cause'] == 'protocol').sum()} agree under that one; still open: {open_ones}.",
        "",
    ]


def _resolution(table: pd.DataFrame) -> str:
    """Say how large a difference may be that the episodes do not show."""
    error = AGREES_STANDARD_ERRORS * math.sqrt(2) * table["standard_error"]
    coarse = int((error > table["published"].abs() / 2).sum())
    tenth = int((table["shows_from_percent"] > 10).sum())
    return (
        f"A difference shows from {AGREES_STANDARD_ERRORS:g} standard errors on: that is more than "
        f"half of the published score in {coarse} games, and more than a tenth of the way from "
        f"random to human in {tenth}."
    )


def joint(
    samples: list[np.ndarray], apart: np.ndarray, rng_seed: int, reps: int = JOINT_REPS
) -> tuple[float, float, float]:
    """Return the sum of squared differences, what it would be by noise, and the chance of as much.

    Args:
        samples: our returns in each game, [games] of [episodes].
        apart: the differences of these games in standard errors, each within
            AGREES_STANDARD_ERRORS.
        rng_seed: of the draws.
        reps: number of draws.

    Noise: the published mean and ours are of two samples of one game's returns, as many of them,
    of which the second is the one whose spread is known, and which are within
    AGREES_STANDARD_ERRORS as those that are added up are. Both are drawn from ours.
    """
    rng = np.random.default_rng(rng_seed)
    sums = np.zeros(reps)
    for returns in samples:
        found = np.empty(0)
        while len(found) < reps:
            published, ours = rng.choice(returns, size=(2, reps, len(returns)))
            with np.errstate(divide="ignore", invalid="ignore"):
                error = ours.std(axis=1, ddof=1) / math.sqrt(len(returns))
                difference = ours.mean(axis=1) - published.mean(axis=1)
                one = difference / (math.sqrt(2) * error)
            within = (error > 0) & (np.abs(one) <= AGREES_STANDARD_ERRORS)
            found = np.concatenate([found, one[within]])
        sums += found[:reps] ** 2
    total = float((apart**2).sum())
    # With the comparison itself among them: a chance of 0 is not to be had from draws.
    return total, float(sums.mean()), float(((sums >= total).sum() + 1) / (reps + 1))


def _together(
    study: Study, table: pd.DataFrame, episodes: pd.DataFrame, reference: pd.DataFrame
) -> list[str]:
    """Say what many differences that are each within noise amount to, in the same games."""
    of_protocols = {"": episodes[episodes["method"] == UNTRAINED]}
    if table["reference_verdict"].notna().any():
        of_protocols["reference_"] = reference
    used = np.logical_and.reduce(
        [
            (table[f"{prefix}verdict"] == "agrees") & (table[f"{prefix}standard_error"] > 0)
            for prefix in of_protocols
        ]
    )
    rows = table[used]
    if rows.empty:
        return []
    said = []
    for prefix, played in of_protocols.items():
        returns = [played.loc[played["game"] == game, "return"] for game in rows["game"]]
        total, noise, chance = joint(
            [sample.to_numpy(float) for sample in returns],
            rows[f"{prefix}standard_errors"].to_numpy(float),
            study.rng_seed,
        )
        said.append(f"{total:.1f} where noise gives {noise:.1f} (p = {chance:.1g})")
    both = " under both protocols" if len(said) > 1 else ""
    text = (
        f"Taken together, in the {len(rows)} games that agree{both} and whose episodes differ "
        f"among themselves, the squared differences in standard errors add up to {said[0]}; the "
        f"chance is that of {JOINT_REPS:,} comparisons of samples drawn from our episodes."
    )
    if len(said) > 1:
        text += f" With an action every 6th frame: {said[1]}."
    return [text, ""]


def write(results: Path) -> str:
    """Compare, write tables/random.csv and tables/random.md, return the line of counts."""
    study = load_study(results)
    episodes, reference = load_episodes(results), load_reference(results)
    table = compare(study, episodes, reference)
    write_csv(results / "tables" / "random.csv", table)
    text = markdown(study, table, episodes, reference)
    write_text(results / "tables" / "random.md", text)
    return text.splitlines()[2]


def main(arguments: list[str] | None = None) -> int:
    """Write the comparison of the study in --results."""
    return command("random57", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
