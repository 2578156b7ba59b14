"""Aggregates by hand, intervals that repeat, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rliable import metrics

from analysis import aggregate, collect
from analysis.study import ResultsError
from tests.analysis import synthetic
from tests.analysis.synthetic import run_folder


def aggregated(results: Path) -> pd.DataFrame:
    assert collect.main(["--results", str(results)]) == 0
    assert aggregate.main(["--results", str(results)]) == 0
    return pd.read_csv(results / "aggregates.csv")


def test_point_estimates_by_hand():
    """Two seeds, four games.

        seed 0   0.0  0.2  0.4  2.0
        seed 1   0.2  0.4  0.6  4.0
        game     0.1  0.3  0.5  3.0     means over seeds

    mean             (0.1 + 0.3 + 0.5 + 3.0) / 4 = 0.975
    median           (0.3 + 0.5) / 2 = 0.4
    IQM              middle four of 0, .2, .2, .4, .4, .6, 2, 4: (.2 + .4 + .4 + .6) / 4 = 0.4
    optimality gap   1 - (0 + .2 + .4 + 1 + .2 + .4 + .6 + 1) / 8 = 1 - 3.8 / 8 = 0.525
    """
    matrix = np.array([[0.0, 0.2, 0.4, 2.0], [0.2, 0.4, 0.6, 4.0]])
    assert aggregate.point_estimates(matrix) == pytest.approx([0.975, 0.4, 0.4, 0.525])


def test_iqm_by_hand():
    """Middle half of 0, 1, 2, 3, 4, 5, 6, 100: (2 + 3 + 4 + 5) / 4 = 3.5."""
    matrix = np.array([[0.0, 100.0, 2.0, 3.0], [4.0, 5.0, 6.0, 1.0]])
    assert aggregate.point_estimates(matrix)[2] == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("scores", "iqm"),
    [
        # Edges at 1.75 and 5.25 of 7: a quarter of 1, of 2, 3 and 4 all, a quarter of 5; / 3.5.
        ([0, 1, 2, 3, 4, 5, 100], (0.25 * 1 + 2 + 3 + 4 + 0.25 * 5) / 3.5),
        ([0, 1, 100], (0.25 * 0 + 1 + 0.25 * 100) / 1.5),
        ([0, 10], 5),
        ([7], 7),
    ],
)
def test_iqm_of_a_number_that_four_does_not_divide(scores: list[float], iqm: float):
    assert aggregate.interquartile_mean(np.array([scores])) == pytest.approx(iqm)


def test_iqm_does_not_depend_on_how_often_all_scores_are_repeated():
    """So that rows with one seed and with several compare; rliable's is then the same."""
    scores = np.random.default_rng(0).normal(size=(1, 7))
    for seeds in (2, 3, 4):
        repeated = np.repeat(scores, seeds, axis=0)
        assert aggregate.interquartile_mean(repeated) == pytest.approx(
            aggregate.interquartile_mean(scores)
        )
    assert aggregate.interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(repeated))


def test_probability_of_improvement_by_hand():
    """Game 0: pairs (1>0, 1=1, 3>0, 3>1) = 1 + .5 + 1 + 1 = 3.5 of 4. Game 1: (2<5 ...) 0 of 4.

    (3.5 / 4 + 0) / 2 = 0.4375
    """
    one = np.array([[1.0, 2.0], [3.0, 2.0]])
    other = np.array([[0.0, 5.0], [1.0, 6.0]])
    assert aggregate.probability_of_improvement(one, other) == pytest.approx([0.4375])


@pytest.mark.parametrize(("level", "interval"), [(0.9, [0.0, 1.0]), (0.4, [0.5, 0.5])])
def test_interval_of_an_improvement_by_hand(tmp_path: Path, level: float, interval: list[float]):
    """A2C has -10 and 10, the other 0 and 0: two draws are 0, .5 or 1, as often as 1, 2 and 1."""
    results = synthetic.write_study(
        tmp_path, games=["pong"], seeds=[0, 1], milestones_frames=[1_000_000],
        statistics={"reps": 200, "level": level, "rng_seed": 0},
    )  # fmt: skip
    for method, scores in (("reinforce", (0, 0)), ("a2c", (-10, 10))):
        for seed, score in enumerate(scores):
            for row in range(4):
                folder = run_folder(results, method, "pong", seed)
                synthetic.change_cell(folder, 1_000_000, row, "return", score)
    row = aggregated(results).set_index("metric").loc["probability_of_improvement:reinforce"]
    assert row[["point", "low", "high"]].tolist() == [0.5, *interval]


