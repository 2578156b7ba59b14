"""What agents/README.md says of adding works: its code is put where it says, and trained."""

from __future__ import annotations

import dataclasses
import importlib
import re
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from agents import audit, checkpoint, config, evaluate, methods, train
from tests.agents.command_line import arguments
from tests.agents.worlds import Doors, recent, settings, use_tiny_trunk
from tests.agents.worlds import train as train_in

GUIDE = (Path(__file__).resolve().parents[2] / "agents" / "README.md").read_text()
VALUE, ALGORITHM = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
(METHOD,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
TABLES = ("TOPOLOGIES", "TRAININGS", "RETURN_ESTIMATES")


def put(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each part of `code` as the end of the module that it names, until the test is over."""
    for name, part in re.findall(r"# --- agents/(\w+)\.py\n(.*?)(?=# --- |\Z)", code, re.DOTALL):
        try:
            module = importlib.import_module(f"agents.{name}")
        except ModuleNotFoundError:
            module = ModuleType(f"agents.{name}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
        for table in set(TABLES) & vars(module).keys():
            monkeypatch.setattr(module, table, dict(getattr(module, table)))
        space = dict(vars(module))
        exec(compile(part, f"README.md: {name}.py", "exec"), space)
        for new in space.keys() - vars(module).keys():
            monkeypatch.setattr(module, new, space[new], raising=False)


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The algorithm's method file; the algorithm is there."""
    put(ALGORITHM, monkeypatch)
    path = tmp_path / "sarsa.yaml"
    path.write_text(METHOD)
    return path


def test_the_algorithm_trains_stops_goes_on_and_is_evaluated(
    method: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(out: Path) -> list[str]:
        changes = {"game": "pong", "milestones_frames": "640 1280", "set": '{"lanes":4}'}
        return arguments(out, str(method.with_suffix("")), **changes)

    assert train.main(command(tmp_path / "whole")) == 0

    class Stopped(methods.TRAININGS["sarsa"]):
        def advance(self, until_frames: int) -> list:
            finished = super().advance(until_frames)
            if self.frames == 960:
                signal.raise_signal(signal.SIGTERM)
            return finished

    with monkeypatch.context() as patched:
        patched.setitem(methods.TRAININGS, "sarsa", Stopped)
        assert train.main(command(tmp_path / "stopped")) == 3
    assert not (tmp_path / "stopped" / "run.json").exists()
    assert train.main(command(tmp_path / "stopped")) == 0
    early, late, resumed = (
        checkpoint.load(tmp_path / run / "policies" / f"{frames}.pt")["weights"]
        for run, frames in (("whole", 640), ("whole", 1280), ("stopped", 1280))
    )
    assert all(torch.equal(late[name], resumed[name]) for name in late)
    assert not torch.equal(early["q.weight"], late["q.weight"])  # something was learnt

    out = tmp_path / "stopped" / "evaluation" / "1280"
    words = ["--run", str(tmp_path / "stopped"), "--milestone-frames", "1280", "--episodes", "1"]
    assert evaluate.main([*words, "--device", "cpu", "--out", str(out)]) == 0
    assert audit.main([str(out)]) == 0


def test_the_algorithm_solves_a_tiny_world(method: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 in three steps where leaving at once pays 2, with three decisions in ten at random."""
    use_tiny_trunk(monkeypatch)
    changes = {"clip_rewards": False, "epsilon": 0.3, "learning_rate": 0.1}
    chosen = config.load_method(method, changes)
    assert recent(train_in(methods.build(chosen, Doors, 0, 16_000), 16_000)) > 3.5


def test_the_value_is_between_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With lambda 0 and 1 it is they; it trains."""
    from agents import actor_critic, targets

    put(VALUE, monkeypatch)
    use_tiny_trunk(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    r, discount, v = (torch.rand(4, 3, generator=generator) for _ in range(3))
    v_end = torch.rand(3, generator=generator)
    for decay, name in ((0.0, "one_step"), (1.0, "n_step")):
        expected = actor_critic.RETURN_ESTIMATES[name](None, r, discount, v, v_end)
        assert torch.allclose(targets.gae_return(r, discount, v, v_end, decay), expected)
    chosen = dataclasses.asdict(settings("a2c", lanes=8, rollout_steps=3))
    chosen = SimpleNamespace(**chosen | {"return_estimate": "gae", "gae_lambda": 0.9})
    assert recent(train_in(methods.build(chosen, Doors, 0, 16_000), 16_000)) > 4


def test_every_module_is_on_the_map() -> None:
    """In the first cell of modules of the table, or beside one there."""
    rows = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[2] for row in rows)))
    modules = {path.stem for path in (Path(config.__file__).parent).glob("*.py")} - {"__init__"}
    assert modules <= named
