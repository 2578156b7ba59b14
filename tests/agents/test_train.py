"""The training command: records, milestones, divergence, costs."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from agents import atari, checkpoint, methods, provenance, train
from agents import run as run_module
from agents.run import LOG_HEADER, RECENT_EPISODES, Run
from agents.usage import usage
from tests.agents.command_line import arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two milestones; only read."""
    out = tmp_path_factory.mktemp("trained")
    assert train.main(arguments(out)) == 0
    return out


def test_a_finished_run_is_recorded(trained: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    expected = {"method": "a2c", "game": "breakout", "seed": 0, "status": "finished"}
    expected |= {"budget_frames": 3200, "network": "mnih2013", "protocol": "noop", "attempts": 1}
    assert expected.items() <= record.items()
    assert record["frames"] == 3200
    assert record["settings"]["lanes"] == 2
    for key in ("seconds", "core_seconds", "frames_per_second", "peak_memory_bytes"):
        assert record[key] > 0
    assert record["versions"]["torch"] == torch.__version__
    assert [m["milestone_frames"] for m in record["milestones"]] == [1600, 3200]
    first, second = (checkpoint.load(trained / m["policy"]) for m in record["milestones"])
    assert (first["frames"], second["frames"]) == (1600, 3200)
    assert not torch.equal(first["weights"]["policy.weight"], second["weights"]["policy.weight"])
    progress = json.loads((trained / "progress.json").read_text())
    assert (progress["status"], progress["frames"], progress["attempt"]) == ("finished", 3200, 1)


def test_the_log_has_every_finished_episode(trained: Path) -> None:
    """Its lengths and what the lanes have begun add up to the frames trained on."""
    with (trained / "training_episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == LOG_HEADER.strip().split(",")
    (path,) = (trained / "resume").glob("*/checkpoint.pt")
    lanes = checkpoint.load(path)["training"]["worker"]["lanes"]
    begun = 4 * sum(len(actions) for actions in lanes["actions"])
    assert sum(int(row["length_frames"]) for row in rows) + begun == 3200
    assert sum(lanes["episode"]) == len(rows) >= 2
    frames = [int(row["frames"]) for row in rows]
    assert frames == sorted(frames)
    assert all(int(row["length_frames"]) % 4 == 0 for row in rows)


def test_hashes_name_what_may_stand_together(tmp_path: Path) -> None:
    """Settings: not game and seed. A linear schedule depends on the budget, a constant one not."""

    def hashes(**changes: str) -> tuple[str, str]:
        options = train.parse_arguments(arguments(tmp_path, **changes))
        spec = train.build_spec(options)
        return spec.settings_hash(), spec.spec_hash()

    first, other_seed, other_game = hashes(), hashes(seed="1"), hashes(game="pong")
    assert first[0] == other_seed[0] == other_game[0]
    assert len({first[1], other_seed[1], other_game[1]}) == 3
    assert hashes(protocol="sticky")[0] != first[0]
    assert hashes(set='{"network":"mnih2013"}')[0] != first[0]
    longer = "1600 3200 6400"
    assert hashes(milestones_frames=longer)[0] != first[0]
    constant = '{"learning_rate_schedule":"constant"}'
    assert hashes(set=constant) == hashes(set=constant, milestones_frames=longer)


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("a2c", '{"network":"mnih2013","lanes":2,"learning_rate":1e30}'),
        (
            "a3c_ff",
            '{"network":"mnih2013","workers":2,"learning_rate":1e30}',
        ),
        (
            "reinforce",
            '{"network":"mnih2013","lanes":1,"episodes_per_update":1,"learning_rate":1e30}',
        ),
    ],
)
def test_a_run_that_diverges_says_so(tmp_path: Path, method: str, sets: str) -> None:
    """Recorded with its reason, frames and no milestone; exit code 0, since the record is whole."""
    changes = {"game": "assault", "milestones_frames": "400000", "set": sets}
    code = train.main(arguments(tmp_path, method, **changes))
    record = json.loads((tmp_path / "run.json").read_text())
    assert (code, record["status"], record["milestones"]) == (0, "diverged", [])
    assert "loss is" in record["reason"] or "gradient_norm is" in record["reason"]
    assert 0 < record["frames"] < 400_000
    assert (tmp_path / "training_episodes.csv").read_text().startswith(LOG_HEADER)
    assert json.loads((tmp_path / "progress.json").read_text())["status"] == "diverged"


