"""Scores from elsewhere stand beside those trained here, with intervals over the seeds given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import aggregate, collect, plot_style, plots, report, tables
from analysis.reference import references
from analysis.scores import load_episodes, run_scores
from analysis.study import load_study
from tests.analysis import synthetic
from tests.analysis.conftest import analyse, tabulated

MINE = {
    "label": "My agent",
    "frames": 4_000_000,
    "training_time": "2 hours on GPU",
    "scores": {"breakout": [31.0, 55.5], "pong": [20.1, 18.4], "qbert": [1.0, 2.0]},
}
SINGLE = {"label": "Single", "frames": 500_000, "scores": {"pong": [-21], "breakout": [0]}}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic study, with one method of two seeds and one of a single seed from elsewhere."""
    folder = tmp_path_factory.mktemp("external") / "study"
    synthetic.write_study(folder, external={"mine": MINE, "single": SINGLE})
    return analyse(folder, collect, aggregate, tables, plots, report)


def percent(game: str, score: float) -> float:
    row = references("noop_starts", [game]).iloc[0]
    return 100 * (score - row["random"]) / (row["human"] - row["random"])


def test_its_row_is_over_the_games_of_the_study_and_its_own_seeds(compared: Path):
    table = pd.read_csv(compared / "tables/table1.csv").set_index("method")
    row = table.loc["mine"]
    assert row[["kind", "row", "training_time"]].tolist() == [
        "external", "My agent", "2 hours on GPU",
    ]  # fmt: skip
    assert row[["frames", "games", "seeds"]].tolist() == [4_000_000, 2, 2]
    assert row[["protocol", "milestone", "hours"]].isna().all()
    by_game = [[percent(game, score) for score in MINE["scores"][game]] for game in
               ("pong", "breakout")]  # fmt: skip
    assert row["mean"] == pytest.approx(np.mean(by_game))
    assert row["median"] == pytest.approx(np.median(np.mean(by_game, axis=1)))
    # Of two seeds the interval reaches from the worst of each game to the best.
    assert row["mean_low"] == pytest.approx(np.mean(np.min(by_game, axis=1)))
    assert row["mean_high"] == pytest.approx(np.mean(np.max(by_game, axis=1)))
    assert table.loc["single", ["mean_low", "mean_high"]].isna().all()


def test_it_may_have_more_seeds_than_the_study_and_others(tmp_path: Path):
    mine = MINE | {"scores": {game: [1.0, 2.0, 4.0] for game in ("pong", "breakout")}}
    results = synthetic.write_study(tmp_path / "study", seeds=[7], external={"mine": mine})
    table = tabulated(results)[0].set_index("method")
    assert table.loc["mine", "seeds"] == 3
    means = [percent(game, 7 / 3) for game in ("pong", "breakout")]
    assert table.loc["mine", "mean"] == pytest.approx(np.mean(means))


def test_the_rows_trained_here_stay_what_they_are(compared: Path, analysed: Path):
    for name in ("aggregates.csv", "tables/table1.csv"):
        with_it, without = (pd.read_csv(folder / name) for folder in (compared, analysed))
        own = with_it[with_it["method"].isin(["reinforce", "a2c"])]
        same = without[without["method"].isin(["reinforce", "a2c"])]
        if name == "aggregates.csv":  # the thresholds of profiles are those of all scores
            own, same = (t[~t["metric"].str.startswith("performance")] for t in (own, same))
        pd.testing.assert_frame_equal(own.reset_index(drop=True), same.reset_index(drop=True))


def test_printed(compared: Path):
    markdown = (compared / "tables/table1.md").read_text()
    lines = markdown.splitlines()
    place = next(i for i, line in enumerate(lines) if "**From elsewhere, as given**" in line)
    assert lines[place + 1].startswith("| My agent | 2 hours on GPU | 4M | – | 2 | 2 |")
    assert lines[place + 2].startswith("| Single | – | 500k | – | 2 | 1 |")
    assert "Not trained in this study" in lines[place + 3]
    assert "From elsewhere, as given in the study's file: My agent, Single. Nothing" in markdown
    assert "One seed gives no interval: Single." in markdown
    assert "; My agent " in markdown  # the seeds' own means
    assert "| My agent " in (compared / "tables/summary.md").read_text()
    scores = (compared / "tables/games.md").read_text()
    assert "| My agent | Single |" in scores
    assert "19.2 ± 0.9" in scores
    assert "20.1, 18.4" in scores
    assert "My agent" in (compared / "report.html").read_text()


def test_it_is_compared_with_every_method(compared: Path):
    aggregates = pd.read_csv(compared / "aggregates.csv")
    mine = aggregates[aggregates["method"] == "mine"]
    metrics = set(mine["metric"])
    assert {f"probability_of_improvement:{other}" for other in ("reinforce", "a2c")} <= metrics
    study = load_study(compared)
    scores = run_scores(study, load_episodes(compared))
    own = scores[(scores["milestone"] == 1_000_000) & scores["method"].isin(["mine", "reinforce"])]
    wins = []
    for _, of_game in own.groupby("game"):
        one, other = (
            of_game.loc[of_game["method"] == m, "score"].to_numpy() for m in ("mine", "reinforce")
        )
        wins.append(np.mean(one[:, None] > other[None, :]))
    found = mine.set_index("metric").loc["probability_of_improvement:reinforce", "point"]
    assert found == pytest.approx(np.mean(wins))


def test_drawn(compared: Path):
    study = load_study(compared)
    figures = plots.draw(compared)
    ticks = [text.get_text() for text in figures["interval_estimates"].axes[0].get_yticklabels()]
    assert ticks[-2:] == ["My agent", "Single"]
    for name in ("per_game", "performance_profiles"):
        labels = [text.get_text() for text in figures[name].legends[0].get_texts()]
        assert {"My agent", "Single"} <= set(labels), name
    curves = [text.get_text() for text in figures["learning_curves"].legends[0].get_texts()]
    assert "My agent" not in curves
    looks = [plot_style.style(study, method)["color"] for method in study.compared]
    assert len(set(looks)) == 4
