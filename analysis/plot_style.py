"""How every figure looks and is saved: one colour a method, one theme, the same bytes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.io import atomic_path
from analysis.study import METHODS, Study

# Colour, marker and line style of each method, the same in every figure. The policy-gradient
# methods and Double DQN have colours of Okabe and Ito (2008); the rest are of Tol's muted scheme.
STYLES = {
    "random": ("#DDCC77", "p", ":"),
    "reinforce": ("#E69F00", "o", "-"),
    "actor_critic": ("#56B4E9", "s", "--"),
    "a2c": ("#009E73", "^", "-."),
    "a3c_ff": ("#0072B2", "D", "-"),
    "a3c_lstm": ("#D55E00", "v", (0, (5, 1, 1, 1, 1, 1))),
    "dqn": ("#7F7F7F", "P", "--"),
    "double_dqn": ("#CC79A7", "X", "-"),
    "dueling": ("#882255", "<", "-."),
    "prioritized": ("#999933", ">", "--"),
    "gorila": ("#332288", "h", ":"),
}
OTHER_STYLES = [  # in turn: of methods that a user adds, and of scores from elsewhere
    ("#AA4499", "*", "-"),
    ("#44AA99", "d", "--"),
    ("#8C510A", "H", "-."),
    ("#5D6D7E", "x", ":"),
]
# On top of seaborn's whitegrid, whose sizes are meant for slides.
RC = {
    "svg.hashsalt": "retable",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#6b737c",
    "xtick.color": "#3a4149",
    "ytick.color": "#3a4149",
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
PNG_DPI = 130


def style(study: Study, method: str) -> dict:
    """Return colour, marker and line style of `method` as keywords of Axes.plot."""
    others = [other for other in study.compared if other not in STYLES]
    if method in STYLES:
        color, marker, line = STYLES[method]
    else:
        color, marker, line = OTHER_STYLES[others.index(method) % len(OTHER_STYLES)]
    return {"color": color, "marker": marker, "linestyle": line}


def theme() -> contextlib.AbstractContextManager:
    """Return the context in which every figure is drawn and saved."""
    return matplotlib.rc_context(
        seaborn.axes_style("whitegrid") | seaborn.plotting_context("paper") | RC
    )


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write one figure as SVG and PNG: the same figure, the same bytes."""
    with atomic_path(folder / f"{name}.svg") as path:
        figure.savefig(path, metadata={"Date": None})
    with atomic_path(folder / f"{name}.png") as path:
        figure.savefig(path, dpi=PNG_DPI, metadata={"Software": None})


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` by `height` inches."""
    return Figure(figsize=(width, height), layout="constrained")


def add_legend(
    figure: Figure,
    study: Study,
    methods: list[str],
    extra: Sequence[Line2D] = (),
    bars: bool = False,
) -> None:
    """Name `methods`, drawn as lines or `bars`, and the `extra` lines, in as many columns as fit.

    It stands beside the figure.
    """
    handles: list[Artist] = [
        Patch(label=study.method_label(method), color=style(study, method)["color"])
        if bars
        else Line2D([], [], label=study.method_label(method), **style(study, method))
        for method in methods
    ]
    handles += extra
    widest = max(1, int(figure.get_figwidth() // 1.5))
    # Below a tall figure nobody would find it.
    place = "outside lower center" if figure.get_figheight() < 9 else "outside upper center"
    for columns in range(min(len(handles), widest), 0, -1):
        legend = figure.legend(handles=handles, loc=place, ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()  # it would be cut off at both sides


def empty_figure(text: str) -> Figure:
    """Return a figure that says in words why there is nothing to draw."""
    figure = new_figure(6, 1.2)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def percent_axis(axes: Axes, values: np.ndarray) -> None:
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


def scale_text(axes: Axes) -> str:
    """Return the words for the axis that `percent_axis` made."""
    return ", linear to 100, then logarithmic" if axes.get_xscale() == "symlog" else ""


def listed_order(method: str) -> int:
    """Return the place of `method` in METHODS, behind them all if it is not there."""
    return list(METHODS).index(method) if method in METHODS else len(METHODS)
