"""The comparison table: the published rows, and below them the rows trained in this study."""

import math
import re

import numpy as np
import pandas as pd

from analysis import atari5
from analysis.aggregate import point_estimates
from analysis.footnotes import notes, same_network
from analysis.published import load_rows
from analysis.reference import load_scores, normalised
from analysis.render import (
    DASH,
    Grid,
    Row,
    frames_text,
    hours_text,
    interval_text,
    number_text,
)
from analysis.scores import complete_seeds, run_scores
from analysis.study import METHODS, UNTRAINED, Study

# Wang et al. 2016 and Fortunato et al. 2018 print their means under it (analysis/reference/README).
NOOP_RULE = "mnih2016"
COLUMNS = [
    "kind",
    "row",
    "method",
    "milestone",
    "frames",
    "selection",
    "training_time",
    "hours",
    "core_hours",
    "network",
    "precision",
    "device",
    "games",
    "seeds",
    "protocol",
    "references",
    "rule",
    "printed_mean",
    "printed_median",
    "all_games",
    "all_games_rule",
    "all_games_mean",
    "all_games_median",
    "mean",
    "mean_low",
    "mean_high",
    "median",
    "median_low",
    "median_high",
    "iqm",
    "iqm_low",
    "iqm_high",
    "atari5",
    "atari5_low",
    "atari5_high",
]
NETWORK_COLUMN = 4  # left out where all rows trained here have the same: a footnote says it then
KINDS = {
    "published_human_starts": "Published, human starts",
    "published_noop_starts": "Published, no-op starts",
    "reference": "References",
    "trained": "Trained here",
    "no_complete_seed": "Trained here",
    "external": "From elsewhere, as given",
    "not_trained": "Not trained in this study",
}


def table1(
    study: Study, episodes: pd.DataFrame, runs: pd.DataFrame, aggregates: pd.DataFrame
) -> pd.DataFrame:
    """Return the table, COLUMNS; scores in percent, NaN where a row has no such value.

    Kinds of row, in this order: the eight published ones under human starts, each under its own
    rule; where the study is normalised with no-op references also published ones under no-op
    starts; the reference players; then one row per method of METHODS and milestone: trained, or
    without a complete seed, and without a run one row for all milestones; the study's external
    scores; methods not trained in this study.

    `all_games_*` are over every game the row has a score for, under `all_games_rule`; `mean`,
    `median` and `iqm` over the games of the study, NaN unless the row has all of them (it has
    `games`; without a complete seed: the most that one seed has). `atari5` estimates the 57-game
    median, where the study has what it takes.
    """
    published = load_scores()
    records = [
        _published(published, study, row.row, "human_starts", row.system, row.rule, row.rule)
        | {
            "training_time": row.training_time,
            "printed_mean": row.printed_mean,
            "printed_median": row.printed_median,
        }
        for row in load_rows().itertuples()
    ]
    if study.references == "noop_starts":
        for system in study.published:
            row = _published(published, study, "", "noop_starts", system, study.rule, NOOP_RULE)
            about = published[
                (published["protocol"] == "noop_starts") & (published["system"] == system)
            ].iloc[0]
            records.append(
                row
                | {
                    "row": _with_paper(about["label"], about["paper"]),
                    "printed_mean": about["printed_mean"],
                    "printed_median": about["printed_median"],
                }
            )
    for player, value in (("Random", 0.0), ("Human", 100.0)):
        records.append(
            {"kind": "reference", "row": player, "games": len(study.games),
             "protocol": study.references, "references": study.references, "rule": study.rule}
            | dict.fromkeys(("mean", "median", "iqm"), value)
            | ({"atari5": atari5.estimate_median(dict.fromkeys(study.games, value))}
               if atari5.applies(study) else {})
        )  # fmt: skip
    scores = run_scores(study, episodes)
    order = [m for m in METHODS if m in study.methods]
    order += [m for m in study.methods if m not in METHODS]
    for method in order:
        begun = (runs["method"] == method).any()
        for milestone in study.milestones_of(method) if begun else [math.nan]:
            records.append(_trained(study, scores, runs, aggregates, method, milestone))
    records += [_external(study, aggregates, name) for name in study.external]
    for method, label in METHODS.items():
        if method not in study.methods and method != UNTRAINED:
            records.append({"kind": "not_trained", "row": label, "method": method})
    return pd.DataFrame(records, columns=COLUMNS)


