"""What may be published and what is restored; whole studies: test_end_to_end.py."""

from __future__ import annotations

import json
import shutil
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
    for seed in seeds:
        run = folder / f"runs/a2c/pong/{seed}"
        for milestone in milestones:
            (run / f"evaluation/{milestone}").mkdir(parents=True)
            (run / f"evaluation/{milestone}/episodes.csv").write_text("episode")
            (run / f"evaluation/{milestone}/audit.txt").write_text("agrees")
        record = {"milestones": [{"milestone_frames": m} for m in milestones], "status": "finished"}
        (run / "run.json").write_text(json.dumps(record))
    return folder


def test_as_much_or_more_is_published(tmp_path: Path) -> None:
    few, many = study(tmp_path / "few", [0]), study(tmp_path / "many", [0, 1])
    publish.check_kept(many, tmp_path / "none")
    publish.check_kept(many, few)
    publish.check_kept(many, many)


def test_a_published_run_does_not_go(tmp_path: Path) -> None:
    few, many = study(tmp_path / "few", [1]), study(tmp_path / "many", [0, 1])
    with pytest.raises(publish.PublishError, match=r"many/runs/a2c/pong/0 is published and not"):
        publish.check_kept(few, many)
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
        publish.check_kept(few, many)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one run as it is published; tests change copies."""
    folder = tmp_path_factory.mktemp("whole") / "results"
    shutil.copytree(ROOT / "results/published/pong_float32", folder)
    return folder


def test_tables_that_the_runs_give_are_published(whole: Path, tmp_path: Path) -> None:
    """Also beside a run that the study does not name: it is not published."""
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    shutil.copytree(results / "runs/a2c/pong/0", results / "runs/a2c/pong/7")
    publish.check_tables(results)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("runs.csv", ",finished,", ",diverged,"),
        ("episodes.csv", "pong,0,10000000,10000000,noop,0,", "pong,1,10000000,10000000,noop,0,"),
        ("aggregates.csv", "median,a2c", "mean,a2c"),
        ("tables/table1.md", "Published, human starts", "Published"),
        ("report.html", "</html>\n", ""),
    ],
)
def test_tables_that_the_runs_do_not_give_are_not_published(
    whole: Path, tmp_path: Path, name: str, old: str, new: str
) -> None:
    """Of other runs, older, edited or cut off."""
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    text = (results / name).read_text()
    assert old in text
    (results / name).write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(
        publish.PublishError, match=f"{name} is not what the study's runs give, from line {line} on"
    ):
        publish.check_tables(results)


def test_runs_that_cannot_be_gathered_are_not_published(whole: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    (results / "runs/a2c/pong/0/run.json").write_text("{")
    with pytest.raises(publish.PublishError, match=rf"^{results}/runs/a2c/pong/0/run.json: not va"):
        publish.check_tables(results)


def publishable(folder: Path, seeds: list[int]) -> Path:
    """A `study` with the files that the analysis makes, and no policy."""
    study(folder, seeds)
    for name in (*publish.STUDY_FILES, "report.html"):
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


def test_what_is_missing_is_said_before_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    publishable(tmp_path / "results/few", [0])
    (tmp_path / "results/few/report.html").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(SystemExit, match=r"^error: .*report.html is missing: finish the study"):
        publish.main(["--study", "few"])
    assert "audit" not in capfd.readouterr().out


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


def test_a_run_that_is_not_as_today_is_to_be_trained_again(tmp_path: Path) -> None:
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
        "runs/a2c/pong/0: without milestones_frames 2000: to be trained again",
        "runs/a2c/pong/1: restored",
        "runs/a2c/pong/2: gamma 0.98, now 0.99: to be trained again",
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
