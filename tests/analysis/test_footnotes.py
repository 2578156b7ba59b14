"""What the notes below the comparison table say."""

import shutil
from pathlib import Path

import pytest

from analysis.scores import load_episodes, run_scores
from analysis.study import load_study
from tests.analysis import synthetic
from tests.analysis.conftest import tabulated
from tests.analysis.synthetic import run_folder


def test_noise_of_the_evaluation_by_hand(tmp_path: Path):
    """Two games, one seed: the root of the sum of squared standard errors, over two."""
    results = synthetic.write_study(
        tmp_path / "study", seeds=[0], methods=["a2c"], milestones_frames=[1_000_000]
    )
    markdown = tabulated(results)[1]
    episodes = load_episodes(results)
    # Human minus random, no-op starts: Pong 14.6 + 20.7, Breakout 30.5 - 1.7.
    squares = 0.0
    for game, span in (("pong", 35.3), ("breakout", 28.8)):
        returns = episodes.loc[episodes["game"] == game, "return"].to_numpy(float)
        squares += returns.var(ddof=1) / len(returns) * (100 / span) ** 2
    assert f"comes on top: A2C at 1M {squares**0.5 / 2:.1f}." in markdown
    assert "One game is more than" not in markdown


def test_seeds_own_means_by_hand(tmp_path: Path):
    """Of seeds that have every game; one seed, and many, are not listed."""
    results = synthetic.write_study(
        tmp_path / "study", seeds=[0, 1, 2], methods=["a2c"], milestones_frames=[1_000_000],
        incomplete="list",
    )  # fmt: skip
    shutil.rmtree(run_folder(results, "a2c", "pong", 1))
    markdown = tabulated(results)[1]
    episodes = load_episodes(results)
    means, squares = [], 0.0
    for seed in (0, 2):
        percent = 0.0
        # Random play and human minus random, no-op starts.
        for game, random, span in (("pong", -20.7, 35.3), ("breakout", 1.7, 28.8)):
            own = episodes[(episodes["game"] == game) & (episodes["seed"] == seed)]
            percent += 100 * (own["return"].mean() - random) / span
            squares += own["return"].var() / len(own) * (100 / span) ** 2
        means.append(f"{percent / 2:.1f}")
    told = "The seeds' own means over these 2 games, in the order of the seeds"
    assert f"{told}: A2C at 1M {', '.join(means)}.\n" in markdown
    assert f"comes on top: A2C at 1M {squares**0.5 / 4:.1f}." in markdown
    for seeds in ([0], list(range(10))):
        results = synthetic.write_study(
            tmp_path / f"of_{len(seeds)}", seeds=seeds, methods=["a2c"],
            milestones_frames=[1_000_000],
        )  # fmt: skip
        assert told not in tabulated(results)[1]


def test_a_mean_of_one_game_is_told(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path / "study", games=["pong", "breakout", "qbert"], seeds=[0],
        methods=["a2c"], milestones_frames=[1_000_000],
    )  # fmt: skip
    folder = run_folder(results, "a2c", "pong", 0)
    for row in range(4):
        synthetic.change_cell(folder, 1_000_000, row, "return", "21")
    markdown = tabulated(results)[1]
    scores = run_scores(load_study(results), load_episodes(results)).set_index("game")["normalised"]
    rest = 100 * scores[["breakout", "qbert"]].mean()
    assert f"Without it: A2C at 1M {rest:.1f} (Pong)." in markdown


@pytest.mark.parametrize(("seeds", "covered"), [(2, 50), (3, 75), (4, 81), (5, None)])
def test_an_interval_of_few_seeds_says_how_narrow_it_is(
    tmp_path: Path, seeds: int, covered: int | None
):
    """Of 3 seeds all draws are the lowest in 1 of 27, which is more than 2.5 %; of 4 in 1 of 256.

    The mean of all runs lies outside the range of n when all n fall on one side of it.
    """
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], seeds=list(range(seeds)), methods=["a2c"]
    )
    table, markdown = tabulated(results)
    row = table[table["kind"] == "trained"].iloc[-1]
    scores = run_scores(load_study(results), load_episodes(results))
    scores = 100 * scores[scores["milestone"] == row["milestone"]]["normalised"]
    is_range = [row["mean_low"], row["mean_high"]] == pytest.approx([scores.min(), scores.max()])
    assert is_range == (seeds < 4)
    words = f"the true mean in about {covered} % of cases with {seeds} seeds."
    assert (words in markdown) == (covered is not None) == ("too narrow" in markdown)