def test_a_run_records_the_commits_of_all_its_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = '{"network":"mnih2013","lanes":4,"learning_rate_schedule":"constant"}'
    expected = (["a"], "a", False), (["a", "b"], "b", True), (["a", "b"], "a", True)
    attempts = iter([("a", False), ("b", True), ("a", False)])
    monkeypatch.setattr(provenance, "commit", lambda method: next(attempts))
    milestones = []
    for milestone, (commits, commit, dirty) in zip((1600, 3200, 4800), expected, strict=True):
        milestones.append(str(milestone))
        changes = {"set": constant, "milestones_frames": " ".join(milestones)}
        assert train.main(arguments(tmp_path, **changes)) == 0
        record = json.loads((tmp_path / "run.json").read_text())
        assert (record["commits"], record["commit"], record["dirty"]) == (commits, commit, dirty)


def test_the_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert provenance.commit() == ("unknown", None)


def test_a_run_is_dirty_by_its_own_method_not_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], check=True)

    (tmp_path / "agents").mkdir()
    (tmp_path / "config/methods").mkdir(parents=True)
    for file in ("agents/run.py", "config/methods/a2c.yaml", "README.md"):
        (tmp_path / file).write_text("")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def dirty() -> list[bool | None]:
        return [provenance.commit(*method)[1] for method in (["a2c"], ["mine"], [])]

    assert dirty() == [False, False, False]
    (tmp_path / "README.md").write_text("edited")
    (tmp_path / "config/methods/mine.yaml").write_text("")
    assert dirty() == [False, True, True]
    (tmp_path / "agents/new.py").write_text("")
    assert dirty() == [True, True, True]


def test_a_run_on_two_cores_resumes_on_one(tmp_path: Path) -> None:
    """By the command."""
    constant = '{"network":"mnih2013","lanes":4,"learning_rate_schedule":"constant"}'
    changes = {"set": constant, "threads": "2"}
    assert train.main(arguments(tmp_path, milestones_frames="3200", **changes)) == 0
    first = json.loads((tmp_path / "run.json").read_text())
    changes["threads"] = "1"
    assert train.main(arguments(tmp_path, milestones_frames="3200 6400", **changes)) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert (first["threads"], record["threads"]) == (2, 1)
    assert (record["status"], record["frames"], record["attempts"]) == ("finished", 6400, 2)
    assert record["core_seconds"] > first["core_seconds"] > 0
    seconds = [milestone["seconds"] for milestone in record["milestones"]]
    assert first["seconds"] <= seconds[1] <= record["seconds"]
    assert seconds[0] < seconds[1]
    rows = (tmp_path / "training_episodes.csv").read_text().splitlines()[1:]
    assert {row.split(",")[2] for row in rows} == {"0", "1", "2", "3"}
    recent = [int(row.split(",")[4]) for row in rows][-RECENT_EPISODES:]
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["recent_return"] == pytest.approx(sum(recent) / len(recent))


def test_costs_are_those_of_all_attempts_and_workers(tmp_path: Path) -> None:
    """Workers that have used 7 s of a core and hold 10^12 bytes, after an attempt of 1000 s."""
    spec = train.build_spec(train.parse_arguments(arguments(tmp_path)))
    run = Run(spec, tmp_path, "cpu", 1, 1e9)
    run.training = type(
        "Training",
        (),
        {"core_seconds_of_workers": lambda _: 7.0, "peak_memory_of_workers": lambda _: 10**12},
    )()
    earlier = {"seconds": 1000.0, "core_seconds": 500.0, "peak_memory_bytes": 5, "attempts": 2}
    run.earlier = earlier
    memory = usage()[1]
    costs = run.costs()
    assert 1000 < costs["seconds"] < 1060
    assert 507 <= costs["core_seconds"] < 507 + 60
    assert 10**12 + memory <= costs["peak_memory_bytes"] < 2 * 10**12
    assert costs["attempts"] == 3
    run.earlier = earlier | {"peak_memory_bytes": 10**15}
    assert run.costs()["peak_memory_bytes"] == 10**15


def test_the_log_of_attempts_has_what_ended_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the lights went out")

    with monkeypatch.context() as patched:
        patched.setattr(methods.TRAININGS["lockstep"], "advance", fail)
        with pytest.raises(RuntimeError, match="lights"):
            train.main(arguments(tmp_path))
    assert train.main(arguments(tmp_path)) == 0
    log = (tmp_path / "resume/attempts.log").read_text()
    first, second = log.index(": attempt 1 at 0 of "), log.rindex(": attempt 1 at 0 of ")
    assert first < log.index("RuntimeError: the lights went out") < second
    assert log.endswith("finished at 3200 frames\n")


