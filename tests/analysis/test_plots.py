"""Learning curves by hand; figures exist and repeat byte by byte."""

import dataclasses
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from analysis import aggregate, collect, plot_style, plots, report, tables
from analysis.curves import binned, curve, curves, load_training
from analysis.figures import FIGURES, caption, names
from analysis.reference import load_curves
from analysis.scores import load_aggregates, load_episodes, load_runs, run_scores
from analysis.study import METHODS, ResultsError, load_study
from tests.analysis import synthetic
from tests.analysis.synthetic import run_folder


def test_bins_by_hand():
    """Bins of 10: [0, 10) holds nothing, [10, 20) 1 and 3, [20, 30) nothing, [30, 40] 8 and 10."""
    at = np.array([10.0, 19.0, 35.0, 40.0, 41.0])
    returns = np.array([1.0, 3.0, 8.0, 10.0, 1000.0])
    out = binned(at, returns, 40.0, 4)
    assert np.isnan(out[0])
    assert out[1:].tolist() == [2.0, 2.0, 9.0]


def test_curve_by_hand():
    """Two seeds, one game: means 1 and 3, then 2 and 4; the first bin has one value and is left.

    A draw of two seeds is 1, 2 or 3 (2, 3 or 4) with chances 1/4, 1/2, 1/4, so 90 % is all of it.
    """
    values = np.array([[[np.nan, 1.0, 2.0]], [[0.0, 3.0, 4.0]]])
    line = curve(values, np.array([5.0, 15.0, 25.0]), 0.9, 0)
    assert line.x.tolist() == [15.0, 25.0]
    assert line.mean.tolist() == [2.0, 3.0]
    assert line.low.tolist() == [1.0, 2.0]
    assert line.high.tolist() == [3.0, 4.0]


def test_the_band_draws_seeds_within_each_game():
    """Drawn alike in both games, every draw would have the mean 0.5."""
    line = curve(np.array([[[0.0], [1.0]], [[1.0], [0.0]]]), np.array([5.0]), 0.95, 0)
    assert line.low[0] < line.mean[0] == 0.5 < line.high[0]


def test_curve_of_one_seed_has_no_band():
    line = curve(np.array([[[1.0, 2.0]]]), np.array([1.0, 2.0]), 0.95, 0)
    assert line.mean.tolist() == [1.0, 2.0]
    assert np.isnan(line.low).all()


def test_curve_ends_where_its_first_run_ends(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", games=["pong"], methods=["a2c"])
    synthetic.diverge(run_folder(results, "a2c", "pong", 2), 600_000)
    log = run_folder(results, "a2c", "pong", 2) / "training_episodes.csv"
    table = pd.read_csv(log)
    table[table["frames"] <= 600_000].to_csv(log, index=False)
    collect.main(["--results", str(results)])
    study = load_study(results)
    training = load_training(results, load_runs(results))
    line = curves(study, training, ["pong"], "frames", False)["a2c"]
    # Its last bin is the one in which the shortest run's last episode ended.
    width = line.x[1] - line.x[0]
    assert line.x[-1] - width / 2 < table.query("frames <= 600_000")["frames"].max()
    assert 600_000 - width < line.x[-1] < 600_000 + width / 2


def test_a_panel_without_a_curve_says_why(tmp_path: Path):
    """No run of the game is there, or its runs ended before their first episode did."""
    games = ["pong", "breakout", "qbert"]
    results = synthetic.write_study(tmp_path / "study", games=games, methods=["a2c"])
    collect.main(["--results", str(results)])
    study = load_study(results)
    for file in results.glob("runs/a2c/qbert/*/training_episodes.csv"):
        file.write_text(file.read_text().splitlines()[0] + "\n")
    training = load_training(results, load_runs(results))
    found = {key: log for key, log in training.items() if key[1] != "breakout"}
    panels = plots.learning_curves(study, found, "frames").axes
    said = [{text.get_text() for text in axes.texts} for axes in panels[:3]]
    reasons = {"no finished run", "no episode ended in every run"}
    assert [texts & reasons for texts in said] == [
        set(),
        {"no finished run"},
        {"no episode ended in every run"},
    ]


def test_a_panel_by_time_without_a_curve_says_why(tmp_path: Path):
    """The slow run's first episode ended after the fast run."""
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=[0, 1]
    )
    log = run_folder(results, "a2c", "pong", 1) / "training_episodes.csv"
    slow = pd.read_csv(log)
    slow.assign(seconds=slow["seconds"] + 1e6).to_csv(log, index=False)
    collect.main(["--results", str(results)])
    study = load_study(results)
    training = load_training(results, load_runs(results))
    assert curves(study, training, ["pong"], "frames", True)
    for axes in (
        plots.learning_curves(study, training, "hours").axes[0],
        plots.learning_curves_normalised(study, training).axes[1],
    ):
        said = [text.get_text() for text in axes.texts]
        assert "no episode had ended in every run\nby the end of the fastest" in said
        assert not len(axes.get_xticks())  # there is no time to show