def test_notes_of_a_complete_study(analysed: Path):
    notes = (analysed / "tables/table1.md").read_text()
    for words in (
        "no-op starts (0 to 29 no-op frames)",
        "4 evaluation episodes per run and milestone, actions sampled from the policy",
        "no-op-starts references, rule `plain`: 100 (score - random) / (human - random)",
        "per game; 400k is 0.12 % of 320M, 1M 0.31 %. These are small budgets",
        "All games: 57, but 49 for DQN, Gorila, Gorila (Nair 2015), A2C (Schulman 2017).",
        "Network, precision and device: mnih2013, fp32, cpu.",
        "95 % intervals by stratified bootstrap over seeds (percentile, 200 repetitions",
        "Intervals from 3 seeds are too narrow: if scores were normally distributed, a nominal "
        "95 % interval of a mean would contain the true mean in about 75 % of cases with 3 seeds "
        "where one game decides it, in 82 % where all 2 games vary alike.",
        "method files: each method: `network` nature -> mnih2013; A2C: `lanes` 16 -> 8.",
    ):
        assert words in notes
    for words in ("One seed", "Diverged", "cut at the frame limit", "Missing", "explore alike"):
        assert words not in notes


def test_random_play_is_counted_once(tmp_path: Path):
    """It plays alike at every milestone, and is reported at the last."""
    results = synthetic.write_study(
        tmp_path / "study", methods=["random", "a2c"], seeds=[0], incomplete="list"
    )
    for game in ("pong", "breakout"):
        synthetic.untrain(run_folder(results, "random", game, 0))
    for row in range(3):
        for milestone in (400_000, 1_000_000):
            synthetic.change_cell(
                run_folder(results, "random", "pong", 0), milestone, row, "ended", "truncated"
            )
    markdown = tabulated(results)[1]
    assert "score so far: Random in Pong (3 of 4)." in markdown
    shutil.rmtree(results / "runs/random")
    markdown = tabulated(results)[1]
    assert (
        "Missing, 2 of 6 (4 runs x 2 milestones, of random play the last): Random: no run has "
        "finished."
    ) in markdown


