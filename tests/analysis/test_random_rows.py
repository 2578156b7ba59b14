"""Random play in a study: rows of its own, without frames, and no curve."""

from pathlib import Path

import pandas as pd
import pytest

from analysis import aggregate, collect, plot_style, plots, report, status, tables
from analysis.curves import bin_count, curves, load_training
from analysis.scores import load_aggregates, load_runs
from analysis.study import METHODS, load_study, read_json
from tests.analysis import synthetic
from tests.analysis.synthetic import run_folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysed study of random play and A2C, two milestones; not to be changed."""
    folder = tmp_path_factory.mktemp("random") / "study"
    synthetic.write_study(folder, methods=["a2c", "random"])
    for game in ("pong", "breakout"):
        for seed in range(3):
            synthetic.untrain(run_folder(folder, "random", game, seed))
    for module in (collect, aggregate, tables, plots, report):
        assert module.main(["--results", str(folder)]) == 0
    return folder


def test_one_row_beside_those_of_a2c(results: Path):
    table = pd.read_csv(results / "tables/table1.csv")
    trained = table[table["kind"] == "trained"]
    assert trained[["method", "milestone", "frames"]].values.tolist() == [
        ["random", 1_000_000, 0],
        ["a2c", 400_000, 400_320],
        ["a2c", 1_000_000, 1_000_320],
    ]
    point = load_aggregates(results).set_index(["metric", "method", "milestone"])["point"]
    assert trained["mean"].iloc[0] == pytest.approx(100 * point["mean", "random", 1_000_000])


def test_printed_without_milestone_budget_and_network(results: Path):
    lines = (results / "tables/table1.md").read_text().splitlines()
    (row,) = [line for line in lines if "nothing is trained" in line]
    assert [cell.strip() for cell in row.split("|")[1:6]] == [
        "Random", "nothing is trained", "0", "–", "2"
    ]  # fmt: skip
    assert "Random, measured here" in (results / "tables/games.md").read_text()
    # `all` of the study's overrides does not concern it.
    (note,) = [line for line in lines if "changes from the method files" in line]
    assert "Random" not in note


def test_absent_where_no_study_asks_for_it(tmp_path: Path):
    synthetic.write_study(tmp_path / "study", seeds=[0])
    for module in (collect, aggregate, tables):
        assert module.main(["--results", str(tmp_path / "study")]) == 0
    table = pd.read_csv(tmp_path / "study/tables/table1.csv")
    assert "random" not in set(table["method"])


def test_curves_are_those_of_the_trained_methods(results: Path):
    study = load_study(results)
    training = load_training(results, load_runs(results))
    assert {method for method, _, _ in training} == {"a2c"}
    assert bin_count(training) == 15  # 60 episodes, 4 a bin
    assert list(curves(study, training, ["pong"], "frames", False)) == ["a2c"]


def test_colour_is_its_own(results: Path):
    study = load_study(results)
    colours = [plot_style.style(study, method)["color"] for method in METHODS]
    assert colours.count(plot_style.style(study, "random")["color"]) == 1


def test_status_counts_only_frames_to_be_trained(results: Path):
    study = load_study(results)
    assert "6M of 6M frames, 100.0 %" in status.lines(study, results, 0.0)[-1]


def test_a_trained_run_without_frames_is_still_refused(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", methods=["a2c"])
    synthetic.change_record(run_folder(results, "a2c", "pong", 0), frames=0)
    with pytest.raises(collect.ResultsError, match="status is finished at 0 of 1000000 frames"):
        collect.collect(results)


def test_random_play_has_no_settings_of_others(results: Path):
    record = read_json(run_folder(results, "random", "pong", 0) / "run.json")
    assert "network" not in record["settings"]
    assert load_study(results).expected_settings("random")["network"] == "nature"
