"""Training curves of two precisions, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import precision


def write_run(results: Path, study: str, seed: int, settings: dict, returns: list[int]) -> None:
    folder = results / study / "runs" / "a2c" / "pong" / str(seed)
    (folder / "evaluation" / "1000").mkdir(parents=True)
    record = {"precision": settings["precision"], "seed": seed, "settings": settings}
    (folder / "run.json").write_text(json.dumps({**record, "commit": "0123456789"}))
    rows = [f"{10 * i},{value}" for i, value in enumerate(returns, 1)]
    (folder / "training_episodes.csv").write_text("\n".join(["frames,return", *rows]))
    (folder / "evaluation" / "1000" / "episodes.csv").write_text("return\n1\n3\n5\n")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    common = {"lanes": 16}
    write_run(tmp_path, "pong", 1, {**common, "precision": "bfloat16"}, list(range(150)))
    write_run(tmp_path, "pong_float32", 0, {**common, "precision": "float32"}, [7] * 120)
    return tmp_path


def test_the_curve_is_the_mean_of_the_last_hundred_returns(results: Path) -> None:
    slow, steady = precision.load(results)
    assert (slow["precision"], steady["precision"]) == ("bfloat16", "float32")
    assert slow["curve"]["frames"].tolist() == list(range(1000, 1510, 10))
    assert slow["curve"]["recent_return"].iloc[0] == sum(range(100)) / 100
    assert slow["curve"]["recent_return"].iloc[-1] == sum(range(50, 150)) / 100
    assert set(steady["curve"]["recent_return"]) == {7}


def test_the_table_says_where_each_run_stood_at_the_milestone(results: Path) -> None:
    """Not what came later; the standard error is that of the mean."""
    table = precision.markdown(precision.load(results), 1000)
    assert "| bfloat16 | 1 | 49.5 | 3.0 ± 1.2 | 0123456 |" in table
    assert "| float32 | 0 | 7.0 | 3.0 ± 1.2 | 0123456 |" in table


def test_the_figure_ends_at_the_milestone(results: Path) -> None:
    lines = precision.draw(precision.load(results), 1200).axes[0].get_lines()
    assert [line.get_xdata().max() for line in lines] == [0.0012, 0.0012]
    assert [line.get_label() for line in lines] == ["bfloat16", "float32"]


def test_a_record_of_before_a_setting_has_what_was_done_then(results: Path) -> None:
    settings = {"lanes": 16, "precision": "bfloat16", "rmsprop_bias_correction": False}
    write_run(results, "pong", 2, settings, [1] * 100)
    assert len(precision.load(results)) == 3
    write_run(results, "pong", 3, {**settings, "rmsprop_bias_correction": True}, [1] * 100)
    with pytest.raises(ValueError, match="seed 3, bfloat16: rmsprop_bias_correction differ"):
        precision.load(results)


def test_runs_that_differ_in_more_are_refused(results: Path) -> None:
    other = {"lanes": 8, "precision": "bfloat16"}
    write_run(results, "pong", 2, other, [1] * 100)
    with pytest.raises(ValueError, match="seed 2, bfloat16: lanes differ too; allowed: precision"):
        precision.load(results)


@pytest.mark.parametrize(
    ("study", "milestone", "message"),
    [
        ("pong", "1000", "has no run of a2c on pong in bfloat16"),
        ("pong_float32", "1000", "has no run of a2c on pong in float32"),
        ("", "2000", "milestone_frames: 2000: seed 1, bfloat16 has no evaluation there; allowed: "),
    ],
)
def test_what_is_not_there_writes_no_table(
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    study: str,
    milestone: str,
    message: str,
) -> None:
    """`study` is taken away."""
    if study:
        (results / study).rename(tmp_path / "elsewhere")
    options = ["--results", str(results), "--milestone-frames", milestone]
    with pytest.raises(SystemExit):
        precision.main([*options, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
