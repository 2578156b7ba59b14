"""Random play beside the published random scores: by hand, and what is committed."""

import csv
import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import random57
from analysis.reference import references
from analysis.study import ResultsError, load_study
from tests.analysis import synthetic

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results/published/random57"
committed = pytest.mark.skipif(not PUBLISHED.exists(), reason="random57 is not published yet")


def study(tmp_path: Path, games: list[str]):
    synthetic.write_study(tmp_path, games=["pong"], methods=["random"], seeds=[0])
    return load_study(tmp_path).__class__(**{**vars(load_study(tmp_path)), "games": games})


def episodes(game: str, returns: list[float], frames: int = 4_000) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": "random",
            "game": game,
            "milestone": 1_000_000,
            "return": returns,
            "length_frames": frames,
            "ended": "terminated",
        }
    )


def reference(game: str, returns: list[float]) -> pd.DataFrame:
    rows = {"game": game, "frames_per_action": 6, "max_episode_frames": 18_000}
    rows |= {"action_set": "minimal", "episode": range(len(returns)), "episode_seed": 1}
    rows |= {"return": returns, "length_frames": 6_000, "ended": "terminated"}
    return pd.DataFrame(rows, columns=random57.REFERENCE_COLUMNS)


NONE = reference("pong", [])


@pytest.mark.parametrize(
    ("returns", "error", "apart", "verdict"),
    [
        # Pong, published -20.7: mean -20, deviation 1, error 1/sqrt 3, (0.7) / (sqrt 2 / sqrt 3)
        ([-21, -20, -19], 1 / math.sqrt(3), 0.7 * math.sqrt(1.5), "agrees"),
        ([-21, -21, -20], 1 / 3, (-62 / 3 + 20.7) * 3 / math.sqrt(2), "agrees"),
        ([-10, -11, -12], 1 / math.sqrt(3), 9.7 * math.sqrt(1.5), "higher"),
        ([-21, -21, -21], 0, -math.inf, "lower"),
    ],
)
def test_by_hand(tmp_path: Path, returns: list, error: float, apart: float, verdict: str):
    played = episodes("pong", returns)
    (row,) = random57.compare(study(tmp_path, ["pong"]), played, NONE).itertuples()
    assert row.standard_error == pytest.approx(error)
    assert row.standard_errors == pytest.approx(apart)
    assert row.verdict == verdict


def test_equal_returns_that_print_as_the_published_score_agree(tmp_path: Path):
    table = random57.compare(study(tmp_path, ["freeway"]), episodes("freeway", [0, 0, 0]), NONE)
    assert table[["standard_errors", "verdict"]].values.tolist() == [[0.0, "agrees"]]


def test_long_and_missing_games_are_said(tmp_path: Path):
    both = study(tmp_path, ["pong", "freeway"])
    played = episodes("freeway", [0, 0], frames=18_004)
    table = random57.compare(both, played, NONE)
    assert table["longer_than_5_minutes"].tolist() == [2]
    text = random57.markdown(both, table, played, NONE)
    assert "| 2 of 2 |" in text
    assert text.endswith("- Not played: pong.\n")


def test_small_differences_are_added_up():
    """Squares of 1, -2 and 2 make 9. Of three normal numbers within -3 and 3, as the means of many
    episodes are, they add up to 2.920, and to 9 or more with a chance of 0.0255 (by simulation).
    """
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal(300) * scale + 5 for scale in (1, 10, 100)]
    total, noise, chance = random57.joint(samples, np.array([1.0, -2.0, 2.0]), 0)
    normal = np.random.default_rng(1).standard_normal((3, 400_000))
    sums = (normal**2)[:, (np.abs(normal) <= 3).all(axis=0)].sum(axis=0)
    assert total == 9.0
    assert noise == pytest.approx(sums.mean(), abs=0.08)
    assert chance == pytest.approx((sums >= 9).mean(), abs=0.006)
    far = random57.joint(samples, np.array([1.0, -2.0, 99.0]), 0, reps=199)
    assert far[2] == 1 / 200  # no draw was as far: it may be one in so many


def test_the_sum_is_over_games_that_agree_under_both_protocols(tmp_path: Path):
    """Freeway's returns are all equal, and Breakout's differ under one protocol."""
    games = ["pong", "breakout", "freeway"]
    returns = {"pong": [-21, -20, -21], "breakout": [1, 2, 3], "freeway": [0, 0, 0]}
    played = pd.concat([episodes(game, returns[game]) for game in games])
    returns["breakout"] = [9, 10, 11]
    other = pd.concat([reference(game, returns[game]) for game in games])
    here = study(tmp_path, games)
    text = random57.markdown(here, random57.compare(here, played, other), played, other)
    square = (-62 / 3 + 20.7) ** 2 * 9 / 2
    assert "in the 1 games that agree under both protocols" in text
    assert text.count(f"{square:.1f} where noise gives") == 2
    alone = random57.markdown(here, random57.compare(here, played, NONE), played, NONE)
    assert "in the 2 games that agree and whose episodes differ" in alone


