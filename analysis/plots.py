"""Draw the figures of a study.

`python -m analysis.plots --results results/STUDY` writes figures/NAME.svg and .png for each name in
`analysis.figures.names`. The same input gives the same bytes.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.curves import Curve, curves, load_training
from analysis.figures import FIGURES, names
from analysis.plot_style import save, style, theme
from analysis.reference import load_curves, load_games, load_scores, normalised, references
from analysis.render import frames_text
from analysis.scores import (
    METHODS,
    UNTRAINED,
    Study,
    command,
    load_aggregates,
    load_episodes,
    load_runs,
    load_study,
    run_scores,
)

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

SAME = {"color": "black", "marker": "d", "markersize": 4.5, "markerfacecolor": "white"}
OTHER_STARTS = SAME | {"marker": "x", "markersize": 4}
# Of others' training curves, thinner than ours and without marks, in the order of their list.
PUBLISHED_LINES = ((0, (4, 1.5)), (0, (1, 1)))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _legend(figure: Figure, study: Study, methods: list[str], extra: list[Line2D] = ()) -> None:
    handles = [
        Line2D([], [], label=study.method_label(method), **style(method))
        for method in methods
    ] + list(extra)  # fmt: skip
    widest = max(1, int(figure.get_figwidth() // 1.5))
    # Below a tall figure nobody would find it.
    place = "outside lower center" if figure.get_figheight() < 9 else "outside upper center"
    for columns in range(min(len(handles), widest), 0, -1):
        legend = figure.legend(handles=handles, loc=place, ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()  # it would be cut off at both sides


def _empty(text: str) -> Figure:
    figure = _figure(6, 1.2)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def _grid_shape(count: int) -> tuple[int, int]:
    columns = count if count <= 3 else 4 if count <= 8 else 5
    return math.ceil(count / columns), columns


def _draw(axes: Axes, lines: dict[str, Curve]) -> None:
    for method, line in lines.items():
        look = style(method)
        every = max(1, len(line.x) // 6)
        axes.plot(line.x, line.mean, markevery=(every // 2, every), **look)
        if np.isfinite(line.low).any():
            axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.18, lw=0)


def _draw_published(axes: Axes, study: Study, game: str, points: pd.DataFrame) -> dict[str, Line2D]:
    """Draw others' training curves of the study's methods in `game`; return them by their label."""
    limit = study.milestones_frames[-1]
    drawn = {}
    own = points[(points["game"] == game) & points["method"].isin(study.methods)]
    for (label, method), line in own.groupby(["label", "method"], sort=False):
        frames, value = line["frames"].to_numpy(float), line["value"].to_numpy()
        x = np.append(frames[frames < limit], min(limit, frames[-1]))
        look = {
            "color": style(method)["color"],
            "linestyle": PUBLISHED_LINES[list(points["label"].unique()).index(label)],
            "linewidth": 0.9,
        }
        axes.plot(x, np.interp(x, frames, value), **look)
        drawn[f"{study.method_label(method)}, {label}"] = Line2D([], [], **look)
    return drawn


def _frames_axis(axes: Axes, limit: float) -> None:
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if value == 0 else frames_text(value))
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(0, limit)


def _hours_axis(axes: Axes, limit: float) -> str:
    """Show minutes where hours would be small fractions; return the unit's name."""
    unit, factor = ("minutes", 60) if limit < 2 else ("hours", 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:.3g}"))
    ticks = MaxNLocator(4).tick_values(0, limit * factor) / factor
    axes.set_xticks([tick for tick in ticks if tick <= limit])
    axes.set_xlim(0, limit)
    return unit


