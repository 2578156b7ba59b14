"""Which policy a row reports: the one of its milestone, or the best up to there."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import aggregate, collect, plots, report, tables
from analysis.scores import load_episodes, run_scores
from analysis.study import ResultsError, load_study
from tests.analysis import synthetic
from tests.analysis.conftest import tabulated
from tests.analysis.synthetic import run_folder

MILESTONES = [100_000, 400_000, 1_000_000]
# Pong, mean return of each seed at each milestone: the first gets worse, the second better.
SCORES = {0: [-10.0, 4.0, -3.0], 1: [-20.0, -19.0, 2.0]}
BEST = {0: [-10.0, 4.0, 4.0], 1: [-20.0, -19.0, 2.0]}


def played(results: Path, **changes) -> Path:
    """Write a study of A2C and DQN on Pong in which both have SCORES; collect it."""
    synthetic.write_study(
        results, games=["pong"], methods=["a2c", "dqn"], seeds=[0, 1],
        milestones_frames=MILESTONES, **changes,
    )  # fmt: skip
    for method in ("a2c", "dqn"):
        for seed, scores in SCORES.items():
            for milestone, score in zip(MILESTONES, scores, strict=True):
                for row, off in enumerate((-1, 1, 0, 0)):
                    folder = run_folder(results, method, "pong", seed)
                    synthetic.change_cell(folder, milestone, row, "return", score + off)
    assert collect.main(["--results", str(results)]) == 0
    return results


def scores_of(results: Path, method: str, column: str) -> dict[int, list]:
    table = run_scores(load_study(results), load_episodes(results))
    own = table[table["method"] == method].sort_values("milestone")
    assert own["milestone"].unique().tolist() == MILESTONES
    return {seed: rows[column].tolist() for seed, rows in own.groupby("seed")}


def test_final_is_the_default_and_best_is_by_method(tmp_path: Path):
    plain = played(tmp_path / "plain")
    assert scores_of(plain, "a2c", "score") == scores_of(plain, "dqn", "score") == SCORES
    assert scores_of(plain, "dqn", "selected") == {0: MILESTONES, 1: MILESTONES}
    mixed = played(tmp_path / "mixed", selection={"dqn": "best"})
    assert scores_of(mixed, "a2c", "score") == SCORES
    assert scores_of(mixed, "dqn", "score") == BEST
    other = played(tmp_path / "other", selection={"all": "best", "dqn": "final"})
    assert scores_of(other, "a2c", "score") == BEST
    assert scores_of(other, "dqn", "score") == SCORES


def test_best_says_which_policy_it_is_and_keeps_the_frames_of_its_row(tmp_path: Path):
    """A row costs its own frames, also where the policy was kept before them."""
    results = played(tmp_path, selection={"dqn": "best"})
    assert scores_of(results, "dqn", "selected") == {0: [100_000, 400_000, 400_000], 1: MILESTONES}
    frames = [milestone + 320 for milestone in MILESTONES]
    assert scores_of(results, "dqn", "frames") == {0: frames, 1: frames}
    # -20.7 is random and 14.6 human: (4 + 20.7) / 35.3
    assert scores_of(results, "dqn", "normalised")[0][2] == pytest.approx(24.7 / 35.3)


def test_of_equal_ones_the_earliest_is_selected(tmp_path: Path):
    results = played(tmp_path, selection={"dqn": "best"})
    episodes = load_episodes(results).assign(**{"return": 3.0})
    table = run_scores(load_study(results), episodes)
    assert set(table.loc[table["method"] == "dqn", "selected"]) == {100_000}


def test_best_is_the_best_in_points_where_human_is_below_random(tmp_path: Path):
    """Video Pinball, human starts: a higher score is a lower `plain` percentage."""
    results = synthetic.write_study(
        tmp_path, games=["video_pinball"], methods=["dqn"], seeds=[0], selection={"all": "best"},
        normalisation={"references": "human_starts", "rule": "plain"},
    )  # fmt: skip
    for milestone, score in ((400_000, 30_000), (1_000_000, 10_000)):
        for row in range(4):
            folder = run_folder(results, "dqn", "video_pinball", 0)
            synthetic.change_cell(folder, milestone, row, "return", score)
    collect.main(["--results", str(results)])
    assert run_scores(load_study(results), load_episodes(results))["score"].tolist() == [3e4, 3e4]


def test_a_milestone_without_an_evaluation_stays_missing(tmp_path: Path):
    """The best before it is not put in its place."""
    results = played(tmp_path, selection={"all": "best"}, incomplete="list")
    folder = run_folder(results, "dqn", "pong", 0)
    (folder / "evaluation" / "1000000" / "episodes.csv").unlink()
    collect.main(["--results", str(results)])
    table = run_scores(load_study(results), load_episodes(results))
    own = table[(table["method"] == "dqn") & (table["seed"] == 0)]
    assert own["milestone"].tolist() == MILESTONES[:2]


def test_every_file_says_which(tmp_path: Path):
    """Mean over seeds at 1M frames: final (-3 + 2) / 2 = -0.5, best (4 + 2) / 2 = 3 points."""
    results = played(tmp_path, selection={"dqn": "best"})
    for module in (aggregate, tables, plots, report):
        assert module.main(["--results", str(results)]) == 0
    said = {"a2c": "final weights", "dqn": "best checkpoint"}
    aggregates = pd.read_csv(results / "aggregates.csv")
    assert aggregates["selection"].tolist() == aggregates["method"].map(said).tolist()
    last = aggregates[(aggregates["milestone"] == 1_000_000) & (aggregates["metric"] == "mean")]
    points = dict(zip(last["method"], 35.3 * last["point"] - 20.7, strict=True))
    assert points == {"a2c": pytest.approx(-0.5), "dqn": pytest.approx(3.0)}
    games = pd.read_csv(results / "tables/games.csv").query("kind == 'trained'")
    assert games["selection"].tolist() == games["method"].map(said).tolist()
    last = games[games["milestone"] == 1_000_000].set_index("method")
    assert last["score"].to_dict() == {"a2c": -0.5, "dqn": 3.0}
    assert last["selected"].to_dict() == {"a2c": "0:1000000;1:1000000", "dqn": "0:400000;1:1000000"}
    assert "DQN at 1M, best checkpoint" in (results / "tables/games.md").read_text()
    table = pd.read_csv(results / "tables/table1.csv")
    trained = table[table["kind"] == "trained"]
    assert trained["selection"].tolist() == trained["method"].map(said).tolist()
    published = table[table["kind"] == "published_human_starts"].set_index("row")["selection"]
    assert published[["DQN", "A3C-FF 4 days"]].tolist() == ["best checkpoint", "final weights"]
    text = (results / "tables/table1.md").read_text()
    with_scores = text.split("| **Not trained in this study**")[0]
    rows = [line.split("|") for line in with_scores.splitlines() if line.startswith("|")]
    cells = {row[1].strip(): row[4].strip() for row in rows}
    assert cells["Method"] == "Selection"
    assert (cells["A2C at 1M"], cells["DQN at 1M"]) == ("final weights", "best checkpoint")
    assert (cells["Prioritized"], cells["Gorila"]) == ("best checkpoint", "not published")
    assert cells["Human"] == "–"
    assert "(1 at 100k, 2 at 400k, 3 at 1M)" in text
    assert "biased upwards" in text
    said = "final weights of A2C; best checkpoint of DQN"
    assert f"reported: {said}" in (results / "report.html").read_text()
    assert f"Policies reported: {said}." in (results / "report.html").read_text()


def test_the_standard_error_is_that_of_the_selected_policy(tmp_path: Path):
    """DQN's first seed at 400k is 0, 8, 4, 4: variance 32/3, squared error 8/3; others 1/6.

    At 1M the first seed reports that one: sqrt(8/3 + 1/6) / 2 of 35.3 points are 2.4 %. A2C's is
    sqrt(1/6 + 1/6) / 2, 0.8 %.
    """
    results = played(tmp_path, selection={"dqn": "best"})
    for row, score in enumerate((0, 8, 4, 4)):
        synthetic.change_cell(run_folder(results, "dqn", "pong", 0), 400_000, row, "return", score)
    notes = tabulated(results)[1]
    assert "A2C at 1M 0.8, DQN at 100k 0.8, DQN at 400k 2.4, DQN at 1M 2.4." in notes


def test_bias_is_not_said_where_nothing_was_selected(analysed: Path):
    text = (analysed / "tables/table1.md").read_text()
    assert "Selection says which policy" in text
    assert "biased" not in text
    assert "reported: final weights" in (analysed / "report.html").read_text()


def test_random_play_has_nothing_to_select(tmp_path: Path):
    results = synthetic.write_study(tmp_path, methods=["random"], selection={"all": "best"})
    assert load_study(results).selection_label("random") == "none"


def test_unknown_selection_in_study_json_is_refused(tmp_path: Path):
    synthetic.write_study(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"selection": {"dqn": "last"}}))
    with pytest.raises(ResultsError, match=r"selection\.dqn = 'last': unknown; allowed: final"):
        load_study(tmp_path)
