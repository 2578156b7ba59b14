"""Where and with what a run was made: commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from agents import layers

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ale-py", "gymnasium", "numpy")


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git here
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def commit(method: str = "*") -> tuple[str, bool | None]:
    """Return the commit of the code that runs and whether `agents/` or the method differ from it.

    By default any method's file. ("unknown", None) outside a git checkout, or without git.
    """
    revision = _git("rev-parse", "HEAD")
    if not revision:
        return "unknown", None
    files = "agents", f"config/methods/{method}.yaml"
    return revision, bool(_git("status", "--porcelain", "--", *files))


def versions() -> dict[str, str]:
    """Return the versions that a run depends on, by package."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "torch": str(torch.__version__),  # with its build, which a wheel's name may lack
    }


def cpu_name() -> str:
    """Return the processor's name, the number of its cores and whether it knows bfloat16.

    Two of one name may differ in that by a factor in speed (`layers.operand_dtype`).
    """
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    bfloat16 = ", bfloat16 instructions" if layers.BFLOAT16_INSTRUCTIONS else ""
    return f"{name} ({os.cpu_count()} cores{bfloat16})"


def gpu_name(device: str) -> str:
    """Return the GPU's name, or an empty string where the run does not use one."""
    return torch.cuda.get_device_name() if device == "cuda" else ""


def hardware(device: str) -> dict[str, Any]:
    """Return the fields of a run's record that name its machine."""
    return {"device": device, "cpu": cpu_name(), "gpu": gpu_name(device)}
