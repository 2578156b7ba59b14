"""What Snakemake plans before anything ran: real dry runs of the real Snakefile."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agents.config import CPU_ONLY
from analysis.figures import names as figures_of
from analysis.study import load_study
from tests.workflow.project import ROOT, SMOKE, Project, copy, runs
from tests.workflow.test_outdated import write_run
from workflow.study import load


def trainings(printed: str) -> list[list[str]]:
    """Return the commands of the trainings that `snakemake -n -p` printed, split into words."""
    lines = re.findall(r"python -m agents\.train .*", printed)
    return [shlex.split(line.partition(" > ")[0]) for line in lines]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_smoke_is_planned_whole(fresh: Project) -> None:
    jobs, printed = fresh.plan(*SMOKE)
    assert jobs == {
        "train_run": 8,
        "evaluate_run": 16,
        **dict.fromkeys(
            ["published", "study_json", "collect", "aggregate", "tables", "plots", "report", "all"],
            1,
        ),
    }
    for command in trainings(printed):
        at = command.index("--milestones-frames")
        assert command[at + 1 : at + 3] == ["2000", "4000"]
        method = option(command, "--method").removeprefix("config/methods/")
        game, seed = option(command, "--game"), option(command, "--seed")
        assert option(command, "--out") == f"results/smoke/runs/{method[:-5]}/{game}/{seed}"
    settings = {option(c, "--method"): json.loads(option(c, "--set")) for c in trainings(printed)}
    assert settings["config/methods/a2c.yaml"] == {"network": "mnih2013", "lanes": 4}


def test_config_on_the_command_line(fresh: Project) -> None:
    """Lists replace the default study's; the values arrive as numbers."""
    jobs, printed = fresh.plan("--config", 'games=["pong"]', 'methods=["a2c"]', "seeds=[3,10]")
    assert (jobs["train_run"], jobs["evaluate_run"]) == (2, 2)
    assert runs(printed) == {("a2c", "pong", "3"), ("a2c", "pong", "10")}
    assert "results/demo/report.html" in printed


def test_config_is_added_to_a_study(fresh: Project) -> None:
    jobs, printed = fresh.plan(
        *SMOKE, "--config", "seeds=[5]", "methods=[a2c]", "budget_frames=8000"
    )
    assert jobs["train_run"] == 2
    assert "--milestones-frames 2000 4000 8000 " in printed


def test_protocol_and_threads_reach_the_training(fresh: Project) -> None:
    _, printed = fresh.plan(
        *SMOKE, "--cores", "4", "--set-threads", "train_run=4", "--config", "protocol=sticky"
    )
    commands = trainings(printed)
    assert len(commands) == 8
    given = {(option(c, "--protocol"), option(c, "--threads")) for c in commands}
    assert given == {("sticky", "4")}


def test_default_study_does_not_leak_into_another(fresh: Project) -> None:
    """Snakemake merges mappings, but atari57 has no overrides and must get none."""
    assert "network" in (fresh.root / "config/config.yaml").read_text()
    _, printed = fresh.plan(
        "--configfile", "config/studies/atari57.yaml", "--config", "games=[pong]", "seeds=[0]"
    )
    commands = trainings(printed)
    assert len(commands) == 5
    assert all(json.loads(option(command, "--set")) == {} for command in commands)


def test_overrides_of_a_study_can_be_cleared(fresh: Project) -> None:
    """Snakemake would merge `{}` into them and change nothing."""
    config = ("methods=[a2c]", "games=[krull]", "seeds=[0]", "milestones_frames=[1e4]")
    for more, settings in (
        ((), {"network": "mnih2013", "lanes": 8}),
        (("overrides={a2c: {gamma: 0.9}}",), {"network": "mnih2013", "lanes": 8, "gamma": 0.9}),
        (("overrides={}",), {}),
    ):
        _, printed = fresh.plan("train", "--config", *config, *more)
        (command,) = trainings(printed)
        assert json.loads(option(command, "--set")) == settings
        assert option(command, "--milestones-frames") == "10000"
    atari5 = ("--configfile", "config/studies/atari5.yaml", "--config", *config, "overrides={}")
    (command,) = trainings(fresh.plan("train", *atari5)[1])
    assert json.loads(option(command, "--set")) == {}


@pytest.mark.parametrize(
    ("methods", "figures"), [("[a2c,dqn]", 7), ("[random,a2c]", 7), ("[a2c]", 6), ("[random]", 3)]
)
def test_figures_are_those_that_are_drawn(fresh: Project, methods: str, figures: int) -> None:
    changes = (f"methods={methods}", "overrides={}", "milestones_frames=[1e6]")
    _, printed = fresh.plan(*SMOKE, "--config", *changes)
    names = set(re.findall(r"results/smoke/figures/(\w+)\.svg", printed))
    study = load_study(ROOT / "results/published/pong")  # the figures depend on its methods alone
    assert names == set(figures_of(replace(study, methods=methods.strip("[]").split(","))))
    assert len(names) == figures


