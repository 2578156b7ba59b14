"""The published raw scores: loaded, joined with their origin, and checked cell by cell.

`reference/*.csv` are long: one row per published score. `reference/systems.csv` says for each
(protocol, system) what was measured: paper, training budget in frames, which policy of a run was
kept, and where the numbers come from. `reference/curves.csv` has returns during training, which
are no scores. `reference/README.md` describes the columns.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.normalise import normalise

FOLDER = Path(__file__).parent / "reference"
GAMES_CSV = Path(__file__).parents[1] / "config" / "games.csv"
SCORE_FILES = ("human_starts.csv", "noop_starts.csv", "reimplementations.csv")

PROTOCOLS = ("human_starts", "noop_starts", "sticky")
REFERENCE_PROTOCOLS = ("human_starts", "noop_starts")
FLAGS = {"out_of_range": "the source prints a score that the game cannot give"}
ON_FLAGGED = ("refuse", "exclude", "include")


def load_games(path: str | Path = GAMES_CSV) -> pd.DataFrame:
    """Return the games: columns game, label, score_min, score_max, in the order of the file.

    score_min and score_max bound the return of one episode; NaN is unbounded.
    """
    return _read(path, usecols=["game", "label", "score_min", "score_max"])


def check_scores(frame: pd.DataFrame, games: pd.DataFrame, column: str, source: str) -> None:
    """Raise ValueError for the first row of `frame` that cannot be a score.

    Args:
        frame: rows with `game` and the score in `column`. A column `flag`, where there is one,
            excuses scores outside the range when it says `out_of_range`.
        games: as from `load_games`.
        column: name of the score column.
        source: name of the file in the message. Row numbers count its lines, header = line 1.

    An unknown game, a value that is not finite, a score outside the game's range without the flag,
    an unknown flag, and a flag on a score inside the range are errors. The message names file,
    line, game, column, value and what is allowed.
    """
    known = games.set_index("game")
    flags = frame["flag"].fillna("") if "flag" in frame else pd.Series("", index=frame.index)

    def fail(position: int, problem: str) -> None:
        raise ValueError(f"{source}, line {position + 2}: {problem}")

    def first(bad: np.ndarray) -> int | None:
        return int(np.flatnonzero(bad)[0]) if bad.any() else None

    if (position := first(~frame["game"].isin(known.index).to_numpy())) is not None:
        fail(
            position,
            f"game: unknown value {frame['game'].iloc[position]!r}; "
            f"allowed: {', '.join(known.index)}",
        )
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
    if (position := first(~np.isfinite(values))) is not None:
        fail(
            position,
            f"{column} of {frame['game'].iloc[position]}: {frame[column].iloc[position]} "
            "is not a finite number",
        )
    if (position := first(~flags.isin(["", *FLAGS]).to_numpy())) is not None:
        fail(
            position,
            f"flag: unknown value {flags.iloc[position]!r}; allowed: empty, {', '.join(FLAGS)}",
        )
    low = known["score_min"].reindex(frame["game"]).fillna(-np.inf).to_numpy()
    high = known["score_max"].reindex(frame["game"]).fillna(np.inf).to_numpy()
    outside = (values < low) | (values > high)
    flagged = (flags == "out_of_range").to_numpy()
    if (position := first(outside != flagged)) is not None:
        problem = "has the flag out_of_range but lies in" if flagged[position] else "is outside"
        fail(
            position,
            f"{column} of {frame['game'].iloc[position]}: {values[position]:g} {problem} "
            f"the possible range {low[position]:g} to {high[position]:g}",
        )


def load_scores(folder: str | Path = FOLDER, games_csv: str | Path = GAMES_CSV) -> pd.DataFrame:
    """Return every published score with its origin, one row per (protocol, system, game).

    Columns: protocol, system, game, value (points), flag (empty or a key of FLAGS), then those of
    `systems.csv`: label, paper, references (the protocol of the random and human scores to
    normalise with), budget_frames (NaN where not published), selection, seeds, games, printed_mean
    and printed_median (percent, with printed_in), source, caveat (empty: none). The reference
    players are the systems `random` and `human`.

    Raises:
        ValueError: for anything `check_scores` refuses, an unknown protocol or system, a doubled
            cell, a system without scores or with another number of games than `systems.csv` says,
            and a game without its random or human score.
    """
    folder = Path(folder)
    games = load_games(games_csv)
    parts = []
    for name in SCORE_FILES:
        part = _read(folder / name, dtype={"flag": str})
        part["flag"] = part["flag"].fillna("")
        _check_allowed(part, "protocol", PROTOCOLS, name)
        check_scores(part, games, "value", name)
        parts.append(part)
    scores = pd.concat(parts, ignore_index=True)
    key = ["protocol", "system", "game"]
    if (doubled := scores.duplicated(key)).any():
        cell = scores.loc[doubled, key].iloc[0]
        raise ValueError(f"{folder.name}: two scores for {' / '.join(cell)}")

    systems = _read(folder / "systems.csv", dtype={"caveat": str})
    systems["caveat"] = systems["caveat"].fillna("")
    _check_allowed(systems, "protocol", PROTOCOLS, "systems.csv")
    _check_allowed(systems, "references", REFERENCE_PROTOCOLS, "systems.csv")
    if (doubled := systems.duplicated(["protocol", "system"])).any():
        row = systems.loc[doubled].iloc[0]
        raise ValueError(f"systems.csv: {row['protocol']} / {row['system']} is listed twice")
    counts = scores.groupby(["protocol", "system"]).size()
    expected = systems.set_index(["protocol", "system"])["games"]
    for protocol, system in counts.index.union(expected.index):
        if (protocol, system) not in expected.index:
            raise ValueError(f"systems.csv: no row for {protocol} / {system}, which has scores")
        found, said = counts.get((protocol, system), 0), expected[protocol, system]
        if found != said:
            raise ValueError(
                f"systems.csv: {protocol} / {system}: games is {said}, but {found} have a score"
            )
    joined = scores.merge(systems, on=["protocol", "system"], validate="many_to_one")
    for protocol, rows in joined.groupby("references"):
        _reference_table(joined, protocol, rows["game"].unique())
    return joined


def load_curves(folder: str | Path = FOLDER, games_csv: str | Path = GAMES_CSV) -> pd.DataFrame:
    """Return the published training curves, in the order of the file.

    Columns: system, method (of ours, the one that it trains), game, frames (emulator frames of
    training so far), runs (trainings behind the value), value (mean return of training episodes,
    points), then label and source of `curve_systems.csv`.

    Raises:
        ValueError: for an unknown game or system, a return that the game cannot give, and a curve
            whose frames do not rise.
    """
    folder = Path(folder)
    points = _read(folder / "curves.csv")
    check_scores(points, load_games(games_csv), "value", "curves.csv")
    systems = _read(folder / "curve_systems.csv")
    _check_allowed(points, "system", tuple(systems["system"]), "curves.csv")
    step = points.groupby(["system", "method", "game"])["frames"].diff()
    if (bad := (step <= 0).to_numpy()).any():
        position = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"curves.csv, line {position + 2}: frames: {points['frames'].iloc[position]} does not "
            "follow the point before it"
        )
    return points.merge(systems, on="system", validate="many_to_one")


def references(
    protocol: str,
    games: Iterable[str] | None = None,
    folder: str | Path = FOLDER,
    games_csv: str | Path = GAMES_CSV,
) -> pd.DataFrame:
    """Return the random and human scores to normalise with: game, random, human (points).

    One row per game in the order of `games`, by default every game of `games.csv` that has both
    scores (all 57). `protocol` is human_starts or noop_starts; sticky-action scores are normalised
    with noop_starts, as nobody publishes references of their own for them.

    Raises:
        ValueError: for an unknown protocol, or a game of `games` without one of the two scores.
    """
    if protocol not in REFERENCE_PROTOCOLS:
        raise ValueError(
            f"references: unknown value {protocol!r}; allowed: {', '.join(REFERENCE_PROTOCOLS)}"
        )
    scores = load_scores(folder, games_csv)
    if games is None:
        scored = scores.loc[scores["protocol"] == protocol, "game"]
        listed = load_games(games_csv)["game"]
        games = listed[listed.isin(scored)]
    return _reference_table(scores, protocol, games).reset_index()


def published(
    protocol: str,
    system: str,
    folder: str | Path = FOLDER,
    games_csv: str | Path = GAMES_CSV,
) -> pd.DataFrame:
    """Return one system's scores with random and human joined: game, value, flag, random, human."""
    return select(load_scores(folder, games_csv), protocol, system)


