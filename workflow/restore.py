"""Take a published study up again, on any machine: copy its finished runs to results/STUDY.

The same study then trains only what is missing. A run that results/STUDY has already, whole or
begun, is left alone. One that lacks a milestone of the study, or whose method has other values
today, is not restored: it has no resume state and is to be trained again. Restored runs have their
last policy in half precision, where it was published. An evaluation without the result of its
audit is audited.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from workflow.outdated import outdated_runs
from workflow.publish import study_runs

ROOT = Path(__file__).resolve().parents[1]
# Snakemake redoes what is older than what it was made from: records first, evaluations last.
PARTS = ("run.json", "training_episodes.csv", "policies/*", "evaluation/*/*")


def restore(published: Path, results: Path) -> Iterable[str]:
    """Copy the runs of `published` to `results`; yield a line for each.

    Raises:
        ValueError: if today's methods lack a setting of the published study, or refuse its value;
            if a published evaluation does not agree with its traces.
    """
    study = json.loads((published / "study.json").read_text())
    outdated = outdated_runs(study, published, ROOT)
    for run in study_runs(published):
        target = results / run
        method, game, seed = run.parts[1:]
        if lines := outdated.get((method, game, int(seed))):
            yield f"{run}: {'; '.join(lines)}: to be trained again"
            continue
        if target.exists():
            yield f"{run}: already there, left alone"
            continue
        new = target.with_name(f"{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        for part in PARTS:
            for file in sorted((published / run).glob(part)):
                copy = new / file.relative_to(published / run)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        for evaluation in sorted(new.glob("evaluation/*")):
            if not (evaluation / "audit.txt").exists():
                print(f"{run}: auditing its evaluation at {evaluation.name} frames", flush=True)
                audit = [sys.executable, "-m", "agents.audit", str(evaluation)]
                done = subprocess.run(audit, stdout=subprocess.PIPE)
                if done.returncode:
                    shutil.rmtree(new)
                    raise ValueError(f"{run / 'evaluation' / evaluation.name}: its audit failed")
                (evaluation / "audit.txt").write_bytes(done.stdout)
        new.rename(target)
        yield f"{run}: restored"


def main(argv: list[str] | None = None) -> None:
    """Copy the finished runs of results/published/STUDY to results/STUDY."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--study", required=True, help="name of a folder below results/published/")
    study = parser.parse_args(argv).study
    folder = Path("results/published")
    known = sorted(path.parent.name for path in folder.glob("*/study.json"))
    if study not in known:
        parser.error(f"--study {study}: not published; allowed: {', '.join(known)}")
    try:
        for line in restore(folder / study, Path("results", study)):
            print(line)
    except ValueError as error:
        sys.exit(f"restore: {folder / study / 'study.json'} cannot be taken up: {error}")


if __name__ == "__main__":
    main()
