"""Copies of the project with real Snakemake in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("Snakefile", "profiles", "workflow", "config", "agents", "analysis", "environment.yml")
SMOKE = ("--configfile", "config/studies/smoke.yaml")


@dataclass(frozen=True)
class Project:
    """A copy of the project that a test may change."""

    root: Path

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the copy; stdout and stderr together in `stdout`."""
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.root,
            # Jobs run `python`: this one, also where its environment is not activated.
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def plan(self, *arguments: str) -> tuple[dict[str, int], str]:
        """Return jobs per rule that `snakemake -n` would run, and what it printed."""
        result = self.snakemake("-n", "-p", *arguments)
        assert result.returncode == 0, result.stdout
        # The first table only: a dry run prints it again at its end.
        table = result.stdout.partition("Job stats:")[2].partition("total")[0]
        jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        return jobs, result.stdout

    def edit(self, file: str, text: str) -> None:
        """Append `text` to a file of the copy."""
        with (self.root / file).open("a") as opened:
            opened.write(text)


def runs(printed: str, rule: str = "train_run") -> set[tuple[str, ...]]:
    """Return (method, game, seed) of the jobs of `rule` in what `snakemake -n` printed."""
    pattern = rf"^rule {rule}:.*?^    wildcards: method=(\w+), game=(\w+), seed=(\d+)"
    return set(re.findall(pattern, printed, re.MULTILINE | re.DOTALL))


def copy(source: Path, target: Path) -> Project:
    """Copy the project, and the results of a copy; modification times stay."""
    skip = shutil.ignore_patterns("__pycache__", "policies", "resume")
    for name in (*PROJECT, "results", ".snakemake"):
        if name in PROJECT or (source != ROOT and (source / name).exists()):
            if (source / name).is_symlink():
                (target / name).symlink_to((source / name).readlink())
            elif (source / name).is_dir():
                shutil.copytree(source / name, target / name, ignore=skip)
            else:
                shutil.copy2(source / name, target / name)
    return Project(target)
