"""The contract, end to end: real trainings, evaluations and analysis, then what a change redoes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.figures import FIGURES
from tests.workflow.project import ROOT, SMOKE, Project, copy, runs

ANALYSIS = {"collect", "aggregate", "tables", "plots", "report"}
COLUMNS = {
    "episodes.csv": "method,game,seed,milestone,frames,protocol,episode,episode_seed,return,"
    "length_frames,ended",
    "runs.csv": "method,game,seed,frames,budget_frames,seconds,core_seconds,frames_per_second,"
    "peak_memory_bytes,device,cpu,gpu,network,precision,protocol,commit,dirty,versions,status,"
    "reason,version,settings_hash",
    "missing.csv": "method,game,seed,milestone,reason",
    "aggregates.csv": "metric,method,milestone,selection,protocol,rule,games,seeds,point,low,high,"
    "level,reps,rng_seed",
}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_results_have_the_shape_of_the_contract(finished: Project) -> None:
    results = finished.root / "results/smoke"
    for name, columns in COLUMNS.items():
        header = (results / name).read_text().splitlines()[0]
        assert set(columns.split(",")) <= set(header.split(",")), name
    tables = {f"table1.{ending}" for ending in ("csv", "md", "tex", "html")}
    tables |= {"summary.md", "games.csv", "games.md"}
    assert tables == {p.name for p in (results / "tables").iterdir()}
    assert all((results / "tables" / name).stat().st_size > 0 for name in tables)
    figures = {p.name for p in (results / "figures").iterdir()}
    assert figures == {f"{name}.{ending}" for name in FIGURES for ending in ("svg", "png")}
    assert "<table" in (results / "report.html").read_text()


def test_every_run_is_in_the_results(finished: Project) -> None:
    results = finished.root / "results/smoke"
    episodes = rows(results / "episodes.csv")
    # 2 methods x 2 games x 2 seeds x 2 milestones x 2 episodes
    assert len(episodes) == 32
    assert {(e["milestone"], e["protocol"]) for e in episodes} == {
        ("2000", "noop"),
        ("4000", "noop"),
    }
    found = {(r["method"], r["game"], r["seed"]) for r in rows(results / "runs.csv")}
    assert found == {
        (m, g, s) for m in ("a2c", "a3c_ff") for g in ("pong", "breakout") for s in ("0", "1")
    }
    assert rows(results / "missing.csv") == []


def test_study_json_names_the_settings_of_the_runs(finished: Project) -> None:
    results = finished.root / "results/smoke"
    study = json.loads((results / "study.json").read_text())
    assert set(study["method_files"]) == {"a2c", "a3c_ff"}
    run = json.loads((results / "runs/a2c/pong/1/run.json").read_text())
    assert run["settings"]["lanes"] == study["overrides"]["a2c"]["lanes"] == 4
    assert (run["seed"], run["budget_frames"], run["status"]) == (1, 4000, "finished")


def test_finished_study_has_nothing_to_do(finished: Project) -> None:
    for study in ("config/studies/smoke.yaml", "results/smoke/study.json"):
        result = finished.snakemake("-n", "--configfile", study)
        assert "Nothing to be done" in result.stdout, study


def test_a_study_ends_with_where_its_table_and_report_are(finished: Project) -> None:
    printed = (finished.root / "printed.log").read_text()
    assert "Table: results/smoke/tables/summary.md; report: results/smoke/report.html" in printed


def test_one_more_seed_plans_exactly_its_own_runs(finished: Project) -> None:
    jobs, printed = finished.plan(*SMOKE, "--config", "seeds=[0,1,2]")
    expected = {(m, g, "2") for m in ("a2c", "a3c_ff") for g in ("pong", "breakout")}
    assert runs(printed) == runs(printed, "evaluate_run") == expected
    assert (jobs["train_run"], jobs["evaluate_run"]) == (4, 8)
    assert set(jobs) == {"train_run", "evaluate_run", "study_json", "all"} | ANALYSIS


def test_one_more_game_plans_exactly_its_own_runs(finished: Project) -> None:
    _, printed = finished.plan(*SMOKE, "--config", "games=[pong,breakout,qbert]")
    expected = {(m, "qbert", s) for m in ("a2c", "a3c_ff") for s in ("0", "1")}
    assert runs(printed) == runs(printed, "evaluate_run") == expected


@pytest.mark.parametrize(
    ("old", "new", "redone"),
    [("rmsprop_decay: 0.99 ", "rmsprop_decay: 0.9 ", 4), ("version: 1", "version: 2", 4),
     ("label: A2C", "label: Advantage actor-critic", 0), ("# ", "# Edited. ", 0)],
)  # fmt: skip
def test_a_changed_value_of_a_method_redoes_only_its_runs(
    editable: Project, old: str, new: str, redone: int
) -> None:
    """Comments and the label are for readers: no run depends on them."""
    file = editable.root / "config/methods/a2c.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    jobs, printed = editable.plan(*SMOKE)
    assert jobs.get("train_run", 0) == redone
    assert {method for method, _, _ in runs(printed)} <= {"a2c"}


def test_a_reworded_rule_trains_nothing(editable: Project) -> None:
    """Weeks of training do not depend on the words of a command."""
    file = editable.root / "workflow/rules/train.smk"
    assert file.read_text().count("python -m agents.train") == 1
    file.write_text(file.read_text().replace("python -m agents.train", "python -u -m agents.train"))
    assert "train_run" not in editable.plan(*SMOKE)[0]


def test_override_of_one_method_redoes_only_its_runs(finished: Project) -> None:
    _, printed = finished.plan(*SMOKE, "--config", "overrides={a3c_ff: {workers: 3}}")
    expected = {("a3c_ff", g, s) for g in ("pong", "breakout") for s in ("0", "1")}
    assert runs(printed) == expected


@pytest.mark.parametrize(
    ("file", "redone"),
    [
        ("analysis/collect.py", ANALYSIS),
        ("analysis/aggregate.py", ANALYSIS - {"collect"}),
        ("analysis/plots.py", {"plots", "report"}),
        ("analysis/report.py", {"report"}),
    ],
)
def test_edited_analysis_redoes_only_analysis(
    editable: Project, file: str, redone: set[str]
) -> None:
    editable.edit(file, "\n# edited\n")
    jobs, _ = editable.plan(*SMOKE)
    assert set(jobs) == redone | {"all"}


@pytest.mark.parametrize(
    ("config", "redone"),
    [
        ("device=auto", {"study_json"} | ANALYSIS),
        ("checkpoint_seconds=77", {"study_json"} | ANALYSIS),
        ("statistics={reps: 300}", {"study_json"} | ANALYSIS),
        ("selection={a2c: best}", {"study_json"} | ANALYSIS),
        ("evaluation={episodes: 3}", {"study_json", "evaluate_run"} | ANALYSIS),
        ("milestones_frames=[4000]", {"study_json"} | ANALYSIS),
        (
            "milestones_frames=[2000,4000,6000]",
            {"train_run", "evaluate_run", "study_json"} | ANALYSIS,
        ),
    ],
)
def test_changed_study_redoes_what_depends_on_it(
    finished: Project, config: str, redone: set[str]
) -> None:
    jobs, _ = finished.plan(*SMOKE, "--config", config)
    assert set(jobs) == redone | {"all"}


def test_an_evaluation_without_its_audit_is_made_again(editable: Project) -> None:
    (editable.root / "results/smoke/runs/a2c/pong/1/evaluation/2000/audit.txt").unlink()
    jobs, printed = editable.plan(*SMOKE)
    assert runs(printed, "evaluate_run") == {("a2c", "pong", "1")}
    assert (jobs["evaluate_run"], "train_run" in jobs) == (1, False)


def python(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with `command` in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False
    )


def test_published_study_is_small_and_replays(finished: Project) -> None:
    """Every episode of what is published replays, and a published policy plays."""
    run = "results/published/smoke/runs/a2c/pong/0"
    commands = [
        ["workflow.publish", "--study", "smoke"],
        ["agents.audit", "results/published/smoke"],
        ["agents.evaluate", "--run", run, "--milestone-frames", "4000", "--episodes", "1",
         "--out", "played"],
    ]  # fmt: skip
    for command in commands:
        done = python(finished.root, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    source, target = finished.root / "results/smoke", finished.root / "results/published/smoke"
    files = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    for name in (*COLUMNS, "study.json", "report.html", "tables/table1.md"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert "runs/a2c/pong/0/evaluation/4000/traces.npz" in files
    assert not [f for f in files if re.search(r"resume|logs|progress", f)]
    # Of two milestones the last, in half precision.
    policies = {f for f in files if "policies" in f}
    assert policies == {
        f"runs/{m}/{g}/{s}/policies/4000.pt"
        for m in ("a2c", "a3c_ff") for g in ("pong", "breakout") for s in (0, 1)
    }  # fmt: skip
    for file in policies:
        whole = (source / file).stat().st_size
        assert (target / file).stat().st_size < 0.51 * whole + 10_000
    assert len(rows(finished.root / "played/episodes.csv")) == 1


def test_a_published_study_goes_on_elsewhere(finished: Project, tmp_path: Path) -> None:
    """Restored runs are whole to Snakemake; one more seed trains only its own."""
    assert python(finished.root, "workflow.publish", "--study", "smoke").returncode == 0
    project = copy(ROOT, tmp_path)
    published = tmp_path / "results/published/smoke"
    shutil.copytree(finished.root / "results/published/smoke", published)
    begun = tmp_path / "results/smoke/runs/a2c/pong/1"
    (begun / "resume").mkdir(parents=True)

    done = python(tmp_path, "workflow.restore", "--study", "smoke")
    assert done.stdout.splitlines().count("runs/a2c/pong/1: already there, left alone") == 1
    assert len(re.findall("^runs/.*: restored$", done.stdout, re.MULTILINE)) == 7
    assert [p.name for p in begun.iterdir()] == ["resume"]
    for file in (published / "runs/a3c_ff").rglob("*.*"):
        restored = tmp_path / "results/smoke" / file.relative_to(published)
        assert restored.read_bytes() == file.read_bytes()
    (tmp_path / "config/methods/a2c.yaml").touch()  # as a checkout of another commit does
    jobs, printed = project.plan(*SMOKE, "--config", "seeds=[0,1,2]")
    assert runs(printed) == {("a2c", "pong", "1")} | {
        (m, g, "2") for m in ("a2c", "a3c_ff") for g in ("pong", "breakout")
    }
    assert runs(printed, "evaluate_run") == runs(printed)
    assert jobs["evaluate_run"] == 2 * jobs["train_run"] == 10

    unknown = python(tmp_path, "workflow.restore", "--study", "atari6")
    assert "--study atari6: not published; allowed: smoke" in unknown.stderr


def test_interrupted_training_goes_on(tmp_path: Path) -> None:
    """Ctrl-C reaches Snakemake and its jobs; the same command then finishes the run."""
    project = copy(ROOT, tmp_path)
    run = tmp_path / "results/smoke/runs/a2c/pong/0"
    command = [
        *(
            "train",
            "--cores",
            "1",
            *SMOKE,
            "--config",
            "games=[pong]",
            "methods=[a2c]",
            "seeds=[0]",
        ),
        *("milestones_frames=[40000]", "checkpoint_seconds=1"),
    ]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *command],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a group of its own, as a terminal gives it
            # A background job of a shell ignores SIGINT and hands that on; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    while first.poll() is None and not list(run.glob("resume/*/checkpoint.pt")):
        time.sleep(0.05)
    assert first.poll() is None, (tmp_path / "first.log").read_text()
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(timeout=60) != 0
    assert not (run / "run.json").exists()
    assert (
        "continue from their last resume state with the same"
        in (tmp_path / "first.log").read_text()
    )

    second = project.snakemake(*command)
    assert second.returncode == 0, second.stdout
    assert "report.html" not in second.stdout  # only trained
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["frames"], record["attempts"]) == ("finished", 40000, 2)
    begun, stopped, again, finished = (run / "resume/attempts.log").read_text().splitlines()
    assert "a2c pong seed 0: attempt 1 at 0 of 40000 frames, cpu, threads 1, host " in begun
    assert stopped.startswith("stopped at ")
    assert f"attempt 2 at {stopped.split()[2]} of 40000" in again
    assert finished == "finished at 40000 frames"


def test_figures_named_in_the_rule_are_those_of_the_code() -> None:
    text = (ROOT / "workflow/rules/analyse.smk").read_text()
    named = re.findall(r'"(\w+)"', text.partition("FIGURES = [")[2].partition("]")[0])
    assert named == list(FIGURES)
