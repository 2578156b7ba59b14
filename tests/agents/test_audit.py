"""Evaluations that agree with their replay, and every way in which one may not."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents import audit, trace
from tests.agents.conftest import evaluation, save_run

ROOT = Path(__file__).resolve().parents[2]


def edit_rows(folder: Path, change) -> None:
    path = folder / "episodes.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def edit_traces(folder: Path, change) -> None:
    header, traces = trace.load(folder / "traces.npz")
    change(header, traces)
    trace.save(folder / "traces.npz", header, traces)


def test_an_honest_evaluation_passes(evaluated: Path, capsys: pytest.CaptureFixture) -> None:
    assert audit.main([str(evaluated)]) == 0
    assert "1 of 1 evaluations agree, 3 episodes replayed" in capsys.readouterr().out


def test_sticky_actions_and_one_lane_pass_too(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", "breakout", "sticky")
    evaluation(run, tmp_path / "out", episodes=2)
    assert audit.main([str(tmp_path), "--lanes", "1"]) == 0


def other_action(header: dict, traces: list) -> None:
    changed = traces[2].actions.copy()
    changed[10:40] = (changed[10:40] + 1) % 4
    traces[2] = trace.Trace(traces[2].episode_seed, changed)


def last_action_gone(header: dict, traces: list) -> None:
    traces[2] = trace.Trace(traces[2].episode_seed, traces[2].actions[:-1])


def one_action_more(header: dict, traces: list) -> None:
    actions = np.append(traces[2].actions, np.uint8(0))
    traces[2] = trace.Trace(traces[2].episode_seed, actions)


def no_actions(header: dict, traces: list) -> None:
    traces[2] = trace.Trace(traces[2].episode_seed, traces[2].actions[:0])


def impossible_action(header: dict, traces: list) -> None:
    actions = traces[2].actions.copy()
    actions[5] = 200
    traces[2] = trace.Trace(traces[2].episode_seed, actions)


def other_seed(header: dict, traces: list) -> None:
    traces[2] = trace.Trace(traces[2].episode_seed + 1, traces[2].actions)


TRACE_EDITS = [
    other_action,
    last_action_gone,
    one_action_more,
    no_actions,
    impossible_action,
    other_seed,
]


@pytest.mark.parametrize("change", TRACE_EDITS, ids=lambda change: change.__name__)
def test_an_edited_trace_names_its_episode(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    edit_traces(folder, change)
    assert audit.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert f"{folder}/traces.npz: episode 2: " in error


def test_a_longer_episode_in_trace_and_row_alike_is_found(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    edit_traces(folder, one_action_more)
    edit_rows(
        folder,
        lambda rows: rows[2].update(length_frames=str(int(rows[2]["length_frames"]) + 4)),
    )
    assert audit.main([str(folder)]) == 1
    assert "episode 2: ended after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("return", "999"),
        ("length_frames", "4"),
        ("ended", "truncated"),
        ("episode_seed", "7"),
        ("game", "pong"),
        ("method", "reinforce"),
        ("seed", "3"),
        ("milestone", "2000"),
    ],
)
def test_an_edited_row_names_its_episode(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, column: str, value: str
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    edit_rows(folder, lambda rows: rows[1].update({column: value}))
    assert audit.main([str(folder)]) == 1
    assert f"episode 1: {column} is {value} in episodes.csv" in capsys.readouterr().err


def test_swapped_rows_are_found(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    edit_rows(folder, lambda rows: rows.reverse())
    assert audit.main([str(folder)]) == 1
    assert "episode " in capsys.readouterr().err


def test_a_missing_row_or_file_is_an_error(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    edit_rows(folder, lambda rows: rows.pop())
    assert audit.main([str(folder)]) == 1
    assert "3 traces, but episodes.csv has 2 rows" in capsys.readouterr().err
    (folder / "episodes.csv").unlink()
    assert audit.main([str(folder)]) == 1
    assert "episodes.csv: missing" in capsys.readouterr().err


def test_another_rom_is_an_error_and_the_others_are_still_audited(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(evaluated, tmp_path / "good")
    bad = Path(shutil.copytree(evaluated, tmp_path / "bad"))
    edit_traces(bad, lambda header, traces: header.update(rom_md5="0" * 32))
    assert audit.main([str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert f"{bad}/traces.npz: played on ROM 000" in captured.err
    assert "1 of 2 evaluations agree" in captured.out


def test_nothing_to_audit_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert audit.main([str(tmp_path)]) == 1
    assert f"no evaluation below {tmp_path}" in capsys.readouterr().err


def test_what_is_not_there_is_an_error_beside_what_is(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A misspelt path, and an evaluation that has lost its traces."""
    assert audit.main([str(evaluated), str(tmp_path / "nope")]) == 1
    assert f"no evaluation below {tmp_path / 'nope'}" in capsys.readouterr().err
    for name in ("1", "2"):
        shutil.copytree(evaluated, tmp_path / "evaluation" / name)
    shutil.copy(evaluated / "episodes.csv", tmp_path)  # a study's own, of all its runs
    assert audit.main([str(tmp_path)]) == 0
    assert "2 of 2 evaluations agree" in capsys.readouterr().out
    (tmp_path / "evaluation/2/traces.npz").unlink()
    assert audit.main([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "1 of 2 evaluations agree" in said.out
    assert "evaluation/2/traces.npz" in said.err


@pytest.mark.parametrize("key", ["rom_md5", "ale_py"])
def test_a_header_without_a_key_is_named(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture, key: str
) -> None:
    copied = Path(shutil.copytree(evaluated, tmp_path / "copied"))
    edit_traces(copied, lambda header, traces: header.pop(key))
    assert audit.main([str(copied)]) == 1
    assert f"traces.npz: its header has no {key}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["lanes", "threads"])
def test_no_lanes_are_refused(evaluated: Path, capsys: pytest.CaptureFixture, option: str) -> None:
    assert audit.main([str(evaluated), f"--{option}", "0"]) == 1
    assert f"{option}: 0 must be at least 1" in capsys.readouterr().err


def test_a_damaged_archive_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "traces.npz").write_bytes(b"nothing")
    assert audit.main([str(tmp_path)]) == 1
    assert f"{tmp_path}/traces.npz: not a readable" in capsys.readouterr().err


def test_no_torch_is_needed(evaluated: Path) -> None:
    """In a Python where importing torch is an error."""
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from agents import audit; sys.exit(audit.main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(evaluated)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
