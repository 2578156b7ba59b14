"""Published policies: half as large, otherwise the same, and played as they are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from agents import checkpoint, evaluate, export, train
from tests.agents.conftest import evaluation
from tests.agents.worlds import METHODS


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A run that a test may change, as METHOD/GAME/SEED below a folder of results."""
    folder = tmp_path / "results" / "a2c" / "breakout" / "0"
    shutil.copytree(run, folder)
    return folder


def exported(copied: Path, *options: str) -> Path:
    """Export `copied`, add its record as publishing does, return the new run's folder."""
    results = copied.parents[2]
    out = results.with_name("out")
    arguments = ["a2c/breakout/0", "--results", str(results), "--out", str(out), *options]
    assert export.main(arguments) == 0
    folder = out / "a2c/breakout/0"
    if folder.exists():
        shutil.copy(copied / "run.json", folder)
    return folder


def test_weights_are_rounded_and_all_else_is_kept(copied: Path) -> None:
    whole = checkpoint.load(copied / "policies/1000.pt")
    half = checkpoint.load(exported(copied) / "policies/1000.pt")
    rounded, exact = half.pop("weights"), whole.pop("weights")
    assert half == whole
    assert list(rounded) == list(exact)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float16
        # Half a unit of the last of 11 binary digits; below 6e-5 the digits are fewer.
        assert torch.allclose(rounded[name].float(), value, rtol=2**-11, atol=2**-25)


def test_file_is_half_as_large_and_fits_the_limit(copied: Path) -> None:
    whole = (copied / "policies/1000.pt").stat().st_size
    half = (exported(copied) / "policies/1000.pt").stat().st_size
    assert whole > export.MAX_BYTES > half
    assert 0.5 * whole < half < 0.51 * whole


def test_evaluate_takes_it_as_it_is(copied: Path, tmp_path: Path) -> None:
    """In float32, and the same episodes: only what the policy does in them may differ."""
    folder = exported(copied)
    _, network = evaluate.load_policy(folder / "policies/1000.pt", "cpu")
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    seeds = []
    for name, run in (("whole", copied), ("half", folder)):
        played = evaluation(run, tmp_path / name)
        with (played / "episodes.csv").open(newline="") as file:
            seeds.append([row["episode_seed"] for row in csv.DictReader(file)])
    assert seeds[0] == seeds[1]


def test_random_play_stays_uniform(tmp_path: Path) -> None:
    """In half precision the shares of 18 actions would not sum to one."""
    run = tmp_path / "results/random/pong/0"
    arguments = ["--method", str(METHODS / "random.yaml"), "--game", "pong", "--seed", "0"]
    arguments += ["--milestones-frames", "1000", "--out", str(run)]
    assert train.main(arguments) == 0
    export.export(run, tmp_path / "out")
    _, network = evaluate.load_policy(tmp_path / "out/policies/1000.pt", "cpu")
    assert network.logits.dtype == torch.float32


def test_too_large_or_unfinished_is_left_out_and_said(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(copied, "--max-bytes", "1000000")
    assert "bytes in half precision, above 1,000,000: no policy" in capsys.readouterr().out
    assert not list(folder.rglob("*.pt"))
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(record | {"status": "diverged", "milestones": []}))
    folder = exported(copied)
    assert "diverged, no policy" in capsys.readouterr().out
    assert not list(folder.rglob("*.pt"))


def test_only_the_last_milestone_goes_out(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    first = record["milestones"][0] | {"milestone_frames": 500, "policy": "policies/500.pt"}
    shutil.copy(copied / "policies/1000.pt", copied / "policies/500.pt")
    record["milestones"].insert(0, first)
    (copied / "run.json").write_text(json.dumps(record))
    assert [path.name for path in exported(copied).rglob("*.pt")] == ["1000.pt"]


def test_a_weight_too_large_for_half_precision_is_an_error(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = checkpoint.load(copied / "policies/1000.pt")
    policy["weights"]["policy.bias"][0] = 70_000.0
    checkpoint.save(copied / "policies/1000.pt", policy)
    results = copied.parents[2]
    arguments = ["a2c/breakout/0", "--results", str(results), "--out", str(results / "out")]
    assert export.main(arguments) == 1
    assert "policy.bias has a value that half precision cannot hold" in capsys.readouterr().err
    assert not list((results / "out").rglob("*.pt"))


def test_a_policy_is_never_written_over_itself(copied: Path, capsys: pytest.CaptureFixture) -> None:
    results, before = copied.parents[2], (copied / "policies/1000.pt").read_bytes()
    for run, out in ((str(copied), results / "out"), ("a2c/breakout/0", results)):
        assert export.main([run, "--results", str(results), "--out", str(out)]) == 1
        said = capsys.readouterr().err
        assert "must be relative to --results" in said or "is the policy itself" in said
        assert (copied / "policies/1000.pt").read_bytes() == before


def test_a_run_that_is_not_there_is_named(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["a2c/pong/9", "--results", str(copied.parent), "--out", str(tmp_path / "out")]
    assert export.main(arguments) == 1
    assert "a2c/pong/9/run.json does not exist: METHOD/GAME/SEED" in capsys.readouterr().err
