"""A value that agents/config.py allows and no code knows is refused, not trained as another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agents import config, methods
from tests.agents import gorila_world
from tests.agents.worlds import METHODS, Doors, settings, train, use_tiny_trunk

TINY = {
    "episodes": {"lanes": 2, "episodes_per_update": 2},
    "replay": {"replay_capacity_steps": 400, "batch_size": 4, "learning_starts_frames": 64},
    "gorila": gorila_world.TINY,
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def choices() -> list[tuple[str, str]]:
    """Return every method with each of its settings that is a choice."""
    found = []
    for path in sorted(METHODS.glob("*.yaml")):
        for spec in dataclasses.fields(config.load_method(path)):
            if "allowed" in spec.metadata:
                found.append((path.stem, spec.name))
    return found


@pytest.mark.parametrize(("method", "name"), choices())
def test_an_unheard_of_value_ends_a_training_before_it_has_learnt(
    tmp_path: Path, method: str, name: str
) -> None:
    topology = config.load_method(METHODS / f"{method}.yaml").topology
    chosen = settings(method, **TINY.get(topology, {}))
    value = True if getattr(chosen, name) is False else "unheard_of"
    chosen = dataclasses.replace(chosen, **{name: value})
    with pytest.raises(ValueError, match=f"^{name}: unknown value {value!r}; allowed: "):
        train(methods.build(chosen, Doors, 0, 2000, folder=tmp_path), 2000)


def test_a_topology_without_a_training_is_refused() -> None:
    chosen = dataclasses.replace(settings("a2c"), topology="unheard_of")
    with pytest.raises(ValueError, match=r"^topology: unknown value 'unheard_of'; allowed: lockst"):
        methods.build(chosen, Doors, 0, 2000)


@pytest.mark.parametrize("estimate", ["total", "reward_to_go", "discounted_reward_to_go"])
def test_each_return_of_reinforce_has_its_own_factors(estimate: str) -> None:
    """One that makes no difference to the return is refused like any other."""
    both = {"return_estimate": estimate, "gamma_t_factor": "kept"}
    chosen = dataclasses.replace(settings("reinforce", **both), gamma_t_factor="unheard_of")
    with pytest.raises(ValueError, match=r"^gamma_t_factor: unknown value 'unheard_of'; allowed: "):
        train(methods.build(chosen, Doors, 0, 2000), 2000)