def test_probability_of_improvement_is_that_of_rliable():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (4, 6)) * 1.0, rng.integers(0, 5, (3, 6)) * 1.0
    theirs = metrics.probability_of_improvement(one, other)
    assert aggregate.probability_of_improvement(one, other)[0] == pytest.approx(theirs)


def test_performance_profile_by_hand():
    """Of 0, .5, .5, 1: above 0 are 3 of 4, above .25 3, above .5 1, above 1 none."""
    matrix = np.array([[0.0, 0.5], [0.5, 1.0]])
    taus = np.array([0.0, 0.25, 0.5, 1.0])
    assert aggregate.performance_profile(matrix, taus).tolist() == [0.75, 0.75, 0.25, 0.0]


def test_a_profile_has_its_steps_at_the_scores():
    """Read as a step function, it is the share above any threshold, not only above those listed."""
    matrices = [np.array([[-0.032, 0.011, 0.4567]]), np.array([[0.01234, 0.052, 2.5]])]
    taus = aggregate.profile_taus(matrices)
    assert (taus[0], taus[-1]) == (-0.1, 4.0)
    assert (np.diff(taus) > 0).all()
    for matrix in matrices:
        shares = aggregate.performance_profile(matrix, taus)
        for threshold in np.linspace(-0.09, 3.99, 409) + 1e-5:
            step = np.searchsorted(taus, threshold, side="right") - 1
            assert shares[step] == (matrix > threshold).mean(), threshold


def test_a_profile_of_many_scores_has_few_thresholds():
    matrix = np.random.default_rng(0).normal(size=(5, 57))
    taus = aggregate.profile_taus([matrix])
    assert len(taus) == aggregate.PROFILE_POINTS + 2
    # Evenly by rank: a hundredth of the scores between two of them, and no more than two.
    inside = np.histogram(matrix, taus[1:-1])[0]
    assert inside.max() <= 0.01 * matrix.size + 2


def test_stratified_interval_by_hand():
    """One game, seeds 0 and 1: the mean of two draws is 0, .5 or 1 with chances 1/4, 1/2, 1/4.

    The 90 % percentile interval is then [0, 1] and the 40 % one [0.5, 0.5].
    """
    matrix = np.array([[0.0], [1.0]])
    for level, expected in ((0.9, (0.0, 1.0)), (0.4, (0.5, 0.5))):
        point, low, high = aggregate.intervals(matrix, aggregate.point_estimates, 500, level, 0)
        assert (point[0], low[0], high[0]) == (0.5, *expected)


def test_seeds_are_drawn_within_each_game():
    """Seeds that differ by as much as games: between games nothing may be exchanged.

    Each game has two equal seeds, so every draw gives the same matrix and intervals of width 0.
    """
    matrix = np.array([[0.0, 10.0], [0.0, 10.0]])
    point, low, high = aggregate.intervals(matrix, aggregate.point_estimates, 100, 0.95, 0)
    assert low.tolist() == high.tolist() == point.tolist()


def test_intervals_repeat_and_global_generator_is_restored():
    matrix = np.random.default_rng(1).random((4, 3))
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    first = aggregate.intervals(matrix, aggregate.point_estimates, 100, 0.95, 7)
    assert np.random.get_state()[1].tolist() == before
    np.random.random(3)
    second = aggregate.intervals(matrix, aggregate.point_estimates, 100, 0.95, 7)
    other = aggregate.intervals(matrix, aggregate.point_estimates, 100, 0.95, 8)
    assert [values.tolist() for values in first] == [values.tolist() for values in second]
    assert first[1].tolist() != other[1].tolist()


def test_generator_is_restored_after_an_error():
    before = np.random.get_state()[1].tolist()

    def fails(_: np.ndarray) -> np.ndarray:
        np.random.random()
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        aggregate.intervals(np.ones((2, 2)), fails, 10, 0.95, 0)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_that_is_not_finite(value: float):
    matrix = np.ones((3, 2))
    matrix[2, 1] = value
    with pytest.raises(ResultsError, match="row 2, column 1"):
        aggregate.intervals(matrix, aggregate.point_estimates, 10, 0.95, 0)


def test_nan_return_in_episodes_names_the_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    collect.main(["--results", str(results)])
    episodes = pd.read_csv(results / "episodes.csv")
    episodes.loc[5, "return"] = np.nan
    episodes.to_csv(results / "episodes.csv", index=False)
    assert aggregate.main(["--results", str(results)]) == 1
    message = capsys.readouterr().err
    assert "return of reinforce / pong / seed 0, episode 1: nan" in message
    assert not (results / "aggregates.csv").exists()