def test_one_evaluation_episode_has_no_standard_error(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path / "study", methods=["a2c"], evaluation=synthetic.study_json()["evaluation"]
        | {"episodes": 1},
    )  # fmt: skip
    for file in results.glob("runs/*/*/*/evaluation/*/episodes.csv"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    markdown = tabulated(results)[1]
    assert "comes on top: A2C at 400k –, A2C at 1M –." in markdown


def test_budgets_are_compared_with_those_of_the_methods_papers(tmp_path: Path):
    """DQN's 200M beside A3C's 320M; that of Gorila is not known."""
    methods = ["dqn", "gorila", "a2c"]
    results = synthetic.write_study(tmp_path / "study", methods=methods, seeds=[0])
    markdown = tabulated(results)[1]
    assert (
        "Budgets: the papers of DQN trained for 200M frames; 400k is 0.2 % of 200M, 1M 0.5 %. "
        "No number of frames was found for the paper of Gorila. The paper's A3C rows stand for"
    ) in markdown
    values = synthetic.write_study(tmp_path / "b", methods=["dqn"], milestones_frames=[90_000_000])
    assert "A3C rows stand" not in tabulated(values)[1]
    assert "These are small budgets" in tabulated(values)[1]
    values = synthetic.write_study(tmp_path / "c", methods=["dqn"], milestones_frames=[100_000_000])
    assert "small budgets" not in tabulated(values)[1]
    values = synthetic.write_study(
        tmp_path / "d", methods=["dqn", "a2c"], milestones_frames=[120_000_000]
    )
    assert "small budgets" not in tabulated(values)[1]  # half of the least, 200M


def test_methods_that_explore_differently_are_told(tmp_path: Path):
    epsilons = {"dqn": (0.1, 0.05), "double_dqn": (0.01, 0.001)}
    for number, other in enumerate(("double_dqn", "dqn")):
        overrides = {
            method: dict(zip(("epsilon_end", "evaluation_epsilon"), epsilons[of], strict=True))
            for method, of in (("dqn", "dqn"), ("double_dqn", other))
        }
        results = synthetic.write_study(
            tmp_path / f"{number}", methods=list(epsilons), seeds=[0], overrides=overrides
        )
        told = (
            "in evaluation: DQN 0.1 and 0.05, Double DQN 0.01 and 0.001." in tabulated(results)[1]
        )
        assert told == (other == "double_dqn")


def test_rows_before_anything_is_learnt_are_told(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path, methods=["dqn", "a2c"], seeds=[0],
        overrides={"dqn": {"learning_starts_frames": 400_000}},
    )  # fmt: skip
    told = "as their methods first fill a replay memory: DQN at 400k (from 400k frames on)."
    assert told in tabulated(results)[1]


def test_a_greedy_evaluation_has_no_epsilon(tmp_path: Path):
    """What differs in it alone is not told then, and what differs in training is."""
    evaluation = {"episodes": 4, "action_selection": "greedy", "seed": 1000}
    for name, ends, told in (
        ("same", (0.1, 0.1), None),
        ("differs", (0.1, 0.01), "at the end of training: DQN 0.1, Double DQN 0.01."),
    ):
        overrides = {
            method: {"epsilon_end": end, "evaluation_epsilon": end_of_evaluation}
            for method, end, end_of_evaluation in zip(
                ("dqn", "double_dqn"), ends, (0.05, 0.001), strict=True
            )
        }
        results = synthetic.write_study(
            tmp_path / name, methods=list(overrides), seeds=[0], overrides=overrides,
            evaluation=evaluation,
        )  # fmt: skip
        markdown = tabulated(results)[1]
        assert ("do not explore alike" in markdown) == (told is not None)
        assert told is None or told in markdown


def test_notes_of_the_study_are_printed(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", notes=["Settings chosen on Pong."])
    assert ". Settings chosen on Pong.\n" in tabulated(results)[1]


def test_overrides_of_a_method_without_a_run_are_not_listed(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    shutil.rmtree(results / "runs" / "a2c")
    markdown = tabulated(results)[1]
    assert "from the method files: REINFORCE: `network` nature -> mnih2013.\n" in markdown


def test_random_play_is_not_called_trained(tmp_path: Path):
    """No training, no settings, no milestone: the notes and the section speak of none."""
    results = synthetic.write_study(
        tmp_path / "study", methods=["random"], seeds=[0], milestones_frames=[1_000_000],
        overrides={}, games=["pong", "breakout", "qbert"],
    )  # fmt: skip
    markdown = tabulated(results)[1]
    assert "| **Measured here** |" in markdown
    assert "**Trained here**" not in markdown
    assert ". Measured here: no-op starts" in markdown
    assert "all actions equally likely" in markdown
    for words in ("Random at", "Training time of a row", "Settings", "sampled from the policy"):
        assert words not in markdown


def test_large_budgets_are_not_called_small(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "a", milestones_frames=[320_000_000])
    assert "small" not in tabulated(results)[1]
    mixed = synthetic.write_study(tmp_path / "b", milestones_frames=[1_000_000, 320_000_000])
    assert "Budgets below half of it (1M) are small." in tabulated(mixed)[1]


def test_one_seed_says_so(tmp_path: Path):
    table, markdown = tabulated(synthetic.write_study(tmp_path / "study", seeds=[0]))
    rows = table[table["kind"] == "trained"]
    assert rows[["mean_low", "mean_high", "iqm_low", "median_high"]].isna().all().all()
    assert "One seed gives no interval: REINFORCE, A2C." in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| A2C at 1M"))
    assert "[" not in row


def test_one_seed_at_one_milestone_says_so(tmp_path: Path):
    """A milestone without any seed is not counted: REINFORCE has one seed wherever it has some."""
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for game in ("pong", "breakout"):
        for seed in (1, 2):
            shutil.rmtree(run_folder(results, "a2c", game, seed) / "evaluation" / "1000000")
            shutil.rmtree(run_folder(results, "reinforce", game, seed))
        shutil.rmtree(run_folder(results, "reinforce", game, 0) / "evaluation" / "1000000")
    markdown = tabulated(results)[1]
    assert "One seed gives no interval: REINFORCE, A2C at 1M." in markdown


def test_episodes_cut_at_the_limit_are_counted(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study")
    assert "cut at the frame limit" not in tabulated(results)[1]
    for seed, row in ((0, 1), (0, 3), (2, 0)):
        folder = run_folder(results, "a2c", "pong", seed)
        synthetic.change_cell(folder, 1_000_000, row, "ended", "truncated")
    markdown = tabulated(results)[1]
    assert "counted with their score so far: A2C at 1M in Pong (3 of 12)." in markdown


def test_cut_episodes_are_those_of_the_seeds_that_the_row_has(tmp_path: Path):
    """Or of all, where none is whole."""
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for seed, row in ((0, 1), (1, 3), (1, 0)):
        folder = run_folder(results, "a2c", "pong", seed)
        synthetic.change_cell(folder, 1_000_000, row, "ended", "truncated")
    shutil.rmtree(run_folder(results, "a2c", "breakout", 1))
    assert "A2C at 1M in Pong (1 of 8)." in tabulated(results)[1]
    for seed in (0, 2):
        shutil.rmtree(run_folder(results, "a2c", "breakout", seed))
    assert "A2C at 1M in Pong (3 of 12)." in tabulated(results)[1]


def test_of_many_cut_episodes_a_dozen_is_listed(tmp_path: Path):
    milestones = list(range(100_000, 1_400_000, 100_000))
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=[0], milestones_frames=milestones
    )
    for milestone in milestones:
        folder = run_folder(results, "a2c", "pong", 0)
        synthetic.change_cell(folder, milestone, 0, "ended", "truncated")
    assert "A2C at 1.2M in Pong (1 of 4) and 1 more." in tabulated(results)[1]


def test_diverged_and_missing_are_in_the_notes(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    synthetic.diverge(run_folder(results, "a2c", "pong", 2), 600_000)
    (run_folder(results, "reinforce", "breakout", 0) / "run.json").unlink()
    table, markdown = tabulated(results)
    assert "Diverged runs: A2C / Pong / seed 2 at 600k frames (loss is nan at 600000" in markdown
    assert "A2C at 1M: the run diverged before this milestone (seed 2 in Pong)" in markdown
    assert "REINFORCE: no finished run (seed 0 in Breakout)" in markdown
    assert "Missing, 3 of 24 (12 runs x 2 milestones)" in markdown
    assert "so the rows of its method are of the runs that went well." in markdown
    seeds = table[table["kind"] == "trained"].set_index(["method", "milestone"])["seeds"]
    assert seeds.to_dict() == {
        ("reinforce", 400_000): 2,
        ("reinforce", 1_000_000): 2,
        ("a2c", 400_000): 3,
        ("a2c", 1_000_000): 2,
    }


def test_what_is_missing_is_said_once(tmp_path: Path):
    """Methods and milestones that lack the same runs share their words."""
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    for method in ("reinforce", "a2c"):
        for game in ("pong", "breakout"):
            for seed in (1, 2):
                (run_folder(results, method, game, seed) / "run.json").unlink()
    shutil.rmtree(run_folder(results, "a2c", "breakout", 0) / "evaluation" / "400000")
    markdown = tabulated(results)[1]
    missing = "REINFORCE, A2C: no finished run (seeds 1, 2 in all 2 games); "
    assert (
        f"{missing}A2C at 400k: the policy has not been evaluated (seed 0 in Breakout). A"
        in markdown
    )
    assert "went well" not in markdown
