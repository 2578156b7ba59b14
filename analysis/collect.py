"""Gather a study's runs into three tables, refusing whatever cannot be compared.

`python -m analysis.collect --results results/STUDY` reads `study.json` and `runs/` and writes
episodes.csv (one row per evaluation episode, raw returns), runs.csv (one row per run) and
missing.csv (what the study asks for and is not there). Missing runs are listed, never imputed;
whether they stop the aggregation is the study's `incomplete`.
"""

import csv
import io
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.io import write_csv
from analysis.reference import load_games
from analysis.scores import ENDED, EPISODE_COLUMNS, MISSING_COLUMNS, RUN_COLUMNS, command
from analysis.study import UNTRAINED, ResultsError, Study, load_study, read_json
from analysis.trace_header import load_header

STATUSES = ("finished", "diverged")
RUN_TYPES = {
    "frames": int,
    "budget_frames": int,
    "seconds": float,
    "core_seconds": float,
    "frames_per_second": float,
    "device": str,
    "network": str,
    "precision": str,
    "protocol": str,
    "status": str,
    "settings_hash": str,
}


@dataclass
class Collected:
    """The rows of the three tables, in the order of the study."""

    episodes: list[list[Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    missing: list[list[Any]] = field(default_factory=list)


def collect(results: Path) -> Collected:
    """Read and check every run that the study in `results` asks for.

    Raises:
        ResultsError: for the first record that is unreadable, belongs to another run, was made
            under another protocol, budget or setting than the study says, or holds an impossible
            value; and for two runs of one method that differ in settings_hash or version.
    """
    study = load_study(results)
    games = load_games().set_index("game")
    bounds = {
        game: (float(row.score_min), float(row.score_max))
        for game, row in zip(games.index, games.itertuples(), strict=True)
    }
    collected = Collected()
    for method in study.methods:
        first: tuple[Path, dict[str, Any]] | None = None
        for game in study.games:
            if game not in bounds:
                raise ResultsError(f"games: unknown value {game!r}; allowed: {', '.join(bounds)}")
            for seed in study.seeds:
                folder = results / "runs" / method / game / str(seed)
                record = _collect_run(study, folder, (method, game, seed), bounds, collected)
                if record is not None:
                    first = first or (folder, record)
                    _check_comparable(first, (folder, record))
    return collected


def _collect_run(
    study: Study,
    folder: Path,
    run: tuple[str, str, int],
    bounds: dict[str, tuple[float, float]],
    collected: Collected,
) -> dict[str, Any] | None:
    path = folder / "run.json"
    if not path.exists():
        collected.missing += [[*run, at, "not_run"] for at in study.milestones_of(run[0])]
        return None
    record = read_json(path)
    _check_record(study, record, path, run)
    collected.runs.append(_run_row(record))
    for milestone in study.milestones_of(run[0]):
        file = folder / "evaluation" / str(milestone) / "episodes.csv"
        rows = None
        if file.exists():
            _check_asked(file.with_name("traces.npz"), study, run[0])
            rows = read_evaluation(file, study, run, milestone, bounds[run[1]])
            _check_frames(file, rows, record, milestone)
        reached = any(int(m["milestone_frames"]) == milestone for m in record["milestones"])
        if rows is not None and len(rows) == study.evaluation["episodes"]:
            collected.episodes += rows
        elif milestone > record["budget_frames"]:
            collected.missing.append([*run, milestone, "not_reached"])
        elif record["status"] == "diverged" and not reached:
            collected.missing.append([*run, milestone, "diverged"])
        elif rows is None:
            collected.missing.append([*run, milestone, "not_evaluated"])
        else:
            collected.missing.append([*run, milestone, "incomplete_evaluation"])
    return record


def _check_asked(traces: Path, study: Study, method: str) -> None:
    """Refuse episodes that were not played as the study says, which the tables' notes repeat."""
    try:
        header = load_header(traces)
    except FileNotFoundError:
        return
    asked = {"evaluation_seed": study.evaluation["seed"]}
    if method != UNTRAINED:  # which always samples
        asked["action_selection"] = study.evaluation["action_selection"]
    for key, value in asked.items():
        if header.get(key) != value:
            raise ResultsError(
                f"{traces}: played with {key} {header.get(key)!r}, but the study says {value!r}; "
                "evaluate the run again or take its evaluation out"
            )


def _check_record(
    study: Study, record: dict[str, Any], path: Path, run: tuple[str, str, int]
) -> None:
    def demand(key: str, allowed: Any) -> None:
        if record.get(key) != allowed:
            raise ResultsError(f"{path}: {key} is {record.get(key)!r}; expected {allowed!r}")

    for key, value in zip(("method", "game", "seed"), run, strict=True):
        demand(key, value)
    for key, kind in RUN_TYPES.items():
        value = record.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, str) if kind is str else number and (kind is float or value >= 0)
        if not right or (kind is int and value != int(value)):
            raise ResultsError(f"{path}: {key} is {value!r}; expected {kind.__name__}")
        if kind is float and (not math.isfinite(value) or value < 0):
            raise ResultsError(f"{path}: {key} is {value!r}; expected a finite number >= 0")
    if record["status"] not in STATUSES:
        raise ResultsError(
            f"{path}: status is {record['status']!r}; allowed: {', '.join(STATUSES)}"
        )
    for key in ("settings", "versions"):
        if not isinstance(record.get(key) or {}, dict):
            raise ResultsError(f"{path}: {key} is {record[key]!r}; expected an object")
    settings = record.get("settings") or {}
    demand("protocol", study.protocol)
    # A constant learning rate does not know the budget: such a run may stop at a milestone before.
    constant = settings.get("learning_rate_schedule") == "constant"
    if not (constant and record["budget_frames"] in study.milestones_frames):
        demand("budget_frames", study.milestones_frames[-1])
    trains = run[0] != UNTRAINED
    if trains and record["status"] == "finished" and record["frames"] < record["budget_frames"]:
        raise ResultsError(
            f"{path}: status is finished at {record['frames']} of {record['budget_frames']} frames"
        )
    milestones = record.get("milestones")
    if not isinstance(milestones, list) or not all(map(_is_milestone, milestones)):
        raise ResultsError(
            f"{path}: milestones is {milestones!r}; expected a list of objects with numbers "
            "milestone_frames, frames and seconds"
        )
    for key, (trained, expected) in study.differing_settings(run[0], settings).items():
        raise ResultsError(
            f"{path}: trained with {key} {trained!r}, but the study says {expected!r}; "
            "train it again or take the run out"
        )


def _is_milestone(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    frames = [value.get("milestone_frames"), value.get("frames")]
    return all(type(count) is int for count in frames) and type(value.get("seconds")) in (
        int,
        float,
    )


def _check_comparable(
    first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]]
) -> None:
    for key in ("version", "settings_hash"):
        one, other = first[1].get(key), second[1].get(key)
        if one != other:
            raise ResultsError(
                f"{first[0]} and {second[0]} differ in {key} ({one!r}, {other!r}); runs of one "
                f"method must be equal in it to stand in one table"
            )


