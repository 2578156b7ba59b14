"""Footnotes on what a study asks for and lacks: diverged and missing runs, cut episodes."""

import pandas as pd

from analysis.reference import game_labels
from analysis.render import frames_text
from analysis.scores import MISSING_REASONS, complete_seeds, run_scores
from analysis.study import Study


def truncated_notes(study: Study, episodes: pd.DataFrame, shown: int = 12) -> list[str]:
    """Return a note that counts the evaluation episodes cut at the frame limit, if any were.

    Of a row with whole seeds, as it has scores, it counts theirs only, of another one all.
    A policy can score by keeping a game from going on; the limit is then what ends its episodes.
    """
    cells = (
        _of_whole_seeds(study, episodes)
        .assign(cut=episodes["ended"] == "truncated")
        .groupby(["method", "milestone", "game"], sort=False)["cut"]
        .agg(["sum", "size"])
    )
    cells = cells[cells["sum"] > 0]
    if cells.empty:
        return []
    labels = game_labels()
    listed = [
        f"{study.row_label(method, milestone)} in {labels[game]} ({cut} of {count})"
        for (method, milestone, game), (cut, count) in zip(
            cells.index, cells.itertuples(index=False), strict=True
        )
    ]
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return [
        "Evaluation episodes cut at the frame limit, counted with their score so far: "
        f"{', '.join(listed[:shown])}{more}."
    ]


def _of_whole_seeds(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    scores = run_scores(study, episodes)
    parts = []
    for (method, milestone), own in episodes.groupby(["method", "milestone"], sort=False):
        whole = complete_seeds(study, scores, method, milestone)
        parts.append(own[own["seed"].isin(whole)] if whole else own)
    return pd.concat(parts) if parts else episodes


def missing_notes(study: Study, runs: pd.DataFrame, missing: pd.DataFrame) -> list[str]:
    """Return the notes on diverged runs and on whatever else the study asks for and lacks."""
    out, labels = [], game_labels()
    diverged = runs[runs["status"] == "diverged"]
    if len(diverged):
        listed = "; ".join(
            f"{study.method_label(row.method)} / {labels[row.game]} / seed {row.seed} at "
            f"{frames_text(row.frames)} frames ({row.reason or 'no reason given'})"
            for row in diverged.itertuples()
        )
        out.append(f"Diverged runs: {listed}.")
    if len(missing):
        parts = _missing_parts(study, missing)
        each = len(study.games) * len(study.seeds)
        milestones = [len(study.milestones_of(method)) for method in study.methods]
        runs, asked = each * len(milestones), each * sum(milestones)
        of = f"{runs} runs x {max(milestones)} milestones"
        if min(milestones) < max(milestones):
            of += ", of random play the last"
        biased = (
            " One that diverged is not, so the rows of its method are of the runs that went well."
            if (missing["reason"] == "diverged").any()
            else ""
        )
        out.append(
            f"Missing, {len(missing)} of {asked} ({of}): {'; '.join(parts)}. A method is "
            f"aggregated over its seeds that have every game; nothing is imputed.{biased}"
        )
    return out


def _missing_parts(study: Study, missing: pd.DataFrame) -> list[str]:
    """Return what is missing in few words: methods and milestones that lack the same are one."""
    unfinished = missing[missing["reason"] == "not_run"]["method"].value_counts()
    runs_each = len(study.games) * len(study.seeds)
    whole = [
        method
        for method in study.methods
        if unfinished.get(method, 0) == runs_each * len(study.milestones_of(method))
    ]
    parts = [f"{', '.join(map(study.method_label, whole))}: no run has finished"] if whole else []
    lacking: dict[tuple, list[int]] = {}
    others = missing[~missing["method"].isin(whole)]
    for (method, milestone, reason), rows in others.groupby(
        ["method", "milestone", "reason"], sort=False
    ):
        cells = _cells_text(study, rows)
        lacking.setdefault((method, reason, cells), []).append(milestone)
    labels: dict[tuple, list[str]] = {}
    for (method, reason, cells), milestones in lacking.items():
        every = milestones == list(study.milestones_of(method))
        label = study.rows_label(method, [] if every else milestones)
        labels.setdefault((reason, cells), []).append(label)
    return parts + [
        f"{', '.join(names)}: {MISSING_REASONS.get(reason, reason)} ({cells})"
        for (reason, cells), names in labels.items()
    ]


def _cells_text(study: Study, rows: pd.DataFrame, shown: int = 8) -> str:
    """Return the games and seeds of `rows`, as `seed 0 in qbert; seeds 1, 2 in all 7 games`."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    for seed, of_seed in rows.groupby("seed"):
        seeds.setdefault(tuple(of_seed["game"]), []).append(seed)
    parts, labels = [], game_labels()
    for games, of_games in seeds.items():
        named = ", ".join(labels[game] for game in games[:shown])
        if len(games) > shown:
            named += f" and {len(games) - shown} more"
        if len(games) == len(study.games) > 1:
            named = f"all {len(games)} games"
        plural = "s" if len(of_games) > 1 else ""
        parts.append(f"seed{plural} {', '.join(map(str, of_games))} in {named}")
    return "; ".join(parts)
