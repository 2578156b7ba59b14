"""Footnotes of the comparison table: protocol, budgets, intervals, deviations, what is missing."""

import math

import pandas as pd

from analysis import atari5
from analysis.normalise import NORMALISED_WITH, RULES, ZERO_RANDOM_GAME
from analysis.reference import load_scores, normalised, references
from analysis.render import frames_text
from analysis.scores import (
    MISSING_REASONS,
    UNTRAINED,
    Study,
    complete_seeds,
    run_scores,
    score_matrix,
)

# What the papers trained for: methods of the table's A3C rows ("1 day"), and the value-based ones;
# Gorila's gives no number.
A3C_PAPER_FRAMES = 320_000_000
PAPER_FRAMES = {
    **dict.fromkeys(("dqn", "double_dqn", "dueling", "prioritized"), 200_000_000),
    "gorila": None,
}
# Below this share of it a budget is called small.
SMALL_SHARE = 0.5
# Above this share of the absolute scores the mean is said to be one game's.
DOMINANT_SHARE = 0.4
SEEDS_SHOWN = 9  # means of so many seeds at most are listed one by one
PROTOCOLS = {
    "noop": "no-op starts (up to 30 no-ops), the game's own actions, no sticky actions",
    "sticky": "sticky actions (the last action repeated with probability 0.25), all 18 actions, "
    "no no-op starts",
}
ACTIONS = {"sample": "actions sampled from the policy", "greedy": "the likeliest action taken"}


def actions_text(study: Study) -> str:
    """Return how evaluated policies chose actions; those of action values are not sampled from."""
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
        "the rule that comes nearest to its printed value; all rules side by side: the published "
        "tables (`snakemake published`). Human starts are not public, so rows trained here are "
        "measured under another protocol than these and compare only roughly.",
        *_noop_notes(study, table),
        f"Trained here: {PROTOCOLS.get(study.protocol, study.protocol)}; "
        f"{evaluation['episodes']} evaluation episodes per run and milestone, "
        f"{actions_text(study)}, evaluation seed {evaluation['seed']}, at most "
        f"108,000 frames an episode.{_same_network_text(table)} Normalised with "
        f"{NORMALISED_WITH[study.references]} references, rule `{study.rule}`: "
        f"{RULES[study.rule]}.",
        *_exploration_notes(study),
        *([_selection_note(study), _budget_note(study)]
          if set(study.methods) != {UNTRAINED} else []),
        *([_atari5_note()] if atari5.applies(study) else []),
        _interval_note(study, table),
        "Training time of a row trained here is the mean over its runs (one game, one seed each): "
        "wall-clock time, and time summed over cores, on the hardware that the report names, "
        "whatever else it did meanwhile: no measure of speed. Published times are as printed.",
    ]  # fmt: skip
    out += override_notes(study)
    out += seed_notes(study, table, episodes)
    out += noise_notes(study, table, episodes)
    out += truncated_notes(study, episodes)
    out += missing_notes(study, runs, missing)
    return out


def _atari5_note() -> str:
    error = 100 * atari5.RELATIVE_ERROR["atari5"]
    games = ", ".join(atari5.COEFFICIENTS["atari5"])
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
    return f" ({', '.join(study.games)})"