def select(scores: pd.DataFrame, protocol: str, system: str) -> pd.DataFrame:
    """As `published`, from the frame of `load_scores`: game, value, flag, random, human."""
    rows = scores[(scores["protocol"] == protocol) & (scores["system"] == system)]
    if rows.empty:
        known = scores.loc[scores["protocol"] == protocol, "system"].unique()
        raise ValueError(
            f"system: unknown value {system!r} for protocol {protocol!r}; "
            f"allowed: {', '.join(known) or 'none, the protocol is unknown'}"
        )
    out = rows[["game", "value", "flag"]].reset_index(drop=True)
    table = _reference_table(scores, rows["references"].iloc[0], out["game"])
    out["random"], out["human"] = table["random"].to_numpy(), table["human"].to_numpy()
    return out


def normalised(
    scores: pd.DataFrame, protocol: str, system: str, rule: str, flagged: str = "refuse"
) -> pd.Series:
    """Return one system's normalised scores in percent, indexed by game.

    Args:
        scores: as from `load_scores`.
        protocol, system: the system's key.
        rule: a key of `normalise.RULES`.
        flagged: what to do with flagged cells: `refuse` (an error), `exclude` or `include`.
    """
    if flagged not in ON_FLAGGED:
        raise ValueError(f"flagged: unknown value {flagged!r}; allowed: {', '.join(ON_FLAGGED)}")
    rows = select(scores, protocol, system)
    marked = rows["flag"] != ""
    if marked.any() and flagged == "refuse":
        cell = rows[marked].iloc[0]
        raise ValueError(
            f"{protocol} / {system}: the score of {cell['game']}, {cell['value']:g}, has the flag "
            f"{cell['flag']} ({FLAGS[cell['flag']]}); ask for flagged='exclude' or 'include'"
        )
    if flagged == "exclude":
        rows = rows[~marked]
    percent = normalise(rows["value"], rows["random"], rows["human"], rule, rows["game"])
    return pd.Series(percent, index=rows["game"].to_numpy(), name=system)


