"""The published scores: complete, joined with their origin, and every bad cell refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import reference

# (protocol, system), games, sum of the scores in points
EXPECTED_SUMS = [
    (("human_starts", "random"), 57, 55918.2),
    (("human_starts", "human"), 57, 549952.1),
    (("human_starts", "dqn"), 49, 306917.3),
    (("human_starts", "gorila"), 49, 1034607.5),
    (("human_starts", "double_dqn"), 57, 1256254.8),
    (("human_starts", "dueling"), 57, 1257689.5),
    (("human_starts", "prioritized"), 57, 1719256.0),
    (("human_starts", "a3c_ff_1_day"), 57, 1502487.6),
    (("human_starts", "a3c_ff_4_days"), 57, 2094751.2),
    (("human_starts", "a3c_lstm_4_days"), 57, 2572166.3),
    (("human_starts", "gorila_two_decimals"), 49, 1034607.3),
    (("human_starts", "dqn_wang"), 57, 819119.8),
    (("human_starts", "double_dqn_untuned"), 57, 776373.0),
    (("human_starts", "prioritized_rank"), 57, 1279335.7),
    (("human_starts", "prior_dueling"), 57, 2133506.8),
    (("human_starts", "distributional_dqn"), 54, 1856161.8),
    (("human_starts", "noisy_dqn"), 54, 944603.1),
    (("human_starts", "rainbow"), 54, 2674702.9),
    (("human_starts", "apex"), 57, 6361904.7),
    (("noop_starts", "random"), 57, 50864.9),
    (("noop_starts", "human"), 57, 606494.2),
    (("noop_starts", "dqn"), 57, 933791.6),
    (("noop_starts", "double_dqn"), 57, 1039514.0),
    (("noop_starts", "dueling"), 57, 1366042.0),
    (("noop_starts", "prioritized_rank"), 57, 1400852.5),
    (("noop_starts", "prior_dueling"), 57, 2284367.5),
    (("noop_starts", "prioritized_hessel"), 54, 1681936.4),
    (("noop_starts", "rainbow"), 54, 3014279.6),
    (("noop_starts", "c51"), 57, 3335060.5),
    (("noop_starts", "a3c_fortunato"), 57, 1312147.0),
    (("noop_starts", "noisynet_a3c"), 57, 1537245.0),
    (("noop_starts", "gorila"), 49, 633042.11),
    (("noop_starts", "a3c_pfrl"), 56, 2656515.2),
    (("noop_starts", "a3c_chainerrl"), 55, 1895353.6),
    (("noop_starts", "a2c_schulman"), 49, 1027037.3),
    (("sticky", "a2c_slm_lab"), 53, 1248353.61),
    (("noop_starts", "a2c_sb3_zoo"), 10, 44048.173),
    (("noop_starts", "a2c_baselines"), 7, 5024.12),
    (("noop_starts", "a2c_rllib"), 4, 6087.0),
    (("sticky", "ppo_cleanba"), 57, 2470626.24),
    (("sticky", "impala_cleanba"), 57, 2906117.07),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the reference files that a test may break."""
    return Path(shutil.copytree(reference.FOLDER, tmp_path / "reference"))


def edit(path: Path, before: str, after: str) -> int:
    """Replace the one line `before` by `after` ('' deletes it); return its line number."""
    lines = path.read_text().splitlines()
    assert lines.count(before) == 1
    number = lines.index(before) + 1
    lines[number - 1 : number] = [after] if after else []
    path.write_text("\n".join(lines) + "\n")
    return number


def test_every_cell_is_there_once():
    """Counts and sums of points of the tables that the long files were made from."""
    scores = reference.load_scores()
    assert len(scores) == 2125
    assert not scores.duplicated(["protocol", "system", "game"]).any()
    assert scores["game"].nunique() == 57
    sums = scores.groupby(["protocol", "system"])["value"].agg(["size", "sum"])
    for key, size, total in EXPECTED_SUMS:
        assert sums.loc[key, "size"] == size, key
        assert sums.loc[key, "sum"] == pytest.approx(total, abs=1e-6), key
    assert len(EXPECTED_SUMS) == len(sums)


def test_cells_come_with_protocol_budget_selection_and_source():
    scores = reference.load_scores()
    cell = scores.query("system == 'a3c_ff_1_day' and game == 'pong'").iloc[0]
    assert cell["value"] == 11.4
    assert cell["protocol"] == "human_starts"
    assert cell["budget_frames"] == 320_000_000
    assert cell["selection"] == "final weights"
    assert "Table S3" in cell["source"]
    assert not scores[["label", "paper", "references", "selection", "source"]].isna().any().any()


def test_references_cover_the_57_games():
    games = reference.load_games()["game"].tolist()
    human_starts = reference.references("human_starts")
    noop_starts = reference.references("noop_starts")
    assert human_starts["game"].tolist() == noop_starts["game"].tolist() == games
    assert list(human_starts.columns) == ["game", "random", "human"]
    pinball = human_starts.set_index("game").loc["video_pinball"]
    assert (pinball["random"], pinball["human"]) == (20452.0, 15641.1)
    pinball = noop_starts.set_index("game").loc["video_pinball"]
    assert (pinball["random"], pinball["human"]) == (16256.9, 17667.9)
    below = human_starts[human_starts["human"] < human_starts["random"]]
    assert below["game"].tolist() == ["video_pinball"]


