"""Method files: what is wrong is named, with the value and what is allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from agents import config
from tests.agents.worlds import METHODS

ALL = sorted(path.stem for path in METHODS.glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.yaml")), ids=lambda path: path.stem)
def test_method_files_load(path: Path) -> None:
    settings = config.load_method(path)
    values = yaml.safe_load(path.read_text())
    assert {
        field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)
    } == (values)


@pytest.mark.parametrize("method", ALL)
def test_every_number_has_a_comment(method: str) -> None:
    """A number says where it comes from, on its line or, for what names the method, nowhere."""
    lines = (METHODS / f"{method}.yaml").read_text().splitlines()
    bare = [line for line in lines if line and not line.startswith("#") and " #" not in line]
    assert {line.split(":")[0] for line in bare} <= {
        "method",
        "label",
        "version",
        "lstm_cells",
    }


@pytest.mark.parametrize(
    ("one", "other", "keys"),
    [
        ("a2c", "actor_critic", {"return_estimate"}),
        ("a3c_ff", "a3c_lstm", {"lstm_cells"}),
        # van Hasselt et al. 2016, tuned; Wang et al. 2016; Schaul et al. 2016.
        (
            "dqn",
            "double_dqn",
            {
                "double",
                "output_bias",
                "target_period_frames",
                "epsilon_end",
                "evaluation_epsilon",
            },
        ),
        ("double_dqn", "dueling", {"dueling", "gradient_norm_limit"}),
        ("double_dqn", "prioritized", {"prioritisation", "learning_rate"}),
    ],
)
def test_methods_differ_only_where_their_papers_say(one: str, other: str, keys: set) -> None:
    a, b = (yaml.safe_load((METHODS / f"{name}.yaml").read_text()) for name in (one, other))
    assert a.keys() == b.keys()
    assert {key for key in a if a[key] != b[key]} == keys | {"method", "label"}


def a2c(tmp_path: Path, **changes: object) -> Path:
    """A copy of a2c.yaml with `changes`; None removes the key."""
    values = yaml.safe_load((METHODS / "a2c.yaml").read_text())
    values |= changes
    path = tmp_path / "a2c.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lerning_rate": 1.0}, ["lerning_rate", "learning_rate"]),
        ({"workers": 4}, ["workers", "lanes"]),  # of another topology
        ({"gamma": None}, ["gamma", "missing"]),
        ({"topology": None}, ["topology", "None", "lockstep, async, episodes, random, replay"]),
        ({"topology": "ring"}, ["topology", "ring", "lockstep, async, episodes, random, replay"]),
        ({"network": "resnet"}, ["network", "resnet", "mnih2013, nature"]),
        ({"return_estimate": "total"}, ["return_estimate", "total", "n_step, one_step"]),
        ({"precision": "float16"}, ["precision", "float16", "float32, bfloat16"]),
        ({"gamma": 1.5}, ["gamma", "1.5", "[0, 1]"]),
        ({"gamma": float("nan")}, ["gamma", "nan", "[0, 1]"]),
        ({"learning_rate": float("inf")}, ["learning_rate", "inf", "not a finite number"]),
        ({"rmsprop_epsilon": 0.0}, ["rmsprop_epsilon", "0.0", "not above 0"]),
        ({"rmsprop_decay": 0.0}, ["rmsprop_decay", "0.0", "not above 0"]),
        ({"rmsprop_decay": 1.0}, ["rmsprop_decay", "1.0", "not below 1"]),
        ({"topology": ["replay"]}, ["topology", "replay", "lockstep"]),
        ({"lanes": 0}, ["lanes", "0", "[1, inf]"]),
        ({"learning_rate": -0.1}, ["learning_rate", "-0.1", "[0, inf]"]),
        ({"lanes": 2.5}, ["lanes", "int", "2.5"]),
        ({"lanes": True}, ["lanes", "int", "True"]),
        ({"clip_rewards": 1}, ["clip_rewards", "bool", "1"]),
        ({"learning_rate": "7e-4"}, ["learning_rate", "float", "7e-4", "7.0e-4"]),
        ({"label": 3}, ["label", "str", "3"]),
        ({"method": "a3c"}, ["method", "a3c", "file"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict, named: list[str]) -> None:
    path = a2c(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"a2c\.yaml") as caught:
        config.load_method(path)
    assert [part for part in named if part not in str(caught.value)] == []


def test_a_setting_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = a2c(tmp_path)
    path.write_text(f"{path.read_text()}gamma: 0.5\n")
    with pytest.raises(ValueError, match=r"a2c\.yaml: not valid YAML: the key 'gamma' is there tw"):
        config.load_method(path)


def test_a_whole_number_may_stand_for_a_real_one(tmp_path: Path) -> None:
    settings = config.load_method(a2c(tmp_path, gradient_norm_limit=40))
    assert (settings.gradient_norm_limit, type(settings.gradient_norm_limit)) == (40.0, float)


def test_value_based_methods_have_nothing_of_a_policy() -> None:
    with pytest.raises(
        ValueError, match=r"dqn: unknown key 'entropy_weight'; allowed: .*batch_siz"
    ):
        config.load_method(METHODS / "dqn.yaml", {"entropy_weight": 0.1})


def test_reinforce_plays_whole_episodes() -> None:
    with pytest.raises(ValueError, match="life_loss_is_terminal: unknown value True; allowed: Fal"):
        config.load_method(METHODS / "reinforce.yaml", {"life_loss_is_terminal": True})


def test_reinforce_says_what_becomes_of_gamma_to_the_t() -> None:
    """`reward_to_go` has the factor in it: a file that says it is ignored would be wrong."""
    path = METHODS / "reinforce.yaml"
    with pytest.raises(ValueError, match=r"gamma_t_factor: 'ignored' .* allowed: kept"):
        config.load_method(path, {"return_estimate": "reward_to_go"})
    both = {"return_estimate": "reward_to_go", "gamma_t_factor": "kept"}
    assert config.load_method(path, both).return_estimate == "reward_to_go"


def test_reinforce_has_no_lstm() -> None:
    with pytest.raises(ValueError, match=r"lstm_cells: 256 is not in \[0, 0\]"):
        config.load_method(METHODS / "reinforce.yaml", {"lstm_cells": 256})


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"lerning_rate": 1.0}, ["a2c", "lerning_rate", "learning_rate"]),
        ({"topology": "async"}, ["a2c", "topology", "allowed"]),
        ({"method": "x"}, ["a2c", "method", "allowed"]),
        ({"network": "resnet"}, ["network", "resnet", "mnih2013, nature", "overrides"]),
        ({"lanes": -1}, ["lanes", "-1", "overrides"]),
    ],
)
def test_a_wrong_override_is_named(overrides: dict, named: list[str]) -> None:
    with pytest.raises(ValueError, match="a2c") as caught:
        config.load_method(METHODS / "a2c.yaml", overrides)
    assert [part for part in named if part not in str(caught.value)] == []


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    plain = dataclasses.asdict(config.load_method(METHODS / "a2c.yaml"))
    changed = dataclasses.asdict(config.load_method(METHODS / "a2c.yaml", {"lanes": 3}))
    assert changed == plain | {"lanes": 3}


def test_a_folder_is_no_method(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^method: {tmp_path} cannot be read: Is a directory"):
        config.load_method(tmp_path)


def test_a_missing_file_names_the_methods_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no file .*a4c.yaml; methods there: .*a3c_ff"):
        config.load_method(METHODS / "a4c.yaml")
    with pytest.raises(ValueError, match=r"no file a2c; .* such as config/methods/a2c\.yaml"):
        config.load_method(Path("a2c"))


@pytest.mark.parametrize("text", ["a: [", "just words", "- 1\n- 2", ""])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a2c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a2c\.yaml"):
        config.load_method(path)


def test_hash_depends_on_every_value_and_not_on_order() -> None:
    assert config.short_hash({"a": 1, "b": 2}) == config.short_hash({"b": 2, "a": 1})
    assert config.short_hash({"a": 1, "b": 2}) != config.short_hash({"a": 1, "b": 3})


def test_a_later_setting_changes_a_hash_only_where_it_changes_something() -> None:
    path = METHODS / "a2c.yaml"
    as_before = config.hashed_settings(config.load_method(path))
    assert "rmsprop_bias_correction" not in as_before
    assert "rmsprop_epsilon" in as_before
    corrected = config.load_method(path, {"rmsprop_bias_correction": True})
    assert config.hashed_settings(corrected) == as_before | {"rmsprop_bias_correction": True}
