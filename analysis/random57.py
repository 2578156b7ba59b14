"""Random play measured here beside the published random scores, game by game.

`python -m analysis.random57 --results results/random57` reads study.json and episodes.csv and
writes tables/random.csv and tables/random.md. The published scores are the ones to normalise with.
"""

import math
from pathlib import Path

import pandas as pd

from analysis.io import write_csv, write_text
from analysis.reference import load_games, references
from analysis.scores import (
    UNTRAINED,
    ResultsError,
    Study,
    command,
    load_episodes,
    load_study,
)

COLUMNS = [
    "game",
    "label",
    "episodes",
    "mean",
    "standard_error",
    "published",
    "difference",
    "standard_errors",
    "verdict",
    "longer_than_5_minutes",
    "truncated",
]
PUBLISHED_CAP_FRAMES = 18_000
# With 57 games and normal errors, 0.15 of them would be further apart than this by chance.
AGREES_STANDARD_ERRORS = 3.0
ROUNDING = 0.05  # of a printed score
VERDICTS = ("agrees", "higher", "lower")


def compare(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per game that has episodes of random play, COLUMNS.

    mean and standard_error are over episodes, in points; difference is mean minus published.
    `standard_errors` is the difference in standard errors of the difference, sqrt(2) times ours:
    nobody publishes the spread of the published score, which Mnih et al. 2015 average over 30
    episodes too. It is infinite where all of our returns are equal and the difference is more than
    rounding. `verdict`: agrees to 3 standard errors, or our mean is higher or lower.

    Raises:
        ResultsError: for a game with fewer than two episodes.
    """
    table = references(study.references, study.games).set_index("game")
    labels = load_games().set_index("game")["label"]
    own = episodes[
        (episodes["method"] == UNTRAINED) & (episodes["milestone"] == study.milestones_frames[-1])
    ]
    records = []
    for game in study.games:
        rows = own[own["game"] == game]
        if rows.empty:
            continue
        if len(rows) < 2:
            raise ResultsError(f"episodes of {game}: {len(rows)}; a standard error needs 2 or more")
        mean, error = rows["return"].mean(), rows["return"].std(ddof=1) / math.sqrt(len(rows))
        difference = mean - table.loc[game, "random"]
        apart = _standard_errors(difference, math.sqrt(2) * error)
        records.append(
            {
                "game": game,
                "label": labels[game],
                "episodes": len(rows),
                "mean": mean,
                "standard_error": error,
                "published": table.loc[game, "random"],
                "difference": difference,
                "standard_errors": apart,
                "verdict": _verdict(apart),
                "longer_than_5_minutes": int((rows["length_frames"] > PUBLISHED_CAP_FRAMES).sum()),
                "truncated": int((rows["ended"] == "truncated").sum()),
            }
        )
    return pd.DataFrame(records, columns=COLUMNS)


def _standard_errors(difference: float, error: float) -> float:
    if abs(difference) <= ROUNDING:
        return 0.0 if error == 0 else difference / error
    return difference / error if error else math.copysign(math.inf, difference)


def _verdict(apart: float) -> str:
    if abs(apart) <= AGREES_STANDARD_ERRORS:
        return "agrees"
    return "higher" if apart > 0 else "lower"


PROTOCOLS = """\
**The two are not one protocol.** Ours is that of every row trained here: a new action every 4
frames, episodes to their end or to 108,000 frames (30 minutes). The published agent of Mnih et al.
2015 "chose a random action at 10 Hz which is every sixth frame, repeating its last action on
intervening frames", in 30 episodes of at most 5 minutes (18,000 frames); at 60 Hz, they say, DQN's
normalised score moved by more than 5 % in six games (Boxing, Breakout, Crazy Climber, Demon Attack,
Krull, Robotank). A difference can come from either: from the frequency in every game, from the
limit only in games with episodes longer than 5 minutes. For the games that Mnih et al. 2015 do not
have, frequency and limit of the published agent were not checked."""


def markdown(study: Study, table: pd.DataFrame) -> str:
    """Return `compare` for people: the counts, then the games, largest difference first."""
    counts = {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS}
    missing = [game for game in study.games if game not in set(table["game"])]
    lines = [
        "# Random play, measured here and published",
        "",
        f"{len(table)} games: {counts['agrees']} agree to {AGREES_STANDARD_ERRORS:g} standard "
        f"errors of the difference, our mean is higher in {counts['higher']} and lower in "
        f"{counts['lower']}.",
        "",
        " ".join(PROTOCOLS.splitlines()),
        "",
        "| Game | Mean | Standard error | Published | Difference | in standard errors | Verdict "
        "| Longer than 5 min | Cut at 30 min |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    order = table["standard_errors"].abs().sort_values(ascending=False, kind="stable").index
    for row in table.loc[order].itertuples():
        lines.append(
            f"| {row.label} | {row.mean:.1f} | {row.standard_error:.1f} | {row.published:.1f} "
            f"| {row.difference:+.1f} | {row.standard_errors:+.1f} | {row.verdict} "
            f"| {row.longer_than_5_minutes} of {row.episodes} | {row.truncated} |"
        )
    lines += [
        "",
        "- Means are over episodes, in points; the standard error is of our mean. The difference "
        "is given in sqrt(2) of them, as if the published mean had our spread and number of "
        "episodes; inf: all our returns are equal.",
        "- Scores of all methods are normalised with the published random score, not with ours.",
    ]
    if missing:
        lines.append(f"- Not played: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def write(results: Path) -> str:
    """Compare, write tables/random.csv and tables/random.md, return the line of counts."""
    study = load_study(results)
    table = compare(study, load_episodes(results))
    write_csv(results / "tables" / "random.csv", table)
    text = markdown(study, table)
    write_text(results / "tables" / "random.md", text)
    return text.splitlines()[2]


def main(arguments: list[str] | None = None) -> int:
    """Write the comparison of the study in --results."""
    return command("random57", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