def test_gpu_profile_leaves_a3c_and_gorila_on_the_cpu(fresh: Project) -> None:
    methods = sorted(path.stem for path in (fresh.root / "config/methods").glob("*.yaml"))
    _, printed = fresh.plan(
        "--profile", "workflow/profiles/gpu", *SMOKE,
        "--config", f"methods=[{','.join(methods)}]", "games=[pong]", "seeds=[0]",
        "milestones_frames=[1e6]",
    )  # fmt: skip
    on = {
        option(command, "--method").removeprefix("config/methods/").removesuffix(".yaml"):
        option(command, "--device")
        for command in trainings(printed)
    }  # fmt: skip
    assert set(on) == set(methods)
    able = {m for m in methods if load_topology(fresh, m) not in {*CPU_ONLY, "random"}}
    assert {method for method, device in on.items() if device == "cuda"} == able
    assert {method for method, device in on.items() if device == "cpu"} == set(methods) - able
    resources = re.findall(r"gpu=(\d), device=(\w+), checkpoint_seconds", printed)
    assert set(resources) == {("1", "cuda"), ("0", "cpu")}
    evaluations = re.findall(r"python -m agents\.evaluate .*", printed)
    assert all(" --device cpu " in command for command in evaluations)


def load_topology(project: Project, method: str) -> str:
    return yaml.safe_load((project.root / f"config/methods/{method}.yaml").read_text())["topology"]


def test_a_restored_run_is_trained_again_only_with_other_values(tmp_path: Path) -> None:
    """Snakemake has no record of how it was made; the run has."""
    project = copy(ROOT, tmp_path)
    study = load(yaml.safe_load((project.root / "config/studies/smoke.yaml").read_text()), ROOT)
    run = write_run(project.root / "results/smoke", study)
    run.with_name("training_episodes.csv").write_text("")
    one = (*SMOKE, "--config", "methods=[a2c]", "games=[pong]", "seeds=[0]")
    method = project.root / "config/methods/a2c.yaml"
    text = method.read_text()
    after = run.stat().st_mtime + 10
    for change, trains in ((("", ""), 0), (("\n", " # a comment\n"), 0),
                           (("gamma: 0.99 ", "gamma: 0.98 "), 1)):  # fmt: skip
        method.write_text(text.replace(*change, 1))
        os.utime(method, (after, after))
        jobs, printed = project.plan("train", *one)
        assert jobs.get("train_run", 0) == trains, printed
        assert ("a2c/pong/0: gamma 0.99, now 0.98" in printed) == bool(trains)
        assert "runs that this study does not name" not in printed
    os.utime(method, (after - 20, after - 20))
    jobs, printed = project.plan("train", *one)
    assert "train_run" not in jobs
    assert "delete the folder of each run, or evaluation, that is not in its plan" in printed
    _, printed = project.plan("train", *one, "games=[breakout]")
    assert "results/smoke has runs that this study does not name: a2c/pong/0. They" in printed


def test_a_key_that_is_there_twice_is_refused_before_anything_starts(tmp_path: Path) -> None:
    project = copy(ROOT, tmp_path)
    project.edit("config/studies/smoke.yaml", "seeds: [5]\n")
    done = project.snakemake("-n", *SMOKE)
    assert done.returncode
    assert "the key 'seeds' is there twice, first in line" in done.stdout
    assert 'config/studies/smoke.yaml", line' in done.stdout
    assert "Traceback" not in done.stdout


def test_a_milestone_that_runs_have_passed_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    project = copy(ROOT, tmp_path)
    study = load(yaml.safe_load((project.root / "config/studies/smoke.yaml").read_text()), ROOT)
    run = write_run(project.root / "results/smoke", study)
    state = run.parent / "resume/0123456789abcdef/checkpoint.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    done = project.snakemake("-n", *SMOKE, "--config", "milestones_frames=[1000,2000,4000]")
    assert done.returncode
    assert "a2c/pong/0: 1000; its state is results/smoke/runs/a2c/pong/0/resume/0123" in done.stdout
    assert "Traceback" not in done.stdout


def test_published_table_needs_no_training(fresh: Project) -> None:
    jobs, _ = fresh.plan("published")
    assert jobs == {"published": 1}


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("train", {"study_json", "train_run", "train"}),
        ("evaluate", {"study_json", "train_run", "evaluate_run", "evaluate"}),
        (
            "tables",
            {"train_run", "evaluate_run", "study_json", "collect", "aggregate", "tables"},
        ),
    ],
)
def test_named_targets(fresh: Project, target: str, rules: set[str]) -> None:
    jobs, _ = fresh.plan(target, *SMOKE)
    assert set(jobs) == rules


def test_atari57_is_planned_whole(fresh: Project) -> None:
    """57 games x 5 methods x 8 seeds = 2,280 trainings."""
    result = fresh.snakemake(
        "-n", "--quiet", "rules", "--configfile", "config/studies/atari57.yaml",
        "--config", "seeds=[0,1,2,3,4,5,6,7]",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout, re.MULTILINE))
    assert (jobs["train_run"], jobs["evaluate_run"]) == ("2280", "4560")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("games=[ponk]", 'games[0] = "ponk": unknown (did you mean pong?); allowed: alien,'),
        ("gmaes=[pong]", "gmaes: unknown key (did you mean games?); allowed: study, label, games"),
        ("seeds=[-1]", "seeds[0] = -1: must be at least 0"),
        ("budget_frames=10", "beyond the budget; allowed: up to 10"),
    ],
)
def test_wrong_configuration_plans_nothing(fresh: Project, config: str, message: str) -> None:
    result = fresh.snakemake("-n", "--config", config)
    assert result.returncode != 0
    assert message in result.stdout
    assert "Traceback" not in result.stdout
    assert "Job stats" not in result.stdout