def test_study_by_hand(tmp_path: Path):
    """Pong, no-op references -20.7 and 14.6: returns of -3.05 everywhere are 17.65 / 35.3 = 0.5."""
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], milestones_frames=[1_000_000]
    )
    for seed in range(3):
        for row in range(4):
            folder = run_folder(results, "a2c", "pong", seed)
            synthetic.change_cell(folder, 1_000_000, row, "return", -3.05)
    table = aggregated(results).set_index("metric")
    for metric in ("mean", "median", "iqm", "optimality_gap"):
        assert table.loc[metric, ["point", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
    assert (table["games"] == 1).all()
    assert (table["seeds"] == 3).all()
    assert table.loc["performance_profile:0", "point"] == 1.0
    assert table.loc["performance_profile:0.5", "point"] == 0.0


def test_rule_and_references_are_used(tmp_path: Path):
    """Video Pinball: human starts 15641.1 below random 20452.0, so `plain` and `absolute` differ
    in sign, and under no-op starts the same return is another percentage."""
    points = {}
    for references, rule in (
        ("human_starts", "plain"),
        ("human_starts", "absolute"),
        ("noop_starts", "plain"),
    ):
        results = synthetic.write_study(
            tmp_path / f"{references}_{rule}",
            games=["video_pinball"],
            methods=["a2c"],
            milestones_frames=[1_000_000],
            normalisation={"references": references, "rule": rule},
        )
        table = aggregated(results).set_index("metric")
        assert set(table["rule"]) == {rule}
        points[references, rule] = table.loc["mean", "point"]
    assert points["human_starts", "plain"] == pytest.approx(-points["human_starts", "absolute"])
    assert points["noop_starts", "plain"] != pytest.approx(points["human_starts", "plain"])


def test_same_bytes_twice_and_whatever_was_drawn_before(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study")
    aggregated(results)
    first = (results / "aggregates.csv").read_bytes()
    np.random.seed(123)
    aggregate.main(["--results", str(results)])
    assert (results / "aggregates.csv").read_bytes() == first


def test_adding_a_method_leaves_the_other_rows(tmp_path: Path):
    few = aggregated(synthetic.write_study(tmp_path / "few", methods=["reinforce"]))
    more = aggregated(synthetic.write_study(tmp_path / "more", methods=["reinforce", "a2c"]))
    own = more[more["method"] == "reinforce"]
    kept = ["mean", "median", "iqm", "optimality_gap"]
    pd.testing.assert_frame_equal(
        few[few["metric"].isin(kept)].reset_index(drop=True),
        own[own["metric"].isin(kept)].reset_index(drop=True),
    )


def test_one_seed_gives_no_interval(tmp_path: Path):
    table = aggregated(synthetic.write_study(tmp_path / "study", seeds=[3]))
    assert table["point"].notna().all()
    assert table["low"].isna().all()
    assert table["high"].isna().all()
    assert (table["seeds"] == 1).all()


def test_incomplete_is_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    (run_folder(results, "a2c", "breakout", 1) / "run.json").unlink()
    assert collect.main(["--results", str(results)]) == 0
    assert aggregate.main(["--results", str(results)]) == 1
    message = capsys.readouterr().err
    assert "a2c / breakout / seed 1 at 400000 frames: no finished run" in message
    assert "2 missing" in message
    assert not (results / "aggregates.csv").exists()


def test_incomplete_is_listed_over_whole_seeds(tmp_path: Path):
    """Breakout seed 1 of a2c is missing: seeds 0 and 2 stay, in both games."""
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    whole = synthetic.write_study(tmp_path / "whole", seeds=[0, 2])
    (run_folder(results, "a2c", "breakout", 1) / "run.json").unlink()
    table, expected = aggregated(results), aggregated(whole)
    for metric in ("mean", "median", "iqm", "optimality_gap"):
        own, same = (
            frame[(frame["metric"] == metric) & (frame["method"] == "a2c")][
                ["milestone", "games", "seeds", "point", "low", "high"]
            ].reset_index(drop=True)
            for frame in (table, expected)
        )
        pd.testing.assert_frame_equal(own, same)
        assert (own["games"] == 2).all()
        assert (own["seeds"] == 2).all()
    assert (
        table.loc[table["metric"].eq("mean") & table["method"].eq("reinforce"), "seeds"] == 3
    ).all()
    of_both = table["metric"].eq("probability_of_improvement:reinforce")
    assert table.loc[of_both, "seeds"].tolist() == [2]


def test_method_without_a_complete_seed_has_no_row(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for seed in range(3):
        (run_folder(results, "a2c", "pong", seed) / "run.json").unlink()
    assert set(aggregated(results)["method"]) == {"reinforce"}
