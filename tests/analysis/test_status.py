"""The status of a study whose files are missing, fresh, old or caught half-written."""

import json
from pathlib import Path

import pytest

from analysis import status
from analysis.study import load_study
from tests.analysis import synthetic
from tests.analysis.synthetic import run_folder

NOW = 1_700_000_000.0


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four runs: a2c seed 0 finished, the others not begun."""
    folder = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c", "a3c_ff"], seeds=[0, 1]
    )
    for method, seed in (("a2c", 1), ("a3c_ff", 0), ("a3c_ff", 1)):
        (run_folder(folder, method, "pong", seed) / "run.json").unlink()
    return folder


def progress(results: Path, method: str, seed: int, **changes) -> Path:
    """Write a progress.json of a run at a quarter of its budget; return its path."""
    path = run_folder(results, method, "pong", seed) / "progress.json"
    content = {
        "method": method,
        "game": "pong",
        "seed": seed,
        "frames": 250_000,
        "budget_frames": 1_000_000,
        "frames_per_second": 5000.0,
        "seconds_left": 150.0,
        "recent_return": -19.25,
        "episodes": 70,
        "status": "running",
        "updated_at": NOW - 5,
    }
    path.write_text(json.dumps(content | changes))
    return path


def shown(results: Path, now: float = NOW) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in status.lines(load_study(results), results, now)]


def test_every_run_and_the_totals(results: Path):
    """Finished 1M (320 more than asked do not count) + running 250k of 4M frames = 31.25 %."""
    progress(results, "a2c", 1)
    rows = shown(results)
    assert rows[0][:4] == ["method", "game", "seed", "status"]
    assert rows[1][:6] == ["a2c", "pong", "0", "finished", "1M", "100.0"]
    assert rows[2] == ["a2c", "pong", "1", "running", "250k", "25.0", "%", "5,000", "2", "min",
                       "-19.2"]  # fmt: skip
    assert rows[3][:4] == ["a3c_ff", "pong", "0", "waiting"]
    total = " ".join(rows[-1])
    assert "1 of 4 runs done (1 running, 1 finished, 2 waiting)" in total
    assert "1.25M of 4M frames, 31.2 %" in total
    assert "5,000 frames/s now" in total


def test_silent_run_is_stale(results: Path):
    progress(results, "a2c", 1)
    assert shown(results, NOW + 54)[2][3] == "running"
    rows = shown(results, NOW + 56)
    assert rows[2][3] == "stale"
    assert "0 frames/s now" in " ".join(rows[-1])


@pytest.mark.parametrize("state", ["stopped", "diverged"])
def test_other_states_do_not_go_stale(results: Path, state: str):
    progress(results, "a2c", 1, status=state, recent_return=None, seconds_left=None)
    assert shown(results, NOW + 10_000)[2][3] == state


def test_half_written_file_counts_as_absent(results: Path):
    path = progress(results, "a2c", 1)
    path.write_text(path.read_text()[:40])
    assert shown(results)[2][3] == "waiting"


def test_large_study_lists_what_moves(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=list(range(41))
    )
    (run_folder(results, "a2c", "pong", 7) / "run.json").unlink()
    progress(results, "a2c", 7)
    study = load_study(results)
    rows = status.lines(study, results, NOW)
    assert len(rows) == 4
    assert "40 waiting or finished runs not listed (--all)" in rows[-1]
    assert len(status.lines(study, results, NOW, everything=True)) == 44


def test_command_once(results: Path, capsys: pytest.CaptureFixture):
    assert status.main([str(results)]) == 0
    assert "1 of 4 runs done" in capsys.readouterr().out


def test_follow_ends_when_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    results = synthetic.write_study(tmp_path / "study", games=["pong"])
    monkeypatch.setattr(status.time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    assert status.main([str(results), "--follow", "60"]) == 0
    assert "6 of 6 runs done (6 finished)" in capsys.readouterr().out


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert status.main([str(tmp_path)]) == 1
    assert "study.json: there is no such file\n" in capsys.readouterr().err


def test_no_study_but_others(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Below the folder, published ones too, or beside it."""
    results = tmp_path / "results"
    demo, published = results / "demo", results / "published" / "atari5"
    for folder in (published, demo):
        synthetic.write_study(folder, games=["pong"], methods=["a2c"], seeds=[0])
    for asked, allowed in (
        (results, [demo, published]),
        (results / "published", [published]),
        (results / "dmeo", [demo, published]),
    ):
        assert status.main([str(asked)]) == 1
        said = f"{asked}/study.json: there is no such file; allowed: {', '.join(map(str, allowed))}"
        assert capsys.readouterr().err == f"analysis.status: {said}\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (42, "42 s"), (720, "12 min"), (11_100, "3 h 05"), (187_200, "2 d 4 h")],
)
def test_duration(seconds: float | None, text: str):
    assert status.duration_text(seconds) == text
