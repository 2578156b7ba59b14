"""The status of a study whose files are missing, fresh, old or caught half-written."""

import json
from pathlib import Path

import pytest

from analysis import status
from analysis.study import load_study
from tests.analysis import synthetic
from tests.analysis.synthetic import change_record, run_folder

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


@pytest.mark.parametrize("seeds", [40, 41])
def test_no_header_without_a_row(tmp_path: Path, seeds: int):
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=list(range(seeds))
    )
    rows = status.lines(load_study(results), results, NOW)
    assert rows[0].startswith("method" if seeds == 40 else f"synthetic: {seeds} of {seeds} runs")
    assert len(rows) == (seeds + 3 if seeds == 40 else 1)


def change_study(results: Path, **changes) -> None:
    """Replace keys of study.json, as a changed study's next command does before any run."""
    path = results / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"milestones_frames": [400_000, 1_000_000, 2_000_000]},
        {"milestones_frames": [500_000, 1_000_000]},
        {"overrides": {"all": {"network": "nature"}, "a2c": {"lanes": 8}}},
        {"protocol": "sticky"},
    ],
)
def test_finished_under_another_study_is_outdated(results: Path, changes: dict):
    """Not done, and its frames are no progress."""
    change_study(results, **changes)
    rows = shown(results)
    assert rows[1] == ["a2c", "pong", "0", "outdated", "1M", "–", *rows[1][6:]]
    assert "0 of 4 runs done (1 outdated, 3 waiting); 0 of" in " ".join(rows[-1])


def test_what_a_record_does_not_lack_is_not_outdated(results: Path):
    """Fewer milestones, settings of another method, numbers that YAML 1.1 reads as text."""
    change_record(run_folder(results, "a2c", "pong", 0), settings={"gamma": "9.9e-1"})
    change_study(results, milestones_frames=[1_000_000], overrides={"a3c_ff": {"lanes": 4}})
    assert shown(results)[1][3] == "finished"


def test_a_diverged_run_is_outdated_by_settings_alone(results: Path):
    synthetic.diverge(run_folder(results, "a2c", "pong", 0), 600_000)
    change_study(results, milestones_frames=[400_000, 2_000_000])
    assert shown(results)[1][3] == "diverged"
    change_study(results, overrides={"a2c": {"gamma": 0.9}})
    assert shown(results)[1][3] == "outdated"


def test_random_play_has_no_milestone_to_lack(tmp_path: Path):
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["random"], seeds=[0]
    )
    synthetic.untrain(run_folder(results, "random", "pong", 0))
    change_study(results, milestones_frames=[2_000_000])
    rows = shown(results)
    assert rows[1][3] == "finished"
    assert "1 of 1 runs done" in " ".join(rows[-1])


@pytest.mark.parametrize(
    ("says", "seen"), [("running", "running"), ("stopped", "stopped"), ("finished", "outdated")]
)
def test_an_outdated_run_may_be_trained_on(results: Path, says: str, seen: str):
    change_study(results, milestones_frames=[400_000, 2_000_000])
    progress(results, "a2c", 0, status=says)
    assert shown(results)[1][3] == seen


@pytest.mark.parametrize("milestones", [None, 5, ["400000"], [{}]])
def test_a_damaged_record_is_outdated(results: Path, milestones: object):
    change_record(run_folder(results, "a2c", "pong", 0), milestones=milestones)
    assert shown(results)[1][3] == "outdated"


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


def test_follow_goes_on_where_a_run_is_outdated(
    results: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Until it has been trained on."""
    change_study(results, methods=["a2c"], seeds=[0], milestones_frames=[2_000_000])
    milestones = [{"milestone_frames": 2_000_000, "frames": 2_000_000, "seconds": 1.0}]

    def train_on(seconds: float) -> None:
        change_record(run_folder(results, "a2c", "pong", 0), milestones=milestones)

    monkeypatch.setattr(status.time, "sleep", train_on)
    assert status.main([str(results), "--follow", "60"]) == 0
    printed = capsys.readouterr().out
    assert "0 of 1 runs done (1 outdated)" in printed
    assert "1 of 1 runs done (1 finished)" in printed


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert status.main([str(tmp_path / "mine")]) == 1  # beside others of this test alone
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
