"""The comparison table in short: the same cells, fewer columns."""

from pathlib import Path

from tests.analysis import synthetic
from tests.analysis.conftest import tabulated


def lines(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without its rule and its section lines."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if not row[0].startswith("**")]


def summarised(results: Path) -> tuple[str, str]:
    """Analyse `results`; return summary.md and table1.md."""
    _, whole = tabulated(results)
    return (results / "tables/summary.md").read_text(), whole


def test_the_cells_are_those_of_the_table(tmp_path: Path):
    short, whole = summarised(synthetic.write_study(tmp_path / "study"))
    header, *rows = lines(short)
    assert header == ["Method", "Training", "Frames", "Seeds", "Mean", "Median", "IQM"]
    named, *full = lines(whole)
    columns = [named.index(f"{name}, these 2 games") for name in ("Mean", "Median", "IQM")]
    columns = [named.index(name) for name in ("Method", "Training", "Frames", "Seeds")] + columns
    full = [[row[column] for column in columns] for row in full]
    assert rows == full[: len(rows)]
    assert [row[0] for row in full[len(rows) :]][:2] == ["Actor-critic", "DQN"]  # not trained
    assert ["A3C-LSTM", "4 days on CPU", "1,000M"] in [row[:3] for row in rows]
    assert [row[0] for row in rows[-2:]] == ["A2C at 400k", "A2C at 1M"]
    assert "[" in rows[-1][4]


def test_notes_name_what_is_not_there(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    (results / "runs/a2c/pong/0/run.json").unlink()
    short, _ = summarised(results)
    assert "Not trained in this study: Actor-critic, DQN, Gorila" in short
    assert ". Missing, 2 of " in short
    assert "A2C: no finished run (seed 0 in Pong)" in short
    assert "| Actor-critic |" not in short


def test_random_play_alone_has_no_training(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", methods=["random"], overrides={})
    short, _ = summarised(results)
    assert lines(short)[0] == ["Method", "Seeds", "Mean", "Median", "IQM"]
    assert "**Measured here**" in short
    assert "Budgets" not in short
