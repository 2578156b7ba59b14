"""Table 1 of Mnih et al. 2016 (arXiv:1602.01783), recomputed from the published raw scores.

`python -m analysis.published --out FOLDER` writes table1 (printed beside recomputed, each row under
its own rule) and rules (every row under every rule), as CSV with all digits and as Markdown.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis import reference
from analysis.io import write_csv, write_text
from analysis.normalise import RULES, ZERO_RANDOM_GAME

TABLE1_COLUMNS = [
    "row",
    "games",
    "protocol",
    "training_time",
    "printed_mean",
    "printed_median",
    "rule",
    "mean",
    "median",
    "mean_difference",
    "median_difference",
]


def load_rows(folder: str | Path = reference.FOLDER) -> pd.DataFrame:
    """Return the printed table: row, protocol, system, training_time, printed_*, rule, note."""
    return pd.read_csv(Path(folder) / "table1.csv", float_precision="round_trip").fillna(
        {"note": ""}
    )


def table1(rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the printed and the recomputed aggregates, TABLE1_COLUMNS, percent.

    Args:
        rows: as from `load_rows`.
        scores: as from `reference.load_scores`.

    The differences are recomputed minus printed.
    """
    out = rows.copy()
    percent = [
        reference.normalised(scores, row.protocol, row.system, row.rule)
        for row in rows.itertuples()
    ]
    out["games"] = [len(values) for values in percent]
    out["mean"] = [values.mean() for values in percent]
    out["median"] = [values.median() for values in percent]
    out["mean_difference"] = out["mean"] - out["printed_mean"]
    out["median_difference"] = out["median"] - out["printed_median"]
    return out[TABLE1_COLUMNS]


