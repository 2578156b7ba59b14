"""A wrong configuration is refused with the key, the value and the allowed ones."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import ale_py.roms
import pytest
import yaml

from agents.atari import PROTOCOLS
from agents.config import load_method
from analysis.normalise import RULES
from analysis.study import SELECTIONS
from workflow.schema import read_schema
from workflow.study import (
    StudyError,
    changed_settings,
    check_files,
    load,
    record,
    settings,
    sources,
)

ROOT = Path(__file__).resolve().parents[2]
STUDIES = [ROOT / "config/config.yaml", *sorted((ROOT / "config/studies").glob("*.yaml"))]
GOOD: dict[str, Any] = {
    "study": "test",
    "label": "a test",
    "games": ["pong"],
    "methods": ["a2c"],
    "seeds": [0],
    "milestones_frames": [1000, 3000],
}


def changed(**keys: Any) -> dict[str, Any]:
    """Return GOOD with some keys changed."""
    return {**copy.deepcopy(GOOD), **keys}


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ({"gmaes": ["pong"]}, ["gmaes: unknown key (did you mean games?); allowed: study, label"]),
        ({"evaluation": {"episode": 3}}, ["evaluation.episode: unknown key", "action_selection"]),
        ({"games": ["ponk"]}, ['games[0] = "ponk": unknown (did you mean pong?)', "zaxxon"]),
        ({"games": "pong"}, ['games = "pong": not a list', "--config games='[pong]'"]),
        ({"games": []}, ["games = []: the list is empty"]),
        ({"games": ["pong", "pong"]}, ['games = ["pong", "pong"]: named twice: "pong"']),
        ({"methods": ["a2d"]}, ['methods[0] = "a2d": unknown (did you mean a2c?)', "reinforce"]),
        ({"protocol": "sticki"}, ['protocol = "sticki": unknown', "allowed: noop, sticky"]),
        ({"device": "gpu"}, ['device = "gpu": unknown (did you mean cuda?)']),
        (
            {"methods": ["a2c", "reinforce"], "overrides": {"all": {"rollout_steps": 5}}},
            ["overrides.all.rollout_steps: unknown to reinforce; allowed: overrides of a2c,"],
        ),
        ({"device": "tpu"}, ['device = "tpu": unknown', "allowed: auto, cpu, cuda"]),
        ({"incomplete": "drop"}, ['incomplete = "drop": unknown', "allowed: refuse, list"]),
        ({"seeds": [0, -1]}, ["seeds[1] = -1: must be at least 0"]),
        ({"seeds": [1, 1]}, ["seeds = [1, 1]: named twice: 1"]),
        ({"seeds": [0.5]}, ["seeds[0] = 0.5: must be of type integer"]),
        ({"seeds": [True]}, ["seeds[0] = true: must be of type integer"]),
        ({"milestones_frames": [3000, 1000]}, ["[3000, 1000]: must be ascending: [1000, 3000]"]),
        ({"milestones_frames": [0]}, ["milestones_frames[0] = 0: must be at least 1"]),
        (
            {"budget_frames": 2000},
            ["milestones_frames[1] = 3000: beyond the budget; allowed: up to 2000"],
        ),
        ({"normalisation": {"rule": "best"}}, ['normalisation.rule = "best"', "mnih2016"]),
        ({"statistics": {"level": 95}}, ["statistics.level = 95: must be below 1"]),
        (
            {"statistics": {"rng_seed": 2**32}},
            ["rng_seed = 4294967296: must be at most 4294967295"],
        ),
        ({"label": date(2026, 11, 28)}, ['label = "2026-11-28": must be of type string']),
        (
            {
                "games": ["pong", "video_pinball"],
                "normalisation": {"references": "human_starts", "rule": "plain"},
            },
            ['games[1] = "video_pinball": with normalisation.rule = plain', "has 15641.1 and the"],
        ),
        ({"checkpoint_seconds": 0}, ["checkpoint_seconds = 0: must be at least 1"]),
        ({"checkpoint_seconds": 2.5}, ["checkpoint_seconds = 2.5: must be of type integer"]),
        ({"methods": ["a2c-Small"]}, ['methods[0] = "a2c-Small": lower-case letters, digits']),
        ({"games": ["Pong"]}, ['games[0] = "Pong": lower-case letters, digits and _ only']),
        ({"overrides": {"a3c_ff": {"workers": -1}}}, ["a3c_ff.yaml with overrides: workers: -1"]),
        ({"study": "published"}, ['study = "published": reserved']),
        ({"study": "benchmarks"}, ['study = "benchmarks": reserved']),
        ({"study": "logs"}, ['study = "logs": reserved']),
        ({"study": "videos"}, ['study = "videos": reserved']),
        ({"statistics": {"level": math.nan}}, ["statistics.level = nan: must be a finite number"]),
        ({"statistics": {"level": "nan"}}, ["statistics.level = nan: must be a finite number"]),
        ({"overrides": {"a2c": {"gamma": math.inf}}}, ["overrides.a2c.gamma = inf: must be a fin"]),
        ({"selection": "best"}, ['selection = "best": must be of type object', '{"all": "best"}']),
        ({"notes": None}, ["notes = null: not a list"]),
        ({"methods": {"a2c": 1}}, ['methods = {"a2c": 1}: not a list']),
        ({"overrides": {"a2c": {"lanes": -1}}}, ["a2c.yaml with overrides: lanes: -1 is not in"]),
        ({"overrides": {"all": {"network": "resnet"}}}, ["network: unknown value 'resnet'"]),
        ({"overrides": {"all": {"learning_rate": "fast"}}}, ["learning_rate must be float"]),
        ({"study": "../demo"}, ['study = "../demo": lower-case letters']),
        ({"overrides": {"all": {"netwrk": "nature"}}}, ["overrides.all.netwrk: unknown key"]),
        ({"overrides": {"a2c": {"lane": 2}}}, ["overrides.a2c.lane", "(did you mean lanes?)"]),
        (
            {"overrides": {"a2c": {"version": 2}}},
            ["overrides.a2c.version: only a method's file says it"],
        ),
        ({"overrides": {"a2d": {"lanes": 2}}}, ["overrides.a2d: unknown (did you mean a2c?)"]),
        ({"selection": {"a2c": "bets"}}, ['selection.a2c = "bets": unknown (did you mean best?)']),
        ({"selection": {"a2c": "last"}}, ["selection.a2c", "; allowed: final, best"]),
        ({"selection": "best"}, ['selection = "best": must be of type object']),
        ({"selection": {"a2d": "best"}}, ["selection.a2d: unknown (did you mean a2c?)", "all, "]),
        ({"selection": {"random": "best"}}, ["selection.random: unknown; allowed: all, a2c"]),
        ({"overrides": {"a2c": 3}}, ["overrides.a2c = 3: must be of type object"]),
        ({"milestones_frames": ["1.5e0"]}, ["milestones_frames[0] = 1.5: must be of type integer"]),
        (
            {"methods": ["dqn"]},
            ["3000: dqn would learn nothing", "learning_starts_frames is 200000"],
        ),
        ({"published": ["rainbo"]}, ["published[0] = rainbo: unknown (did you mean rainbow?)"]),
        ({"published": ["human"]}, ["published[0] = human: unknown", "allowed: dqn, "]),
        (
            {"published": ["c51"], "normalisation": {"references": "human_starts"}},
            ["published[0] = c51: only with normalisation.references noop_starts"],
        ),
    ],
)
def test_wrong_configuration_is_named(keys: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(StudyError) as error:
        load(changed(**keys), ROOT)
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize("text", ["seeds: [0]\ngames: [pong]\nseeds: [1]", "{a: {b: 1, b: 2}}"])
def test_a_key_that_is_there_twice_is_named(tmp_path: Path, text: str) -> None:
    """PyYAML, and so Snakemake, takes the last value without a word."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    words = rf"the key '(seeds|b)' is there twice, first in line 1(.|\n)*{file}\", line [13]"
    with pytest.raises(StudyError, match=words):
        check_files([file])
    check_files((ROOT / "config").rglob("*.yaml"))


