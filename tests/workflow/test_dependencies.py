"""environment.yml is the lock; requirements.txt the same list, pyproject.toml the ranges."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)")


def pins(lines: list[str]) -> dict[str, str]:
    """Return name -> version; every line must be an exact pin without a local label."""
    found = {}
    for line in lines:
        match = PIN.fullmatch(line)
        assert match, f"not an exact pin: {line}"
        found[canonical(match[1])] = match[2]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    return pins(environment["dependencies"][-1]["pip"])


def test_requirements_are_the_lock() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert pins([line for line in lines if not line.startswith("#")]) == lock()


def test_ranges_contain_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0]
    assert Requirement("python" + project["requires-python"]).specifier.contains(
        python.removeprefix("python=")
    )
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        version = lock()[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, but the lock has {version}"


def test_lock_has_what_its_packages_need() -> None:
    """A package that the lock forgets would be taken in any version."""
    locked = lock()
    for name in locked:
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = canonical(requirement.name)
                if needed.startswith(("nvidia-", "cuda-")) or needed == "triton":
                    continue  # the CUDA build of torch pins its own
                assert needed in locked, f"{name} needs {needed}"
