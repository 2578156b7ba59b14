"""Write the tables of a study.

`python -m analysis.tables --results results/STUDY` writes tables/table1 (the comparison table, as
CSV with all digits, Markdown, LaTeX and HTML), tables/summary.md (its part over the study's games,
for a terminal) and tables/games (raw scores per game, CSV and Markdown) from study.json,
episodes.csv, runs.csv, missing.csv and aggregates.csv.
"""

from pathlib import Path

import pandas as pd

from analysis import games, render, summary, table1
from analysis.io import write_csv, write_text
from analysis.scores import command, load_aggregates, load_episodes, load_missing, load_runs
from analysis.study import load_study

INTEGER_COLUMNS = ("milestone", "frames", "budget_frames", "games", "seeds", "all_games")


def write(results: Path) -> str:
    """Write all tables and return one line that says where."""
    study, episodes, runs = load_study(results), load_episodes(results), load_runs(results)
    missing, aggregates = load_missing(results), load_aggregates(results)
    table = table1.table1(study, episodes, runs, aggregates)
    grid = table1.grid(study, table, episodes, runs, missing)
    folder = results / "tables"
    write_csv(folder / "table1.csv", _integers(table))
    write_text(folder / "table1.md", render.markdown(grid))
    write_text(folder / "table1.tex", render.latex(grid))
    page = render.html_page(study.label, render.html_table(grid, "table1"))
    write_text(folder / "table1.html", page)
    short = summary.summary(study, table, grid, runs, missing)
    write_text(folder / "summary.md", render.markdown(short, aligned=True))
    per_game = games.games_table(study, episodes)
    write_csv(folder / "games.csv", _integers(per_game))
    parts = [render.markdown(part, "##") for part in games.grids(study, per_game)]
    write_text(folder / "games.md", "\n".join([f"# {study.label}\n", *parts]))
    return f"wrote table1, summary and games: {folder}"


def _integers(frame: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in INTEGER_COLUMNS if name in frame]
    return frame.assign(
        **{name: pd.to_numeric(frame[name]).round().astype("Int64") for name in names}
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the tables of the study in --results."""
    return command("tables", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
