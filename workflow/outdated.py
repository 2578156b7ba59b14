"""Find what in results/STUDY no longer matches the study, before anything starts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.config import load_method
from analysis.study import ResultsError
from analysis.trace_header import load_header
from workflow.study import UNTRAINED, method_file, settings

Runs = dict[tuple[str, str, int], list[str]]  # by method, game and seed


@dataclass(frozen=True)
class _Record:
    """What is compared here of a run's record."""

    method: str
    settings: dict[str, Any]  # and `protocol`
    milestones_frames: list[int]
    budget_frames: int
    finished: bool
    state: Path  # its resume state; it may not be there

    def others(self, asked: Mapping[str, Any]) -> list[str]:
        """Return a line for each setting that is not as `asked`."""
        return [
            f"{key} {json.dumps(self.settings[key])}, now {json.dumps(value)}"
            for key, value in sorted(asked.items())
            if key in self.settings and key != "label" and self.settings[key] != value
        ]

    def lacking(self, study: Mapping[str, Any]) -> list[int]:
        """Return the study's milestones that a finished run does not have."""
        if not self.finished or self.method == UNTRAINED:
            return []
        return [m for m in study["milestones_frames"] if m not in self.milestones_frames]

    @property
    def constant_rate(self) -> bool:
        """Whether its learning rate does not fall over the budget: another budget goes on."""
        return self.settings.get("learning_rate_schedule") == "constant"

    def differences(self, asked: Mapping[str, Any], study: Mapping[str, Any]) -> list[str]:
        """Return a line for each thing that it has otherwise than the study."""
        lines = self.others(asked)
        milestones = study["milestones_frames"]
        if lacking := self.lacking(study):
            lines.append(f"without milestones_frames {', '.join(map(str, lacking))}")
        ended_before = self.constant_rate and self.budget_frames in milestones
        if not ended_before and self.budget_frames != milestones[-1] not in lacking:
            lines.append(f"budget_frames {self.budget_frames}, now {milestones[-1]}")
        return lines


def outdated_runs(study: Mapping[str, Any], results: Path, root: Path) -> Runs:
    """Return what finished runs in `results` have otherwise than the study: run -> one line each.

    Settings, protocol, budget, and milestones that are not there. A run that is as the study says
    is not in it, nor one whose record does not say: `analysis.collect` refuses that.
    """
    asked = _asked(study, root)
    found = {
        run: record.differences(asked[run[0]], study) for run, record in _records(study, results)
    }
    return {run: lines for run, lines in found.items() if lines}


def trained_milestones(
    study: Mapping[str, Any], results: Path, outdated: Runs
) -> dict[tuple[str, str, int], list[int]]:
    """Return the milestones of finished runs that have all of the study's, and its budget.

    Of runs that are not `outdated`. They may have more: a milestone taken out of the study is no
    other training.
    """
    milestones = study["milestones_frames"]
    return {
        run: record.milestones_frames
        for run, record in _records(study, results)
        if record.finished
        and run not in outdated
        and record.budget_frames == milestones[-1]
        and set(record.milestones_frames) >= set(milestones)
    }


def passed_milestones(study: Mapping[str, Any], results: Path, root: Path) -> Runs:
    """Return milestones that finished runs have passed without a policy: run -> one line each.

    Of those runs only that would go on from their resume state, which cannot go back.
    """
    asked, found = _asked(study, root), {}
    for run, record in _records(study, results):
        passed = [m for m in record.lacking(study) if m < record.budget_frames]
        # Where the learning rate falls over the budget, another budget is another training.
        same = record.constant_rate or record.budget_frames == study["milestones_frames"][-1]
        if passed and same and not record.others(asked[run[0]]) and record.state.exists():
            found[run] = [f"{', '.join(map(str, passed))}; its state is {record.state}"]
    return found


def passed_text(results: Path, passed: Runs, shown: int = 10) -> str:
    """Return why a study with `passed_milestones` is not begun."""
    return "\n".join(
        [
            f"milestones_frames: runs in {results} have kept no policy at milestones that they "
            "have passed:",
            *_lines(passed, shown),
            "Take these milestones out, or name the study otherwise; or delete the resume states, "
            "for these runs to be trained again from the start.",
        ]
    )


def _asked(study: Mapping[str, Any], root: Path) -> dict[str, dict[str, Any]]:
    """Return what the study asks of each of its methods' runs: settings and protocol."""
    return {
        method: {
            "protocol": study["protocol"],
            **json.loads(
                json.dumps(
                    dataclasses.asdict(
                        load_method(root / method_file(method), settings(study, method))
                    )
                )
            ),
        }
        for method in study["methods"]
    }


def _records(
    study: Mapping[str, Any], results: Path
) -> Iterable[tuple[tuple[str, str, int], _Record]]:
    """Yield the study's runs that have a record which says what is compared here."""
    for run in itertools.product(study["methods"], study["games"], study["seeds"]):
        folder = results / "runs" / "/".join(map(str, run))
        try:
            record = json.loads((folder / "run.json").read_text())
            then = {**record["settings"], "protocol": record["protocol"]}
            milestones = [milestone["milestone_frames"] for milestone in record["milestones"]]
            budget, status = int(record["budget_frames"]), record["status"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        state = folder / "resume" / str(record.get("spec_hash")) / "checkpoint.pt"
        yield run, _Record(run[0], then, milestones, budget, status == "finished", state)


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
        "tables are made again without them; another study is better given another name."
    )


def outdated_text(results: Path, *outdated: Runs, shown: int = 10) -> str:
    """Return what to tell of `outdated_runs` and `outdated_evaluations` before anything starts."""
    runs: Runs = {}
    for run, found in itertools.chain.from_iterable(part.items() for part in outdated):
        runs.setdefault(run, []).extend(found)
    return "\n".join(
        [
            f"Runs in {results} that are not as the study now says:",
            *_lines(runs, shown),
            "Those that Snakemake made here are trained or evaluated again, and those that are "
            "older than their method's file. Of others, restored or copied, it knows nothing: "
            "delete the folder of each run, or evaluation, that is not in its plan, or the tables "
            "will be refused in the end.",
        ]
    )


def _lines(runs: Runs, shown: int) -> list[str]:
    lines = [f"  {'/'.join(map(str, run))}: {'; '.join(found)}" for run, found in runs.items()]
    if len(lines) > shown:
        lines[shown:] = [f"  and {len(lines) - shown} more"]
    return lines
