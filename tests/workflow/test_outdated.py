"""Runs and evaluations that are there and not as the study says are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import trace
from agents.config import load_method
from tests.workflow.test_study import ROOT, changed
from workflow.outdated import (
    outdated_evaluations,
    outdated_runs,
    outdated_text,
    passed_milestones,
    passed_text,
    trained_milestones,
    unnamed_runs,
    unnamed_text,
)
from workflow.study import load, settings


def write_run(results: Path, study: dict[str, Any], seed: int = 0, **changes: Any) -> Path:
    """Write the part of a finished A2C run's record that says how it was made; return its path."""
    path = results / f"runs/a2c/pong/{seed}/run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = load_method(ROOT / "config/methods/a2c.yaml", settings(study, "a2c"))
    milestones = [{"milestone_frames": frames} for frames in study["milestones_frames"]]
    record = {"settings": vars(made) | changes.pop("settings", {}), "protocol": "noop",
              "milestones": milestones, "status": "finished", "spec_hash": "0123456789abcdef",
              "budget_frames": study["milestones_frames"][-1]}  # fmt: skip
    path.write_text(json.dumps(record | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, None),
        ({"settings": {"label": "another"}}, None),
        ({"settings": {"gamma": 0.98}}, ["gamma 0.98, now 0.99"]),
        ({"settings": {"version": 0, "lanes": 8}}, ["lanes 8, now 16", "version 0, now 1"]),
        ({"protocol": "sticky"}, ['protocol "sticky", now "noop"']),
        ({"milestones": [{"milestone_frames": 1000}]}, ["without milestones_frames 3000"]),
        ({"milestones": [], "status": "diverged"}, None),
        ({"milestones": None}, None),
        ({"budget_frames": None, "milestones": []}, None),
        (
            {"budget_frames": 1000, "milestones": [{"milestone_frames": 1000}]},
            ["without milestones_frames 3000"],
        ),
        ({"budget_frames": 9000}, ["budget_frames 9000, now 3000"]),
        (
            {"budget_frames": 9000, "milestones": [], "status": "diverged"},
            ["budget_frames 9000, now 3000"],
        ),
    ],
)
def test_runs_that_are_not_as_the_study_says(
    tmp_path: Path, changes: dict[str, Any], lines: list[str] | None
) -> None:
    study = load(changed(seeds=[0, 1]), ROOT)
    write_run(tmp_path, study, **changes)
    expected = {} if lines is None else {("a2c", "pong", 0): lines}
    found = outdated_runs(study, tmp_path, ROOT)
    assert found == expected
    if lines:
        assert f"  a2c/pong/0: {'; '.join(lines)}\n" in outdated_text(tmp_path, found)


@pytest.mark.parametrize(("budget_frames", "other"), [(1000, False), (3000, False), (4000, True)])
def test_a_constant_rate_may_have_ended_at_a_milestone_before(
    tmp_path: Path, budget_frames: int, other: bool
) -> None:
    """As `analysis.collect` has it: diverged on the way to one of the study's milestones."""
    overrides = {"a2c": {"learning_rate_schedule": "constant"}}
    study = load(changed(overrides=overrides), ROOT)
    write_run(tmp_path, study, budget_frames=budget_frames, status="diverged")
    lines = [f"budget_frames {budget_frames}, now 3000"]
    assert outdated_runs(study, tmp_path, ROOT) == ({("a2c", "pong", 0): lines} if other else {})


@pytest.mark.parametrize(
    ("milestones", "changes", "kept"),
    [
        ([1000, 3000], {}, True),
        ([3000], {}, True),
        ([1000], {}, False),  # another budget
        ([1000, 2000, 3000], {}, False),
        ([3000], {"status": "diverged"}, False),
        ([3000], {"settings": {"gamma": 0.98}}, False),
    ],
)
def test_milestones_that_a_run_was_trained_with(
    tmp_path: Path, milestones: list[int], changes: dict[str, Any], kept: bool
) -> None:
    write_run(tmp_path, load(changed(), ROOT), **changes)
    study = load(changed(milestones_frames=milestones), ROOT)
    found = trained_milestones(study, tmp_path, outdated_runs(study, tmp_path, ROOT))
    assert found == ({("a2c", "pong", 0): [1000, 3000]} if kept else {})


