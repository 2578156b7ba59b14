"""One project without results and one with a finished study, for all tests of the workflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.project import ROOT, SMOKE, Project, copy


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the project without results; not to be changed."""
    return copy(ROOT, tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the project with a finished smoke study, not to be changed, and what it printed."""
    project = copy(ROOT, tmp_path_factory.mktemp("finished"))
    result = project.snakemake("--cores", "2", *SMOKE)
    logs = sorted((project.root / "results/smoke/logs").rglob("*.log"))
    tails = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in logs if log.stat().st_size)
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{tails[-8000:]}"
    (project.root / "printed.log").write_text(result.stdout)
    return project


@pytest.fixture
def editable(finished: Project, tmp_path: Path) -> Project:
    """Return a copy of the finished project that the test may change."""
    return copy(finished.root, tmp_path)