def _with_paper(label: str, paper: str) -> str:
    """Return `label` with first author and year of `paper`, where it does not have them yet."""
    cited = re.match(r"(?P<author>\w+) et al\. (?P<year>\d{4})", paper)
    if not cited or cited["year"] in label:
        return label
    cited = f"{cited['author']} {cited['year']}"
    return f"{label[:-1]}, {cited})" if label.endswith(")") else f"{label} ({cited})"


def _published(
    published: pd.DataFrame,
    study: Study,
    label: str,
    protocol: str,
    system: str,
    rule: str,
    all_games_rule: str,
) -> dict:
    everything = normalised(published, protocol, system, all_games_rule, flagged="exclude")
    here = normalised(published, protocol, system, rule, flagged="exclude")
    here = here[here.index.isin(study.games)]
    about = published[(published["protocol"] == protocol) & (published["system"] == system)]
    whole = len(here) == len(study.games)
    values = point_estimates(here.to_numpy()[None, :]) if whole else np.full(4, np.nan)
    estimated = (
        atari5.applies(study)
        and protocol == study.references
        and set(atari5.COEFFICIENTS["atari5"]) <= set(here.index)
    )
    return {
        "kind": f"published_{protocol}",
        "row": label or about["label"].iloc[0],
        "frames": about["budget_frames"].iloc[0],
        "selection": about["selection"].iloc[0],
        "games": len(here),
        "seeds": about["seeds"].iloc[0],
        "protocol": protocol,
        "references": about["references"].iloc[0],
        "rule": rule,
        "all_games": len(everything),
        "all_games_rule": all_games_rule,
        "all_games_mean": everything.mean(),
        "all_games_median": everything.median(),
        **dict(zip(("mean", "median", "iqm"), values[:3], strict=True)),
        "atari5": atari5.estimate_median(here.to_dict()) if estimated else math.nan,
    }


def _trained(
    study: Study,
    scores: pd.DataFrame,
    runs: pd.DataFrame,
    aggregates: pd.DataFrame,
    method: str,
    milestone: float,  # NaN where no run has any
) -> dict:
    seeds = complete_seeds(study, scores, method, milestone)
    played = scores[(scores["method"] == method) & (scores["milestone"] == milestone)]
    own = runs[runs["method"] == method]
    # The cost of what the row's scores are from.
    cost = milestone_cost(own[own["seed"].isin(seeds)] if seeds else own, milestone)
    row = {
        "kind": "trained" if seeds else "no_complete_seed",
        "row": study.method_label(method),
        "method": method,
        "milestone": milestone,
        "frames": cost["frames"].mean() if len(cost) else math.nan,
        "selection": study.selection_label(method),
        "hours": cost["seconds"].mean() / 3600 if len(cost) else math.nan,
        "core_hours": cost["core_seconds"].mean() / 3600 if len(cost) else math.nan,
        **{name: "+".join(sorted(set(own[name]))) for name in ("network", "precision", "device")},
        "games": int(played.groupby("seed")["game"].nunique().max()) if len(played) else 0,
        "seeds": len(seeds),
        "protocol": study.protocol,
        "references": study.references,
        "rule": study.rule,
    }
    return row | (_aggregated(study, aggregates, method, milestone) if seeds else {})


def _external(study: Study, aggregates: pd.DataFrame, method: str) -> dict:
    external, milestone = study.external[method], study.milestones_frames[-1]
    return {
        "kind": "external",
        "row": external.label,
        "method": method,
        "frames": external.frames,
        "training_time": external.training_time or None,
        "games": len(study.games),
        "seeds": len(external.seeds),
        "references": study.references,
        "rule": study.rule,
    } | _aggregated(study, aggregates, method, milestone)


def _aggregated(
    study: Study, aggregates: pd.DataFrame, method: str, milestone: int
) -> dict[str, float]:
    row = {}
    for metric in _metrics(study):
        found = aggregates[
            (aggregates["metric"] == metric)
            & (aggregates["method"] == method)
            & (aggregates["milestone"] == milestone)
        ]
        if len(found) != 1:
            raise ValueError(
                f"aggregates.csv: {len(found)} rows for {metric} of {method} at {milestone} "
                "frames; expected 1: run analysis.aggregate again"
            )
        values = found[["point", "low", "high"]].iloc[0] * 100
        row |= {metric: values["point"], f"{metric}_low": values["low"]}
        row[f"{metric}_high"] = values["high"]
    return row


