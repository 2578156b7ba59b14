"""The benchmark's arithmetic, and that its cases run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents import atari
from agents.asynchronous import Asynchronous
from agents.config import load_method
from agents.experience_replay import ExperienceReplay
from benchmarks import cases, speed


def sample(rate: float) -> dict[str, float]:
    return {"frames_per_second": rate, "peak_memory_bytes": 2_000_000}


def samples() -> dict[tuple[str, str], list[dict[str, float]]]:
    per_core = {
        "retable emulator": [900, 1000, 1100],
        "retable inference nature float32": [2000, 2000, 2000],
        "retable learning nature float32": [500, 500, 800],
        "retable a2c nature float32": [200, 250, 100],
        "sb3 a2c nature float32": [100, 50, 100],
    }
    found = {(key, "per_core"): [sample(r) for r in rates] for key, rates in per_core.items()}
    found["retable a2c nature float32", "all_cores"] = [sample(430)]
    return found


CASES = [speed.Case("emulator"), speed.Case("a2c", limited=True), speed.Case("a2c", peer="sb3")]


def test_limit_and_ratios_by_hand() -> None:
    """1 / (1/1000 + 1/2000 + 1/500) = 285.7; ratios to the peer round by round: 2, 5, 1."""
    rows = {(r["case"], r["layout"]): r for r in speed.summarise(CASES, samples(), cores=2)}
    row = rows["retable a2c nature float32", "per_core"]
    assert row["frames_per_second"] == 200
    assert (row["lowest"], row["highest"]) == (100, 250)
    assert row["limit"] == pytest.approx(2000 / 7)
    assert row["ratio_to_limit"] == pytest.approx(0.7)
    assert (row["peer"], row["ratio_to_peer"]) == ("sb3", 2)
    both = rows["retable a2c nature float32", "all_cores"]
    assert both["limit"] == pytest.approx(4000 / 7)
    assert both["ratio_to_peer"] is None
    assert rows["sb3 a2c nature float32", "per_core"]["ratio_to_limit"] is None


def test_an_lstm_has_a_limit_of_its_own() -> None:
    """1 / (1/1000 + 1/500 + 1/200) = 125 with the LSTM's inference and learning."""
    large = {"network": "mnih2013", "workers": 4, "lanes_per_worker": 8}
    case = speed.Case("a3c_lstm", large, limited=True, layouts=("per_core",))
    assert case.key == "retable a3c_lstm mnih2013 float32, 4 workers of 8"
    rates = {
        "retable emulator": 1000,
        "retable inference mnih2013 float32": 9000,
        "retable inference mnih2013, LSTM float32": 500,
        "retable learning mnih2013, LSTM float32": 200,
        case.key: 100,
    }
    found = {(key, "per_core"): [sample(rate)] for key, rate in rates.items()}
    (row,) = speed.summarise([case], found, cores=2)
    assert row["limit"] == pytest.approx(125)
    assert row["ratio_to_limit"] == pytest.approx(0.8)


def test_the_limit_of_dqn_is_of_its_own_batches() -> None:
    """1 / (1/1000 + 1/500 + 1/200) = 125, whatever a rollout's batch takes."""
    settings = speed.SB3_DQN | {"precision": "bfloat16"}
    case = speed.Case("dqn", settings, limited=True, layouts=("per_core",))
    rates = {
        "retable emulator": 1000,
        "retable inference nature bfloat16": 9000,
        "retable learning nature bfloat16": 9000,
        "retable q_inference nature bfloat16": 500,
        "retable q_learning nature bfloat16": 200,
        case.key: 100,
    }
    found = {(key, "per_core"): [sample(rate)] for key, rate in rates.items()}
    (row,) = speed.summarise([case], found, cores=2)
    assert row["limit"] == pytest.approx(125)
    assert row["ratio_to_limit"] == pytest.approx(0.8)


def test_every_limit_has_its_parts_in_the_benchmark() -> None:
    known = {(case.key, layout) for case in speed._ours() for layout in case.layouts}
    for case in speed._ours():
        if case.limited:
            assert {(part.key, "per_core") for part in case.parts()} <= known, case.key


@pytest.mark.parametrize(
    ("case", "asked", "given"),
    [
        (speed.Case("a2c"), 1.0, 1.0),
        (speed.Case("a3c_ff"), 1.0, 15.0),
        (speed.Case("a3c_lstm"), 20.0, 20.0),
        (speed.Case("a3c_ff", peer="pfrl"), 1.0, 15.0),
    ],
)
def test_processes_that_count_whole_rollouts_are_watched_for_longer(
    case: speed.Case, asked: float, given: float
) -> None:
    command = case.command("pong", 1, "0", asked)
    assert command[command.index("--seconds") + 1] == str(given)
    assert command[command.index("--warmup-seconds") + 1] == str(given / 2)