def _selection_note(study: Study) -> str:
    text = (
        "Selection says which policy of a run is reported. `final weights`: the one at the row's "
        "number of frames, as Mnih et al. 2016 report A3C; `best checkpoint`: the best evaluated "
        "one, as the papers of the value-based rows do; `not published`: no statement was found; "
        "other words are the source's."
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


def _budget_note(study: Study) -> str:
    trained = [method for method in study.methods if method != UNTRAINED]
    budgets: dict[int | None, list[str]] = {}
    for method in trained:
        frames = PAPER_FRAMES.get(method, A3C_PAPER_FRAMES)
        budgets.setdefault(frames, []).append(study.method_label(method))
    parts = []
    for paper, labels in budgets.items():
        if paper is None:
            parts.append(f"the paper of {', '.join(labels)} names no number of frames")
            continue
        whose = (
            'the paper\'s A3C rows stand for 320M frames ("1 day") and about 1,000M ("4 days") per '
            "game"
            if paper == A3C_PAPER_FRAMES
            else f"the papers of {', '.join(labels)} trained for {frames_text(paper)} frames"
        )
        shares = ", ".join(
            f"{frames_text(frames)} {_percent(100 * frames / paper)}"
            for frames in study.milestones_frames
        )
        parts.append(f"{whose}; of {frames_text(paper)} are {shares}")
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


def _interval_note(study: Study, table: pd.DataFrame) -> str:
    trained = table[table["kind"] == "trained"]
    text = (
        f"Brackets: {100 * study.level:g} % intervals by stratified bootstrap over seeds "
        f"(percentile, {study.reps} repetitions, generator seed {study.rng_seed}; rliable)."
    )
    one = trained[trained["seeds"] == 1]
    if len(one):
        names = ", ".join(dict.fromkeys(one["row"]))
        text += f" One seed gives no interval: {names}."
    few = trained[(trained["seeds"] > 1) & (trained["seeds"] < 5)]
    if len(few):
        counts = sorted({int(seeds) for seeds in few["seeds"]})
        text += (
            f" Intervals from {' or '.join(map(str, counts))} seeds are rough and tend to be "
            "too narrow."
        )
        for seeds in counts:
            # The bootstrap's outermost draw, one seed again and again, is within the percentiles.
            if len(study.games) == 1 and seeds ** -float(seeds) > (1 - study.level) / 2:
                covered = 100 * (1 - 2 * 0.5**seeds)
                text += (
                    f" With one game and {seeds} seeds they reach from the lowest seed to the "
                    f"highest: that holds the median of all runs in {covered:.0f} % of cases."
                )
    return text


IQM_TEXT = (
    "IQM is the mean of the middle half of all runs' scores; a score that the edge of the half "
    "cuts counts in part, so that rows with different numbers of seeds compare (rliable's own "
    "rounds to whole scores)."
)


def _all_games_text(table: pd.DataFrame) -> str:
    """Over how many games "all games" is, and in which rows over fewer."""
    rows = table[table["all_games"].notna()]
    most = int(rows["all_games"].max())
    fewer = [
        f"{int(count)} in {', '.join(own['row'])}"
        for count, own in rows[rows["all_games"] < most].groupby("all_games")
    ]
    return f"All games are {', but '.join([str(most), *fewer])}. "


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


def _exploration_notes(study: Study) -> list[str]:
    """Return a note where value-based methods do not explore alike: they differ in more than
    their name says."""
    settings = {method: study.expected_settings(method) for method in study.methods}
    found = {
        study.method_label(method): (own["epsilon_end"], own["evaluation_epsilon"])
        for method, own in settings.items()
        if "epsilon_end" in own and "evaluation_epsilon" in own
    }
    if len(set(found.values())) < 2:
        return []
    listed = ", ".join(f"{label} {end:g} and {ev:g}" for label, (end, ev) in found.items())
    return [
        "Each value-based method explores as its paper says, so that differences between them are "
        "not of their targets or networks alone: epsilon at the end of training and in "
        f"evaluation: {listed}."
    ]


def _noop_notes(study: Study, table: pd.DataFrame) -> list[str]:
    rows = table[table["kind"] == "published_noop_starts"]
    if rows.empty:
        return []
    rules = sorted(set(rows["all_games_rule"]))
    return [
        f'Published rows under no-op starts: "all games" under the rule `{", ".join(rules)}` '
        f"({RULES[rules[0]]}), under which the papers print their means, {these_text(study)} under "
        f"`{study.rule}`. Under `plain` {_pinball_text()}."
    ]


def these_text(study: Study) -> str:
    """Return what the table calls the games of the study."""
    return "this game" if len(study.games) == 1 else f"these {len(study.games)} games"


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


def noise_notes(study: Study, table: pd.DataFrame, episodes: pd.DataFrame) -> list[str]:
    """Return a note on what the evaluation episodes and single games do to the means.

    The standard error is that of the mean over the games: of each run's mean return, from the
    spread of its episodes, over games and seeds. What the seeds differ by is not in it.
    """
    rows = table[table["kind"] == "trained"]
    scores = run_scores(study, episodes)
    if rows.empty or scores.empty:
        return []
    keys = ["method", "milestone", "game", "seed"]
    error = episodes.groupby(keys)["return"].agg(lambda returns: returns.sem())
    reached = pd.MultiIndex.from_frame(
        scores[["method", "selected", "game", "seed"]].set_axis(keys, axis=1)
    )
    table_of = references(study.references, study.games).set_index("game")
    span = (table_of["human"] - table_of["random"]).abs().reindex(scores["game"]).to_numpy()
    scores = scores.assign(error=100 * error.reindex(reached).to_numpy() / span)
    errors, single = [], []
    for row in rows.itertuples():
        own = scores[(scores["method"] == row.method) & (scores["milestone"] == row.milestone)]
        own = own[own["seed"].isin(complete_seeds(study, scores, row.method, row.milestone))]
        name = f"{row.row} at {frames_text(row.milestone)}"
        errors.append(f"{name} {math.sqrt((own['error'] ** 2).sum()) / len(own):.1f}")
        by_game = 100 * own.groupby("game")["normalised"].mean()
        game = by_game.abs().idxmax()
        if len(by_game) > 2 and abs(by_game[game]) > DOMINANT_SHARE * by_game.abs().sum():
            single.append(f"{name} {by_game.drop(game).mean():.1f} ({game})")
    over = f" over {these_text(study)}" if len(study.games) > 1 else ""
    out = [
        f"Standard error of the mean{over} from the evaluation episodes alone, "
        f"in points of percent; what seeds differ by comes on top: {', '.join(errors)}."
    ]
    if single:
        out.append(
            f"One game is more than {100 * DOMINANT_SHARE:g} % of these means, signs aside. "
            f"Without it: {', '.join(single)}."
        )
    return out


def seed_notes(study: Study, table: pd.DataFrame, episodes: pd.DataFrame) -> list[str]:
    """Return a note with each seed's own mean over the games, of rows with a few seeds.

    What an interval from so few seeds is made of.
    """
    scores = run_scores(study, episodes)
    parts = []
    for row in table[table["kind"] == "trained"].itertuples():
        if not 1 < row.seeds <= SEEDS_SHOWN:
            continue
        matrix = score_matrix(study, scores, row.method, row.milestone)
        means = ", ".join(f"{100 * mean:.1f}" for mean in matrix.mean(axis=1))
        parts.append(f"{row.row} at {frames_text(row.milestone)} {means}")
    if not parts:
        return []
    over = f" over {these_text(study)}" if len(study.games) > 1 else ""
    return [f"The seeds' own means{over}, in the order of the seeds: {'; '.join(parts)}."]


def override_notes(study: Study) -> list[str]:
    """Return one note that lists the settings in which the study leaves the method files."""
    parts = []
    for method in study.methods:
        own = study.method_files.get(method, {}).get("settings", {})
        changed = {
            key: value
            for key, value in study.expected_settings(method).items()
            if own.get(key) != value
        }
        if changed:
            values = ", ".join(
                f"`{key}` {_value(own[key])} -> {_value(value)}"
                if key in own
                else f"`{key}` {_value(value)}"
                for key, value in changed.items()
            )
            parts.append(f"{study.method_label(method)}: {values}")
    if not parts:
        return ["Settings are those of the method files; the study overrides none."]
    return [f"Settings that the study changes from the method files: {'; '.join(parts)}."]


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def truncated_notes(study: Study, episodes: pd.DataFrame, shown: int = 12) -> list[str]:
    """Return a note that counts the evaluation episodes that met the limit of frames, if any did.

    A policy can score by keeping a game from going on; the limit is then what ends its episodes.
    """
    cells = (
        episodes.assign(cut=episodes["ended"] == "truncated")
        .groupby(["method", "milestone", "game"], sort=False)["cut"]
        .agg(["sum", "size"])
    )
    cells = cells[cells["sum"] > 0]
    if cells.empty:
        return []
    listed = [
        f"{study.method_label(method)} at {frames_text(milestone)} in {game} ({cut} of {count})"
        for (method, milestone, game), (cut, count) in zip(
            cells.index, cells.itertuples(index=False), strict=True
        )
    ]
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return [
        "Evaluation episodes that met the limit of frames, and count with the score they had by "
        f"then: {', '.join(listed[:shown])}{more}."
    ]


def missing_notes(study: Study, runs: pd.DataFrame, missing: pd.DataFrame) -> list[str]:
    """Return the notes on diverged runs and on whatever else the study asks for and lacks."""
    out = []
    diverged = runs[runs["status"] == "diverged"]
    if len(diverged):
        listed = "; ".join(
            f"{study.method_label(row.method)} / {row.game} / seed {row.seed} at "
            f"{frames_text(row.frames)} frames ({row.reason or 'no reason given'})"
            for row in diverged.itertuples()
        )
        out.append(f"Diverged runs: {listed}.")
    if len(missing):
        parts = _missing_parts(study, missing)
        runs = len(study.methods) * len(study.games) * len(study.seeds)
        milestones = len(study.milestones_frames)
        out.append(
            f"Missing, {len(missing)} of {runs * milestones} ({runs} runs x {milestones} "
            f"milestones): {'; '.join(parts)}. A method is "
            "aggregated over its seeds that have every game; nothing is imputed."
        )
    return out


def _missing_parts(study: Study, missing: pd.DataFrame) -> list[str]:
    """Return what is missing in few words: methods and milestones that lack the same are one."""
    unfinished = missing[missing["reason"] == "not_run"]["method"].value_counts()
    runs_each = len(study.games) * len(study.seeds)
    whole = [
        method
        for method in study.methods
        if unfinished.get(method, 0) == runs_each * len(study.milestones_of(method))
    ]
    parts = [f"{', '.join(map(study.method_label, whole))}: no run has finished"] if whole else []
    lacking: dict[tuple, list[int]] = {}
    others = missing[~missing["method"].isin(whole)]
    for (method, milestone, reason), rows in others.groupby(
        ["method", "milestone", "reason"], sort=False
    ):
        cells = _cells_text(study, rows)
        lacking.setdefault((method, reason, cells), []).append(milestone)
    labels: dict[tuple, list[str]] = {}
    for (method, reason, cells), milestones in lacking.items():
        label = study.method_label(method)
        if milestones != list(study.milestones_of(method)):
            label += f" at {' and '.join(map(frames_text, milestones))}"
        labels.setdefault((reason, cells), []).append(label)
    return parts + [
        f"{', '.join(names)}: {MISSING_REASONS.get(reason, reason)} ({cells})"
        for (reason, cells), names in labels.items()
    ]


def _cells_text(study: Study, rows: pd.DataFrame, shown: int = 8) -> str:
    """Return the games and seeds of `rows`, as `seed 0 in qbert; seeds 1, 2 in all 7 games`."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    for seed, of_seed in rows.groupby("seed"):
        seeds.setdefault(tuple(of_seed["game"]), []).append(seed)
    parts = []
    for games, of_games in seeds.items():
        named = ", ".join(games[:shown])
        if len(games) > shown:
            named += f" and {len(games) - shown} more"
        if len(games) == len(study.games) > 1:
            named = f"all {len(games)} games"
        plural = "s" if len(of_games) > 1 else ""
        parts.append(f"seed{plural} {', '.join(map(str, of_games))} in {named}")
    return "; ".join(parts)