@pytest.mark.parametrize(
    ("milestones", "changes", "passed"),
    [
        ([1000, 2000, 3000], {}, "2000"),
        ([500, 1000, 2000, 3000], {}, "500, 2000"),
        ([1000, 3000], {}, None),
        ([1000, 2000], {}, None),  # another budget, over which the rate falls: another training
        ([2000, 4000], {}, None),
        ([2000, 4000], {"settings": {"learning_rate_schedule": "constant"}}, "2000"),
        ([1000, 3000, 4000], {"settings": {"learning_rate_schedule": "constant"}}, None),
        ([1000, 2000, 3000], {"settings": {"gamma": 0.98}}, None),
        ([1000, 2000, 3000], {"status": "diverged"}, None),
        ([1000, 2000, 3000], {"state": False}, None),
    ],
)
def test_milestones_that_a_run_has_passed(
    tmp_path: Path, milestones: list[int], changes: dict[str, Any], passed: str | None
) -> None:
    """A training that goes on cannot go back; one without a state begins again."""
    rate = changes.get("settings", {}).get("learning_rate_schedule", "linear_to_zero")
    overrides = {"a2c": {"learning_rate_schedule": rate}}
    there = changes.pop("state", True)
    record = write_run(tmp_path, load(changed(overrides=overrides), ROOT), **changes)
    state = record.parent / "resume/0123456789abcdef/checkpoint.pt"
    state.parent.mkdir(parents=True)
    if there:
        state.touch()
    study = load(changed(overrides=overrides, milestones_frames=milestones), ROOT)
    found = passed_milestones(study, tmp_path, ROOT)
    line = f"{passed}; its state is {state}"
    assert found == ({} if passed is None else {("a2c", "pong", 0): [line]})
    if passed:
        assert f"\n  a2c/pong/0: {line}\n" in passed_text(tmp_path, found)


def test_runs_that_the_study_does_not_name(tmp_path: Path) -> None:
    study = load(changed(seeds=[1]), ROOT)
    assert unnamed_runs(study, tmp_path) == []
    for seed in range(8):
        write_run(tmp_path, study, seed)
    found = unnamed_runs(study, tmp_path)
    assert found == [f"a2c/pong/{seed}" for seed in (0, 2, 3, 4, 5, 6, 7)]
    assert "name: a2c/pong/0, a2c/pong/2, a2c/pong/3, a2c/pong/4, a2c/pong/5 and 2 more." in (
        unnamed_text(tmp_path, found)
    )
    assert "a2c/pong/0. They stay" in unnamed_text(tmp_path, found[:1])


@pytest.mark.parametrize("damaged", [b"half-written", b""])
@pytest.mark.parametrize(
    ("method", "asked", "lines"),
    [
        ("a2c", {}, None),
        ("a2c", {"episodes": 60}, ["evaluation/1000: episodes 2, now 60"]),
        ("a2c", {"seed": 5}, ["evaluation/1000: seed 1000, now 5"]),
        (
            "a2c",
            {"action_selection": "greedy"},
            ['evaluation/1000: action_selection "sample", now "greedy"'],
        ),
        ("random", {"action_selection": "greedy"}, None),  # it always samples
    ],
)
def test_evaluations_that_are_not_as_the_study_says(
    tmp_path: Path, method: str, asked: dict[str, Any], lines: list[str] | None, damaged: bytes
) -> None:
    study = load(changed(methods=[method], evaluation={"episodes": 2, **asked}), ROOT)
    folder = tmp_path / f"runs/{method}/pong/0/evaluation"
    header = {"evaluation_seed": 1000, "action_selection": "sample"}
    episodes = [trace.Trace(seed, np.zeros(3, np.uint8)) for seed in (1, 2)]
    trace.save(folder / "1000/traces.npz", header, episodes)
    (folder / "3000").mkdir()
    (folder / "3000/traces.npz").write_bytes(damaged)
    found = outdated_evaluations(study, tmp_path)
    assert found == ({} if lines is None else {(method, "pong", 0): lines})
    if lines:
        text = outdated_text(tmp_path, {("a2c", "pong", 0): ["gamma 0.98, now 0.99"]}, found)
        assert f"  a2c/pong/0: gamma 0.98, now 0.99; {lines[0]}\n" in text


def test_published_runs_are_as_their_studies_say() -> None:
    """But for milestones that they have not reached. So nothing published is trained again."""
    for path in sorted((ROOT / "results/published").glob("*/study.json")):
        study = load(json.loads(path.read_text()), ROOT)
        found = outdated_runs(study, path.parent, ROOT)
        lines = {line for run in found.values() for line in run}
        assert all(line.startswith("without milestones_frames") for line in lines), (path, found)
