"""Copy the small files of a study to results/published.

They are enough to redo the analysis and to replay every episode. The last policy of each finished
run goes with them in half precision, where that is small. Resume states and logs stay behind.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from workflow.study import UNTRAINED

STUDY_FILES = ("study.json", "episodes.csv", "runs.csv", "missing.csv", "aggregates.csv")
RUN_FILES = ("run.json", "training_episodes.csv", "evaluation/*/*")


def published_files(results: Path) -> Iterable[Path]:
    """Yield the files to publish, relative to `results`; only runs that study.json names.

    Raises:
        FileNotFoundError: if the study has no report yet.
    """
    for name in (*STUDY_FILES, "report.html"):
        if not (results / name).is_file():
            raise FileNotFoundError(f"{results / name} is missing: finish the study first")
        yield Path(name)
    for folder in ("tables", "figures"):
        yield from (p.relative_to(results) for p in sorted((results / folder).iterdir()))
    for run in study_runs(results):
        for pattern in RUN_FILES:
            yield from (p.relative_to(results) for p in sorted((results / run).glob(pattern)))


def study_runs(results: Path) -> list[Path]:
    """Return the folders of the study's runs that have a record, relative to `results`."""
    study = json.loads((results / "study.json").read_text())
    runs = itertools.product(study["methods"], study["games"], map(str, study["seeds"]))
    folders = [Path("runs", *run) for run in runs]
    return [folder for folder in folders if (results / folder / "run.json").is_file()]


class PublishError(ValueError):
    """What is in results/STUDY is not to be published as it is."""


def check_whole(results: Path, target: Path) -> None:
    """Refuse to publish less than is published, or tables of other records than there are.

    Raises:
        PublishError: naming the first run or evaluation.
    """
    if target.is_dir():
        there = {*study_runs(results), *_evaluations(results)}
        for old in (*study_runs(target), *_evaluations(target)):
            if old not in there:
                raise PublishError(
                    f"{target / old} is published and not in {results}: make restore copies it "
                    "there if it has all milestones; --replace publishes without it"
                )
    with (results / "runs.csv").open(newline="") as file:
        rows = {Path("runs", r["method"], r["game"], r["seed"]) for r in csv.DictReader(file)}
    for run in study_runs(results):
        if run not in rows:
            raise PublishError(
                f"{results / run} has finished and is not in {results / 'runs.csv'}: make the "
                "study's tables anew first"
            )
    for evaluation in _untabulated(results):
        raise PublishError(
            f"{results / evaluation} is not in {results / 'episodes.csv'}: make the study's tables "
            "anew first"
        )


def _untabulated(results: Path) -> Iterable[Path]:
    """Yield the evaluations at the study's milestones that its tables do not know.

    They know those with too few episodes, and of random play only the last milestone.
    """
    known = set()
    for name in ("episodes.csv", "missing.csv"):
        with (results / name).open(newline="") as file:
            known |= {
                Path("runs", r["method"], r["game"], r["seed"], "evaluation", r["milestone"])
                for r in csv.DictReader(file)
                if r.get("reason", "incomplete_evaluation") == "incomplete_evaluation"
            }
    milestones = json.loads((results / "study.json").read_text())["milestones_frames"]
    for evaluation in _evaluations(results):
        asked = milestones[-1:] if evaluation.parts[1] == UNTRAINED else milestones
        if int(evaluation.name) in asked and evaluation not in known:
            yield evaluation


def _evaluations(results: Path) -> list[Path]:
    return [
        path.parent.relative_to(results)
        for run in study_runs(results)
        for path in sorted((results / run).glob("evaluation/*/episodes.csv"))
    ]


def publish(results: Path, target: Path, replace: bool = False) -> int:
    """Replace `target` by the small files of `results`; return how many there are.

    Args:
        results: the folder of the study.
        target: the published folder.
        replace: whether runs that are published and not in `results` may go.

    Raises:
        PublishError: if they would, or the tables lack runs.
        FileNotFoundError: if the study has no report yet.
        subprocess.CalledProcessError: if a policy cannot be exported.
    """
    files = list(published_files(results))
    new, old = (target.with_name(f"{target.name}.{state}") for state in ("new", "old"))
    if old.is_dir() and not target.is_dir():  # killed between the two renames below
        old.rename(target)
    if not replace:
        check_whole(results, target)
    shutil.rmtree(new, ignore_errors=True)
    for file in files:
        (new / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(results / file, new / file)
    export = [sys.executable, "-m", "agents.export", *map(str, study_runs(results))]
    subprocess.run([*export, "--results", str(results), "--out", str(new)], check=True)
    shutil.rmtree(old, ignore_errors=True)
    if target.is_dir():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return sum(path.is_file() for path in target.rglob("*"))


def main(argv: list[str] | None = None) -> None:
    """Audit results/STUDY, then copy its small files to results/published/STUDY."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--study", required=True, help="name of a folder below results/")
    parser.add_argument(
        "--replace", action="store_true", help="publish although published runs would go"
    )
    options = parser.parse_args(argv)
    study = options.study
    results, target = Path("results", study), Path("results/published", study)
    if not (results / "study.json").is_file():
        parser.error(f"--study {study}: there is no {results}/study.json")
    audit = [sys.executable, "-m", "agents.audit", str(results / "runs")]
    if subprocess.run(audit, check=False).returncode != 0:
        sys.exit(f"{results}: the audit failed; nothing was published")
    try:
        print(f"{target}: {publish(results, target, options.replace)} files")
    except (PublishError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit(f"{results}: a policy could not be exported; nothing was published")


if __name__ == "__main__":
    main()
