"""Bars per game: each method trained here against human play and published scores."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.normalise import HUMAN_STARTS_RULE
from analysis.plot_style import (
    add_legend,
    empty_figure,
    listed_order,
    new_figure,
    percent_axis,
    scale_text,
    style,
)
from analysis.reference import game_labels, load_scores, normalised
from analysis.scores import run_scores
from analysis.study import Study

# The published scores of the same method, by protocol: those of A3C-FF also stand for all.
PUBLISHED = {
    "human_starts": {
        "dqn": "dqn",
        "gorila": "gorila_two_decimals",
        "double_dqn": "double_dqn",
        "dueling": "dueling",
        "prioritized": "prioritized",
        "a3c_lstm": "a3c_lstm_4_days",
        "a3c_ff": "a3c_ff_4_days",
    },
    "noop_starts": {
        "dqn": "dqn",
        "gorila": "gorila",
        "double_dqn": "double_dqn",
        "dueling": "dueling",
        "prioritized": "prioritized_rank",
        "a2c": "a2c_schulman",
        "a3c_ff": "a3c_fortunato",
    },
}
STARTS = {"human_starts": "human starts", "noop_starts": "no-op starts"}

SEED = {"color": "#1b1f24", "marker": "o", "markersize": 2.2, "alpha": 0.8}
SAME = {"color": "black", "marker": "d", "markersize": 4.5, "markerfacecolor": "white"}
OTHER_STARTS = SAME | {"marker": "x", "markersize": 4}


def per_game(study: Study, episodes: pd.DataFrame) -> Figure:
    """Return horizontal bars per game: each method against human and the published rows."""
    last = study.milestones_frames[-1]
    scores = run_scores(study, episodes)
    scores = scores[scores["milestone"] == last]
    methods = [m for m in sorted(study.compared, key=listed_order) if (scores["method"] == m).any()]
    if not methods:
        return empty_figure("No run has been evaluated at the last milestone.")
    published, label = _published(study.references, study.rule)
    elsewhere = {}
    if study.references != "human_starts":
        elsewhere, _ = _published("human_starts", HUMAN_STARTS_RULE)
    elsewhere = {m: scores for m, scores in elsewhere.items() if m not in published}
    labels = game_labels()
    columns = 1 if len(study.games) <= 10 else 3
    rows = math.ceil(len(study.games) / columns)
    group = len(methods) + 0.9
    bar_inches = 0.2 if columns == 1 else 0.1
    figure = new_figure(7.6 if columns == 1 else 14.0, rows * group * bar_inches + 1.3)
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for number, axes in enumerate(panels):
        games = study.games[number * rows : (number + 1) * rows]
        for place, game in enumerate(games):
            _game_bars(axes, study, place * group, scores[scores["game"] == game], methods)
            top, bottom = place * group - 0.6, place * group + len(methods) - 0.4
            if game in published["a3c_ff"].index:
                value = published["a3c_ff"][game]
                axes.plot([value, value], [top, bottom], color="black", linewidth=1.4, zorder=4)
            for i, method in enumerate(methods):
                for source, look in ((published, SAME), (elsewhere, OTHER_STARTS)):
                    if method in source and game in source[method].index:
                        axes.plot(source[method][game], place * group + i, zorder=5, **look)
        middle = (len(methods) - 1) / 2
        axes.set_yticks(
            [i * group + middle for i in range(len(games))], [labels[game] for game in games]
        )
        axes.set_ylim(rows * group - 0.9, -0.9)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        shown = [published["a3c_ff"]]
        shown += [source[m] for source in (published, elsewhere) for m in methods if m in source]
        own = 100 * scores["normalised"].to_numpy()
        others = [values.reindex(study.games).dropna().to_numpy() for values in shown]
        percent_axis(axes, np.concatenate([own, *others, [0.0, 110.0]]))
        axes.axvline(0, color="#3a4149", linewidth=0.8)
        axes.axvline(100, color="#3a4149", linestyle="--", linewidth=1)
        axes.set_xlabel(f"percent of human{scale_text(axes)}")
    extra = [
        Line2D([], [], color="#3a4149", linestyle="--", linewidth=1, label="human"),
        Line2D([], [], color="black", linewidth=1.4, label=f"published {label}"),
    ]
    for source, look, starts in (
        (published, SAME, study.references), (elsewhere, OTHER_STARTS, "human_starts")
    ):  # fmt: skip
        if _any_value(source, methods, study.games):
            text = f"published, same method, {STARTS[starts]}"
            extra.append(Line2D([], [], linestyle="", label=text, **look))
    if scores.groupby(["method", "game"]).size().max() > 1:
        extra.append(Line2D([], [], linestyle="", label="single seeds", **SEED))
    add_legend(figure, study, methods, extra, bars=True)
    return figure


def _published(protocol: str, rule: str) -> tuple[dict[str, pd.Series], str]:
    """Return published scores in percent by method and game, and what A3C-FF's are called."""
    printed = load_scores()
    systems = PUBLISHED[protocol]
    values = {
        method: normalised(printed, protocol, system, rule, flagged="exclude")
        for method, system in systems.items()
    }
    own = printed[(printed["protocol"] == protocol) & (printed["system"] == systems["a3c_ff"])]
    return values, f"{own['label'].iloc[0]}, {STARTS[protocol]}"


def _any_value(source: dict[str, pd.Series], methods: list[str], games: list[str]) -> bool:
    """Return whether `source` has a score of one of `methods` in one of `games`."""
    return any(source[method].index.isin(games).any() for method in methods if method in source)


def _game_bars(
    axes: Axes, study: Study, start: float, scores: pd.DataFrame, methods: list[str]
) -> None:
    for i, method in enumerate(methods):
        values = 100 * scores.loc[scores["method"] == method, "normalised"].to_numpy()
        if not len(values):
            continue
        color = style(study, method)["color"]
        axes.barh(start + i, values.mean(), height=0.82, color=color, zorder=2)
        if len(values) > 1:
            axes.plot(values, np.full(len(values), start + i), linestyle="", zorder=3, **SEED)
