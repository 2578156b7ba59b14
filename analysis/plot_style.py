"""How every figure looks and is saved: one colour a method, one theme, the same bytes."""

import contextlib
from pathlib import Path

import matplotlib
import seaborn
from matplotlib.figure import Figure

from analysis.io import atomic_path

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
OTHER_STYLE = ("#000000", "*", "-")
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


def style(method: str) -> dict:
    """Return colour, marker and line style of `method` as keywords of Axes.plot."""
    color, marker, line = STYLES.get(method, OTHER_STYLE)
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
