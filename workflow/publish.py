"""Copy the small files of a study to results/published.

They are enough to redo the analysis and to replay every episode. The last policy of each finished
run goes with them in half precision, where that is small. Resume states and logs stay behind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from analysis import aggregate, collect, report, tables
from analysis.study import ResultsError

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


def check_kept(results: Path, target: Path) -> None:
    """Refuse to publish less than is published.

    Raises:
        PublishError: naming the first run or evaluation that would go.
    """
    if not target.is_dir():
        return
    there = {*study_runs(results), *_evaluations(results)}
    for old in (*study_runs(target), *_evaluations(target)):
        if old not in there:
            raise PublishError(
                f"{target / old} is published and not in {results}: make restore copies it "
                "there if it has all milestones; --replace publishes without it"
            )


def check_tables(results: Path) -> None:
    """Refuse to publish tables and a report that the runs do not give when made again.

    Raises:
        PublishError: naming the first file that is otherwise, and its line.
    """
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        shutil.copyfile(results / "study.json", again / "study.json")
        for name in ("runs", "figures"):
            (again / name).symlink_to((results / name).resolve())
        for module in (collect, aggregate, tables, report):
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # of runs that are not published
                    module.write(again)
            except ResultsError as error:
                raise PublishError(str(error).replace(folder, str(results))) from None
            _compare(results, again)


def _compare(results: Path, again: Path) -> None:
    for made in sorted(path for path in again.rglob("*.*") if path.is_file()):
        file = results / made.relative_to(again)
        if not file.is_file() or file.read_bytes() != made.read_bytes():
            raise PublishError(
                f"{file} is not what the study's runs give, from line "
                f"{_first_difference(file, made)} on: make the study's tables again first (make "
                f"so-far STUDY={results.name})"
            )


def _first_difference(one: Path, other: Path) -> int:
    """Return the number of the first line that differs, from 1; both are text."""
    lines = (path.read_text().splitlines() if path.is_file() else [] for path in (one, other))
    return next(number for number, (a, b) in enumerate(itertools.zip_longest(*lines), 1) if a != b)


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
        PublishError: if they would.
        FileNotFoundError: if the study has no report yet.
        subprocess.CalledProcessError: if a policy cannot be exported.
    """
    files = list(published_files(results))
    new, old = (target.with_name(f"{target.name}.{state}") for state in ("new", "old"))
    if old.is_dir() and not target.is_dir():  # killed between the two renames below
        old.rename(target)
    if not replace:
        check_kept(results, target)
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
    """Copy the small files of results/STUDY to results/published/STUDY, audited and compared.

    Every evaluation is replayed, and the tables are made again to be compared with those there.
    """
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
    try:  # in no time, what is said again before anything is written
        list(published_files(results))
        if not options.replace:
            check_kept(results, target)
    except (PublishError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    audit = [sys.executable, "-m", "agents.audit", str(results / "runs")]
    if subprocess.run(audit, check=False).returncode != 0:
        sys.exit(f"{results}: the audit failed; nothing was published")
    try:
        check_tables(results)
        print(f"{target}: {publish(results, target, options.replace)} files")
    except (PublishError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit(f"{results}: a policy could not be exported; nothing was published")


if __name__ == "__main__":
    main()
