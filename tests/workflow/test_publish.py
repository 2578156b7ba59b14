"""What may be published and what is restored; whole studies: test_end_to_end.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workflow.test_outdated import write_run
from tests.workflow.test_study import ROOT
from workflow import publish, restore


def study(folder: Path, seeds: list[int], milestones: tuple[int, ...] = (1000,)) -> Path:
    """Write the records of a study whose runs have been evaluated at `milestones`."""
    content = {"methods": ["a2c"], "games": ["pong"], "seeds": [0, 1], "milestones_frames": [1000]}
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(content))
    rows, played = ["method,game,seed"], ["method,game,seed,milestone"]
    for seed in seeds:
        run = folder / f"runs/a2c/pong/{seed}"
        for milestone in milestones:
            (run / f"evaluation/{milestone}").mkdir(parents=True)
            (run / f"evaluation/{milestone}/episodes.csv").write_text("episode")
            (run / f"evaluation/{milestone}/audit.txt").write_text("agrees")
            played.append(f"a2c,pong,{seed},{milestone}")
        record = {"milestones": [{"milestone_frames": m} for m in milestones], "status": "finished"}
        (run / "run.json").write_text(json.dumps(record))
        rows.append(f"a2c,pong,{seed}")
    (folder / "runs.csv").write_text("\n".join(rows) + "\n")
    (folder / "episodes.csv").write_text("\n".join(played) + "\n")
    (folder / "missing.csv").write_text("method,game,seed,milestone,reason\n")
    return folder


def test_as_much_or_more_is_published(tmp_path: Path) -> None:
    few, many = study(tmp_path / "few", [0]), study(tmp_path / "many", [0, 1])
    publish.check_whole(many, tmp_path / "none")
    publish.check_whole(many, few)
    publish.check_whole(many, many)


def test_a_published_run_does_not_go(tmp_path: Path) -> None:
    few, many = study(tmp_path / "few", [1]), study(tmp_path / "many", [0, 1])
    with pytest.raises(publish.PublishError, match=r"many/runs/a2c/pong/0 is published and not"):
        publish.check_whole(few, many)
    before = sorted(many.rglob("*"))
    for name in publish.STUDY_FILES:
        (few / name).touch()
    (few / "report.html").touch()
    for name in ("tables", "figures"):
        (few / name).mkdir()
    with pytest.raises(publish.PublishError):
        publish.publish(few, many)
    assert sorted(many.rglob("*")) == before


def test_a_published_evaluation_does_not_go(tmp_path: Path) -> None:
    few, many = study(tmp_path / "few", [0]), study(tmp_path / "many", [0], (1000, 2000))
    with pytest.raises(publish.PublishError, match=r"0/evaluation/2000 is published and not"):
        publish.check_whole(few, many)


def test_tables_of_other_runs_are_not_published(tmp_path: Path) -> None:
    results = study(tmp_path / "results", [0, 1])
    (results / "runs.csv").write_text("method,game,seed\na2c,pong,0\n")
    with pytest.raises(publish.PublishError, match=r"pong/1 has finished and is not in .*runs.csv"):
        publish.check_whole(results, tmp_path / "none")


@pytest.mark.parametrize(
    ("milestone", "reason", "refused"),
    [
        (1000, None, True),
        (1000, "not_evaluated", True),
        (1000, "incomplete_evaluation", False),
        (2000, None, False),  # the study does not ask for it
    ],
)
def test_tables_that_lack_an_evaluation_are_not_published(
    tmp_path: Path, milestone: int, reason: str | None, refused: bool
) -> None:
    results = study(tmp_path / "results", [0], (1000, 2000))
    lines = (results / "episodes.csv").read_text().splitlines()
    lines.remove(f"a2c,pong,0,{milestone}")
    (results / "episodes.csv").write_text("\n".join(lines) + "\n")
    if reason:
        with (results / "missing.csv").open("a") as file:
            file.write(f"a2c,pong,0,{milestone},{reason}\n")
    if refused:
        with pytest.raises(publish.PublishError, match=r"0/evaluation/1000 is not in .*episodes"):
            publish.check_whole(results, tmp_path / "none")
    else:
        publish.check_whole(results, tmp_path / "none")


def publishable(folder: Path, seeds: list[int]) -> Path:
    """A `study` with the files that the analysis makes, and no policy."""
    study(folder, seeds)
    for name in ("aggregates.csv", "report.html"):
        (folder / name).touch()
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    for record in folder.glob("runs/*/*/*/run.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "diverged"}))
    return folder


def test_a_publication_that_was_killed_does_not_hide_what_was_published(tmp_path: Path) -> None:
    """Killed with the old folder put aside and the new one not yet in its place."""
    few, many = publishable(tmp_path / "few", [0]), publishable(tmp_path / "many", [0, 1])
    target = tmp_path / "published"
    publish.publish(many, target)
    target.rename(tmp_path / "published.old")
    with pytest.raises(publish.PublishError, match="pong/1 is published and not in"):
        publish.publish(few, target)
    assert (target / "runs/a2c/pong/1/run.json").exists()
    assert publish.publish(few, target, replace=True) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many", "published"]


def test_an_evaluation_whose_audit_fails_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    publishable(tmp_path / "results/few", [0])  # it has no traces
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(SystemExit) as stopped:
        publish.main(["--study", "few"])
    assert stopped.value.code == "results/few: the audit failed; nothing was published"
    assert "audit: 0 of 1 evaluations agree" in capfd.readouterr().out
    assert not (tmp_path / "results/published").exists()


def test_a_study_without_a_report_is_not_published(tmp_path: Path) -> None:
    results = publishable(tmp_path / "few", [0])
    (results / "report.html").unlink()
    with pytest.raises(FileNotFoundError, match=r"few/report\.html is missing: finish the study"):
        publish.publish(results, tmp_path / "published")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_an_evaluation_whose_audit_fails_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = study(tmp_path / "results/published/old", [0])
    content = {"study": "old", "label": "a test", "methods": ["a2c"], "games": ["pong"],
               "seeds": [0], "milestones_frames": [1000], "protocol": "noop",
               "overrides": {}}  # fmt: skip
    (published / "study.json").write_text(json.dumps(content))
    write_run(published, content, 0)
    (published / "runs/a2c/pong/0/evaluation/1000/audit.txt").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        restore.main(["--study", "old"])
    assert "runs/a2c/pong/0/evaluation/1000: its audit failed" in str(stopped.value.code)
    assert not list(tmp_path.glob("results/old/runs/a2c/pong/*"))


def test_a_run_that_is_not_as_today_is_to_be_trained_anew(tmp_path: Path) -> None:
    """It would stop the study: it counts as finished and has no policy there, or other settings."""
    published = study(tmp_path / "published", [0, 1, 2])
    content = {"study": "test", "label": "a test", "methods": ["a2c"], "games": ["pong"],
               "seeds": [0, 1, 2], "milestones_frames": [1000, 2000], "protocol": "noop",
               "overrides": {"a2c": {"lanes": 8}}}  # fmt: skip
    (published / "study.json").write_text(json.dumps(content))
    for seed, changes in (
        (0, {"milestones": [{"milestone_frames": 1000}]}),
        (1, {}),
        (2, {"settings": {"gamma": 0.98}}),
    ):
        write_run(published, content, seed, **changes)
    assert list(restore.restore(published, tmp_path / "results")) == [
        "runs/a2c/pong/0: without milestones_frames 2000: to be trained anew",
        "runs/a2c/pong/1: restored",
        "runs/a2c/pong/2: gamma 0.98, now 0.99: to be trained anew",
    ]
    assert [p.name for p in (tmp_path / "results/runs/a2c/pong").iterdir()] == ["1"]


def test_a_setting_that_is_no_more_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = study(tmp_path / "results/published/old", [0])
    content = {"methods": ["a2c"], "games": ["pong"], "seeds": [0], "milestones_frames": [1000],
               "protocol": "noop", "overrides": {"a2c": {"bygone": 8}}}  # fmt: skip
    (published / "study.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        restore.main(["--study", "old"])
    told = "results/published/old/study.json cannot be taken up: overrides: a2c: unknown key 'byg"
    assert told in str(stopped.value.code)
    assert not (tmp_path / "results/old").exists()
