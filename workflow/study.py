"""Load and validate a study: what is wrong with a configuration is said before a job starts.

The Snakefile calls :func:`load`; the rule `study_json` calls this module as a command.
"""

from __future__ import annotations

import argparse
import ast
import csv
import functools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from agents.config import check_budget, load_method
from agents.files import read_yaml
from workflow.schema import (
    allowed,
    from_command_line,
    read_schema,
    schema_errors,
    with_defaults,
)

UNTRAINED = "random"  # the method without settings
# They say which method it is and where its code lies; agents/config.py refuses them too.
NOT_OVERRIDABLE = ("method", "label", "version", "topology")


class StudyError(ValueError):
    """A configuration that cannot be run; the message has one line for each thing that is wrong."""


def load(raw: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return the validated study with all defaults filled in.

    Args:
        raw: the configuration as Snakemake merged it from files and command line. A study.json
            is one too: its methods must still have the settings that it records.
        root: the repository, for config/games.csv and config/methods.

    Raises:
        StudyError: naming each wrong key, its value and the allowed ones.
    """
    schema = read_schema()
    recorded = raw.get("method_files", {})
    study = from_command_line({k: raw[k] for k in raw if k != "method_files"}, schema)
    errors = schema_errors(study, schema)
    if not _is_record(recorded):
        errors.append("method_files: not as a study.json has it; leave it out of a configuration")
    if not errors:
        study = with_defaults(study, schema)
        errors = list(_unknown_names(study, root)) + list(_wrong_budget(study))
    if not errors:
        errors = [
            *_wrong_settings(study, root),
            *_changed_since(study, recorded, root),
            *_missing_references(study, root),
            *_reversed_scores(study, root),
            *_unknown_published(study, root),
            *_wrong_external(study, root),
            *_equal_labels(study, root),
        ]
    if errors:
        raise StudyError("\n  ".join(["the study's configuration is not valid:", *errors]))
    return study | {"milestones_frames": _milestones(study)}


def check_files(paths: Iterable[Path]) -> None:
    """Refuse YAML files of a configuration with a key twice, of which Snakemake takes the last.

    Raises:
        StudyError: naming file, line and key.
    """
    for path in paths:
        try:
            json.loads(path.read_text())  # as Snakemake does first: JSON may have tabs
        except ValueError:
            try:
                read_yaml(path)
            except ValueError as error:
                raise StudyError(str(error)) from None


def cleared(raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `raw` with the mappings empty that `given`, of --config, has as `{}`.

    Snakemake merges mappings, so that an empty one would change nothing.
    """
    return {key: {} if given.get(key) == {} else value for key, value in raw.items()}


def settings(study: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the settings in which the runs of `method` differ from its file.

    `all` are the methods that are trained: random play has no settings.
    """
    overrides = study["overrides"]
    everyones = {} if method == UNTRAINED else overrides.get("all", {})
    return {**everyones, **overrides.get(method, {})}


def changed_settings(study: Mapping[str, Any], method: str, root: Path) -> dict[str, Any]:
    """Return `settings` in the order of their names, without values that the file has anyway.

    Two studies that say the same of a method say it in the same words.
    """
    file = _parsed((root / method_file(method)).read_text())
    return {k: v for k, v in sorted(settings(study, method).items()) if file.get(k) != v}


def trained_with(study: Mapping[str, Any], method: str, root: Path) -> dict[str, Any]:
    """Return all that makes a run of `method` what it is: its file but the label, and overrides."""
    file = _parsed((root / method_file(method)).read_text())
    return {key: file[key] for key in file if key != "label"} | settings(study, method)


@functools.cache
def _parsed(text: str) -> Mapping[str, Any]:
    """Return the values of a method file, parsed once: Snakemake asks for them for every job."""
    return MappingProxyType(yaml.safe_load(text))


def record(study: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return study.json: the study, and for each of its methods the file it was run with."""
    files = {}
    for method in study["methods"]:
        text = (root / method_file(method)).read_text()
        parsed = yaml.safe_load(text)
        files[method] = {"label": parsed.get("label", method), "text": text, "settings": parsed}
    return {**study, "method_files": files}


def sources(module: str, root: Path) -> list[str]:
    """Return the files `python -m module` is made of: its own and what it imports of its package.

    They are inputs of the analysis rules, so that edited code redoes exactly what depends on it.
    """
    package = module.split(".")[0]
    found: list[str] = []
    waiting = [module]
    while waiting:
        path = waiting.pop().replace(".", "/") + ".py"
        if path not in found and (root / path).exists():
            found.append(path)
            waiting += _imports((root / path).read_text(), package)
    return sorted(found)


def _imports(source: str, package: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith(package + "."))
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (f"{package}.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(package + "."):
            yield str(node.module)


def _games(root: Path) -> dict[str, dict[str, str]]:
    """Return the rows of config/games.csv by game."""
    lines = (root / "config/games.csv").read_text().splitlines()
    return {row["game"]: row for row in csv.DictReader(lines)}


def _unknown_names(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    games = _games(root)
    for i, game in enumerate(study["games"]):
        if game not in games:
            yield f'games[{i}] = "{game}": unknown{allowed(game, games)} (config/games.csv)'
    methods = sorted(p.stem for p in (root / "config/methods").glob("*.yaml"))
    for i, method in enumerate(study["methods"]):
        if method not in methods:
            yield f'methods[{i}] = "{method}": unknown{allowed(method, methods)} (config/methods)'
    for method, changed in study["overrides"].items():
        if method not in ("all", *methods):
            yield f"overrides.{method}: unknown{allowed(method, ['all', *methods])}"
            continue
        trained = [m for m in study["methods"] if m != UNTRAINED]
        concerned = trained if method == "all" else [method]
        keys = {
            name: list(yaml.safe_load((root / method_file(name)).read_text()))
            for name in concerned
            if name in methods
        }
        for key in changed:
            yield from _wrong_override(f"overrides.{method}.{key}", key, keys)
    selectable = ["all", *(m for m in methods if m != UNTRAINED)]
    for method in study["selection"]:
        if method not in selectable:
            yield f"selection.{method}: unknown{allowed(method, selectable)}"


def _wrong_override(where: str, key: str, keys: Mapping[str, list[str]]) -> Iterable[str]:
    """A setting that not all of the methods in `keys`, by which each has its own, have."""
    lacking = [name for name, own in keys.items() if key not in own]
    having = [name for name in keys if name not in lacking]
    if key in NOT_OVERRIDABLE and keys:
        yield f"{where}: only a method's file says it ({method_file(next(iter(keys)))})"
    elif lacking and having:
        yield (
            f"{where}: unknown to {', '.join(lacking)}; "
            f"allowed: overrides of {', '.join(having)}, which have it"
        )
    elif lacking:
        known = dict.fromkeys(k for own in keys.values() for k in own if k not in NOT_OVERRIDABLE)
        yield f"{where}: unknown key{allowed(key, known)} ({method_file(lacking[0])})"


def _unknown_published(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """Published rows that are not there, or under another protocol than the study's."""
    file = "analysis/reference/systems.csv"
    rows = csv.DictReader((root / file).read_text().splitlines())
    known = [
        row["system"]
        for row in rows
        if row["protocol"] == "noop_starts" and row["system"] not in ("random", "human")
    ]
    for i, system in enumerate(study.get("published", [])):
        if study["normalisation"]["references"] != "noop_starts":
            yield f"published[{i}] = {system}: only with normalisation.references noop_starts"
        elif system not in known:
            yield f"published[{i}] = {system}: unknown{allowed(system, known)} ({file})"


def _wrong_external(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """Scores from elsewhere that could not stand beside those trained here."""
    games = _games(root)
    for name, external in study.get("external", {}).items():
        key, scores = f"external.{name}", external["scores"]
        if (root / method_file(name)).exists():
            yield f"{key}: the name of a method ({method_file(name)}); it needs another"
        for game in (game for game in study["games"] if game not in scores):
            yield f"{key}.scores: no score in {game}; needed: {', '.join(study['games'])}"
        seeds = {game: len(own) for game, own in scores.items()}
        if len(set(seeds.values())) > 1:
            counts = ", ".join(f"{game} {count}" for game, count in seeds.items())
            yield f"{key}.scores: not the same number of seeds in every game: {counts}"
        for game, own in scores.items():
            if game not in games:
                yield f"{key}.scores.{game}: unknown{allowed(game, games)} (config/games.csv)"
                continue
            low, high = (games[game][bound] for bound in ("score_min", "score_max"))
            for i, score in enumerate(own):
                if score < float(low or "-inf") or score > float(high or "inf"):
                    yield (
                        f"{key}.scores.{game}[{i}] = {score}: possible in this game: "
                        f"{low or 'no lower bound'} to {high or 'no upper bound'}"
                    )


def _equal_labels(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """Methods that tables could not tell apart."""
    named: dict[str, str] = {}
    for method in study["methods"]:
        file = method_file(method)
        label = yaml.safe_load((root / file).read_text()).get("label", method)
        yield from _named_before(named, label, f"{file}: label")
    for name, external in study.get("external", {}).items():
        yield from _named_before(named, external["label"], f"external.{name}.label")


def _named_before(named: dict[str, str], label: str, key: str) -> Iterable[str]:
    if label in named:
        yield f'{key} = "{label}": the same as {named[label]}; tables need different ones'
    named.setdefault(label, key)


def _wrong_settings(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """What a training of each method would say of its settings, of others that have some too."""
    others = [m for m in study["overrides"] if m not in ("all", *study["methods"])]
    for method in (*study["methods"], *others):
        try:
            checked = load_method(root / method_file(method), settings(study, method))
            if method in study["methods"]:
                check_budget(checked, _milestones(study)[-1])
        except ValueError as error:
            yield str(error).replace(f"{root}/", "")


def _is_record(method_files: Any) -> bool:
    return isinstance(method_files, Mapping) and all(
        isinstance(file, Mapping) and isinstance(file.get("settings"), Mapping)
        for file in method_files.values()
    )


def _changed_since(
    study: Mapping[str, Any], recorded: Mapping[str, Any], root: Path
) -> Iterable[str]:
    """Settings of the study's methods that its record has otherwise than their files today.

    One that came since is not: a method that it changes has another version.
    """
    for method in (m for m in study["methods"] if m in recorded):
        then, file = recorded[method]["settings"], method_file(method)
        now = yaml.safe_load((root / file).read_text())
        for key in sorted(then.keys() - {"label"}):
            if key not in now or then[key] != now[key]:
                yield (
                    f"method_files.{method}.settings.{key} = {json.dumps(then[key])}: "
                    f"{file} has {json.dumps(now.get(key))}; check out the commit of its runs"
                )


def _missing_references(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """Games whose scores could not be normalised in the end."""
    file = reference_file(study)
    for player, scores in _references(study, root).items():
        for i, game in enumerate(study["games"]):
            if game not in scores:
                yield f'games[{i}] = "{game}": {file} has no score of the {player} player for it'


def _reversed_scores(study: Mapping[str, Any], root: Path) -> Iterable[str]:
    """Games in which a higher score would be a lower percentage."""
    if study["normalisation"]["rule"] != "plain":
        return
    random, human = _references(study, root).values()
    for i, game in enumerate(study["games"]):
        if game in random and game in human and human[game] < random[game]:
            yield (
                f'games[{i}] = "{game}": with normalisation.rule = plain a higher score would be a '
                f"lower percentage, since the human player has {human[game]:g} and the random one "
                f"{random[game]:g} ({reference_file(study)}); allowed: absolute, mnih2016"
            )


def _references(study: Mapping[str, Any], root: Path) -> dict[str, dict[str, float]]:
    """Return the reference scores of the random and the human player, by game."""
    rows = list(csv.DictReader((root / reference_file(study)).read_text().splitlines()))
    return {
        player: {row["game"]: float(row["value"]) for row in rows if row["system"] == player}
        for player in ("random", "human")
    }


def _wrong_budget(study: Mapping[str, Any]) -> Iterable[str]:
    milestones = study["milestones_frames"]
    if milestones != sorted(milestones):
        yield f"milestones_frames = {milestones}: must be ascending: {sorted(milestones)}"
    budget = study.get("budget_frames", max(milestones))
    for i, milestone in enumerate(milestones):
        if milestone > budget:
            key = f"milestones_frames[{i}]"
            yield f"{key} = {milestone}: beyond the budget; allowed: up to {budget}"


def _milestones(study: Mapping[str, Any]) -> list[int]:
    milestones = study["milestones_frames"]
    budget = study.get("budget_frames", milestones[-1])
    return milestones if milestones[-1] == budget else [*milestones, budget]


def reference_file(study: Mapping[str, Any]) -> str:
    """Return the path of the scores that the study is normalised with, below the repository."""
    return f"analysis/reference/{study['normalisation']['references']}.csv"


def method_file(method: str) -> str:
    """Return the path of a method's file below the repository."""
    return f"config/methods/{method}.yaml"


def main(argv: list[str] | None = None) -> None:
    """Write study.json of a validated study."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--study", required=True, help="the validated study, JSON")
    parser.add_argument("--out", required=True, type=Path, help="study.json")
    args = parser.parse_args(argv)
    text = json.dumps(record(json.loads(args.study), Path(".")), indent=2, ensure_ascii=False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
