"""The figures of a study: their file names, and what the report says below each."""

from analysis.scores import UNTRAINED, Study

FIGURES = {
    "learning_curves": "Learning curves by frames",
    "learning_curves_hours": "Learning curves by hours",
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
    if set(study.methods) == {UNTRAINED}:
        absent |= {name for name in FIGURES if name.startswith("learning_curves")}
    if len(study.methods) == 1:
        absent.add("probability_of_improvement")
    return [name for name in FIGURES if name not in absent]


def caption(name: str, study: Study) -> str:
    """Return what a reader must know to read the figure `name`."""
    level = f"{100 * study.level:g} %"
    band = (
        "mean return of the training episodes that ended in a bin (a bin without any repeats the "
        "one before), mean over seeds; "
        f"band: {level} bootstrap interval over seeds, none for one seed. Training episodes are "
        "played by the changing policy and are not the evaluation of the table"
    )
    policies = f" Policies reported: {study.selections_text()}."
    return {
        "learning_curves": f"Points: {band}. Thin lines: training curves that others have "
        "published, where there are any (analysis/reference/curves.csv names them).",
        "learning_curves_hours": f"Points against wall-clock hours of training: {band}. "
        "A line ends where its fastest run ends.",
        "learning_curves_normalised": "Percent of human, mean over the study's games, by frames "
        f"and by wall-clock hours: {band}. By hours a line ends where the fastest run in any game "
        "ends, so what slower games have learnt by their ends is not in it.",
        "interval_estimates": f"Percent of human; bars are {level} stratified-bootstrap intervals "
        "over seeds, a point without a bar is one seed. A smaller optimality gap is better."
        + policies,
        "performance_profiles": "Share of runs and games that score above a threshold, at the "
        f"last milestone; bands are pointwise {level} intervals. Higher is better." + policies,
        "probability_of_improvement": "How likely a run of the first method scores above a run "
        f"of the second in the same game, at the last milestone; bars are {level} intervals. "
        "A point without a bar compares single runs: it is the share of games that one of them won."
        + policies,
        "per_game": "Percent of human at the last milestone, mean over seeds; dots are single "
        "seeds. The published values are from human starts, normalised with human-starts "
        "references, after the paper's budgets." + policies,
    }[name]
