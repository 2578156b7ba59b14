"""Show how far a study's training is, one line per run.

`python -m analysis.status results/STUDY [--follow [SECONDS]]` reads study.json and every run's
progress.json, also while it is being rewritten. A run that says it is running and has not been
heard of for a minute is shown as `stale`. One that is finished, but lacks a milestone that the
study now asks for or has another protocol or other settings than it says, is `outdated`: it is not
done, and its frames do not count.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from analysis.render import DASH, frames_text
from analysis.study import UNTRAINED, ResultsError, Study, load_study

STALE_SECONDS = 60
STATUSES = ("running", "stale", "stopped", "diverged", "finished", "outdated", "waiting")
DONE = ("finished", "diverged")
Job = tuple[str, str, int]  # method, game and seed
COLUMNS = ("method", "game", "seed", "status", "frames", "share", "frames/s", "left", "return")


def read_runs(study: Study, results: Path, now: float) -> dict[Job, dict[str, Any]]:
    """Return `read_run` of every run of the study, by method, game and seed."""
    jobs = [(m, g, s) for m in study.methods for g in study.games for s in study.seeds]
    return {job: read_run(study, results, job, now) for job in jobs}


def read_run(study: Study, results: Path, job: Job, now: float) -> dict[str, Any]:
    """Return status, frames, budget_frames, frames_per_second, seconds_left and recent_return.

    Args:
        study: says what a finished run must have.
        results: the study's folder; the run's own may not exist yet.
        job: method, game and seed of the run.
        now: unix time in seconds, to tell whether a running run is stale.

    A file that is missing or caught half-written counts as not there.
    """
    folder = results / "runs" / "/".join(map(str, job))
    progress = _read(folder / "progress.json")
    record = _read(folder / "run.json")
    ended = record.get("status") in DONE
    outdated = ended and _is_outdated(study, job[0], record)
    # Trained on by hand, a run keeps its old record until it ends again.
    if ended and not (outdated and progress.get("status") in ("running", "stopped")):
        return progress | {
            "status": "outdated" if outdated else record["status"],
            "frames": record.get("frames", 0),
            "budget_frames": record.get("budget_frames", 0),
            "frames_per_second": record.get("frames_per_second"),
            "seconds_left": None,
        }
    if not progress:
        return {"status": "waiting"}
    if progress.get("status") == "running":
        updated = progress.get("updated_at") or 0
        if now - updated > STALE_SECONDS:
            return progress | {"status": "stale", "seconds_left": None}
    return progress


def _is_outdated(study: Study, method: str, record: dict[str, Any]) -> bool:
    """Return whether a run with this record must be trained again, or further."""
    try:
        if study.differing_settings(method, record.get("settings") or {}):
            return True
        reached = {milestone["milestone_frames"] for milestone in record["milestones"]}
    except (KeyError, TypeError):
        return True  # a damaged record: analysis.collect says what is wrong with it
    # What diverged reaches no further; random play is the same at every milestone.
    goes_on = record["status"] == "finished" and study.is_trained(method)
    lacks = goes_on and not reached.issuperset(study.milestones_frames)
    return lacks or record.get("protocol") != study.protocol


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def duration_text(seconds: float | None) -> str:
    """Return a time left as people say it: 42 s, 12 min, 3 h 05, 2 d 4 h."""
    if seconds is None:
        return DASH
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if hours < 48:
        whole = round(minutes)
        return f"{whole // 60} h {whole % 60:02d}"
    whole = round(hours)
    return f"{whole // 24} d {whole % 24} h"


def lines(study: Study, results: Path, now: float, everything: bool = False) -> list[str]:
    """Return the table of runs and a line of totals.

    Runs that wait or are finished are counted and not listed when there are more than 40 of them,
    unless `everything`.
    """
    states = read_runs(study, results, now)
    counts = {status: 0 for status in STATUSES}
    for state in states.values():
        counts[state.get("status", "waiting")] = counts.get(state.get("status", "waiting"), 0) + 1
    short = len(states) > 40 and not everything
    shown = [
        (job, state)
        for job, state in states.items()
        if not (short and state.get("status") in ("waiting", "finished"))
    ]
    table = [COLUMNS, *(_cells(job, state) for job, state in shown)]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    left = {0, 1, 3}
    out = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    out = [*out, ""] if shown else []
    done = sum(counts[status] for status in DONE)
    # A run ends with the first rollout at or past its budget; what is over it is no progress.
    each = study.milestones_frames[-1]
    frames = sum(
        min(int(state.get("frames") or 0), each)
        for state in states.values()
        if state.get("status") != "outdated"
    )
    budget = each * sum(method != UNTRAINED for method, _, _ in states)
    speed = sum(
        float(state.get("frames_per_second") or 0)
        for state in states.values()
        if state.get("status") == "running"
    )
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    out.append(
        f"{study.name}: {done} of {len(states)} runs done ({', '.join(parts)}); "
        f"{frames_text(frames)} of {frames_text(budget)} frames, {_share(frames, budget)}; "
        f"{speed:,.0f} frames/s now"
    )
    if short and len(shown) < len(states):
        out[-1] += f"; {len(states) - len(shown)} waiting or finished runs not listed (--all)"
    return out


def _share(frames: float, budget: float) -> str:
    # Rounded down: 100 % is said of nothing that is still running.
    return f"{int(1000 * frames / budget) / 10:.1f} %" if budget else DASH


def _cells(job: Job, state: dict[str, Any]) -> tuple[str, ...]:
    if state.get("status") == "waiting":
        return (*map(str, job), "waiting", *[DASH] * 5)
    frames, budget = int(state.get("frames") or 0), int(state.get("budget_frames") or 0)
    speed, recent = state.get("frames_per_second"), state.get("recent_return")
    status = str(state.get("status", "unknown"))
    return (
        *map(str, job),
        status,
        frames_text(frames),
        # Of another budget, or of a training that does not count.
        DASH if status == "outdated" else _share(min(frames, budget), budget),
        DASH if speed is None else f"{speed:,.0f}",
        duration_text(state.get("seconds_left")),
        DASH if recent is None else f"{recent:,.1f}",
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the status once, or again every --follow seconds until all runs are done."""
    parser = argparse.ArgumentParser(prog="python -m analysis.status", description=__doc__)
    parser.add_argument("results", type=Path, help="folder of one study, results/STUDY")
    parser.add_argument(
        "--follow", type=float, nargs="?", const=5.0, metavar="SECONDS", help="repeat (every 5 s)"
    )
    parser.add_argument("--all", action="store_true", help="list every run of a large study")
    options = parser.parse_args(arguments)
    try:
        study = load_study(options.results)
        while True:
            text = "\n".join(lines(study, options.results, time.time(), options.all))
            if options.follow and sys.stdout.isatty():
                text = "\x1b[H\x1b[2J" + text  # home, clear
            print(text, flush=True)
            if not options.follow or _all_done(study, options.results):
                return 0
            time.sleep(options.follow)
    except ResultsError as error:
        print(f"analysis.status: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _all_done(study: Study, results: Path) -> bool:
    states = read_runs(study, results, time.time())
    return all(state.get("status") in DONE for state in states.values())


if __name__ == "__main__":
    raise SystemExit(main())