def test_the_legend_names_no_training_curve_beyond_the_budget(tmp_path: Path):
    """RL Baselines3 Zoo's begin at 500k frames, OpenAI Baselines' at 0."""
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], milestones_frames=[500_000]
    )
    collect.main(["--results", str(results)])
    training = load_training(results, load_runs(results))
    figure = plots.learning_curves(load_study(results), training, "frames")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["A2C", "random player", "A2C, OpenAI Baselines"]
    assert len([o for o in figure.axes[0].lines if o.get_linewidth() == 0.9]) == 1


def test_training_curves_of_others_end_with_the_budget(tmp_path: Path):
    """A2C's are drawn in the games that have them, by frames only, and no other method's."""
    games, methods = ["pong", "phoenix"], ["a2c", "a3c_ff"]
    results = synthetic.write_study(tmp_path / "study", games=games, methods=methods)
    collect.main(["--results", str(results)])
    study = load_study(results)
    training = load_training(results, load_runs(results))
    published = load_curves().query("game == 'pong' and method == 'a2c'")
    figure = plots.learning_curves(study, training, "frames")
    thin = [[o for o in axes.lines if o.get_linewidth() == 0.9] for axes in figure.axes[:2]]
    assert [len(lines) for lines in thin] == [published["system"].nunique(), 0] == [2, 0]
    for line, (_, own) in zip(thin[0], published.groupby("system", sort=False), strict=True):
        x, y = line.get_data()
        assert x[0] == own["frames"].iloc[0]
        assert x[-1] == study.milestones_frames[-1]
        assert y == pytest.approx(np.interp(x, own["frames"], own["value"]))
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[-2:] == ["A2C, OpenAI Baselines", "A2C, RL Baselines3 Zoo"]
    hours = plots.learning_curves(study, training, "hours")
    without = plots.learning_curves(
        dataclasses.replace(study, methods=["a3c_ff"]), training, "frames"
    )
    for other in (hours, without):
        assert not [o for axes in other.axes for o in axes.lines if o.get_linewidth() == 0.9]


def test_normalised_curve_is_linear_in_the_raw_one(tmp_path: Path):
    """Pong, no-op references -20.7 and 14.6: percent = 100 (return + 20.7) / 35.3."""
    results = synthetic.write_study(tmp_path / "study", games=["pong"], methods=["a2c"])
    collect.main(["--results", str(results)])
    study = load_study(results)
    training = load_training(results, load_runs(results))
    raw = curves(study, training, ["pong"], "frames", False)["a2c"]
    percent = curves(study, training, ["pong"], "frames", True)["a2c"]
    assert percent.mean == pytest.approx(100 * (raw.mean + 20.7) / 35.3)
    hours = curves(study, training, ["pong"], "hours", False)["a2c"]
    longest = max(log.ends["seconds"] for log in training.values())
    assert 0 < hours.x[-1] < longest / 3600


def test_a_normalised_curve_follows_the_rule_of_the_study(tmp_path: Path):
    """Video Pinball, human starts: 15641.1 - 20452.0 is negative, and `absolute` is not."""
    results = synthetic.write_study(
        tmp_path / "study",
        games=["video_pinball"],
        methods=["a2c"],
        normalisation={"references": "human_starts", "rule": "absolute"},
    )
    collect.main(["--results", str(results)])
    study = load_study(results)
    training = load_training(results, load_runs(results))
    raw = curves(study, training, ["video_pinball"], "frames", False)["a2c"]
    percent = curves(study, training, ["video_pinball"], "frames", True)["a2c"]
    assert percent.mean == pytest.approx(100 * (raw.mean - 20452.0) / 4810.9)


@pytest.mark.parametrize(("line", "value"), [(4, "nan"), (4, "x"), (4, "")])
def test_bad_training_log_is_named(tmp_path: Path, line: int, value: str):
    results = synthetic.write_study(tmp_path / "study")
    collect.main(["--results", str(results)])
    path = run_folder(results, "a2c", "pong", 0) / "training_episodes.csv"
    rows = path.read_text().splitlines()
    cells = rows[line - 1].split(",")
    cells[4] = value
    rows[line - 1] = ",".join(cells)
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(ResultsError, match=r"a2c/pong/0/training_episodes\.csv"):
        load_training(results, load_runs(results))