def game_labels() -> dict[str, str]:
    """Return the printed name of each game, `Q*bert` for qbert, from config/games.csv."""
    games = load_games()
    return dict(zip(games["game"], games["label"], strict=True))


def _read(path: str | Path, **options: Any) -> pd.DataFrame:
    # The default parser of pandas is off by one unit in the last place now and then.
    return pd.read_csv(path, float_precision="round_trip", **options)


def _reference_table(scores: pd.DataFrame, protocol: str, games: Iterable[str]) -> pd.DataFrame:
    rows = scores[scores["protocol"] == protocol]
    table = pd.DataFrame(index=pd.Index(games, name="game"))
    for player in ("random", "human"):
        values = rows[rows["system"] == player].set_index("game")["value"]
        table[player] = values.reindex(table.index)
        missing = table.index[table[player].isna()]
        if len(missing):
            raise ValueError(f"{protocol}: no {player} score for {', '.join(missing)}")
    return table


def _check_allowed(frame: pd.DataFrame, column: str, allowed: tuple[str, ...], source: str) -> None:
    bad = ~frame[column].isin(allowed)
    if bad.any():
        position = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{source}, line {position + 2}: {column}: unknown value "
            f"{frame[column].iloc[position]!r}; allowed: {', '.join(allowed)}"
        )