def test_how_much_the_episodes_can_show(tmp_path: Path):
    """Breakout, random 1.7 and human 30.5: mean 2, standard error 1/sqrt 3."""
    here, played = study(tmp_path, ["breakout"]), episodes("breakout", [1, 2, 3])
    table = random57.compare(here, played, NONE)
    (row,) = table.itertuples()
    assert row.difference_percent == pytest.approx(100 * 0.3 / 28.8)
    assert row.shows_from_percent == pytest.approx(100 * 3 * math.sqrt(2 / 3) / 28.8)
    assert (
        "more than half of the published score in 1 games, and more than a tenth of the way from "
        "random to human in 0."
    ) in random57.markdown(here, table, played, NONE)


def test_one_episode_is_refused(tmp_path: Path):
    with pytest.raises(ResultsError, match="episodes of pong: 1; a standard error needs 2"):
        random57.compare(study(tmp_path, ["pong"]), episodes("pong", [-21]), NONE)


@pytest.mark.parametrize(
    ("returns", "verdict", "cause"),
    [
        ([-21, -20, -21], "agrees", "protocol"),
        ([-10, -11, -12], "higher", "open"),
        ([], math.nan, "not checked"),
    ],
)
def test_cause_is_what_the_published_protocol_gives(
    tmp_path: Path, returns: list, verdict: str, cause: str
):
    """Published -20.7; under our protocol -21 in every episode."""
    here, played = study(tmp_path, ["pong"]), episodes("pong", [-21, -21, -21])
    other = reference("pong", returns)
    table = random57.compare(here, played, other)
    assert table["cause"].tolist() == [cause]
    assert table["reference_verdict"].fillna("").tolist() == ["" if not returns else verdict]
    text = random57.markdown(here, table, played, other)
    assert f"| {cause} |" in text
    assert ("still open: Pong." in text) == (cause == "open")
    agreeing = random57.compare(here, episodes("pong", [-21, -20, -21]), NONE)
    assert agreeing["cause"].isna().all()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("frames_per_action", 4, r"frames_per_action is \[4\]; the published agent's is 6"),
        ("max_episode_frames", 108_000, "max_episode_frames is"),
        ("action_set", "full", "action_set is"),
        ("return", 22, "return of pong: 22 is outside the possible range -21 to 21"),
    ],
)
def test_episodes_of_another_protocol_or_impossible_ones_are_refused(
    tmp_path: Path, column: str, value: object, words: str
):
    (tmp_path / "tables").mkdir()
    rows = reference("pong", [-21, -20]).assign(**{column: value})
    rows.to_csv(tmp_path / "tables/random_reference.csv", index=False)
    with pytest.raises(ValueError, match=words):
        random57.load_reference(tmp_path)


@committed
def test_committed_table_says_what_the_episodes_say():
    """Recomputed without the module, from each run's own episodes."""
    published = references("noop_starts").set_index("game")["random"]
    text = (PUBLISHED / "tables/random.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    printed = {cells[1]: cells for cells in ([c.strip() for c in x.split("|")] for x in lines)}
    table = pd.read_csv(PUBLISHED / "tables/random.csv").set_index("game")
    with (PUBLISHED / "tables/random_reference.csv").open(newline="") as stream:
        reference_rows = list(csv.DictReader(stream))
    with (ROOT / "config/games.csv").open(newline="") as stream:
        bounds = {row["game"]: row for row in csv.DictReader(stream)}
    assert sorted(table.index) == sorted(published.index)
    assert len(printed) == 57
    verdicts = []
    for game, row in table.iterrows():
        path = PUBLISHED / f"runs/random/{game}/0/evaluation/1/episodes.csv"
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        low, high = bounds[game]["score_min"], bounds[game]["score_max"]
        cells = printed[row["label"]]
        found = []
        others = [r for r in reference_rows if r["game"] == game]
        for played, at in ((rows, 2), (others, 12)):
            returns = [float(r["return"]) for r in played]
            assert len(returns) == 30
            assert not low or min(returns) >= float(low)
            assert not high or max(returns) <= float(high)
            mean = sum(returns) / 30
            error = statistics.stdev(returns) / math.sqrt(30)
            shown = [f"{mean:.1f}".replace("-0.0", "0.0"), f"{error:.1f}"]
            assert cells[at : at + 2] == shown, game
            difference, bound = mean - published[game], max(3 * math.sqrt(2) * error, 0.05)
            sign = "higher" if difference > 0 else "lower"
            found.append("agrees" if abs(difference) <= bound else sign)
        assert cells[4] == f"{published[game]:.1f}"
        expected = found[0]
        assert (cells[9], cells[15]) == tuple(found), game
        cause = "protocol" if found[1] == "agrees" else "open"
        assert cells[16] == ("–" if expected == "agrees" else cause), game
        longer = sum(int(r["length_frames"]) > 18_000 for r in rows)
        assert cells[10] == f"{longer} of 30"
        verdicts.append(expected)
    counts = [verdicts.count(v) for v in ("agrees", "higher", "lower")]
    assert f"57 games: {counts[0]} agree to 3 standard errors" in text
    assert "higher in {} and lower in {}.".format(*counts[1:]) in text


@committed
def test_committed_files_are_small():
    assert sum(p.stat().st_size for p in PUBLISHED.rglob("*") if p.is_file()) < 8 * 2**20