def milestone_cost(runs: pd.DataFrame, milestone: int) -> pd.DataFrame:
    """Return frames, seconds and core_seconds that each of `runs` needed to reach `milestone`.

    One row per run that reached it. Core-seconds are known for whole runs only; a milestone's are
    its share of the run's wall-clock seconds.
    """
    rows = []
    for run in runs.itertuples():
        for part in filter(None, run.milestones.split(";")):
            nominal, frames, seconds = part.split(":")
            if int(nominal) == milestone:
                share = float(seconds) / run.seconds if run.seconds else 1.0
                rows.append((int(frames), float(seconds), run.core_seconds * share))
    return pd.DataFrame(rows, columns=["frames", "seconds", "core_seconds"])


def grid(
    study: Study,
    table: pd.DataFrame,
    episodes: pd.DataFrame,
    runs: pd.DataFrame,
    missing: pd.DataFrame,
) -> Grid:
    """Return `table1` ready to print, with the notes that a reader needs below it."""
    these = study.these_games
    differ = same_network(table) is None
    columns = [
        "Method",
        "Training",
        "Frames",
        "Selection",
        *(["Network, precision, device"] if differ else []),
        "Games",
        "Seeds",
        "Mean, printed",
        "Median, printed",
        "Mean, all games",
        "Median, all games",
        f"Mean, {these}",
        f"Median, {these}",
        f"IQM, {these}",
        *(["Median of 57 games, Atari-5 estimate"] if atari5.applies(study) else []),
    ]
    rows: list[Row] = []
    section = ""
    for row in table.itertuples():
        kind = "Measured here" if row.method == UNTRAINED else KINDS[row.kind]
        if kind != section:
            section = kind
            rows.append(Row([section], section=True))
        cells = _cells(study, row, _metrics(study))
        if not differ:
            del cells[NETWORK_COLUMN]
        rows.append(Row(cells))
    title = f"{study.label.rstrip('.')}. Human-normalised score, percent."
    below = notes(study, table, episodes, runs, missing)
    return Grid(
        title, columns, rows, below, frozenset({1, 3, NETWORK_COLUMN} if differ else {1, 3})
    )


def _metrics(study: Study) -> tuple[str, ...]:
    """Return the aggregates that the table shows over the games of the study."""
    return ("mean", "median", "iqm", *(["atari5"] if atari5.applies(study) else []))


def _cells(study: Study, row, metrics: tuple[str, ...]) -> list[str]:
    count = len(study.games)
    if row.kind == "not_trained":
        return [row.row, *[DASH] * (10 + len(metrics))]
    if row.method == UNTRAINED:
        training, name, how = "nothing is trained", row.row, DASH
    elif row.kind in ("trained", "no_complete_seed"):
        training = f"{hours_text(row.hours)} ({hours_text(row.core_hours, 'core-')})"
        name = row.row if pd.isna(row.milestone) else study.row_label(row.method, row.milestone)
        how = ", ".join(filter(None, (row.network, row.precision, row.device)))
    else:
        training, name, how = row.training_time, row.row, DASH
    return [
        name,
        DASH if not isinstance(training, str) or training.startswith(DASH) else training,
        DASH if pd.isna(row.frames) else frames_text(row.frames),
        DASH if pd.isna(row.selection) or row.selection == "none" else row.selection,
        how or DASH,
        f"{int(row.games)}" if row.games == count else f"{int(row.games)} of {count}",
        DASH if pd.isna(row.seeds) else f"{int(row.seeds)}",
        number_text(row.printed_mean),
        number_text(row.printed_median),
        number_text(row.all_games_mean),
        number_text(row.all_games_median),
        *(
            ("incomplete" if row.games else "missing")
            if row.kind == "no_complete_seed" or (0 < row.games < count and m != "atari5")
            else interval_text(*(getattr(row, f"{m}{end}") for end in ("", "_low", "_high")))
            for m in metrics
        ),
    ]