def test_references_follow_the_asked_order():
    table = reference.references("noop_starts", ["qbert", "alien"])
    assert table["game"].tolist() == ["qbert", "alien"]
    assert table["random"].tolist() == [163.9, 227.8]
    with pytest.raises(ValueError, match="noop_starts: no random score for pooyan"):
        reference.references("noop_starts", ["alien", "pooyan"])
    with pytest.raises(ValueError, match=r"unknown value 'sticky'.*human_starts, noop_starts"):
        reference.references("sticky")


def test_a_game_without_references_may_be_added_to_the_list(tmp_path: Path):
    games = tmp_path / "games.csv"
    header, *rest = reference.GAMES_CSV.read_text().splitlines()
    extra = "pooyan,Pooyan,0,".ljust(len("pooyan,Pooyan,0,") + header.count(",") - 3, ",")
    games.write_text("\n".join([header, *rest, extra]) + "\n")
    assert len(reference.references("noop_starts", games_csv=games)) == 57


def test_printed_aggregates_of_other_papers_come_out_under_their_rule():
    scores = reference.load_scores()

    def mean(protocol: str, system: str, rule: str) -> float:
        return reference.normalised(scores, protocol, system, rule).mean()

    # Wang et al. 2016, Table 1
    for protocol, system, printed in [
        ("human_starts", "dqn_wang", 219.6),
        ("human_starts", "prioritized_rank", 386.7),
        ("human_starts", "prior_dueling", 567.0),
        ("noop_starts", "dqn", 227.9),
        ("noop_starts", "prior_dueling", 591.9),
    ]:
        assert mean(protocol, system, "mnih2016") == pytest.approx(printed, abs=0.2)
    # Schaul et al. 2016 print 551 % and 454 % where Mnih et al. print 463.6 % and Wang 386.7 %
    assert mean("human_starts", "prioritized", "absolute") == pytest.approx(551, abs=0.5)
    assert mean("human_starts", "prioritized_rank", "absolute") == pytest.approx(454, abs=0.5)


def test_tennis_of_slm_lab_is_flagged_and_never_averaged_silently():
    scores = reference.load_scores()
    marked = scores[scores["flag"] != ""]
    assert marked[["system", "game", "value", "flag"]].to_numpy().tolist() == [
        ["a2c_slm_lab", "tennis", -2873.0, "out_of_range"]
    ]
    with pytest.raises(ValueError, match=r"sticky / a2c_slm_lab: the score of tennis, -2873, has"):
        reference.normalised(scores, "sticky", "a2c_slm_lab", "plain")
    excluded = reference.normalised(scores, "sticky", "a2c_slm_lab", "plain", flagged="exclude")
    included = reference.normalised(scores, "sticky", "a2c_slm_lab", "plain", flagged="include")
    assert (len(excluded), len(included)) == (52, 53)
    assert excluded.mean() == pytest.approx(226.59, abs=0.01)
    assert included.mean() == pytest.approx(-124.52, abs=0.01)
    with pytest.raises(ValueError, match=r"unknown value 'drop'.*refuse, exclude, include"):
        reference.normalised(scores, "sticky", "a2c_slm_lab", "plain", flagged="drop")


PONG = "human_starts,dqn,pong,16.2,"


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("human_starts,dqn,ping,16.2,", "game: unknown value 'ping'; allowed: alien, amidar"),
        ("human_starts,dqn,pong,21.5,", "value of pong: 21.5 is outside .* range -21 to 21"),
        ("human_starts,dqn,pong,-21.5,", "value of pong: -21.5 is outside .* range -21 to 21"),
        ("human_starts,dqn,pong,,", "value of pong: nan is not a finite number"),
        ("human_starts,dqn,pong,nan,", "value of pong: nan is not a finite number"),
        ("human_starts,dqn,pong,inf,", "value of pong: inf is not a finite number"),
        ("human_starts,dqn,pong,1O.2,", "value of pong: 1O.2 is not a finite number"),
        ("human_starts,dqn,pong,16.2,odd", "flag: unknown value 'odd'; allowed: .*out_of_range"),
        ("human_starts,dqn,pong,16.2,out_of_range", "has the flag out_of_range but lies in"),
        ("standing_starts,dqn,pong,16.2,", "protocol: unknown value 'standing_starts'; allowed: "),
    ],
)
def test_bad_cells_name_file_line_and_value(folder: Path, after: str, message: str):
    number = edit(folder / "human_starts.csv", PONG, after)
    with pytest.raises(ValueError, match=rf"human_starts\.csv, line {number}: .*{message}"):
        reference.load_scores(folder)