def rule_table(rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return each row under each rule: what the choice of the rule does to the same raw scores.

    Columns: row, games, protocol, printed_mean, printed_median, rule, mean, median, the normalised
    score of Video Pinball, and mean and median of the other games (percent).
    """
    records = []
    for row in rows.itertuples():
        for rule in RULES:
            values = reference.normalised(scores, row.protocol, row.system, rule)
            others = values.drop(ZERO_RANDOM_GAME)
            records.append(
                {
                    "row": row.row,
                    "games": len(values),
                    "protocol": row.protocol,
                    "printed_mean": row.printed_mean,
                    "printed_median": row.printed_median,
                    "rule": rule,
                    "mean": values.mean(),
                    "median": values.median(),
                    "video_pinball": values[ZERO_RANDOM_GAME],
                    "mean_without_video_pinball": others.mean(),
                    "median_without_video_pinball": others.median(),
                }
            )
    return pd.DataFrame(records)


def table1_markdown(rows: pd.DataFrame, table: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Return `table1` for people: two decimals, the selection of `scores`, and the notes below."""
    selections = scores.groupby(["protocol", "system"])["selection"].first()
    lines = [
        "# Table 1 of Mnih et al. 2016, from the published raw scores",
        "",
        "Mean and median human-normalised score in percent, human starts. Recomputed minus printed "
        "is the difference.",
        "",
        "| | Training time | Selection | Games | Printed mean | Printed median | Rule | Mean "
        "| Median | Difference, mean | Difference, median |",
        "|---|---|---|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    marks = {}
    for row, cells in zip(rows.itertuples(), table.itertuples(), strict=True):
        mark = ""
        if row.note:
            marks[row.row] = row.note
            mark = f" [{len(marks)}]"
        lines.append(
            f"| {cells.row}{mark} | {cells.training_time} "
            f"| {selections[row.protocol, row.system]} | {cells.games} "
            f"| {cells.printed_mean:.1f} | {cells.printed_median:.1f} | `{cells.rule}` "
            f"| {cells.mean:.2f} | {cells.median:.2f} "
            f"| {cells.mean_difference:+.2f} | {cells.median_difference:+.2f} |"
        )
    lines += ["", *(f"- [{i}] {row}: {note}" for i, (row, note) in enumerate(marks.items(), 1))]
    lines += [
        "- Selection: which policy of a run was evaluated; a best checkpoint is optimistic, final "
        "weights are not; for Gorila (Nair et al. 2015) no statement was found.",
        "- The caption of the printed table says 57 games; DQN and Gorila have scores for 49.",
        "- The scores are printed with one decimal. In Double Dunk, where human and random are 1.6 "
        "points apart, that alone can move a mean by about one point, so differences of 0.1 or 0.2 "
        "do not point to a wrong score.",
        "",
        *_rule_lines(),
        "",
        "The same rows under every rule, and why they differ: `rules.md`.",
    ]
    return "\n".join(lines) + "\n"


def rules_markdown(rules: pd.DataFrame, references: pd.DataFrame) -> str:
    """Return `rule_table` with the rules side by side, and the sentence that a reader needs."""
    pinball = references.set_index("game").loc[ZERO_RANDOM_GAME]
    wide = rules.set_index(["row", "rule"])
    example = wide.loc["Prioritized"]
    medians = rules.groupby("row")["median"]
    median_shift = (medians.max() - medians.min()).max()
    lines = [
        "# The same scores under three rules",
        "",
        f"**One game decides the printed means: Video Pinball**, the only one of the 57 whose "
        f"human score ({pinball['human']:.1f}) is below the random one ({pinball['random']:.1f}) "
        f"under human starts. From the same raw scores, Prioritized has a mean of "
        f"{example.loc['plain', 'mean']:.1f} % (`plain`), "
        f"{example.loc['absolute', 'mean']:.1f} % (`absolute`, 551 % in Schaul et al. 2016) or "
        f"{example.loc['mnih2016', 'mean']:.1f} % (`mnih2016`, "
        f"{example.loc['mnih2016', 'printed_mean']:.1f} % in Mnih et al. 2016), and "
        f"{example.loc['plain', 'mean_without_video_pinball']:.1f} % without that game. "
        f"The medians move by up to {median_shift:.1f} points.",
        "",
        *_rule_lines(),
        "",
    ]
    for statistic in ("mean", "median"):
        lines += [
            f"## {statistic.capitalize()}, percent",
            "",
            f"| | Games | Printed | {' | '.join(f'`{rule}`' for rule in RULES)} "
            "| without Video Pinball |",
            f"|---|--:|--:|{'--:|' * len(RULES)}--:|",
        ]
        for row in rules["row"].unique():
            cells = wide.loc[row]
            values = " | ".join(f"{cells.loc[rule, statistic]:.2f}" for rule in RULES)
            lines.append(
                f"| {row} | {cells['games'].iloc[0]} | {cells[f'printed_{statistic}'].iloc[0]:.1f} "
                f"| {values} | {cells[f'{statistic}_without_video_pinball'].iloc[0]:.2f} |"
            )
        lines.append("")
    lines += [
        "## Video Pinball alone, percent",
        "",
        f"| | {' | '.join(f'`{rule}`' for rule in RULES)} |",
        f"|---|{'--:|' * len(RULES)}",
    ]
    for row in rules["row"].unique():
        values = " | ".join(f"{wide.loc[(row, rule), 'video_pinball']:.1f}" for rule in RULES)
        lines.append(f"| {row} | {values} |")
    return "\n".join(lines) + "\n"


def _rule_lines() -> list[str]:
    return ["Rules:", "", *(f"- `{rule}`: {formula}" for rule, formula in RULES.items())]


def main(arguments: list[str] | None = None) -> None:
    """Write table1.{csv,md} and rules.{csv,md} into the folder `--out`."""
    parser = argparse.ArgumentParser(prog="python -m analysis.published", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out = parser.parse_args(arguments).out
    rows, scores = load_rows(), reference.load_scores()
    table, rules = table1(rows, scores), rule_table(rows, scores)
    write_csv(out / "table1.csv", table)
    write_text(out / "table1.md", table1_markdown(rows, table, scores))
    write_csv(out / "rules.csv", rules)
    write_text(out / "rules.md", rules_markdown(rules, reference.references("human_starts")))
    print(f"wrote table1 and rules (.csv, .md) to {out}")


if __name__ == "__main__":
    main()
