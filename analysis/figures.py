"""The figures of a study: their file names, and what the report says below each."""

from collections.abc import Collection

import pandas as pd

from analysis.curves import BAND_REPS
from analysis.normalise import HUMAN_STARTS_RULE, NORMALISED_WITH
from analysis.scores import complete_seeds
from analysis.study import Study
from analysis.uncertainty import FEW_SEEDS

UNTIMED = "Whatever else the machines did meanwhile is in it: no measure of speed."
FIGURES = {
    "learning_curves": "Learning curves by frames",
    "learning_curves_hours": "Learning curves by wall-clock time",
    "learning_curves_normalised": "Learning curves, human-normalised",
    "interval_estimates": "Aggregate scores with intervals",
    "performance_profiles": "Performance profiles",
    "probability_of_improvement": "Probability of improvement",
    "per_game": "Scores per game",
}


def names(study: Study) -> list[str]:
    """Return the figures that can say something about `study`, in the order of FIGURES.

    Without a method that is trained there is no learning curve, without two no comparison.
    """
    absent = set()
    if study.only_random_play:
        absent |= {name for name in FIGURES if name.startswith("learning_curves")}
    if len(study.compared) == 1:
        absent.add("probability_of_improvement")
    return [name for name in FIGURES if name not in absent]


def caption(name: str, study: Study, scores: pd.DataFrame) -> str:
    """Return what a reader must know to read the figure `name`; `scores` as of `run_scores`."""
    level = f"{100 * study.level:g} %"
    narrow = _too_narrow(study, scores)
    band = (
        "mean return of the training episodes that ended in a bin (a bin without any repeats the "
        f"one before), mean over the seeds that a game has; band: {level} bootstrap interval over "
        f"seeds ({BAND_REPS:,} repetitions), none for one seed.{narrow} Training episodes are "
        "played by the changing policy and are not the evaluation of the table"
    )
    ends = (
        "A line that ends early has a run in which no later episode ended: it goes no further "
        "yet, or its policy keeps the game standing still."
    )
    policies = f" Policies reported: {study.selections_text()}."
    last = study.milestones_frames[-1]
    whole = _absent(study, [m for m in study.compared if complete_seeds(study, scores, m, last)])
    elsewhere = ""
    if study.references != "human_starts":
        elsewhere = f", of values under human starts `{HUMAN_STARTS_RULE}`"
    any_game = _absent(study, scores.loc[scores["milestone"] == last, "method"].unique())
    return {
        "learning_curves": f"Points: {band}. Thin lines: training curves that others have "
        "published, where there are any, of the Nature network (analysis/reference/curves.csv "
        "names them). " + ends,
        "learning_curves_hours": f"Points against wall-clock time of training: {band}. "
        f"A line ends where its fastest run ends. {UNTIMED}",
        "learning_curves_normalised": "Percent of human, mean over the study's games, by frames "
        f"and by wall-clock time: {band}. {ends} By time a line ends where the fastest run in any "
        f"game ends, so what slower games have learnt by their ends is not in it. {UNTIMED}",
        "interval_estimates": f"Percent of human; bars are {level} stratified-bootstrap intervals "
        "over seeds, a hollow point without a bar is one seed." + narrow + " A smaller optimality "
        "gap is better. A mean may be that of one game: the table's notes name it." + policies,
        "performance_profiles": "Share of runs and games that score above a threshold, at the "
        f"last milestone; bands are pointwise {level} intervals."
        + narrow
        + " Higher is better."
        + whole
        + policies,
        "probability_of_improvement": "How likely a run of the first method scores above a run "
        f"of the second in the same game, at the last milestone; bars are {level} intervals. "
        "It is the mean over the games of the share of pairs of runs that the first won, ties "
        "counted half; where one of the two has a single seed the point is hollow and has no bar. "
        "Where a method won every pair the bar has no width, as it will for some pairs of few "
        "seeds: that is no certainty."
        + (" Intervals of few seeds are too narrow." if narrow else "")
        + whole
        + policies,
        "per_game": "Percent of human at the last milestone, mean over the seeds that a game has; "
        "dots are single seeds. The published values are of the papers' budgets, each normalised "
        f"with the references of its own protocol; the study's are "
        f"{NORMALISED_WITH[study.references]}. The rule is `{study.rule}`{elsewhere}."
        + any_game
        + policies,
    }[name]


def _too_narrow(study: Study, scores: pd.DataFrame) -> str:
    """Say so where an interval is one of few seeds."""
    counts = {
        len(complete_seeds(study, scores, method, milestone))
        for method in study.compared
        for milestone in study.milestones_of(method)
    }
    if not any(1 < seeds < FEW_SEEDS for seeds in counts):
        return ""
    return " Intervals of few seeds are too narrow; the table's notes say how much."


def _absent(study: Study, there: Collection[str]) -> str:
    """Name the methods that a figure of the last milestone lacks."""
    labels = [study.method_label(method) for method in study.compared if method not in there]
    return f" Not there yet: {', '.join(labels)}." if labels else ""
