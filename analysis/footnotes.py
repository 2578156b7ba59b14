"""Footnotes of the comparison table: protocol, budgets, intervals, deviations, what is missing."""

import pandas as pd

from analysis import atari5
from analysis.absences import missing_notes, truncated_notes
from analysis.deviations import budget_note, exploration_notes, override_notes, untaught_notes
from analysis.normalise import NORMALISED_WITH, RULES, ZERO_RANDOM_GAME
from analysis.reference import game_labels, load_scores, normalised
from analysis.render import frames_text
from analysis.study import UNTRAINED, Study
from analysis.uncertainty import interval_note, noise_notes, seed_notes

PROTOCOLS = {
    "noop": "no-op starts (0 to 29 no-op frames), the game's own actions, no sticky actions",
    "sticky": "sticky actions (the last action repeated with probability 0.25), all 18 actions, "
    "no no-op starts",
}
ACTIONS = {"sample": "actions sampled from the policy", "greedy": "the likeliest action taken"}
TIME_TEXT = (
    "Training time of a row trained here is the mean over its runs (one game, one seed each): "
    "wall-clock time, and time summed over cores, on the hardware that the report names, "
    "which may have been shared: no measure of speed. Time summed over cores is recorded for "
    "whole runs; up to an earlier milestone it is in proportion to wall-clock time. Published "
    "times are as printed."
)


def actions_text(study: Study) -> str:
    """Return how evaluated policies chose actions; those of action values are not sampled from."""
    if study.only_random_play:
        return "all actions equally likely"
    selection = study.evaluation["action_selection"]
    epsilons = {
        study.method_label(method): study.expected_settings(method).get("evaluation_epsilon")
        for method in study.methods
    }
    valued = [f"{label} {value:g}" for label, value in epsilons.items() if value is not None]
    if selection == "greedy" or not valued:
        return ACTIONS[selection]
    return f"{ACTIONS[selection]} (or epsilon-greedy: {', '.join(valued)})"


def notes(
    study: Study,
    table: pd.DataFrame,
    episodes: pd.DataFrame,
    runs: pd.DataFrame,
    missing: pd.DataFrame,
) -> list[str]:
    """Return the footnotes: what the numbers are, how far they carry, and what is not there."""
    evaluation = study.evaluation
    out = [
        "0 % is the random reference and 100 % the human one. \"All games\" is recomputed from the "
        "published raw scores over every game the row has, \"these games\" over the games of this "
        f"study only{_game_list(study)}: `incomplete` without a score in each of them. "
        f"{_all_games_text(table)}{IQM_TEXT}",
        "Published rows under human starts are normalised with human-starts references, each under "
        "the rule that comes nearest to its printed value; all rules side by side: "
        "results/reference/rules.md. Human starts are not public, so rows trained here are "
        "measured under another protocol than these and compare only roughly.",
        *_noop_notes(study, table),
        f"{'Measured' if study.only_random_play else 'Trained'} here: "
        f"{PROTOCOLS.get(study.protocol, study.protocol)}; "
        f"{evaluation['episodes']} evaluation episodes per run and milestone, "
        f"{actions_text(study)}, evaluation seed {evaluation['seed']}, at most "
        f"108,000 frames an episode.{_same_network_text(table)} Normalised with "
        f"{NORMALISED_WITH[study.references]} references, rule `{study.rule}`: "
        f"{RULES[study.rule]}.",
        *exploration_notes(study),
        *untaught_notes(study),
        *([] if study.only_random_play else [_selection_note(study), budget_note(study)]),
        *([_atari5_note()] if atari5.applies(study) else []),
        interval_note(study, table),
    ]  # fmt: skip
    if not study.only_random_play:
        out.append(TIME_TEXT)
    out += _external_notes(study)
    out += override_notes(study, runs)
    out += study.notes
    out += seed_notes(study, table, episodes)
    out += noise_notes(study, table, episodes)
    out += truncated_notes(study, episodes)
    out += missing_notes(study, runs, missing)
    return out


def _external_notes(study: Study) -> list[str]:
    if not study.external:
        return []
    labels = ", ".join(external.label for external in study.external.values())
    return [
        f"From elsewhere, as given in the study's file: {labels}. Nothing of these rows was "
        "trained, evaluated or replayed here, and under which protocol they were measured is for "
        "their author to say. They are normalised as the rows trained here, with intervals over "
        "the seeds given."
    ]


