"""Find what in results/STUDY no longer matches the study, before anything starts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.config import load_method
from analysis.study import ResultsError
from analysis.trace_header import load_header
from workflow.study import UNTRAINED, method_file, settings

Runs = dict[tuple[str, str, int], list[str]]  # by method, game and seed


def outdated_runs(study: Mapping[str, Any], results: Path, root: Path) -> Runs:
    """Return what finished runs in `results` have otherwise than the study: run -> one line each.

    Settings, protocol, and milestones that are not there. A run that is as the study says is not
    in it, nor one whose record does not say: `analysis.collect` refuses that.
    """
    found: Runs = {}
    for method in study["methods"]:
        now = dataclasses.asdict(load_method(root / method_file(method), settings(study, method)))
        now = {"protocol": study["protocol"], **json.loads(json.dumps(now))}
        for game, seed in itertools.product(study["games"], study["seeds"]):
            path = results / "runs" / method / game / str(seed) / "run.json"
            try:
                run = json.loads(path.read_text())
                then = {**run["settings"], "protocol": run["protocol"]}
                reached = [milestone["milestone_frames"] for milestone in run["milestones"]]
                finished = run["status"] == "finished"
            except (OSError, ValueError, KeyError, TypeError):
                continue
            lines = [
                f"{key} {json.dumps(then[key])}, now {json.dumps(value)}"
                for key, value in sorted(now.items())
                if key in then and key != "label" and then[key] != value
            ]
            lacking = [m for m in study["milestones_frames"] if m not in reached]
            if lacking and finished and method != UNTRAINED:
                lines.append(f"without milestones_frames {', '.join(map(str, lacking))}")
            if lines:
                found[method, game, seed] = lines
    return found


def outdated_evaluations(study: Mapping[str, Any], results: Path) -> Runs:
    """Return what evaluations in `results` have otherwise than the study: run -> one line each.

    Number of episodes, how actions were selected, seed. One that cannot be read is not in it:
    `analysis.collect` refuses that.
    """
    asked = study["evaluation"]
    found: Runs = {}
    for method in study["methods"]:
        for game, seed in itertools.product(study["games"], study["seeds"]):
            for milestone in study["milestones_frames"]:
                evaluation = Path("evaluation", str(milestone))
                run = results / "runs" / method / game / str(seed)
                try:
                    header = load_header(run / evaluation / "traces.npz")
                    played = {"episodes": header["episodes"], "seed": header["evaluation_seed"]}
                    if method != UNTRAINED:  # it always samples
                        played |= {"action_selection": header["action_selection"]}
                except (FileNotFoundError, ResultsError, KeyError):
                    continue
                lines = [
                    f"{evaluation}: {key} {json.dumps(then)}, now {json.dumps(asked[key])}"
                    for key, then in played.items()
                    if then != asked[key]
                ]
                if lines:
                    found.setdefault((method, game, seed), []).extend(lines)
    return found


def unnamed_runs(study: Mapping[str, Any], results: Path) -> list[str]:
    """Return the runs in `results` that the study does not name, as METHOD/GAME/SEED."""
    named = {
        "/".join(map(str, run))
        for run in itertools.product(study["methods"], study["games"], study["seeds"])
    }
    records = (results / "runs").glob("*/*/*/run.json")
    return sorted({str(path.parent.relative_to(results / "runs")) for path in records} - named)


def unnamed_text(results: Path, runs: Sequence[str], shown: int = 5) -> str:
    """Return what to tell of `unnamed_runs` before anything starts."""
    names = ", ".join(runs[:shown])
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return (
        f"{results} has runs that this study does not name: {names}{more}. They stay, and its "
        "tables are made anew without them; another study is better given another name."
    )


def outdated_text(results: Path, *outdated: Runs, shown: int = 10) -> str:
    """Return what to tell of `outdated_runs` and `outdated_evaluations` before anything starts."""
    runs: Runs = {}
    for run, found in itertools.chain.from_iterable(part.items() for part in outdated):
        runs.setdefault(run, []).extend(found)
    lines = [f"  {'/'.join(map(str, run))}: {'; '.join(found)}" for run, found in runs.items()]
    if len(lines) > shown:
        lines[shown:] = [f"  and {len(lines) - shown} more"]
    return "\n".join(
        [
            f"Runs in {results} that are not as the study now says:",
            *lines,
            "Those that Snakemake made here are trained or evaluated again, and those that are "
            "older than their method's file. Of others, restored or copied, it knows nothing: "
            "delete the folder of each run, or evaluation, that is not in its plan, or the tables "
            "will be refused in the end.",
        ]
    )