def learning_curves(study: Study, training: dict, axis: str) -> Figure:
    """Return one panel per game: training return in points by frames or hours."""
    if not training:
        return _empty("No run has a log of its training episodes.")
    rows, columns = _grid_shape(len(study.games))
    width = {1: 6.4, 2: 9.0, 3: 11.0}.get(columns, 2.75 * columns)
    figure = _figure(width, (3.2 if columns < 4 else 2.25) * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = load_games().set_index("game")["label"]
    table = references(study.references, study.games).set_index("game")
    points = load_curves()
    shown: dict[str, None] = {}
    others: dict[str, Line2D] = {}
    for axes, game in zip(panels, study.games, strict=False):
        lines = curves(study, training, [game], axis, normalised=False)
        _draw(axes, lines)
        if not lines:
            started = any(of_game == game for _, of_game, _ in training)
            text = "no episode ended in every run" if started else "no finished run"
            axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", color="#4a525c")
        shown |= dict.fromkeys(lines)
        random, human = table.loc[game, ["random", "human"]]
        axes.axhline(random, color="#3a4149", linestyle=":", linewidth=1)
        axes.set_title(labels[game], pad=14)
        axes.text(0, 1.02, f"random {random:g}, human {human:g}", transform=axes.transAxes,
                  fontsize=7, color="#4a525c")  # fmt: skip
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if axis == "frames":
            others |= _draw_published(axes, study, game, points)
            _frames_axis(axes, study.milestones_frames[-1])
            axes.set_xlabel("frames")
        else:
            axes.set_xlabel(_hours_axis(axes, _end(lines)))
    for axes in panels[len(study.games) :]:
        axes.set_axis_off()
    figure.supylabel("return, points")
    dotted = Line2D([], [], color="#3a4149", linestyle=":", linewidth=1, label="random player")
    for label, line in others.items():
        line.set_label(label)
    _legend(figure, study, [m for m in study.methods if m in shown], [dotted, *others.values()])
    return figure


def _end(lines: dict[str, Curve]) -> float:
    return max((float(line.x[-1]) for line in lines.values()), default=1.0) * 1.03


def learning_curves_normalised(study: Study, training: dict) -> Figure:
    """Return two panels: percent of human, mean over games, by frames and by hours."""
    by_axis = {a: curves(study, training, study.games, a, True) for a in ("frames", "hours")}
    if not by_axis["frames"]:
        return _empty("No seed has logs of its training episodes in every game.")
    figure = _figure(9.6, 3.8)
    left, right = figure.subplots(1, 2, sharey=True)
    figure.get_layout_engine().set(wspace=0.06)  # the last label of one axis, the first of the next
    for axes, (axis, lines) in zip((left, right), by_axis.items(), strict=True):
        _draw(axes, lines)
        axes.axhline(0, color="#3a4149", linestyle=":", linewidth=1)
        if axis == "frames":
            _frames_axis(axes, study.milestones_frames[-1])
            axes.set_xlabel("frames per game")
            axes.set_title("By frames")
        else:
            axes.set_xlabel(f"{_hours_axis(axes, _end(lines))} of training per game")
            axes.set_title("By wall-clock time")
    count = len(study.games)
    left.set_ylabel(f"percent of human, {'1 game' if count == 1 else f'mean of {count} games'}")
    dotted = Line2D([], [], color="#3a4149", linestyle=":", linewidth=1, label="random player")
    _legend(figure, study, [m for m in study.methods if m in by_axis["frames"]], [dotted])
    return figure


def interval_estimates(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return four panels: median, IQM, mean and optimality gap of each method and milestone."""
    rows = [
        (method, milestone)
        for method in sorted(study.methods, key=_order)
        for milestone in study.milestones_of(method)
        if ((aggregates["method"] == method) & (aggregates["milestone"] == milestone)).any()
    ]
    if not rows:
        return _empty("No method has a seed with a score in every game.")
    figure = _figure(11.0, 0.3 * len(rows) + 1.2)
    metrics = {"median": "Median", "iqm": "IQM", "mean": "Mean", "optimality_gap": "Optimality gap"}
    panels = figure.subplots(1, len(metrics), sharey=True)
    table = aggregates.set_index(["metric", "method", "milestone"])
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for position, (method, milestone) in enumerate(rows):
            point, low, high = (
                100 * table.loc[(metric, method, milestone), ["point", "low", "high"]]
            )
            _interval(axes, position, point, low, high, method)
        axes.set_title(title)
        axes.set_xlabel("percent")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.08)
    several = len(study.milestones_frames) > 1
    panels[0].set_yticks(
        range(len(rows)),
        [
            study.method_label(m)
            + (f" at {frames_text(at)}" if several and m != UNTRAINED else "")
            + (", best" if study.selection_of(m) == "best" else "")
            for m, at in rows
        ],
    )
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _interval(
    axes: Axes, position: float, point: float, low: float, high: float, method: str
) -> None:
    look = style(method)
    if np.isfinite(low):
        axes.plot([low, high], [position, position], color=look["color"], linewidth=7, alpha=0.35,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot(point, position, color=look["color"], marker=look["marker"], markersize=6)


def _order(method: str) -> int:
    return list(METHODS).index(method) if method in METHODS else len(METHODS)


def performance_profiles(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return the share of runs and games above each threshold, one line per method."""
    rows = aggregates[aggregates["metric"].str.startswith("performance_profile:")]
    if rows.empty:
        return _empty("No method has a seed with a score in every game.")
    figure = _figure(7.0, 3.9)
    axes = figure.subplots()
    for method in study.methods:
        own = rows[rows["method"] == method]
        if own.empty:
            continue
        tau = 100 * own["metric"].str.split(":").str[1].astype(float).to_numpy()
        look = style(method)
        axes.plot(tau, own["point"], drawstyle="steps-post", markevery=0.1, **look)
        if own["low"].notna().any():
            axes.fill_between(tau, own["low"], own["high"], step="post", color=look["color"],
                              alpha=0.18, lw=0)  # fmt: skip
    axes.set_ylim(-0.02, 1.02)
    taus = rows["metric"].str.split(":").str[1].astype(float).to_numpy()
    _percent_axis(axes, 100 * taus)
    axes.set_xlabel(f"score threshold, percent of human{_scale_text(axes)}")
    axes.set_ylabel("share of runs and games above it")
    _legend(figure, study, [m for m in study.methods if (rows["method"] == m).any()])
    return figure


def probability_of_improvement(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return one bar per pair of methods, with its interval."""
    rows = aggregates[aggregates["metric"].str.startswith("probability_of_improvement:")]
    if rows.empty:
        return _empty("Fewer than two methods have a seed with a score in every game.")
    figure = _figure(7.4, 0.28 * len(rows) + 1.0)
    axes = figure.subplots()
    names = []
    for position, row in enumerate(rows.itertuples()):
        _interval(axes, position, row.point, row.low, row.high, row.method)
        other = row.metric.split(":")[1]
        names.append(f"{study.method_label(row.method)} over {study.method_label(other)}")
    axes.axvline(0.5, color="#3a4149", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("probability of improvement")
    return figure


def per_game(study: Study, episodes: pd.DataFrame) -> Figure:
    """Return horizontal bars per game: each method against human and the published rows."""
    last = study.milestones_frames[-1]
    scores = run_scores(study, episodes)
    scores = scores[scores["milestone"] == last]
    methods = [m for m in sorted(study.methods, key=_order) if (scores["method"] == m).any()]
    if not methods:
        return _empty("No run has been evaluated at the last milestone.")
    published, label = _published(study.references)
    elsewhere = {} if study.references == "human_starts" else _published("human_starts")[0]
    elsewhere = {m: scores for m, scores in elsewhere.items() if m not in published}
    labels = load_games().set_index("game")["label"]
    columns = 1 if len(study.games) <= 10 else 3
    rows = math.ceil(len(study.games) / columns)
    group = len(methods) + 0.9
    bar_inches = 0.2 if columns == 1 else 0.1
    figure = _figure(7.6 if columns == 1 else 14.0, rows * group * bar_inches + 1.3)
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for number, axes in enumerate(panels):
        games = study.games[number * rows : (number + 1) * rows]
        for place, game in enumerate(games):
            _game_bars(axes, place * group, scores[scores["game"] == game], methods)
            top, bottom = place * group - 0.6, place * group + len(methods) - 0.4
            if game in published["a3c_ff"].index:
                value = published["a3c_ff"][game]
                axes.plot([value, value], [top, bottom], color="black", linewidth=1.4, zorder=4)
            for i, method in enumerate(methods):
                for source, look in ((published, SAME), (elsewhere, OTHER_STARTS)):
                    if method in source and game in source[method].index:
                        axes.plot(source[method][game], place * group + i, zorder=5, **look)
        middle = (len(methods) - 1) / 2
        axes.set_yticks([i * group + middle for i in range(len(games))], labels[games])
        axes.set_ylim(rows * group - 0.9, -0.9)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        shown = [published["a3c_ff"]]
        shown += [source[m] for source in (published, elsewhere) for m in methods if m in source]
        own = 100 * scores["normalised"].to_numpy()
        others = [values.reindex(study.games).dropna().to_numpy() for values in shown]
        _percent_axis(axes, np.concatenate([own, *others, [0.0, 110.0]]))
        axes.axvline(0, color="#3a4149", linewidth=0.8)
        axes.axvline(100, color="#3a4149", linestyle="--", linewidth=1)
        axes.set_xlabel(f"percent of human{_scale_text(axes)}")
    extra = [
        Line2D([], [], color="#3a4149", linestyle="--", linewidth=1, label="human"),
        Line2D([], [], color="black", linewidth=1.4, label=f"published {label}"),
    ]
    for source, look, starts in (
        (published, SAME, study.references), (elsewhere, OTHER_STARTS, "human_starts")
    ):  # fmt: skip
        if set(methods) & set(source):
            text = f"published, same method, {STARTS[starts]}"
            extra.append(Line2D([], [], linestyle="", label=text, **look))
    _legend(figure, study, methods, extra)
    return figure


def _published(protocol: str) -> tuple[dict[str, pd.Series], str]:
    """Return published scores in percent by method and game, and what A3C-FF's are called."""
    printed = load_scores()
    systems = PUBLISHED[protocol]
    values = {
        method: normalised(printed, protocol, system, "mnih2016", flagged="exclude")
        for method, system in systems.items()
    }
    own = printed[(printed["protocol"] == protocol) & (printed["system"] == systems["a3c_ff"])]
    return values, f"{own['label'].iloc[0]}, {STARTS[protocol]}"


def _game_bars(axes: Axes, start: float, scores: pd.DataFrame, methods: list[str]) -> None:
    for i, method in enumerate(methods):
        values = 100 * scores.loc[scores["method"] == method, "normalised"].to_numpy()
        if not len(values):
            continue
        color = style(method)["color"]
        axes.barh(start + i, values.mean(), height=0.82, color=color, zorder=2)
        if len(values) > 1:
            axes.plot(values, np.full(len(values), start + i), linestyle="", marker="o",
                      markersize=2.2, color="#1b1f24", zorder=3, alpha=0.8)  # fmt: skip


def _percent_axis(axes: Axes, values: np.ndarray) -> None:
    """Scale the x axis, percent of human, for `values`: logarithmic above 100 if some are far."""
    low, high = values.min(), values.max()
    if high >= 400 or low <= -400:
        axes.set_xscale("symlog", linthresh=100, linscale=1.2)
        ticks = [-10000, -1000, -100, -50, 0, 50, 100, 1000, 10000]
        axes.set_xticks([tick for tick in ticks if low * 1.3 - 5 <= tick <= high * 1.5])
        axes.set_xlim(min(low * 1.3, -12), high * 1.5)
    else:
        pad = 0.04 * (high - low)
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _scale_text(axes: Axes) -> str:
    return ", linear to 100, then logarithmic" if axes.get_xscale() == "symlog" else ""


def draw(results: Path) -> dict[str, Figure]:
    """Return every figure of the study, by name."""
    study, episodes, runs = load_study(results), load_episodes(results), load_runs(results)
    aggregates, training = load_aggregates(results), load_training(results, runs)
    figures = {
        "learning_curves": learning_curves(study, training, "frames"),
        "learning_curves_hours": learning_curves(study, training, "hours"),
        "learning_curves_normalised": learning_curves_normalised(study, training),
        "interval_estimates": interval_estimates(study, aggregates),
        "performance_profiles": performance_profiles(study, aggregates),
        "probability_of_improvement": probability_of_improvement(study, aggregates),
        "per_game": per_game(study, episodes),
    }
    return {name: figures[name] for name in names(study)}


def write(results: Path) -> str:
    """Write every figure as SVG and PNG and return one line that says where."""
    with theme():
        drawn = draw(results)
        for name, figure in drawn.items():
            save(figure, results / "figures", name)
    for name in set(FIGURES) - set(drawn):  # drawn when the study had more methods
        for ending in ("svg", "png"):
            (results / "figures" / f"{name}.{ending}").unlink(missing_ok=True)
    return f"wrote {len(drawn)} figures, svg and png: {results / 'figures'}"


def main(arguments: list[str] | None = None) -> int:
    """Write the figures of the study in --results."""
    return command("plots", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