def _atari5_note() -> str:
    error = 100 * atari5.RELATIVE_ERROR["atari5"]
    labels = game_labels()
    games = ", ".join(labels[game] for game in atari5.COEFFICIENTS["atari5"])
    human = atari5.estimate_median(dict.fromkeys(atari5.COEFFICIENTS["atari5"], 100.0))
    return (
        f"The median of 57 games is estimated from {games} (Aitchison et al. 2022). Its published "
        f"relative error, cross-validated, is {error:.1f} % for methods with medians above 40 %; "
        "below that it extrapolates. Brackets do not contain this error. A score below 0 counts as "
        "0, so that noise alone lifts random play above 0: an estimate of a few percent says no "
        f"more than that. 100 % in each of the games gives {human:.1f}: the fit has no intercept."
    )


def _game_list(study: Study, shown: int = 12) -> str:
    if len(study.games) > shown:
        return f" ({len(study.games)} games, each in tables/games)"
    labels = game_labels()
    return f" ({', '.join(labels[game] for game in study.games)})"


def _selection_note(study: Study) -> str:
    text = (
        "Selection says which policy of a run is reported. `final weights`: the one at the row's "
        "number of frames, as Mnih et al. 2016 report A3C; `best checkpoint`: the best evaluated "
        "one, as in the papers of the value-based rows; `not published`: "
        "no statement was found; other words are the source's."
    )
    if len(study.milestones_frames) > 1:
        text += (
            " The milestones of a method are policies of the same runs: where the learning rate "
            "falls over a run it has reached its end only at the last one, so an earlier row is "
            "not what a run of that length would give."
        )
    if all(study.selection_of(method) != "best" for method in study.methods):
        return text
    counts = ", ".join(
        f"{number} at {frames_text(frames)}"
        for number, frames in enumerate(study.milestones_frames, 1)
    )
    return (
        f"{text} The best of a run trained here has the highest mean return among its evaluations "
        f"at this row's frames and the milestones before ({counts}); it is reported on the "
        "episodes that selected it, so it is biased upwards, more with more evaluations, and is "
        "not to be compared with final weights."
    )


IQM_TEXT = (
    "IQM is the mean of the middle half of all runs' scores; a score on the edge counts in "
    "part, so that rows with different numbers of seeds are comparable (rliable's own rounds to "
    "whole scores)."
)


def _all_games_text(table: pd.DataFrame) -> str:
    """Over how many games "all games" is, and in which rows over fewer."""
    rows = table[table["all_games"].notna()]
    most = int(rows["all_games"].max())
    fewer = [
        f"{int(count)} for {', '.join(own['row'])}"
        for count, own in rows[rows["all_games"] < most].groupby("all_games")
    ]
    return f"All games: {', but '.join([str(most), *fewer])}. "


def same_network(table: pd.DataFrame) -> str | None:
    """Return network, precision and device of the rows trained here, "" where there is none.

    None where they differ: the table has a column for them then.
    """
    rows = table[table["kind"].isin(("trained", "no_complete_seed"))]
    how = rows.loc[rows["method"] != UNTRAINED, ["network", "precision", "device"]].fillna("")
    found = {", ".join(filter(None, one)) for one in how.itertuples(index=False)} - {""}
    return None if len(found) > 1 else "".join(found)


def _same_network_text(table: pd.DataFrame) -> str:
    same = same_network(table)
    return f" Network, precision and device: {same}." if same else ""


def _noop_notes(study: Study, table: pd.DataFrame) -> list[str]:
    rows = table[table["kind"] == "published_noop_starts"]
    if rows.empty:
        return []
    rules = sorted(set(rows["all_games_rule"]))
    return [
        f'Published rows under no-op starts: "all games" under the rule `{", ".join(rules)}` '
        f"({RULES[rules[0]]}), under which Wang et al. and Fortunato et al. print their means, and "
        f"for comparison those of other papers too; {study.these_games} under `{study.rule}`. "
        f"Under `plain` {_pinball_text()}."
    ]


def _pinball_text() -> str:
    printed = load_scores()
    percent = {
        rule: normalised(printed, "noop_starts", "dqn", rule) for rule in ("plain", "mnih2016")
    }
    alone = percent["plain"][ZERO_RANDOM_GAME]
    return (
        f"Video Pinball alone counts {alone:,.0f} % for DQN, whose mean over "
        f"{len(percent['plain'])} games is then {percent['plain'].mean():.1f} instead of "
        f"{percent['mnih2016'].mean():.1f}"
    )