@pytest.mark.parametrize(
    "text", ["a: &a {b: 1}\nc: {<<: *a, b: 2}\n", '{\n\t"a": 1,\n\t"b": {"a": 1}\n}']
)
def test_what_snakemake_reads_is_read(tmp_path: Path, text: str) -> None:
    """Merged mappings have what they change twice, and JSON may have tabs."""
    (tmp_path / "mine").write_text(text)
    check_files([tmp_path / "mine"])


def test_a_key_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("[1]: 2")
    with pytest.raises(StudyError, match="unhashable key"):
        check_files([tmp_path / "mine"])


def test_a_game_without_references_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    for folder in ("config", "analysis/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with (tmp_path / "config/games.csv").open("a") as file:
        file.write("adventure,Adventure,,,none\n")
    with pytest.raises(StudyError) as error:
        load(changed(games=["pong", "adventure"]), tmp_path)
    for player in ("random", "human"):
        assert (
            f'games[1] = "adventure": analysis/reference/noop_starts.csv has no score of the '
            f"{player} player for it"
        ) in str(error.value)


def test_a_budget_in_which_something_is_learnt() -> None:
    starts = {"learning_starts_frames": 2999, "replay_capacity_steps": 1000}
    assert load(changed(methods=["dqn", "gorila"], overrides={"all": starts}), ROOT)


@pytest.mark.parametrize("rule", ["absolute", "mnih2016"])
def test_rules_under_which_more_points_are_more_percent(rule: str) -> None:
    chosen = {"references": "human_starts", "rule": rule}
    assert load(changed(games=["video_pinball"], normalisation=chosen), ROOT)


def test_labels_that_tables_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    for folder in ("config", "analysis/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = (tmp_path / "config/methods/a2c.yaml").read_text()
    copied = text.replace("method: a2c", "method: a2c_mine")
    (tmp_path / "config/methods/a2c_mine.yaml").write_text(copied)
    mine = {"label": "A2C", "frames": 1, "scores": {"pong": [1]}}
    with pytest.raises(StudyError) as error:
        load(changed(methods=["a2c", "a2c_mine"], external={"mine": mine}), tmp_path)
    first = "the same as config/methods/a2c.yaml: label; tables need different ones"
    assert str(error.value).splitlines()[1:] == [
        f'  config/methods/a2c_mine.yaml: label = "A2C": {first}',
        f'  external.mine.label = "A2C": {first}',
    ]


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(StudyError) as error:
        load(changed(games=["ponk"], methods=["a2d"], overrides={"a3c": {}}), ROOT)
    assert len(str(error.value).splitlines()) == 1 + 3


@pytest.mark.parametrize("key", GOOD)
def test_missing_key_is_named(key: str) -> None:
    raw = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(StudyError, match=f"{key}: missing"):
        load(raw, ROOT)


def test_defaults_are_filled_in() -> None:
    study = load(changed(evaluation={"episodes": 3}), ROOT)
    assert study["evaluation"] == {"episodes": 3, "action_selection": "sample", "seed": 1000}
    assert study["statistics"] == {"reps": 50_000, "level": 0.95, "rng_seed": 0}
    assert (study["protocol"], study["incomplete"], study["overrides"]) == ("noop", "refuse", {})


def test_selection_is_final_unless_the_study_says_more() -> None:
    assert load(GOOD, ROOT)["selection"] == {}
    chosen = {"all": "best", "a2c": "final"}
    assert load(changed(selection=chosen), ROOT)["selection"] == chosen


def test_command_line_text_becomes_numbers() -> None:
    """Snakemake reads `--config seeds='[0,1]'` as a list of texts."""
    study = load(
        changed(
            seeds=["0", "12"],
            milestones_frames=["4000", "1e6"],
            budget_frames=2e6,
            overrides={"a2c": {"lanes": "8", "gamma": "0.9", "network": "nature"}},
            statistics={"level": "0.9"},
        ),
        ROOT,
    )
    assert study["seeds"] == [0, 12]
    frames = study["milestones_frames"]
    assert (frames, {*map(type, frames)}) == ([4000, 1_000_000, 2_000_000], {int})
    assert study["overrides"]["a2c"] == {"lanes": 8, "gamma": 0.9, "network": "nature"}
    assert study["statistics"]["level"] == 0.9


def test_budget_is_the_last_milestone() -> None:
    assert load(changed(budget_frames=9000), ROOT)["milestones_frames"] == [1000, 3000, 9000]
    assert load(changed(budget_frames=3000), ROOT)["milestones_frames"] == [1000, 3000]


def test_override_of_one_method_wins_over_all() -> None:
    overrides = {"all": {"gamma": 0.9, "network": "mnih2013"}, "a2c": {"gamma": 0.8}}
    study = load(changed(overrides=overrides), ROOT)
    assert settings(study, "a2c") == {"gamma": 0.8, "network": "mnih2013"}
    assert settings(study, "reinforce") == {"gamma": 0.9, "network": "mnih2013"}


def test_equal_studies_say_their_settings_in_the_same_words() -> None:
    """Moved from `all` to the method, another order, a value that the file has anyway."""
    for_all = {"all": {"network": "mnih2013"}, "a2c": {"lanes": 8}}
    for_one = {"a2c": {"network": "mnih2013", "gamma": 0.99, "lanes": 8}}
    words = [
        json.dumps(changed_settings(load(changed(overrides=overrides), ROOT), "a2c", ROOT))
        for overrides in (for_all, for_one)
    ]
    assert words == ['{"lanes": 8, "network": "mnih2013"}'] * 2


def test_all_does_not_concern_random_play() -> None:
    study = load(changed(methods=["random", "a2c"], overrides={"all": {"gamma": 0.9}}), ROOT)
    assert settings(study, "random") == {}
    assert settings(study, "a2c") == {"gamma": 0.9}
    with pytest.raises(StudyError, match=r"overrides\.random\.gamma: unknown key"):
        load(changed(methods=["random"], overrides={"random": {"gamma": 0.9}}), ROOT)


def test_what_may_be_overridden_is_what_the_trainer_accepts() -> None:
    file = ROOT / "config/methods/a2c.yaml"
    for key, value in yaml.safe_load(file.read_text()).items():
        raw = changed(overrides={"a2c": {key: value}})
        try:
            load_method(file, {key: value})
        except ValueError:
            with pytest.raises(StudyError, match=f"overrides.a2c.{key}: only a method's file says"):
                load(raw, ROOT)
        else:
            load(raw, ROOT)


def test_record_holds_the_method_files() -> None:
    study = load(GOOD, ROOT)
    files = record(study, ROOT)["method_files"]
    assert list(files) == ["a2c"]
    assert files["a2c"]["text"] == (ROOT / "config/methods/a2c.yaml").read_text()
    assert files["a2c"]["settings"]["method"] == "a2c"
    assert files["a2c"]["label"] == "A2C"


def of_settings(study: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """Return the study.json with these as the settings of A2C's file then."""
    return study | {"method_files": {"a2c": study["method_files"]["a2c"] | {"settings": recorded}}}


def test_a_record_is_the_same_study(tmp_path: Path) -> None:
    """Key by key and in the same order, or Snakemake would take it for another."""
    study = load(changed(overrides={"a2c": {"gamma": 0.9}}, budget_frames=9000), ROOT)
    again = json.loads(json.dumps(record(study, ROOT)))
    assert json.dumps(load(again, ROOT)) == json.dumps(study)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "analysis").symlink_to(ROOT / "analysis")
    file = tmp_path / "config/methods/a2c.yaml"
    file.write_text(file.read_text().replace("label: A2C", "label: Another"))
    assert load(again, tmp_path) == study
    file.write_text(file.read_text().replace("version: 1", "version: 2"))
    message = r"method_files\.a2c\.settings\.version = 1: config/methods/a2c\.yaml has 2; check out"
    with pytest.raises(StudyError, match=message):
        load(again, tmp_path)
    file.write_text((ROOT / "config/methods/a2c.yaml").read_text())
    recorded = again["method_files"]["a2c"]["settings"]
    before_it_came = {key: value for key, value in recorded.items() if key != "gamma"}
    assert load(of_settings(again, before_it_came), tmp_path) == study
    with pytest.raises(
        StudyError, match=r"settings\.bygone = 1: config/methods/a2c\.yaml has null"
    ):
        load(of_settings(again, {**recorded, "bygone": 1}), tmp_path)
    other = dict(again, methods=["a3c_ff"])  # what does not run does not matter
    assert load(other | {"overrides": {}}, tmp_path)["methods"] == ["a3c_ff"]
    for wrong in ("a2c", ["a2c"], {"a2c": 1}, {"a2c": {"settings": None}}):
        with pytest.raises(StudyError, match=r"method_files: not as a study\.json has it"):
            load(changed(method_files=wrong), ROOT)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_committed_studies_are_valid(path: Path) -> None:
    study = load(yaml.safe_load(path.read_text()), ROOT)
    assert study["study"] == ("demo" if path.stem == "config" else path.stem)


def test_allowed_values_are_those_of_the_code() -> None:
    properties = read_schema()["properties"]
    assert set(properties["protocol"]["enum"]) == set(PROTOCOLS)
    rules = properties["normalisation"]["properties"]["rule"]["enum"]
    assert set(rules) == set(RULES)
    assert set(properties["selection"]["additionalProperties"]["enum"]) == set(SELECTIONS)


def test_games_are_the_57_of_ale() -> None:
    rows = list(csv.DictReader((ROOT / "config/games.csv").read_text().splitlines()))
    games = [row["game"] for row in rows]
    assert len(games) == 57
    assert games == sorted(set(games))
    assert set(games) <= set(ale_py.roms.get_all_rom_ids())
    for row in rows:
        low, high = row["score_min"], row["score_max"]
        assert row["bounds_source"]
        assert not low or not high or float(low) < float(high)


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "analysis").glob("[a-z]*.py")))
def test_sources_are_what_python_imports(module: str) -> None:
    code = (
        f"import sys, analysis.{module}; print(*(n for n in sys.modules if n.count('.') == 1"
        " and n.startswith('analysis.')))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert sources(f"analysis.{module}", ROOT) == sorted(
        name.replace(".", "/") + ".py" for name in printed.split()
    )
