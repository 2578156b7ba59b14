"""Footnotes on where a study deviates from the papers: budgets, exploration, settings."""

import pandas as pd

from analysis.render import frames_text
from analysis.study import UNTRAINED, Study

# What the papers trained for: methods of the table's A3C rows ("1 day"), and the value-based ones;
# of Gorila's only summaries were read, and they give no number.
A3C_PAPER_FRAMES = 320_000_000
PAPER_FRAMES = {
    **dict.fromkeys(("dqn", "double_dqn", "dueling", "prioritized"), 200_000_000),
    "gorila": None,
}
# Below this share of it a budget is called small.
SMALL_SHARE = 0.5


def budget_note(study: Study) -> str:
    """Return the note that compares the milestones with what the methods' papers trained for."""
    trained = [method for method in study.methods if method != UNTRAINED]
    budgets: dict[int | None, list[str]] = {}
    for method in trained:
        frames = PAPER_FRAMES.get(method, A3C_PAPER_FRAMES)
        budgets.setdefault(frames, []).append(study.method_label(method))
    parts = []
    for paper, labels in budgets.items():
        if paper is None:
            parts.append(f"no number of frames was found for the paper of {', '.join(labels)}")
            continue
        whose = (
            'the paper\'s A3C rows stand for 320M frames ("1 day") and about 1,000M ("4 days") per '
            "game"
            if paper == A3C_PAPER_FRAMES
            else f"the papers of {', '.join(labels)} trained for {frames_text(paper)} frames"
        )
        shares = ", ".join(
            f"{frames_text(frames)} {'is ' * (not place)}{_percent(100 * frames / paper)}"
            + f" of {frames_text(paper)}" * (not place)
            for place, frames in enumerate(study.milestones_frames)
        )
        parts.append(f"{whose}; {shares}")
    text = f"Budgets: {'. '.join([parts[0], *(part[0].upper() + part[1:] for part in parts[1:])])}."
    least = min((paper for paper in budgets if paper), default=A3C_PAPER_FRAMES)
    small = [f for f in study.milestones_frames if f < SMALL_SHARE * least]
    if not small:
        return text
    if len(small) == len(study.milestones_frames):
        return f"{text} These are small budgets: the rows show what so little training gives."
    return f"{text} Budgets below half of it ({', '.join(map(frames_text, small))}) are small."


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def exploration_notes(study: Study) -> list[str]:
    """Return a note where value-based methods do not explore alike: they differ in more than
    their name says."""
    settings = {method: study.expected_settings(method) for method in study.methods}
    greedy = study.evaluation["action_selection"] == "greedy"
    keys = ("epsilon_end",) if greedy else ("epsilon_end", "evaluation_epsilon")
    found = {
        study.method_label(method): tuple(own[key] for key in keys)
        for method, own in settings.items()
        if all(key in own for key in keys)
    }
    if len(set(found.values())) < 2:
        return []
    listed = ", ".join(
        f"{label} {' and '.join(f'{epsilon:g}' for epsilon in own)}" for label, own in found.items()
    )
    return [
        "The value-based methods do not explore alike, so that differences between them are not of "
        "their targets or networks alone: epsilon at the end of training"
        f"{'' if greedy else ' and in evaluation'}: {listed}."
    ]


def untaught_notes(study: Study) -> list[str]:
    """Return a note on rows at which a method has not yet begun to learn."""
    rows = [
        f"{study.row_label(method, milestone)} (from {frames_text(starts)} frames on)"
        for method in study.methods
        if (starts := study.expected_settings(method).get("learning_starts_frames", 0))
        for milestone in study.milestones_of(method)
        if milestone <= starts
    ]
    if not rows:
        return []
    return [
        "Rows of policies that have learnt nothing, as their methods first fill a replay memory: "
        f"{', '.join(rows)}."
    ]


def override_notes(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return one note that lists the settings in which the study leaves the method files.

    Those of methods that have a run; without such a method no note.
    """
    trained = [method for method in study.methods if method in set(runs["method"])]
    if not trained or study.only_random_play:
        return []
    changed = {method: _changed_settings(study, method) for method in trained}
    same = [text for text in changed[trained[0]] if all(text in own for own in changed.values())]
    parts = [("each method" if len(trained) > 1 else study.method_label(trained[0]), same)]
    parts += [
        (study.method_label(method), [text for text in own if text not in same])
        for method, own in changed.items()
    ]
    listed = [f"{whose}: {', '.join(own)}" for whose, own in parts if own]
    if not listed:
        return ["Settings are those of the method files; the study overrides none."]
    return [f"Settings that the study changes from the method files: {'; '.join(listed)}."]


def _changed_settings(study: Study, method: str) -> list[str]:
    own = study.method_files.get(method, {}).get("settings", {})
    return [
        f"`{key}` {_value(own[key])} -> {_value(value)}"
        if key in own
        else f"`{key}` {_value(value)}"
        for key, value in study.expected_settings(method).items()
        if own.get(key) != value
    ]


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