def _check_frames(file: Path, rows: list[list[Any]], record: dict[str, Any], nominal: int) -> None:
    trained = {int(m["milestone_frames"]): int(m["frames"]) for m in record["milestones"]}
    if not rows:
        return
    if nominal not in trained:
        raise ResultsError(f"{file}: the run's record has no milestone at {nominal} frames")
    position = list(EPISODE_COLUMNS).index("frames")
    if rows[0][position] != trained[nominal]:
        raise ResultsError(
            f"{file}: frames is {rows[0][position]}, but the run's record says "
            f"{trained[nominal]} at milestone {nominal}; evaluate the policy again"
        )


def _run_row(record: dict[str, Any]) -> dict[str, Any]:
    row = {name: record.get(name) for name in RUN_COLUMNS}
    versions = record.get("versions") or {}
    row["versions"] = ";".join(f"{name}={versions[name]}" for name in sorted(versions))
    row["milestones"] = ";".join(
        f"{m['milestone_frames']}:{m['frames']}:{m['seconds']!r}" for m in record["milestones"]
    )
    return row


def read_evaluation(
    file: Path,
    study: Study,
    run: tuple[str, str, int],
    milestone: int,
    bounds: tuple[float, float],
) -> list[list[Any]]:
    """Return the rows of one evaluation, typed, in the order of EPISODE_COLUMNS.

    Args:
        file: an episodes.csv below evaluation/<milestone>/.
        study: says protocol and number of episodes.
        run: method, game and seed that every row must name.
        milestone: nominal training frames that every row must name.
        bounds: smallest and largest possible return of an episode; NaN is unbounded.

    Raises:
        ResultsError: naming file, line, column, value and what is allowed. More episodes than the
            study's are an error, fewer are the caller's to list.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(io.StringIO(stream.read()), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ResultsError(f"{file}: not readable as CSV ({error})") from None
    if not lines or lines[0] != list(EPISODE_COLUMNS):
        found = ",".join(lines[0]) if lines else "nothing"
        raise ResultsError(f"{file}: header is {found}; expected {','.join(EPISODE_COLUMNS)}")
    rows = [_typed(file, number, cells) for number, cells in enumerate(lines[1:], 2)]
    fixed = dict(zip(("method", "game", "seed"), run, strict=True))
    fixed |= {"milestone": milestone, "protocol": study.protocol}
    low, high = bounds
    for number, cells in enumerate(rows, 2):
        row = dict(zip(EPISODE_COLUMNS, cells, strict=True))

        def fail(column: str, allowed: str, number: int = number, row: dict = row) -> None:
            raise ResultsError(
                f"{file}, line {number}: {column} of {'/'.join(map(str, run))} at {milestone} "
                f"frames is {row[column]}; {allowed}"
            )

        for column, expected in fixed.items():
            if row[column] != expected:
                fail(column, f"expected {expected}")
        if row["episode"] != number - 2:
            fail("episode", f"expected {number - 2}: episodes are numbered from 0 without gaps")
        if row["return"] < low or row["return"] > high:
            fail("return", f"possible in this game: {_bound(low, 'no lower bound')} to "
                           f"{_bound(high, 'no upper bound')}")  # fmt: skip
        if row["length_frames"] <= 0:
            fail("length_frames", "expected a positive number of frames")
        if row["ended"] not in ENDED:
            fail("ended", f"allowed: {', '.join(ENDED)}")
        if row["frames"] != rows[0][list(EPISODE_COLUMNS).index("frames")]:
            fail("frames", "expected the same number in every row of one evaluation")
    seeds = [cells[list(EPISODE_COLUMNS).index("episode_seed")] for cells in rows]
    if len(set(seeds)) < len(seeds):
        doubled = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ResultsError(f"{file}: episode_seed {doubled} appears twice; episodes must differ")
    if len(rows) > study.evaluation["episodes"]:
        raise ResultsError(
            f"{file}: {len(rows)} episodes, but the study asks for {study.evaluation['episodes']}"
        )
    return rows


def _typed(file: Path, number: int, cells: list[str]) -> list[Any]:
    if len(cells) != len(EPISODE_COLUMNS):
        raise ResultsError(
            f"{file}, line {number}: {len(cells)} cells; expected {len(EPISODE_COLUMNS)} "
            "(is the file half-written?)"
        )
    row = []
    for (column, kind), cell in zip(EPISODE_COLUMNS.items(), cells, strict=True):
        try:
            value = kind(cell)
        except ValueError:
            value = math.nan
        if kind is not str and not math.isfinite(value):
            raise ResultsError(
                f"{file}, line {number}: {column} is {cell!r}; expected "
                f"{'an integer' if kind is int else 'a finite number'}"
            )
        row.append(value)
    return row


def _bound(value: float, unbounded: str) -> str:
    return unbounded if math.isnan(value) else f"{value:g}"


def write(results: Path) -> str:
    """Collect, write the three tables and return one line that says what is in them."""
    collected = collect(results)
    study = load_study(results)
    for folder in _unlisted(results, study):
        print(f"not part of the study, ignored: {folder}", file=sys.stderr)
    write_csv(results / "episodes.csv", pd.DataFrame(collected.episodes, columns=EPISODE_COLUMNS))
    write_csv(results / "runs.csv", pd.DataFrame(collected.runs, columns=RUN_COLUMNS, dtype=object))
    write_csv(results / "missing.csv", pd.DataFrame(collected.missing, columns=MISSING_COLUMNS))
    asked = len(study.methods) * len(study.games) * len(study.seeds)
    return (
        f"{len(collected.runs)} of {asked} runs, {len(collected.episodes)} evaluation episodes, "
        f"{len(collected.missing)} missing (run, milestone): {results}"
    )


def _unlisted(results: Path, study: Study) -> list[Path]:
    return [
        record.parent
        for record in sorted((results / "runs").glob("*/*/*/run.json"))
        if record.parts[-4] not in study.methods
        or record.parts[-3] not in study.games
        or record.parts[-2] not in map(str, study.seeds)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write episodes.csv, runs.csv and missing.csv of the study in --results."""
    return command("collect", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
