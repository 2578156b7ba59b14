"""What stands in the tables."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import atari5, games, render, table1, tables
from analysis.reference import load_scores
from analysis.scores import load_episodes, load_runs, run_scores
from analysis.study import METHODS, load_study
from tests.analysis import synthetic
from tests.analysis.conftest import tabulated
from tests.analysis.synthetic import run_folder


def test_published_rows(analysed: Path):
    """All games: the values of Table 1. DQN in Pong, human starts: random -18.0, human 15.5."""
    table = pd.read_csv(analysed / "tables/table1.csv")
    rows = table[table["kind"] == "published_human_starts"].set_index("row")
    assert list(rows.index) == [
        "DQN", "Gorila", "D-DQN", "Dueling", "Prioritized", "A3C-FF 1 day", "A3C-FF 4 days",
        "A3C-LSTM",
    ]  # fmt: skip
    assert rows.loc["A3C-LSTM", "training_time"] == "4 days on CPU"
    assert rows.loc["A3C-LSTM", ["printed_mean", "printed_median"]].tolist() == [623.0, 112.6]
    assert rows.loc["A3C-LSTM", "all_games_mean"] == pytest.approx(623.11, abs=0.01)
    assert rows.loc["A3C-LSTM", "all_games_median"] == pytest.approx(112.57, abs=0.01)
    assert rows["games"].tolist() == [2] * 8
    scores = games.load_scores().set_index(["protocol", "system", "game"])["value"]
    percent = []
    for game in ("pong", "breakout"):
        random, human, score = (
            scores["human_starts", system, game] for system in ("random", "human", "a3c_ff_1_day")
        )
        percent.append(100 * (score - random) / (human - random))
    assert rows.loc["A3C-FF 1 day", "mean"] == pytest.approx(sum(percent) / 2)
    assert rows.loc["A3C-FF 1 day", "median"] == pytest.approx(sum(percent) / 2)


def test_published_noop_rows(analysed: Path):
    """Beside what their papers print, under the rule that the papers print it under."""
    table = pd.read_csv(analysed / "tables/table1.csv")
    rows = table[table["kind"] == "published_noop_starts"].set_index("row")
    printed = {"DQN (Wang 2016)": (227.9, 0.25), "A3C (Fortunato 2018)": (293, 1),
               "Prioritized (rank-based, Schaul 2016)": (434.6, 0.6)}  # fmt: skip
    assert rows["printed_mean"].dropna().to_dict() == {
        name: at for name, (at, _) in printed.items()
    }
    for name, (mean, within) in printed.items():
        assert rows.loc[name, "all_games_mean"] == pytest.approx(mean, abs=within)
    assert set(rows["all_games_rule"]) == {"mnih2016"}
    assert set(rows["rule"]) == {"plain"}
    notes = (analysed / "tables/table1.md").read_text()
    assert "Video Pinball alone counts 12,793 % for DQN" in notes


def test_a_study_may_name_the_published_rows(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", published=["rainbow", "dqn"])
    table, markdown = tabulated(results)
    rows = table.loc[table["kind"] == "published_noop_starts", "row"]
    assert list(rows) == ["Rainbow (Hessel 2018)", "DQN (Wang 2016)"]
    assert "| Rainbow (Hessel 2018) |" in markdown
    results = synthetic.write_study(tmp_path / "none", published=[])
    assert "published_noop_starts" not in set(tabulated(results)[0]["kind"])


def test_a_published_row_without_a_game_is_incomplete(tmp_path: Path):
    """DQN and Gorila have no human-starts score in Phoenix, A3C has."""
    results = synthetic.write_study(tmp_path / "study", games=["pong", "phoenix"])
    table, markdown = tabulated(results)
    rows = table[table["kind"] == "published_human_starts"].set_index("row")
    assert rows.loc[["DQN", "Gorila"], ["mean", "median", "iqm"]].isna().all().all()
    assert rows["games"].tolist() == [1, 1, 2, 2, 2, 2, 2, 2]
    assert rows["mean"].notna().tolist() == [False, False, *[True] * 6]
    line = next(line for line in markdown.splitlines() if line.startswith("| DQN | 8 days"))
    assert line.split(" | ")[-3:] == ["incomplete", "incomplete", "incomplete |"]


def test_trained_rows_are_the_aggregates_in_percent(analysed: Path):
    table = pd.read_csv(analysed / "tables/table1.csv")
    aggregates = pd.read_csv(analysed / "aggregates.csv")
    rows = table[table["kind"] == "trained"]
    assert rows[["method", "milestone"]].to_numpy().tolist() == [
        ["reinforce", 400_000],
        ["reinforce", 1_000_000],
        ["a2c", 400_000],
        ["a2c", 1_000_000],
    ]
    for row in rows.itertuples():
        for metric in ("mean", "median", "iqm"):
            own = aggregates[
                (aggregates["metric"] == metric)
                & (aggregates["method"] == row.method)
                & (aggregates["milestone"] == row.milestone)
            ].iloc[0]
            assert getattr(row, metric) == pytest.approx(100 * own["point"])
            assert getattr(row, f"{metric}_low") == pytest.approx(100 * own["low"])
            assert getattr(row, f"{metric}_high") == pytest.approx(100 * own["high"])
    assert (rows["frames"] == rows["milestone"] + 320).all()
    assert (rows["network"] == "mnih2013").all()
    assert (rows["precision"] == "fp32").all()


def test_cost_of_a_milestone_by_hand():
    """A run of 3600 s and 7200 core-seconds passed the milestone after 900 s: 1800 core-seconds.

    A second one needed 1800 of 1800 s and of 3600 core-seconds; a third never reached it.
    """
    runs = pd.DataFrame(
        {
            "milestones": ["10:12:900.0;40:40:3600.0", "10:11:1800.0", ""],
            "seconds": [3600.0, 1800.0, 5.0],
            "core_seconds": [7200.0, 3600.0, 9.0],
        }
    )
    cost = table1.milestone_cost(runs, 10)
    assert cost.to_numpy().tolist() == [[12, 900.0, 1800.0], [11, 1800.0, 3600.0]]


def test_every_method_has_a_row(analysed: Path):
    table = pd.read_csv(analysed / "tables/table1.csv")
    absent = table[table["kind"] == "not_trained"]
    # Random play is listed only where a study has it: the published row is there anyway.
    assert set(absent["method"]) == set(METHODS) - {"reinforce", "a2c", "random"}
    _, _, rows = (analysed / "tables/table1.md").read_text().partition("Not trained in this study")
    for label in ("DQN", "Gorila", "Double DQN", "Dueling", "Prioritized", "A3C-FF"):
        assert f"| {label} | {render.DASH} |" in rows


def test_reference_rows(analysed: Path):
    table = pd.read_csv(analysed / "tables/table1.csv").set_index("row")
    assert table.loc["Random", ["mean", "median", "iqm"]].tolist() == [0, 0, 0]
    assert table.loc["Human", ["mean", "median", "iqm"]].tolist() == [100, 100, 100]


def test_noop_rows_only_with_noop_references(tmp_path: Path, analysed: Path):
    kinds = set(pd.read_csv(analysed / "tables/table1.csv")["kind"])
    assert "published_noop_starts" in kinds
    results = synthetic.write_study(
        tmp_path / "study", normalisation={"references": "human_starts", "rule": "mnih2016"}
    )
    assert "published_noop_starts" not in set(tabulated(results)[0]["kind"])


def test_the_network_is_a_column_where_rows_differ(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", seeds=[0])
    for game in ("pong", "breakout"):
        record = run_folder(results, "a2c", game, 0) / "run.json"
        record.write_text(record.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    markdown = tabulated(results)[1]
    assert "| Selection | Network, precision, device | Games |" in markdown
    assert "| final weights | mnih2013, fp32, cuda | 2 |" in markdown
    assert "Network, precision and device:" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {15}


def test_method_without_a_complete_seed(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for seed in range(3):
        (run_folder(results, "a2c", "pong", seed) / "run.json").unlink()
        for game in ("pong", "breakout"):
            (run_folder(results, "reinforce", game, seed) / "run.json").unlink()
    table, markdown = tabulated(results)
    rows = table[table["method"].isin(["reinforce", "a2c"])]
    assert rows["kind"].tolist() == ["no_complete_seed"] * 3
    assert rows["games"].tolist() == [0, 1, 1]
    assert rows["milestone"].fillna(0).tolist() == [0, 400_000, 1_000_000]
    lines = [line for line in markdown.splitlines() if line.startswith(("| REINF", "| A2C at"))]
    assert [line.split(" | ")[4:6] + line.split(" | ")[-3:] for line in lines] == [
        ["0 of 2", "0", "missing", "missing", "missing |"],
        *[["1 of 2", "0", "incomplete", "incomplete", "incomplete |"]] * 2,
    ]
    assert lines[0].startswith("| REINFORCE | – | – | final weights | ")
    short = (results / "tables/summary.md").read_text().splitlines()
    names = [
        line.split("|")[1].strip() for line in short if line.startswith(("| REINF", "| A2C at"))
    ]
    assert names == ["REINFORCE", "A2C at 400k", "A2C at 1M"]
    assert "12 runs x 2 milestones): REINFORCE: no run has finished; A2C: no finished" in markdown


def test_estimate_of_the_57_game_median(tmp_path: Path):
    """Of the means over seeds, with an interval, beside the published rows under no-op starts."""
    five = sorted(atari5.COEFFICIENTS["atari5"])
    results = synthetic.write_study(
        tmp_path / "study", games=["pong", *five], methods=["a2c"], milestones_frames=[1_000_000]
    )
    table, markdown = tabulated(results)
    study = load_study(results)
    scores = run_scores(study, load_episodes(results))
    percent = 100 * scores.groupby("game")["normalised"].mean()
    expected = atari5.estimate_median(percent.to_dict())
    row = table[table["kind"] == "trained"].iloc[0]
    assert row["atari5"] == pytest.approx(expected)
    assert row["atari5_low"] < expected < row["atari5_high"]
    assert "Median of 57 games, Atari-5 estimate |\n" in markdown
    assert (
        f"{row['atari5']:.1f} [{row['atari5_low']:.1f}, {row['atari5_high']:.1f}] |\n" in markdown
    )
    assert "relative error, cross-validated, is 10.4 % for" in markdown
    published = table[table["kind"] == "published_noop_starts"].set_index("row")["atari5"]
    # DQN's median of the 57 games is 79.1; Gorila has no score in Phoenix.
    assert published["DQN (Wang 2016)"] == pytest.approx(89.8, abs=0.05)
    assert pd.isna(published["Gorila (Nair 2015)"])
    players = table[table["kind"] == "reference"].set_index("row")["atari5"]
    assert players.tolist() == [0.0, pytest.approx(101**0.96531 - 1)]
    assert table[table["kind"] == "published_human_starts"]["atari5"].isna().all()


def test_no_estimate_where_the_coefficients_do_not_apply(tmp_path: Path):
    five = sorted(atari5.COEFFICIENTS["atari5"])
    for name, changes in {
        "four": {"games": five[:4]},
        "human": {"games": five, "normalisation": {"references": "human_starts", "rule": "plain"}},
        "rule": {"games": five, "normalisation": {"references": "noop_starts", "rule": "absolute"}},
    }.items():
        results = synthetic.write_study(tmp_path / name, methods=["a2c"], seeds=[0], **changes)
        table, markdown = tabulated(results)
        assert table["atari5"].isna().all()
        assert "Atari-5" not in markdown


def test_aggregates_of_another_study(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    tabulated(results)
    aggregates = pd.read_csv(results / "aggregates.csv")
    aggregates[aggregates["method"] != "a2c"].to_csv(results / "aggregates.csv", index=False)
    assert tables.main(["--results", str(results)]) == 1
    assert "0 rows for mean of a2c at 400000 frames" in capsys.readouterr().err


def test_games_by_hand(tmp_path: Path):
    """Scores 1, 2 and 6 of three seeds: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt 7.

    Standard error sqrt(7 / 3) = 1.5275.
    """
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], milestones_frames=[1_000_000]
    )
    for seed, score in enumerate((1.0, 2.0, 6.0)):
        for row in range(4):
            folder = run_folder(results, "a2c", "pong", seed)
            synthetic.change_cell(folder, 1_000_000, row, "return", score)
    tabulated(results)
    table = pd.read_csv(results / "tables/games.csv")
    own = table[table["kind"] == "trained"].iloc[0]
    assert own["score"] == pytest.approx(3.0)
    assert own["standard_error"] == pytest.approx(1.5275, abs=1e-4)
    assert own["per_seed"] == "0:1.0;1:2.0;2:6.0"
    by_row = table.set_index("row")["score"]
    assert by_row["Random"] == -20.7
    assert by_row["Human"] == 14.6
    assert by_row["A3C-FF 1 day"] == 11.4
    others = table[table["kind"] == "reimplementation"].set_index("row")
    assert others.loc["A2C (Schulman 2017)", "budget_frames"] == 40_000_000
    assert "3.0 ± 1.5" in (results / "tables/games.md").read_text()


def test_cost_and_seeds_are_those_of_the_scores(tmp_path: Path):
    """Seed 1 lacks Breakout: its slow run in Pong is in no row, and its score has its place."""
    results = synthetic.write_study(tmp_path / "study", incomplete="list", methods=["a2c"])
    shutil.rmtree(run_folder(results, "a2c", "breakout", 1))
    slow = run_folder(results, "a2c", "pong", 1)
    milestones = json.loads((slow / "run.json").read_text())["milestones"]
    for milestone in milestones:
        milestone["seconds"] = 1e9
    synthetic.change_record(slow, seconds=1e9, core_seconds=1e9, milestones=milestones)
    rows = tabulated(results)[0]
    assert (rows[rows["kind"] == "trained"]["hours"] < 1).all()
    assert (rows[rows["kind"] == "trained"]["core_hours"] < 1).all()
    lines = (results / "tables/games.md").read_text().splitlines()
    lines = lines[lines.index("## The same, each seed") :]
    each = [line.split(" | ")[1] for line in lines if line.startswith(("| Pong", "| Breakout"))]
    assert [[score == "–" for score in cell.split(", ")] for cell in each[:2]] == [
        [False, False, False],
        [False, True, False],
    ]


def test_impossible_published_score_is_marked(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", games=["tennis"], methods=["a2c"])
    tabulated(results)
    markdown = (results / "tables/games.md").read_text()
    assert "-2,873.0†" in markdown
    assert "† the source prints a score that the game cannot give." in markdown


class Tags(HTMLParser):
    """Refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.cells += tag == "td"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_a_reader_must_know_of_published_scores_is_printed(analysed: Path):
    systems = load_scores().drop_duplicates(["protocol", "system"])
    said = systems.loc[systems["caveat"] != "", ["label", "caveat"]]
    assert list(said["label"]) == ["A2C (OpenAI baselines)"]
    markdown = (analysed / "tables/games.md").read_text()
    assert markdown.count(f"{said['label'].iloc[0]}: {said['caveat'].iloc[0]}.\n") == 1


