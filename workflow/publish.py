"""Copy the small files of a study to results/published.

They are enough to redo the analysis and to replay every episode. Policies, resume states and logs
stay behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

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
    study = json.loads((results / "study.json").read_text())
    for method in study["methods"]:
        for game in study["games"]:
            for seed in study["seeds"]:
                run = results / "runs" / method / game / str(seed)
                for pattern in RUN_FILES:
                    yield from (p.relative_to(results) for p in sorted(run.glob(pattern)))


def publish(results: Path, target: Path) -> int:
    """Replace `target` by the small files of `results`; return how many there are."""
    files = list(published_files(results))
    new = target.with_name(target.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    for file in files:
        (new / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(results / file, new / file)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return len(files)


def main(argv: list[str] | None = None) -> None:
    """Audit results/STUDY, then copy its small files to results/published/STUDY."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--study", required=True, help="name of a folder below results/")
    study = parser.parse_args(argv).study
    results, target = Path("results", study), Path("results/published", study)
    if not (results / "study.json").is_file():
        parser.error(f"--study {study}: there is no {results}/study.json")
    audit = [sys.executable, "-m", "agents.audit", str(results / "runs")]
    if subprocess.run(audit, check=False).returncode != 0:
        sys.exit(f"{results}: the audit failed; nothing was published")
    print(f"{target}: {publish(results, target)} files")


if __name__ == "__main__":
    main()
