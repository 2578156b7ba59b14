"""The comparison table in short: what a terminal and a README have room for."""

import itertools

import pandas as pd

from analysis import atari5
from analysis.absences import missing_notes
from analysis.deviations import budget_note
from analysis.render import Grid, Row
from analysis.study import Study
from analysis.table1 import KINDS
from analysis.uncertainty import interval_note

ELSEWHERE = (
    "All columns, and notes on protocol, selection, settings, seeds and noise: table1.md. Raw "
    "scores per game: games.md."
)


def summary(
    study: Study, table: pd.DataFrame, whole: Grid, runs: pd.DataFrame, missing: pd.DataFrame
) -> Grid:
    """Return of `whole`, the grid of `table`, what compares its rows over the study's games.

    The methods that the study does not train are one note instead of a line each.
    """
    these = study.these_games
    names = {
        "Method": "Method",
        "Training": "Training",
        "Frames": "Frames",
        "Seeds": "Seeds",
        f"Mean, {these}": "Mean",
        f"Median, {these}": "Median",
        f"IQM, {these}": "IQM",
    }
    if atari5.applies(study):
        names["Median of 57 games, Atari-5 estimate"] = "Median of 57, estimate"
    if study.only_random_play:
        del names["Training"], names["Frames"]
    shown = [whole.columns.index(name) for name in names]
    rows = [
        row if row.section else Row([row.cells[column] for column in shown])
        for row in itertools.takewhile(lambda row: row.cells != [KINDS["not_trained"]], whole.rows)
    ]
    title = f"{study.label.rstrip('.')}. Human-normalised score over {these}, percent."
    left = frozenset(i for i, column in enumerate(shown) if whole.is_left(column))
    notes = [*_notes(study, table), *missing_notes(study, runs, missing), ELSEWHERE]
    return Grid(title, list(names.values()), rows, notes, left)


def _notes(study: Study, table: pd.DataFrame) -> list[str]:
    absent = table.loc[table["kind"] == "not_trained", "row"]
    return [
        f"Published rows are recomputed over {study.these_games}; `incomplete` where a score is "
        "missing.",
        *([] if study.only_random_play else [budget_note(study)]),
        *([f"{KINDS['not_trained']}: {', '.join(absent)}."] if len(absent) else []),
        interval_note(study, table),
    ]