def test_html_is_well_formed(analysed: Path):
    tags = Tags()
    tags.feed((analysed / "tables/table1.html").read_text())
    assert tags.open == []
    table = pd.read_csv(analysed / "tables/table1.csv")
    assert tags.cells == len(table) * 12


def test_latex_escapes_and_counts_columns(analysed: Path):
    text = (analysed / "tables/table1.tex").read_text()
    body = text.split("\\toprule")[1].split("\\bottomrule")[0]
    rows = [
        line for line in body.splitlines() if line.endswith("\\\\") and "multicolumn" not in line
    ]
    assert {line.count(" & ") for line in rows} == {12}
    for line in text.splitlines()[1:]:
        if not line.endswith("{%"):
            assert "%" not in line.replace("\\%", "")
    grid = render.Grid("50 % of a_b & c", ["x", "y"], [render.Row(["a_b", "±1"])])
    out = render.latex(grid)
    assert "50 \\% of a\\_b \\& c" in out
    assert "$\\pm$1" in out


def test_tables_are_the_same_bytes_twice(analysed: Path):
    names = sorted((analysed / "tables").iterdir())
    assert [path.name for path in names] == [
        "games.csv", "games.md", "summary.md", "table1.csv", "table1.html", "table1.md",
        "table1.tex",
    ]  # fmt: skip
    first = [path.read_bytes() for path in names]
    assert tables.main(["--results", str(analysed)]) == 0
    assert [path.read_bytes() for path in names] == first


def test_before_collect(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    assert tables.main(["--results", str(results)]) == 1
    assert "python -m analysis.collect writes it" in capsys.readouterr().err


def test_methods_keep_the_order_of_the_list(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", methods=["a3c_ff", "reinforce"])
    table, _ = tabulated(results)
    trained = table.loc[table["kind"] == "trained", "method"]
    assert list(dict.fromkeys(trained)) == ["reinforce", "a3c_ff"]
    assert load_study(results).methods == ["a3c_ff", "reinforce"]
    assert len(load_runs(results)) == 12