def test_unbounded_side_allows_anything_and_the_bounded_side_does_not(folder: Path):
    edit(
        folder / "human_starts.csv", "human_starts,dqn,alien,570.2,", "human_starts,dqn,alien,9e9,"
    )
    reference.load_scores(folder)
    edit(folder / "human_starts.csv", "human_starts,dqn,alien,9e9,", "human_starts,dqn,alien,-1,")
    with pytest.raises(ValueError, match=r"value of alien: -1 is outside .* range 0 to inf"):
        reference.load_scores(folder)


@pytest.mark.parametrize("player", ["random", "human"])
def test_missing_reference_is_named(folder: Path, player: str):
    lines = (folder / "noop_starts.csv").read_text().splitlines()
    (gone,) = [line for line in lines if line.startswith(f"noop_starts,{player},qbert,")]
    edit(folder / "noop_starts.csv", gone, "")
    systems = (folder / "systems.csv").read_text()
    (row,) = [r for r in systems.splitlines() if r.startswith(f"noop_starts,{player},")]
    edit(folder / "systems.csv", row, row.replace(",57,", ",56,"))
    with pytest.raises(ValueError, match=f"noop_starts: no {player} score for qbert"):
        reference.load_scores(folder)


def test_lost_doubled_and_unlisted_cells_are_refused(folder: Path):
    path = folder / "human_starts.csv"
    edit(path, PONG, f"{PONG}\n{PONG}")
    with pytest.raises(ValueError, match="two scores for human_starts / dqn / pong"):
        reference.load_scores(folder)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line != PONG) + "\n")
    with pytest.raises(ValueError, match="human_starts / dqn: games is 49, but 48 have a score"):
        reference.load_scores(folder)
    path.write_text("\n".join(line.replace(",dqn,", ",dqm,") for line in lines) + "\n")
    with pytest.raises(ValueError, match="two scores"):
        reference.load_scores(folder)
    lines.remove(PONG)
    path.write_text("\n".join(line.replace(",dqn,", ",dqm,") for line in lines) + "\n")
    with pytest.raises(ValueError, match="no row for human_starts / dqm, which has scores"):
        reference.load_scores(folder)


def test_unknown_system_names_the_known_ones():
    with pytest.raises(ValueError, match=r"system: unknown value 'dqm'.*allowed: random, human"):
        reference.published("human_starts", "dqm")
    frame = reference.published("sticky", "a2c_slm_lab").set_index("game")
    # no references with sticky actions exist: the no-op ones are joined
    assert frame.loc["alien", ["value", "random", "human"]].tolist() == [1488.0, 227.8, 7127.7]


def test_check_scores_serves_other_files_too():
    games = reference.load_games()
    frame = pd.DataFrame({"game": ["pong", "pong"], "return": [21.0, 22.0]})
    with pytest.raises(ValueError, match=r"episodes\.csv, line 3: return of pong: 22 is outside"):
        reference.check_scores(frame, games, "return", "episodes.csv")
    reference.check_scores(frame.iloc[:1], games, "return", "episodes.csv")
    reference.check_scores(frame.iloc[:0], games, "return", "episodes.csv")
    frame["return"] = [21.0, np.nan]
    with pytest.raises(ValueError, match="line 3: return of pong: nan is not a finite number"):
        reference.check_scores(frame, games, "return", "episodes.csv")


def test_values_keep_all_their_digits(folder: Path):
    """pandas reads 496.88760156911144 as 496.8876015691114 unless told not to."""
    edit(
        folder / "human_starts.csv",
        "human_starts,dqn,alien,570.2,",
        "human_starts,dqn,alien,496.88760156911144,",
    )
    row = reference.load_scores(folder).query("system == 'dqn' and game == 'alien'").iloc[0]
    assert row["value"] == float("496.88760156911144")


def test_training_curves_of_others_come_with_their_source():
    curves = reference.load_curves()
    assert not curves.isna().any().any()
    end = curves[curves["system"] == "openai_baselines"].groupby("game")["frames"].max()
    assert end.to_numpy() == pytest.approx(40e6, rel=1e-3)  # 10M steps of four frames
    pong = curves.query("system == 'openai_baselines' and method == 'a2c' and game == 'pong'")
    at = np.interp([1e6, 10e6, 40e6], pong["frames"], pong["value"])
    assert at == pytest.approx([-20.3, -12.4, 18.5], abs=0.1)  # read off the drawing by eye too
    assert (pong["runs"] == 6).all()
    assert "openai/baselines" in pong["source"].iloc[0]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("sb3_zoo,a2c,ping,500000,2,-20.25", r"curves.csv, line \d+: game: unknown value 'ping'"),
        ("sb3,a2c,pong,500000,2,-20.25", r"curves.csv, line \d+: system: unknown value 'sb3'; all"),
        ("sb3_zoo,a2c,pong,500000,2,-25", r"value of pong: -25 is outside the possible range"),
        ("sb3_zoo,a2c,pong,1500000,2,-20.25", r"line \d+: frames: 1500000 does not follow"),
    ],
)
def test_bad_training_curve_is_named(folder: Path, after: str, message: str):
    edit(folder / "curves.csv", "sb3_zoo,a2c,pong,500000,2,-20.25", after)
    with pytest.raises(ValueError, match=message):
        reference.load_curves(folder)
