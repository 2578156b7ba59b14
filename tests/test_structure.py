"""The shape of the code: imports point down, and every formula is on the map in README.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents import targets, value_targets

ROOT = Path(__file__).resolve().parents[1]

# A module may import modules of lower layers only, those above it in this list.
LAYERS = [
    ("files",),
    ("choices", "seeding", "config", "machine", "shapes", "shares", "sum_tree", "usage"),
    ("layers", "ray_cluster", "stacks", "processes"),
    ("targets", "trunk", "value_targets"),
    ("schedules", "atari", "trace", "networks", "optim", "checkpoint", "provenance"),
    ("lanes", "replay", "parameter_server"),
    ("actor_critic", "q_learning", "training"),
    ("gorila_workers",),
    ("gorila_processes",),
    ("episodes", "lockstep", "asynchronous", "experience_replay", "random_play", "gorila"),
    ("methods",),
    ("run", "evaluate", "audit", "export"),
    ("train", "video"),
    ("random_reference",),
]
ONLY = {  # package or module -> the files that may import it
    "ale_py": {"agents/atari.py"},
    "rliable": {"analysis/aggregate.py"},
    "matplotlib": {
        f"analysis/{name}.py" for name in ("plot_style", "plots", "plot_curves", "plot_games")
    },
    "seaborn": {"analysis/plot_style.py"},
    "PIL": {"agents/video.py"},
    "ray": {"agents/ray_cluster.py"},
}
WITHOUT_TORCH = (
    *("audit", "video", "trace", "atari", "files", "seeding"),
    *("parameter_server", "ray_cluster"),
)


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return dotted names of all that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def agents_imported(module: str) -> set[str]:
    """Return the modules of `agents` that one of them imports."""
    known = {name for layer in LAYERS for name in layer}
    names = imports(ROOT / "agents" / f"{module}.py")
    return {name.split(".")[1] for name in names if name.startswith("agents.")} & known


def test_every_module_has_a_layer() -> None:
    modules = {path.stem for path in source_files("agents")} - {"__init__"}
    assert {name for layer in LAYERS for name in layer} == modules


@pytest.mark.parametrize("level", range(len(LAYERS)))
def test_imports_in_agents_point_down(level: int) -> None:
    below = {name for layer in LAYERS[:level] for name in layer}
    for module in LAYERS[level]:
        assert agents_imported(module) <= below, module


def test_agents_and_analysis_do_not_import_each_other_nor_the_workflow() -> None:
    for path in source_files("agents", "analysis"):
        other = "analysis" if path.parent.name == "agents" else "agents"
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {other, "workflow", "tests"}, path


@pytest.mark.parametrize("package", ONLY)
def test_one_importer_of(package: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in source_files("agents", "analysis", "workflow")
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert found <= ONLY[package]


def test_modules_without_torch() -> None:
    """Neither by themselves nor through what they import of `agents`."""
    seen, waiting = set(), set(WITHOUT_TORCH)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        assert "torch" not in {
            name.split(".")[0] for name in imports(ROOT / "agents" / f"{module}.py")
        }, module
        waiting |= agents_imported(module) - seen


@pytest.mark.parametrize("command", ["audit", "video"])
def test_replays_never_load_torch(command: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['{command}', '--help']\n"
        f"try: runpy.run_module('agents.{command}', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120
    )


# --- README.md, formula map


def formula_map() -> list[list[str]]:
    """Return the cells of the table between the markers, without its two head lines."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- formula-map:begin -->\n(.*?)<!-- formula-map:end -->", text, re.DOTALL)
    assert block, "README.md has no formula map"
    rows = [line for line in block[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


MAPPED = {"targets": targets, "value_targets": value_targets}


def test_the_map_has_every_formula_once_and_nothing_else() -> None:
    named = [row[2].strip("`") for row in formula_map()]
    formulas = [f"{name}.{one}" for name, module in MAPPED.items() for one in module.__all__]
    assert sorted(named) == sorted(formulas)


def test_every_test_on_the_map_exists() -> None:
    for row in formula_map():
        module, name = row[2].strip("`").split(".")[0], row[4].strip("`")
        text = (ROOT / "tests" / "agents" / f"test_{module}.py").read_text()
        assert f"def {name}(" in text, name


@pytest.mark.parametrize("name", MAPPED)
def test_all_lists_the_public_functions(name: str) -> None:
    tree = ast.parse((ROOT / "agents" / f"{name}.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    public = {function for function in functions if not function.startswith("_")}
    assert public == set(MAPPED[name].__all__)
