"""Draw the figures of a study.

`python -m analysis.plots --results results/STUDY` writes figures/NAME.svg and .png for each name in
`analysis.figures.names`. The same input gives the same bytes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.curves import load_training
from analysis.figures import FIGURES, names
from analysis.plot_curves import learning_curves, learning_curves_normalised
from analysis.plot_games import per_game
from analysis.plot_style import (
    add_legend,
    empty_figure,
    listed_order,
    new_figure,
    percent_axis,
    save,
    scale_text,
    style,
    theme,
)
from analysis.render import frames_text
from analysis.scores import command, load_aggregates, load_episodes, load_runs
from analysis.study import Study, load_study


def interval_estimates(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return four panels: median, IQM, mean and optimality gap of each method and milestone."""
    rows = [
        (method, milestone)
        for method in sorted(study.compared, key=listed_order)
        for milestone in study.milestones_of(method)
        if ((aggregates["method"] == method) & (aggregates["milestone"] == milestone)).any()
    ]
    if not rows:
        return empty_figure("No method has a seed with a score in every game.")
    figure = new_figure(11.0, 0.3 * len(rows) + 1.2)
    metrics = {"median": "Median", "iqm": "IQM", "mean": "Mean", "optimality_gap": "Optimality gap"}
    panels = figure.subplots(1, len(metrics), sharey=True)
    table = aggregates.set_index(["metric", "method", "milestone"])
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for position, (method, milestone) in enumerate(rows):
            point, low, high = (
                100 * table.loc[(metric, method, milestone), ["point", "low", "high"]]
            )
            _interval(axes, position, point, low, high, style(study, method))
        axes.set_title(title)
        axes.set_xlabel("percent")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.08)
    several = len(study.milestones_frames) > 1
    panels[0].set_yticks(
        range(len(rows)),
        [
            study.method_label(m)
            + (f" at {frames_text(at)}" if several and study.is_trained(m) else "")
            + (", best" if study.selection_of(m) == "best" else "")
            for m, at in rows
        ],
    )
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _interval(
    axes: Axes, position: float, point: float, low: float, high: float, look: dict
) -> None:
    if np.isfinite(low):
        axes.plot([low, high], [position, position], color=look["color"], linewidth=7, alpha=0.35,
                  solid_capstyle="butt")  # fmt: skip
    inside = look["color"] if np.isfinite(low) else "white"  # the least known looks so
    axes.plot(point, position, color=look["color"], marker=look["marker"], markersize=6,
              markerfacecolor=inside)  # fmt: skip


def performance_profiles(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return the share of runs and games above each threshold, one line per method."""
    rows = aggregates[aggregates["metric"].str.startswith("performance_profile:")]
    if rows.empty:
        return empty_figure("No method has a seed with a score in every game.")
    figure = new_figure(7.0, 3.9)
    axes = figure.subplots()
    for method in study.compared:
        own = rows[rows["method"] == method]
        if own.empty:
            continue
        tau = 100 * own["metric"].str.split(":").str[1].astype(float).to_numpy()
        look = style(study, method)
        axes.plot(tau, own["point"], drawstyle="steps-post", markevery=0.1, **look)
        if own["low"].notna().any():
            axes.fill_between(tau, own["low"], own["high"], step="post", color=look["color"],
                              alpha=0.18, lw=0)  # fmt: skip
    axes.set_ylim(-0.02, 1.02)
    taus = rows["metric"].str.split(":").str[1].astype(float).to_numpy()
    percent_axis(axes, 100 * taus)
    axes.set_xlabel(f"score threshold, percent of human{scale_text(axes)}")
    axes.set_ylabel("share of runs and games above it")
    add_legend(figure, study, [m for m in study.compared if (rows["method"] == m).any()])
    return figure


def probability_of_improvement(study: Study, aggregates: pd.DataFrame) -> Figure:
    """Return one bar per pair of methods, with its interval."""
    rows = aggregates[aggregates["metric"].str.startswith("probability_of_improvement:")]
    if rows.empty:
        return empty_figure("Fewer than two methods have a seed with a score in every game.")
    figure = new_figure(7.4, 0.28 * len(rows) + 1.0)
    axes = figure.subplots()
    names = []
    for position, row in enumerate(rows.itertuples()):
        _interval(axes, position, row.point, row.low, row.high, style(study, row.method))
        other = row.metric.split(":")[1]
        names.append(f"{study.method_label(row.method)} over {study.method_label(other)}")
    axes.axvline(0.5, color="#3a4149", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("probability of improvement")
    return figure


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