def test_table_shows_what_was_measured() -> None:
    report = {
        "rows": speed.summarise(CASES, samples(), cores=2),
        "game": "pong",
        "cpu": "a processor",
        "date": "2026-01-02",
        "commit": "0123456789",
        "versions": {"python": "3.11"},
        "rounds": 3,
        "seconds": 6.0,
    }
    lines = speed.markdown(report).splitlines()
    numbers = "200 (100 to 250) | 0.70 | 2.00 Stable-Baselines3: a2c | 2"
    assert f"| a2c | nature float32 | one job a core | {numbers} |" in lines
    assert (
        "| Stable-Baselines3: a2c | nature float32 | one job a core | 100 (50 to 100) |  |  | 2 |"
        in lines
    )


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("emulator", {}),
        ("inference", {}),
        ("learning", {}),
        ("plain_learning", {}),
        ("arithmetic", {}),
        ("a2c", {}),
        ("inference", {"lstm_cells": 256}),
        ("learning", {"lstm_cells": 256}),
        ("q_inference", {"replay_capacity_steps": 1000}),
        ("q_learning", {"replay_capacity_steps": 1000, "learning_starts_frames": 400}),
        ("q_arithmetic", {"replay_capacity_steps": 1000, "learning_starts_frames": 400}),
    ],
)
def test_cases_run(name: str, sets: dict[str, int]) -> None:
    command = [sys.executable, "-m", "benchmarks.cases", name, "--seconds", "0.1"]
    command += ["--warmup-seconds", "0", "--set", json.dumps({"network": "mnih2013"} | sets)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"] > 0
    assert found["frames_per_second"] > 0
    assert found["peak_memory_bytes"] > 50e6


def test_arithmetic_is_that_of_the_layers() -> None:
    """By hand: a multiplication and an addition for each weight that each output has."""
    settings = {"replay_capacity_steps": 1000, "learning_starts_frames": 400}
    method = load_method(cases.METHODS / "dqn.yaml", settings)
    convolutions = [20 * 20 * 32 * 8 * 8 * 4, 9 * 9 * 64 * 4 * 4 * 32, 7 * 7 * 64 * 3 * 3 * 64]
    linear = [3136 * 512, 512 * 6]
    forward = 2 * sum(convolutions + linear)
    # The batch of 32: forward in both networks, the weights' gradient, and that of all inputs but
    # the pixels; of the last layer's gradient only the actions taken.
    learning = 32 * (4 * forward - 2 * convolutions[0])
    with tempfile.TemporaryDirectory() as folder:
        training = ExperienceReplay(
            method,
            lambda lanes: atari.AtariLanes("pong", lanes, atari.protocol("noop"), 1),
            0,
            10**12,
            folder=Path(folder),
        )
        frames = cases.q_arithmetic(training)()
    # Four decisions, of four frames each, act and then learn once.
    assert 2 * 1024**3 / frames == pytest.approx((4 * forward + learning) / 16, rel=1e-3)


def test_an_unknown_case_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed", "--cases", "a9c", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cases: ['a9c']: none has such a name; known: retable emulator" in done.stderr


@pytest.mark.parametrize(
    "part", [["--cases", "emulator"], ["--layouts", "per_core"], ["--no-peers"]]
)
@pytest.mark.parametrize("out", [[], ["--out", str(speed.RECORD)]])
def test_a_part_of_the_cases_does_not_replace_the_record(
    part: list[str],
    out: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(speed, "install", lambda *_: pytest.fail("installed"))
    with pytest.raises(SystemExit):
        speed.main([*part, *out])
    assert "out: only some cases are asked for" in capsys.readouterr().err


def test_a_failed_case_leaves_nobody_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job a core: the first waits for its neighbour to have begun, then fails."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    begun = tmp_path / "pid"
    works = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    fails = f"""
import os, sys, time
while not (os.path.exists({str(begun)!r}) and os.path.getsize({str(begun)!r})):
    time.sleep(0.01)
sys.exit("no such game")
"""

    def command(game: str, threads: int, cores: str, seconds: float) -> list[str]:
        return [sys.executable, "-c", {"0": fails, "1": works}[cores]]

    with pytest.raises(RuntimeError, match=r"a2c \(per_core\) failed:\nno such game"):
        speed.measure(SimpleNamespace(key="a2c", command=command), "per_core", "pong", 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_a3cs_window_has_whole_turns_of_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All act, then each updates: an end between would count rollouts that were played before."""
    sets = {"network": "mnih2013", "workers": 3, "rollout_steps": 8}
    settings = load_method(cases.METHODS / "a3c_ff.yaml", sets)
    state, standstills = Asynchronous.state, []

    def noted(training: Asynchronous) -> dict:
        saved = state(training)
        standstills.append(int(saved["frames"].sum()))
        return saved

    monkeypatch.setattr(Asynchronous, "state", noted)
    found = cases.train(settings, "pong", 1, seconds=0.1, warmup_seconds=0.1)
    first, last, *_ = standstills
    assert found["frames"] == last - first > 0
    assert found["frames"] % (3 * 8 * 4) == 0
