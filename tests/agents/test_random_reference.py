"""Random play as the published agent: an action every sixth frame, five minutes at most."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from agents import atari, random_reference


def play(out: Path, *options: str) -> list[dict[str, str]]:
    arguments = ["--out", str(out), "--episodes", "2", "--lanes", "2", *options]
    assert random_reference.main(arguments) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_action_lasts_six_frames_and_an_episode_five_minutes(tmp_path: Path) -> None:
    """Freeway lasts 8,192 frames, 2 min 16 s: no-ops at its start leave one decision less."""
    rows = play(tmp_path / "a.csv", "--games", "freeway")
    assert [(r["frames_per_action"], r["max_episode_frames"]) for r in rows] == [("6", "18000")] * 2
    for row in rows:
        assert int(row["length_frames"]) % 6 == 0
        assert 8_100 < int(row["length_frames"]) <= 8_196
        assert row["ended"] == "terminated"
    short = play(tmp_path / "b.csv", "--games", "freeway", "--max-episode-frames", "600")
    assert {row["ended"] for row in short} == {"truncated"}
    assert all(500 < int(row["length_frames"]) <= 606 for row in short)


def test_same_command_same_episodes(tmp_path: Path) -> None:
    options = ("--games", "breakout", "--max-episode-frames", "1200")
    first = play(tmp_path / "a.csv", *options)
    assert play(tmp_path / "b.csv", *options, "--lanes", "1") == first
    assert play(tmp_path / "c.csv", *options, "--frames-per-action", "4") != first


def test_games_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, options = tmp_path / "a.csv", ("--max-episode-frames", "300")
    first = play(out, "--games", "pong", *options)
    played = []
    whole = random_reference.play
    monkeypatch.setattr(
        random_reference, "play", lambda game, o: played.append(game) or whole(game, o)
    )
    both = play(out, "--games", "pong", "breakout", *options)
    assert played == ["breakout"]
    assert both[:2] == first
    assert [row["game"] for row in both] == ["pong", "pong", "breakout", "breakout"]


def test_other_rules_do_not_go_into_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tmp_path / "a.csv", "--games", "pong", "--max-episode-frames", "300")
    arguments = ["--out", str(tmp_path / "a.csv"), "--games", "breakout"]
    assert random_reference.main(arguments) == 1
    assert "has episodes played otherwise: ['pong', '6', '300', 'minimal']" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--games", "ponk"), "game: unknown value 'ponk'"),
        (("--episodes", "0"), "episodes: 0 must be at least 1"),
        (("--frames-per-action", "0"), "frames_per_action: 0 must be at least 1"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], words: str
) -> None:
    assert random_reference.main(["--out", str(tmp_path / "a.csv"), *options]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert random_reference.main(["--out", str(tmp_path), "--games", "pong"]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 21] Is a directory")


def test_all_games_by_default(tmp_path: Path) -> None:
    assert random_reference.parse_arguments(["--out", "x"]).games == atari.games()


@pytest.mark.parametrize("options", [("--seed", "7"), ("--episodes", "3")])
def test_other_episodes_do_not_go_into_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    play(tmp_path / "a.csv", "--games", "pong", "--max-episode-frames", "300")
    rows = (tmp_path / "a.csv").read_text()
    arguments = ["--out", str(tmp_path / "a.csv"), "--games", "breakout"]
    arguments += ["--max-episode-frames", "300", "--episodes", "2", *options]
    assert random_reference.main(arguments) == 1
    assert "has 2 episodes of pong, not the" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text() == rows
