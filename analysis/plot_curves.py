"""Learning curves: training return by frames and by hours, per game and over all games."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.curves import Curve, Training, curves
from analysis.plot_style import add_legend, empty_figure, new_figure, style
from analysis.reference import game_labels, load_curves, references
from analysis.render import frames_text
from analysis.study import Study

# Of others' training curves, thinner than ours and without marks, in the order of their list.
PUBLISHED_LINES = ((0, (4, 1.5)), (0, (1, 1)))
# Why a panel has no curve, by its axis, though runs are there.
WITHOUT_CURVE = {
    "frames": "no episode ended in every run",
    "hours": "no episode had ended in every run\nby the end of the fastest",
}


def learning_curves(study: Study, training: Training, axis: str) -> Figure:
    """Return one panel per game: training return in points by frames or hours."""
    if not training:
        return empty_figure("No run has a log of its training episodes.")
    rows, columns = _grid_shape(len(study.games))
    width = {1: 6.4, 2: 9.0, 3: 11.0}.get(columns, 2.75 * columns)
    figure = new_figure(width, (3.2 if columns < 4 else 2.25) * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = game_labels()
    table = references(study.references, study.games).set_index("game")
    points = load_curves()
    shown: dict[str, None] = {}
    others: dict[str, Line2D] = {}
    for axes, game in zip(panels, study.games, strict=False):
        lines = curves(study, training, [game], axis, normalised=False)
        _draw(axes, study, lines)
        if not lines:
            started = any(of_game == game for _, of_game, _ in training)
            _say(axes, WITHOUT_CURVE[axis] if started else "no finished run")
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
            axes.set_xlabel(_hours_axis(axes, lines))
    for axes in panels[len(study.games) :]:
        axes.set_axis_off()
    figure.supylabel("return, points")
    dotted = Line2D([], [], color="#3a4149", linestyle=":", linewidth=1, label="random player")
    for label, line in others.items():
        line.set_label(label)
    add_legend(figure, study, [m for m in study.methods if m in shown], [dotted, *others.values()])
    return figure


def learning_curves_normalised(study: Study, training: Training) -> Figure:
    """Return two panels: percent of human, mean over games, by frames and by hours."""
    by_axis = {a: curves(study, training, study.games, a, True) for a in ("frames", "hours")}
    if not by_axis["frames"]:
        return empty_figure("No seed has logs of its training episodes in every game.")
    figure = new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2, sharey=True)
    figure.get_layout_engine().set(wspace=0.06)  # the last label of one axis, the first of the next
    for axes, (axis, lines) in zip((left, right), by_axis.items(), strict=True):
        _draw(axes, study, lines)
        axes.axhline(0, color="#3a4149", linestyle=":", linewidth=1)
        if axis == "frames":
            _frames_axis(axes, study.milestones_frames[-1])
            axes.set_xlabel("frames per game")
            axes.set_title("By frames")
        else:
            axes.set_xlabel(f"{_hours_axis(axes, lines)} of training per game")
            axes.set_title("By wall-clock time")
            if not lines:
                _say(axes, WITHOUT_CURVE[axis])
    count = len(study.games)
    left.set_ylabel(f"percent of human, {'1 game' if count == 1 else f'mean of {count} games'}")
    dotted = Line2D([], [], color="#3a4149", linestyle=":", linewidth=1, label="random player")
    add_legend(figure, study, [m for m in study.methods if m in by_axis["frames"]], [dotted])
    return figure


def _grid_shape(count: int) -> tuple[int, int]:
    columns = count if count <= 3 else 4 if count <= 8 else 5
    return math.ceil(count / columns), columns


def _draw(axes: Axes, study: Study, lines: dict[str, Curve]) -> None:
    for method, line in lines.items():
        look = style(study, method)
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
        if frames[0] >= limit:
            continue  # it begins where the axis ends
        x = np.append(frames[frames < limit], min(limit, frames[-1]))
        look = {
            "color": style(study, method)["color"],
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


def _hours_axis(axes: Axes, lines: dict[str, Curve]) -> str:
    """Show minutes where hours would be small fractions; return the unit's name.

    Without a line there is no time to show.
    """
    if not lines:
        axes.set_xticks([])
        return "hours"
    limit = max(float(line.x[-1]) for line in lines.values()) * 1.03
    unit, factor = ("minutes", 60) if limit < 2 else ("hours", 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:.3g}"))
    ticks = MaxNLocator(4).tick_values(0, limit * factor) / factor
    axes.set_xticks([tick for tick in ticks if tick <= limit])
    axes.set_xlim(0, limit)
    return unit


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", color="#4a525c")
