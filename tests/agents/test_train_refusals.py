"""What the training command refuses, and how it says so."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from agents import checkpoint, train
from tests.agents.command_line import arguments


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"game": "pongg"}, ["game", "pongg", "pong,"]),
        ({"protocol": "human"}, ["protocol", "human", "noop, sticky"]),
        ({"seed": "-1"}, ["seed", "-1"]),
        ({"milestones_frames": "200 100"}, ["milestones_frames", "200, 100", "ascending"]),
        ({"milestones_frames": "0"}, ["milestones_frames", "0", "positive"]),
        ({"set": "{network}"}, ["--set", "{network}", "JSON"]),
        ({"set": "3"}, ["--set", "3", "object"]),
        ({"set": '{"lernen":1}'}, ["lernen", "learning_rate"]),
        ({"set": '{"network":"resnet"}'}, ["network", "resnet", "mnih2013, nature"]),
        ({"checkpoint_seconds": "nan"}, ["checkpoint_seconds", "nan", "0 or more"]),
        (
            {"method": "dqn", "milestones_frames": "200000", "set": "{}"},
            ["milestones_frames: 200000: dqn", "learning_starts_frames is 200000", "above it"],
        ),
        ({"method": "nowhere/a4c.yaml"}, ["a4c.yaml", "methods there"]),
    ],
)
def test_wrong_input_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, named: list[str]
) -> None:
    assert train.main(arguments(tmp_path / "out", **changes)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert [part for part in named if part not in error] == []
    assert not (tmp_path / "out").exists()


def test_frames_are_given_as_in_studies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = train.parse_arguments(arguments(tmp_path, milestones_frames="1e4 1.5e6 2000000"))
    assert options.milestones_frames == [10_000, 1_500_000, 2_000_000]
    for text in ("1.5", "many", "inf", "nan"):
        with pytest.raises(SystemExit):
            train.parse_arguments(arguments(tmp_path, milestones_frames=text))
        assert f"--milestones-frames: invalid frames value: '{text}'" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_or_not_used_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.main(arguments(tmp_path / "out", device="cuda")) == 1
    assert "device: 'cuda' asked for" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sets = '{"network":"mnih2013"}'
    assert train.main(arguments(tmp_path / "out", "a3c_ff", device="cuda", set=sets)) == 1
    assert "topology async runs on: auto, cpu" in capsys.readouterr().err
    options = train.parse_arguments(arguments(tmp_path, "a3c_ff", set=sets))
    assert train.choose_device("auto", train.build_spec(options).settings) == "cpu"
    options = train.parse_arguments(arguments(tmp_path))
    assert train.choose_device("auto", train.build_spec(options).settings) == "cuda"


def test_a_milestone_that_was_passed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rollouts of 80 frames: a run to 3200 can still say where it was at 3150, not at 1600."""
    assert train.main(arguments(tmp_path, milestones_frames="3200")) == 0
    record = (tmp_path / "run.json").read_text()
    assert train.main(arguments(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "milestones_frames: 1600: the run in" in said
    assert "is at 3200 frames and has kept no policy there" in said
    assert "allowed: 3200 and more than 3120" in said
    assert (tmp_path / "run.json").read_text() == record
    assert not (tmp_path / "policies/1600.pt").exists()
    assert train.main(arguments(tmp_path, milestones_frames="3150 3200")) == 0
    kept = json.loads((tmp_path / "run.json").read_text())["milestones"]
    assert [(m["milestone_frames"], m["frames"]) for m in kept] == [(3150, 3200), (3200, 3200)]


def test_other_settings_do_not_write_beside_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One folder, one training, whatever its settings."""
    other = '{"network":"mnih2013","lanes":4}'
    with checkpoint.exclusive(tmp_path):
        assert train.main(arguments(tmp_path, set=other)) == 1
    assert "another process is training this run" in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint.fcntl, "flock", refuse)
    assert train.main(arguments(tmp_path)) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'resume'}: the file system grants no lock" in said
    assert "another process" not in said


def test_a_memory_without_its_frames_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = (
        '{"network":"mnih2013","learning_starts_frames":400,"replay_capacity_steps":1000,'
        '"learning_rate":1e-4}'
    )
    changes = {"method": "dqn", "set": sets}
    assert train.main(arguments(tmp_path, milestones_frames="800", **changes)) == 0
    (frames,) = tmp_path.glob("resume/*/frames.bin")
    frames.unlink()
    assert train.main(arguments(tmp_path, milestones_frames="800 1600", **changes)) == 1
    assert "does not have the frames of the checkpoint" in capsys.readouterr().err


def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments(tmp_path)) == 0
    record = (tmp_path / "run.json").read_text()
    for key, value in (("game", "pong"), ("seed", "1")):
        assert train.main(arguments(tmp_path, **{key: value})) == 1
        assert f"run.json is of another run: {key}" in capsys.readouterr().err
        assert (tmp_path / "run.json").read_text() == record
    changed = json.loads(record) | {"spec_hash": "of other settings"}
    (tmp_path / "run.json").write_text(json.dumps(changed))
    assert train.main(arguments(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "run.json is of a run with other settings" in said
    assert "(its record does not say which)" in said
    (tmp_path / "run.json").write_text(record)
    sets = '{"network":"mnih2013","lanes":2,"rollout_steps":10,"gamma":0.5}'
    assert train.main(arguments(tmp_path, milestones_frames="6400", set=sets)) == 1
    assert "(budget_frames 3200, not 6400; gamma 0.99, not 0.5);" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(arguments(tmp_path)) == 0
    (path,) = tmp_path.glob("resume/*/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:100])
    assert train.main(arguments(tmp_path)) == 1
    assert f"error: {path}: not a readable checkpoint" in capsys.readouterr().err


def test_a_checkpoint_that_holds_something_else_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments(tmp_path)) == 0
    (path,) = tmp_path.glob("resume/*/checkpoint.pt")
    torch.save([1, 2], path)
    assert train.main(arguments(tmp_path)) == 1
    assert f"error: {path}: not a readable checkpoint (it holds a list)" in capsys.readouterr().err


def test_a_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(arguments(tmp_path)) == 0
    (tmp_path / "run.json").write_text('{"status": ')
    assert train.main(arguments(tmp_path)) == 1
    assert f"error: run: {tmp_path}/run.json is not a record of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "threads", "sets", "who"),
    [
        ("a2c", "1", {"lanes": 2}, "breakout, lane 1"),
        ("a2c", "2", {"lanes": 2}, "A2C process 1: breakout, lane 1"),
        ("a3c_ff", "1", {"workers": 2, "lanes_per_worker": 1}, "A3C process 0: breakout, lane 1"),
        ("a3c_ff", "2", {"workers": 2, "lanes_per_worker": 1}, "A3C process 1: breakout, lane 1"),
    ],
)
def test_a_checkpoint_of_another_emulator_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    threads: str,
    sets: dict[str, int],
    who: str,
) -> None:
    """Whichever process replays it; the log of attempts has it too."""
    chosen = {"network": "mnih2013", "learning_rate_schedule": "constant", **sets}
    text = json.dumps(chosen, separators=(",", ":"))

    def code(milestones: str) -> int:
        changes = {"threads": threads, "set": text, "milestones_frames": milestones}
        return train.main(arguments(tmp_path, method, **changes))

    assert code("3200") == 0
    (path,) = tmp_path.glob("resume/*/checkpoint.pt")
    content = checkpoint.load(path)
    state = content["training"]
    lanes = (state["workers"][1] if "workers" in state else state["worker"])["lanes"]
    lanes["observations_crc32"][-1] ^= 1
    checkpoint.save(path, content)
    assert code("3200 6400") == 1
    words = f"{who}: the replayed episode does not"
    assert f"error: {words}" in capsys.readouterr().err
    assert words in (tmp_path / "resume/attempts.log").read_text()


def test_settings_that_do_not_fit_each_other_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = '{"actors":2,"learners":3,"learning_starts_frames":0}'
    assert train.main(arguments(tmp_path, method="gorila", set=sets)) == 1
    assert "error: learners: 3, but each needs an actor; allowed: 1 to 2" in capsys.readouterr().err