def test_seconds_and_core_seconds_are_of_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built, and played again after a resume, is in neither."""
    used = iter([10.0, 15.0, 16.5])  # when made, when built, when asked
    monkeypatch.setattr(run_module, "usage", lambda: (next(used), 1))
    run = Run(train.build_spec(train.parse_arguments(arguments(tmp_path))), tmp_path, "cpu", 1, 9)
    run.build()
    assert run.costs()["core_seconds"] == 1.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    """Broken by the very last update, when no loss follows that would show it."""
    spec = train.build_spec(train.parse_arguments(arguments(tmp_path, milestones_frames="80")))
    run = Run(spec, tmp_path, "cpu", 1, 1e9)
    run.build()
    advance = run.training.advance

    def spoil(until_frames: int):
        finished = advance(until_frames)
        run.training.worker.flat.master[-1] = bad
        return finished

    monkeypatch.setattr(run.training, "advance", spoil)
    assert run.train() == "diverged"
    assert run.reason == "weights value.bias are not finite"
    assert not list(tmp_path.rglob("80.pt"))


def test_a_run_stopped_between_milestones_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the advance that passes 1600, before its policy was kept."""
    advance = methods.TRAININGS["lockstep"].advance

    def advance_and_stop(training, until_frames: int):
        finished = advance(training, until_frames)
        if training.frames == 1600:
            os.kill(os.getpid(), signal.SIGTERM)
        return finished

    monkeypatch.setattr(methods.TRAININGS["lockstep"], "advance", advance_and_stop)
    assert train.main(arguments(tmp_path)) == 3
    assert not (tmp_path / "policies").exists()
    assert train.main(arguments(tmp_path)) == 0
    kept = json.loads((tmp_path / "run.json").read_text())["milestones"]
    assert [(m["milestone_frames"], m["frames"]) for m in kept] == [(1600, 1600), (3200, 3200)]


def test_another_budget_and_back_leaves_each_its_policies(tmp_path: Path) -> None:
    """The learning rate falls over the budget: at 1600 frames these are two trainings."""

    def policies(milestones_frames: str) -> dict[int, torch.Tensor]:
        """Train by the command, as Snakemake does: without the record of before."""
        (tmp_path / "run.json").unlink(missing_ok=True)
        assert train.main(arguments(tmp_path, milestones_frames=milestones_frames)) == 0
        record = json.loads((tmp_path / "run.json").read_text())
        kept = {}
        for milestone in record["milestones"]:
            path = tmp_path / milestone["policy"]
            policy, frames = checkpoint.load(path), milestone["milestone_frames"]
            checkpoint.check_policy(policy, path, record, frames)
            kept[frames] = policy["weights"]["policy.weight"]
        return kept

    first, second = policies("1600 3200"), policies("1600 4800")
    assert not torch.equal(first[1600], second[1600])
    again = policies("1600 3200")
    assert again.keys() == first.keys()
    assert all(torch.equal(first[frames], again[frames]) for frames in first)


def test_a_policy_that_was_written_over_and_has_no_copy_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a run from before copies were kept."""
    for milestones in ("1600 3200", "1600 4800"):
        (tmp_path / "run.json").unlink(missing_ok=True)
        assert train.main(arguments(tmp_path, milestones_frames=milestones)) == 0
    (tmp_path / "run.json").unlink()
    for copy in tmp_path.glob("resume/*/policies/1600.pt"):
        copy.unlink()
    assert train.main(arguments(tmp_path)) != 0
    error = capsys.readouterr().err
    assert "policies/1600.pt: is of another training: settings_hash" in error
    assert "To train it from the start, delete " in error
    assert not (tmp_path / "run.json").exists()


def test_reinforce_stops_within_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, not when its episodes are over; what it had begun of them is played again."""
    sets = '{"network":"mnih2013","lanes":2,"episodes_per_update":3}'
    changes = {"method": "reinforce", "set": sets, "milestones_frames": "4000"}
    assert train.main(arguments(tmp_path / "whole", **changes)) == 0
    step, steps = atari.AtariLanes.step, []

    def step_and_stop(lanes, actions):
        steps.append(1)
        if len(steps) == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(lanes, actions)

    with monkeypatch.context() as patched:
        patched.setattr(atari.AtariLanes, "step", step_and_stop)
        assert train.main(arguments(tmp_path / "stopped", **changes)) == 3
    assert len(steps) == 30
    assert json.loads((tmp_path / "stopped/progress.json").read_text())["frames"] == 0
    assert train.main(arguments(tmp_path / "stopped", **changes)) == 0
    one, other = (
        checkpoint.load(tmp_path / run / "policies/4000.pt") for run in ("whole", "stopped")
    )
    assert one["frames"] == other["frames"]
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