def test_figures_exist_and_repeat(analysed: Path):
    folder = analysed / "figures"
    expected = sorted(f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg"))
    assert sorted(path.name for path in folder.iterdir()) == expected
    first = {name: (folder / name).read_bytes() for name in expected}
    assert plots.main(["--results", str(analysed)]) == 0
    for name in expected:
        assert (folder / name).read_bytes() == first[name], name
    for name in FIGURES:
        ElementTree.parse(folder / f"{name}.svg")
        assert b"<dc:date>" not in first[f"{name}.svg"]


def test_figures_of_one_seed_one_method_and_no_log(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=[0], milestones_frames=[10**6]
    )
    (run_folder(results, "a2c", "pong", 0) / "training_episodes.csv").unlink()
    for module in (collect, aggregate, plots):
        assert module.main(["--results", str(results)]) == 0
    assert len(list((results / "figures").glob("*.png"))) == len(FIGURES) - 1


def test_only_figures_that_can_say_something(tmp_path: Path):
    """One method is compared with none, and random play does not learn. Old ones are removed."""
    results = synthetic.write_study(tmp_path / "study", methods=["a2c", "random"], seeds=[0])
    for game in ("pong", "breakout"):
        synthetic.untrain(run_folder(results, "random", game, 0))
    study = load_study(results)
    assert names(study) == list(FIGURES)
    shown = {"learning_curves", "learning_curves_hours", "learning_curves_normalised"}
    shown |= {"interval_estimates", "performance_profiles", "per_game"}
    assert names(dataclasses.replace(study, methods=["a2c"])) == [n for n in FIGURES if n in shown]
    for module in (collect, aggregate, plots):
        assert module.main(["--results", str(results)]) == 0
    record = json.loads((results / "study.json").read_text())
    (results / "study.json").write_text(json.dumps(record | {"methods": ["random"]}))
    for module in (collect, aggregate, plots, tables, report):
        assert module.main(["--results", str(results)]) == 0
    kept = ["interval_estimates", "per_game", "performance_profiles"]
    assert sorted(path.stem for path in (results / "figures").glob("*.svg")) == kept
    text = (results / "report.html").read_text()
    assert [name for name in FIGURES if f'<h3 id="{name}">' in text] == [
        "interval_estimates", "performance_profiles", "per_game"
    ]  # fmt: skip


def test_figures_without_any_run(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for record in (results / "runs").glob("*/*/*/run.json"):
        record.unlink()
    for module in (collect, aggregate, plots):
        assert module.main(["--results", str(results)]) == 0
    assert len(list((results / "figures").glob("*.svg"))) == len(FIGURES)


def test_every_method_has_its_own_look(analysed: Path):
    """Those that a user adds too, as far as OTHER_STYLES goes."""
    own = [f"a2c_variant_{number}" for number, _ in enumerate(plot_style.OTHER_STYLES)]
    study = dataclasses.replace(load_study(analysed), methods=[own[0], *METHODS, *own[1:]])
    looks = [plot_style.style(study, method) for method in study.methods]
    assert len({look["color"] for look in looks}) == len(study.methods)
    assert len({look["marker"] for look in looks}) == len(study.methods)
    more = dataclasses.replace(study, methods=[*study.methods, "one_more"])
    assert plot_style.style(more, "one_more") == plot_style.style(study, own[0])


def test_every_figure_has_a_caption(analysed: Path):
    study = load_study(analysed)
    scores = run_scores(study, load_episodes(analysed))
    for name in FIGURES:
        text = caption(name, study, scores)
        assert text.endswith(".")
        assert "Not there yet" not in text


def test_captions_of_the_last_milestone_name_who_is_not_in_them(tmp_path: Path):
    """DQN lacks one game, Dueling all; the figure of single games has the former."""
    methods = ["dqn", "double_dqn", "dueling"]
    results = synthetic.write_study(
        tmp_path / "study", methods=methods, seeds=[0], incomplete="list"
    )
    shutil.rmtree(run_folder(results, "dqn", "pong", 0))
    shutil.rmtree(results / "runs/dueling")
    assert collect.main(["--results", str(results)]) == 0
    study = load_study(results)
    scores = run_scores(study, load_episodes(results))
    for name in ("performance_profiles", "probability_of_improvement"):
        assert "Not there yet: DQN, Dueling." in caption(name, study, scores)
    assert "Not there yet: Dueling." in caption("per_game", study, scores)
    for name in ("learning_curves", "interval_estimates"):
        assert "Not there yet" not in caption(name, study, scores)


def test_published_scores_are_those_of_the_study_s_protocol(tmp_path: Path):
    """Pong, percent of human. No-op starts: random -20.7, human 14.6; DQN 19.5 (Wang et al. 2016),
    A3C 7 (Fortunato et al. 2018). A3C-LSTM has human starts alone: -18.0, 15.5; 10.7.
    """
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["dqn", "a3c_lstm"], seeds=[0]
    )
    assert collect.main(["--results", str(results)]) == 0
    figure = plots.per_game(load_study(results), load_episodes(results))
    (axes,) = figure.axes
    marks = {
        line.get_marker(): line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert marks["d"] == pytest.approx(100 * (19.5 + 20.7) / (14.6 + 20.7))
    assert marks["x"] == pytest.approx(100 * (10.7 + 18.0) / (15.5 + 18.0))
    line = next(line for line in axes.lines if line.get_linewidth() == 1.4)
    assert line.get_xdata()[0] == pytest.approx(100 * (7 + 20.7) / (14.6 + 20.7))
    assert [text.get_text() for text in figure.legends[0].get_texts()][2:] == [
        "human",
        "published A3C (Fortunato 2018), no-op starts",
        "published, same method, no-op starts",
        "published, same method, human starts",
    ]


def test_the_legend_names_no_published_score_that_is_not_there(tmp_path: Path):
    """Schulman et al. 2017 have A2C in 49 games, Phoenix is not among them."""
    results = synthetic.write_study(
        tmp_path / "study", games=["phoenix"], methods=["a2c"], seeds=[0]
    )
    assert collect.main(["--results", str(results)]) == 0
    figure = plots.per_game(load_study(results), load_episodes(results))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "A2C", "human", "published A3C (Fortunato 2018), no-op starts"
    ]  # fmt: skip


@pytest.mark.parametrize(("rule", "random"), [("plain", 16256.9), ("mnih2016", 0.0)])
def test_published_scores_are_under_the_study_s_rule(tmp_path: Path, rule: str, random: float):
    """Video Pinball, no-op starts: random 16256.9, human 17667.9, DQN 196760.4 (Wang et al.
    2016)."""
    results = synthetic.write_study(
        tmp_path / "study",
        games=["video_pinball"],
        methods=["dqn"],
        normalisation={"references": "noop_starts", "rule": rule},
    )
    assert collect.main(["--results", str(results)]) == 0
    study, episodes = load_study(results), load_episodes(results)
    figure = plots.per_game(study, episodes)
    mark = next(line for line in figure.axes[0].lines if line.get_marker() == "d")
    value = 100 * (196760.4 - random) / (17667.9 - random)
    assert mark.get_xdata()[0] == pytest.approx(value)
    assert f"The rule is `{rule}`, of values under human starts `mnih2016`." in caption(
        "per_game", study, run_scores(study, episodes)
    )
    assert "single seeds" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_point_without_an_interval_is_hollow(tmp_path: Path):
    """REINFORCE has one whole seed, A2C two."""
    results = synthetic.write_study(tmp_path / "study", seeds=[0, 1], incomplete="list")
    shutil.rmtree(run_folder(results, "reinforce", "pong", 1))
    for module in (collect, aggregate):
        assert module.main(["--results", str(results)]) == 0
    study, aggregates = load_study(results), load_aggregates(results)
    faces = {
        line.get_color(): line.get_markerfacecolor()
        for line in plots.interval_estimates(study, aggregates).axes[0].lines
        if len(line.get_xdata()) == 1
    }
    one, two = (plot_style.style(study, method)["color"] for method in ("reinforce", "a2c"))
    assert faces == {one: "white", two: two}
    (line,) = plots.probability_of_improvement(study, aggregates).axes[0].lines[:1]
    assert line.get_markerfacecolor() == "white"
    scores = run_scores(study, load_episodes(results))
    for name in ("learning_curves", "interval_estimates", "probability_of_improvement"):
        assert "Intervals of few seeds are too narrow" in caption(name, study, scores)


def test_no_legend_is_wider_than_its_figure(tmp_path: Path):
    methods = ["dqn", "double_dqn", "dueling", "prioritized"]
    results = synthetic.write_study(
        tmp_path / "study", games=["kung_fu_master"], methods=methods, seeds=[0]
    )
    assert collect.main(["--results", str(results)]) == 0
    with plot_style.theme():
        figure = plots.per_game(load_study(results), load_episodes(results))
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 4 + 3
        assert legend.get_window_extent().width <= figure.bbox.width
