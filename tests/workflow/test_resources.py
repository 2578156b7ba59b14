"""What a run asks a machine for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.workflow.test_study import ROOT, changed
from workflow.resources import device, memory_mb, processes
from workflow.study import load


def test_a3c_takes_a_core_for_each_worker() -> None:
    study = load(changed(methods=["a2c", "a3c_ff", "a3c_lstm"]), ROOT)
    assert [processes(study, method, ROOT) for method in study["methods"]] == [1, 16, 16]
    study = load(changed(methods=["a3c_ff"], overrides={"a3c_ff": {"workers": 3}}), ROOT)
    assert processes(study, "a3c_ff", ROOT) == 3
    study["overrides"] = {"gorila": {"actors": 3, "learners": 2}}
    assert processes(study, "gorila", ROOT) == 5


PUBLISHED = sorted(path.parent for path in (ROOT / "results/published").glob("*/study.json"))


@pytest.mark.parametrize("results", PUBLISHED, ids=lambda path: path.name)
def test_no_published_run_took_more_memory_than_is_asked_for(results: Path) -> None:
    study = json.loads((results / "study.json").read_text())
    with (results / "runs.csv").open() as file:
        for run in csv.DictReader(file):
            asked = memory_mb(study, run["method"], ROOT) * 10**6
            assert int(run["peak_memory_bytes"]) < 0.9 * asked, run["method"]


def test_a_replay_memory_of_a_million_is_asked_for() -> None:
    """Its file of 7.8 GB is mapped: where all of it is read its pages are the run's memory."""
    study = load(changed(methods=["a2c", "dqn"], milestones_frames=[4_000_000]), ROOT)
    a2c, dqn = (memory_mb(study, method, ROOT) for method in study["methods"])
    assert dqn - a2c == 7800
    study["milestones_frames"] = [1_000_000]  # 250,000 decisions
    assert memory_mb(study, "dqn", ROOT) - a2c == 1950
    study["overrides"] = {"dqn": {"replay_capacity_steps": 100_000}}
    assert memory_mb(study, "dqn", ROOT) - a2c == 780


def test_a3c_and_gorila_train_on_the_cpu_of_a_study_on_a_gpu() -> None:
    methods = ["a2c", "a3c_ff", "a3c_lstm", "gorila", "dqn", "reinforce"]
    study = load(changed(methods=methods, milestones_frames=[10**6], device="cuda"), ROOT)
    found = {method: device(study, method, ROOT) for method in methods}
    assert {method for method, on in found.items() if on == "cpu"} == {
        "a3c_ff", "a3c_lstm", "gorila"
    }  # fmt: skip
    assert set(found.values()) == {"cpu", "cuda"}
    study = load(changed(methods=["a2c"], device="auto"), ROOT)
    assert device(study, "a2c", ROOT) == "auto"


def test_a3c_workers_are_asked_for() -> None:
    """16 of them took 6.0 GB in results/benchmarks/speed.md, where each counts the shared pages."""
    study = load(changed(methods=["a3c_ff"]), ROOT)
    assert memory_mb(study, "a3c_ff", ROOT) > 6500


def test_each_process_of_gorila_is_asked_for() -> None:
    """4 actors, 2 learners and 2 shards; each shard has a replica."""
    study = load(changed(methods=["gorila"], milestones_frames=[10**6]), ROOT)
    own = memory_mb(study, "gorila", ROOT)
    for key, value, more in (("actors", 5, 500), ("learners", 3, 500), ("shards", 3, 1000)):
        study["overrides"] = {"gorila": {key: value}}
        assert memory_mb(study, "gorila", ROOT) - own == more, key
