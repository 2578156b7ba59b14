"""What `analysis.collect` takes, lists and refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import collect
from tests.analysis import synthetic
from tests.analysis.synthetic import change_cell, change_record, run_folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return synthetic.write_study(tmp_path / "study")


def refused(results: Path, capsys: pytest.CaptureFixture) -> str:
    """Collect, expect status 1 and one message, and return it."""
    assert collect.main(["--results", str(results)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert not (results / "episodes.csv").exists()
    return message


def test_rows_of_the_study(results: Path):
    """2 methods x 2 games x 3 seeds = 12 runs; x 2 milestones x 4 episodes = 96 episodes."""
    assert collect.main(["--results", str(results)]) == 0
    episodes = pd.read_csv(results / "episodes.csv")
    runs = pd.read_csv(results / "runs.csv")
    assert len(episodes) == 96
    assert len(runs) == 12
    assert pd.read_csv(results / "missing.csv").empty
    assert list(episodes.columns) == [
        "method", "game", "seed", "milestone", "frames", "protocol", "episode", "episode_seed",
        "return", "length_frames", "ended",
    ]  # fmt: skip
    assert runs.loc[0, "versions"] == "ale-py=0.12.1;python=3.11.7;torch=2.13.0"
    assert runs.loc[0, "milestones"].startswith("400000:400320:")


def test_same_bytes_twice(results: Path):
    names = ["episodes.csv", "runs.csv", "missing.csv"]
    collect.main(["--results", str(results)])
    first = [(results / name).read_bytes() for name in names]
    collect.main(["--results", str(results)])
    assert [(results / name).read_bytes() for name in names] == first


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("return", "21.5", ["return of a2c/pong/1 at 1000000 frames is 21.5", "-21 to 21"]),
        ("return", "nan", ["line 4: return is 'nan'", "finite number"]),
        ("return", "inf", ["line 4: return is 'inf'", "finite number"]),
        ("return", "many", ["line 4: return is 'many'", "finite number"]),
        ("protocol", "sticky", ["protocol", "is sticky; expected noop"]),
        ("game", "breakout", ["game", "is breakout; expected pong"]),
        ("seed", "2", ["seed", "is 2; expected 1"]),
        ("milestone", "400000", ["milestone", "is 400000; expected 1000000"]),
        ("episode", "7", ["episode", "is 7; expected 2"]),
        ("episode_seed", "2000000", ["episode_seed 2000000 appears twice"]),
        ("length_frames", "0", ["length_frames", "positive"]),
        ("ended", "died", ["ended", "is died; allowed: terminated, truncated"]),
        ("frames", "999", ["frames", "is 999"]),
        ("seed", "1.0", ["seed is '1.0'", "an integer"]),
    ],
)
def test_impossible_cell(
    results: Path, capsys: pytest.CaptureFixture, column: str, value: str, words: list[str]
):
    change_cell(run_folder(results, "a2c", "pong", 1), 1_000_000, 2, column, value)
    message = refused(results, capsys)
    assert "a2c/pong/1/evaluation/1000000/episodes.csv" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings_hash": "other"}, ["differ in settings_hash", "'a2c-hash', 'other'"]),
        ({"version": 2}, ["differ in version", "(1, 2)"]),
    ],
)
def test_runs_of_one_method_that_differ(
    results: Path, capsys: pytest.CaptureFixture, change: dict, words: list[str]
):
    change_record(run_folder(results, "a2c", "pong", 1), **change)
    message = refused(results, capsys)
    assert "a2c/pong/0" in message
    assert "a2c/pong/1" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "sticky"}, ["protocol is 'sticky'; expected 'noop'"]),
        ({"budget_frames": 5}, ["budget_frames is 5; expected 1000000"]),
        ({"seed": 9}, ["seed is 9; expected 1"]),
        ({"status": "running"}, ["status is 'running'; allowed: finished, diverged"]),
        ({"frames": 10}, ["status is finished at 10 of 1000000 frames"]),
        ({"seconds": "long"}, ["seconds is 'long'; expected float"]),
        ({"milestones": None}, ["milestones is None"]),
        (
            {"milestones": [{"milestone_frames": "abc", "frames": 1, "seconds": 1.0}]},
            ["run.json: milestones is [{'milestone_frames': 'abc'", "objects with numbers"],
        ),
        (
            {"milestones": [{"milestone_frames": 1, "frames": 1, "seconds": None}]},
            ["run.json: milestones is [{'milestone_frames': 1", "objects with numbers"],
        ),
        ({"settings": [1]}, ["settings is [1]; expected an object"]),
        ({"versions": ["torch"]}, ["versions is ['torch']; expected an object"]),
        ({"settings": {"lanes": 99}}, ["trained with lanes 99, but the study says 8"]),
    ],
)
def test_record_that_does_not_fit(
    results: Path, capsys: pytest.CaptureFixture, change: dict, words: list[str]
):
    change_record(run_folder(results, "a2c", "pong", 1), **change)
    message = refused(results, capsys)
    assert "a2c/pong/1/run.json" in message
    for word in words:
        assert word in message


def test_run_that_stopped_at_an_earlier_milestone(results: Path, capsys: pytest.CaptureFixture):
    """Allowed where the learning rate is constant: the later milestone is missing, not an error."""
    folder = run_folder(results, "a2c", "pong", 1)
    record = json.loads((folder / "run.json").read_text())
    early, late = (m["milestone_frames"] for m in record["milestones"])
    shutil.rmtree(folder / "evaluation" / str(late))
    record |= {"budget_frames": early, "milestones": record["milestones"][:1]}
    synthetic.write_record(folder, record)
    assert f"budget_frames is {early}; expected {late}" in refused(results, capsys)

    record["settings"] = {"learning_rate_schedule": "constant"}
    synthetic.write_record(folder, record)
    assert collect.main(["--results", str(results)]) == 0
    missing = (results / "missing.csv").read_text().splitlines()[1:]
    assert missing == [f"a2c,pong,1,{late},not_reached"]


def test_settings_text_and_number_are_one(results: Path):
    """YAML 1.1 reads 1e-5 as text; a trainer that turned it into a number used the same value."""
    study = json.loads((results / "study.json").read_text())
    study["method_files"]["a2c"]["settings"]["epsilon"] = "1e-5"
    (results / "study.json").write_text(json.dumps(study))
    assert collect.main(["--results", str(results)]) == 0


def test_evaluation_of_an_older_policy(results: Path, capsys: pytest.CaptureFixture):
    folder = run_folder(results, "a2c", "pong", 1)
    record = json.loads((folder / "run.json").read_text())
    record["milestones"][1]["frames"] = 1_000_640
    synthetic.write_record(folder, record)
    message = refused(results, capsys)
    assert "frames is 1000320, but the run's record says 1000640" in message


@pytest.mark.parametrize("name", ["run.json", "evaluation/1000000/episodes.csv"])
def test_half_written_file(results: Path, capsys: pytest.CaptureFixture, name: str):
    path = run_folder(results, "reinforce", "breakout", 2) / name
    text = path.read_text()
    path.write_text(text[: len(text) - 30])
    message = refused(results, capsys)
    assert f"reinforce/breakout/2/{name}" in message


def test_nan_in_record(results: Path, capsys: pytest.CaptureFixture):
    change_record(run_folder(results, "a2c", "pong", 1), seconds=float("nan"))
    message = refused(results, capsys)
    assert "NaN is not allowed" in message


def test_too_many_episodes(results: Path, capsys: pytest.CaptureFixture):
    study = json.loads((results / "study.json").read_text())
    study["evaluation"]["episodes"] = 3
    (results / "study.json").write_text(json.dumps(study))
    assert "4 episodes, but the study asks for 3" in refused(results, capsys)


def test_missing_is_listed_with_its_reason(results: Path):
    """One run absent, one without evaluation, one evaluation cut short, one diverged run."""
    (run_folder(results, "reinforce", "pong", 0) / "run.json").unlink()
    (run_folder(results, "reinforce", "pong", 1) / "evaluation/400000/episodes.csv").unlink()
    short = run_folder(results, "a2c", "breakout", 0) / "evaluation/1000000/episodes.csv"
    short.write_text("\n".join(short.read_text().splitlines()[:-1]) + "\n")
    synthetic.diverge(run_folder(results, "a2c", "pong", 2), 600_000)
    assert collect.main(["--results", str(results)]) == 0
    missing = pd.read_csv(results / "missing.csv")
    assert missing.to_numpy().tolist() == [
        ["reinforce", "pong", 0, 400_000, "not_run"],
        ["reinforce", "pong", 0, 1_000_000, "not_run"],
        ["reinforce", "pong", 1, 400_000, "not_evaluated"],
        ["a2c", "pong", 2, 1_000_000, "diverged"],
        ["a2c", "breakout", 0, 1_000_000, "incomplete_evaluation"],
    ]
    episodes = pd.read_csv(results / "episodes.csv")
    assert len(episodes) == 96 - 5 * 4
    runs = pd.read_csv(results / "runs.csv")
    diverged = runs[runs["status"] == "diverged"]
    assert diverged["reason"].tolist() == ["loss is nan at 600000 frames"]


def test_runs_outside_the_study_are_named(results: Path, capsys: pytest.CaptureFixture):
    study = json.loads((results / "study.json").read_text())
    study["seeds"] = [0, 1]
    (results / "study.json").write_text(json.dumps(study))
    assert collect.main(["--results", str(results)]) == 0
    assert "ignored" in capsys.readouterr().err
    assert set(pd.read_csv(results / "runs.csv")["seed"]) == {0, 1}


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert collect.main(["--results", str(tmp_path)]) == 1
    assert "study.json: there is no such file" in capsys.readouterr().err


def write_traces(file: Path, header: object) -> None:
    """Write what `analysis` reads of an archive of traces."""
    content = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(file, header=content, episode_seeds=np.arange(1000))


def flip(content: bytes) -> bytes:
    """Damage the compressed seeds."""
    middle = content.index(b"episode_seeds.npy") + 60
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 40])
        + (content[middle + 40 :])
    )


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"half", lambda c: c[:-30], flip])
def test_a_damaged_archive_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: Callable[[bytes], bytes]
):
    """Empty, text, cut off, other bytes in the middle."""
    results = synthetic.write_study(tmp_path / "study")
    file = run_folder(results, "a2c", "pong", 1) / "evaluation/1000000/traces.npz"
    write_traces(file, {"evaluation_seed": 1000, "action_selection": "sample"})
    file.write_bytes(damage(file.read_bytes()))
    assert collect.main(["--results", str(results)]) == 1
    assert f"{file}: not a readable archive of traces (" in capsys.readouterr().err


def test_an_archive_without_a_header_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    file = run_folder(results, "a2c", "pong", 1) / "evaluation/1000000/traces.npz"
    write_traces(file, 3)
    assert collect.main(["--results", str(results)]) == 1
    assert f"{file}: not a readable archive of traces (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("incomplete", "maybe", "incomplete = 'maybe': unknown; allowed: refuse, list"),
        ("statistics", {"level": 1.5}, "statistics.level = 1.5; allowed: above 0 and below 1"),
        ("statistics", {"reps": 0}, "statistics.reps = 0; allowed: 1 or more"),
        ("statistics", {"rng_seed": 2**32}, "statistics.rng_seed = 4294967296; allowed: 0 to"),
    ],
)
def test_a_study_that_was_edited_wrongly_is_refused(
    results: Path, capsys: pytest.CaptureFixture, key: str, value: str | dict, words: str
):
    study = json.loads((results / "study.json").read_text())
    study[key] = value if isinstance(value, str) else study[key] | value
    (results / "study.json").write_text(json.dumps(study))
    assert words in refused(results, capsys)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"evaluation_seed": 7}, "played with evaluation_seed 7, but the study says 1000"),
        ({"action_selection": "greedy"}, "action_selection 'greedy', but the study says 'sample'"),
    ],
)
def test_episodes_that_were_played_otherwise_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, header: dict, words: str
):
    """The notes of the tables say how episodes were played; the traces know."""
    results = synthetic.write_study(tmp_path / "study")
    file = run_folder(results, "a2c", "pong", 1) / "evaluation/1000000/traces.npz"
    right = {"evaluation_seed": 1000, "action_selection": "sample"}

    write_traces(file, right)
    assert collect.main(["--results", str(results)]) == 0
    write_traces(file, right | header)
    assert collect.main(["--results", str(results)]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert str(file) in said
