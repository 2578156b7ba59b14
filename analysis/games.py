"""Raw scores per game: trained here, reference players, published rows, other implementations."""

import math

import pandas as pd

from analysis.reference import game_labels, load_scores
from analysis.render import DASH, Grid, Row, frames_text
from analysis.scores import run_scores
from analysis.study import SELECTIONS, UNTRAINED, Study

PAPER_SYSTEMS = ("a3c_ff_1_day", "a3c_ff_4_days", "a3c_lstm_4_days")
# Actor-critic code that others have measured, with the budgets that they had.
REIMPLEMENTATIONS = (
    "a3c_fortunato",
    "a3c_pfrl",
    "a3c_chainerrl",
    "a2c_schulman",
    "a2c_slm_lab",
    "a2c_sb3_zoo",
    "a2c_baselines",
    "a2c_rllib",
)
COLUMNS = [
    "game",
    "label",
    "kind",
    "row",
    "method",
    "milestone",
    "budget_frames",
    "protocol",
    "selection",
    "seeds",
    "score",
    "standard_error",
    "per_seed",
    "selected",
    "flag",
    "source",
    "caveat",
]


def games_table(study: Study, episodes: pd.DataFrame) -> pd.DataFrame:
    """Return raw scores in points, one row per game and source, COLUMNS.

    Kinds: reference (random and human), trained (mean over seeds; standard_error = sample standard
    deviation over seeds / sqrt(seeds), NaN for one seed; per_seed = `seed:score;...`; selected =
    `seed:milestone;...` of the policies that have these scores), external (as trained, the study's
    own scores from elsewhere), published, reimplementation.
    """
    labels = game_labels()
    published = load_scores()
    scores = run_scores(study, episodes)
    wanted = [("reference", study.references, "random"), ("reference", study.references, "human")]
    after = [("published", "human_starts", system) for system in PAPER_SYSTEMS]
    known = published[["protocol", "system"]].drop_duplicates()
    for system in REIMPLEMENTATIONS:
        protocols = known.loc[known["system"] == system, "protocol"]
        after += [("reimplementation", protocol, system) for protocol in protocols]
    records = []
    cells = published.set_index(["protocol", "system", "game"]).sort_index()
    for game in study.games:
        own = [_published(cells, game, *key) for key in wanted]
        own += _compared(study, scores, game)
        own += [_published(cells, game, *key) for key in after]
        records += [{"game": game, "label": labels[game]} | row for row in own if row]
    return pd.DataFrame(records, columns=COLUMNS)


def _published(cells: pd.DataFrame, game: str, kind: str, protocol: str, system: str) -> dict:
    if (protocol, system, game) not in cells.index:
        return {}
    cell = cells.loc[(protocol, system, game)]
    return {
        "kind": kind,
        "row": cell["label"],
        "budget_frames": cell["budget_frames"],
        "protocol": protocol,
        "selection": cell["selection"],
        "seeds": cell["seeds"],
        "score": cell["value"],
        "flag": cell["flag"],
        "source": cell["paper"],
        "caveat": cell["caveat"],
    }


def _compared(study: Study, scores: pd.DataFrame, game: str) -> list[dict]:
    rows = []
    for method in study.compared:
        for milestone in study.milestones_of(method):
            own = scores[
                (scores["game"] == game)
                & (scores["method"] == method)
                & (scores["milestone"] == milestone)
            ].sort_values("seed")
            if own.empty:
                continue
            values = own["score"]
            row = {
                "kind": "external",
                "row": study.method_label(method),
                "method": method,
                "budget_frames": own["frames"].mean(),
                "seeds": len(own),
                "score": values.mean(),
                "standard_error": values.std(ddof=1) / math.sqrt(len(own)),
                "per_seed": ";".join(f"{r.seed}:{r.score!r}" for r in own.itertuples()),
                "source": study.name,
            }
            if method in study.methods:
                row |= {
                    "kind": "trained",
                    "milestone": milestone,
                    "protocol": study.protocol,
                    "selection": study.selection_label(method),
                    "selected": ";".join(f"{r.seed}:{r.selected}" for r in own.itertuples()),
                }
            rows.append(row)
    return rows


def score_text(value: float) -> str:
    """Return a raw score with one decimal and thousands separated; a dash for none."""
    return DASH if pd.isna(value) else f"{value:,.1f}".replace("-0.0", "0.0")


def grids(study: Study, table: pd.DataFrame) -> list[Grid]:
    """Return three tables to print: scores, the same per seed, and other implementations."""
    compared = table[table["kind"].isin(("trained", "external"))]
    main = table[table["kind"].isin(("reference", "trained", "external", "published"))]
    other = table[table["kind"] == "reimplementation"]
    said = other[other["caveat"].fillna("") != ""]
    caveats = said[["row", "caveat"]].drop_duplicates().itertuples(index=False)
    flagged = (table["flag"].fillna("") != "").any()
    out = [
        _wide(
            "Raw scores per game, points",
            main,
            _main_column,
            lambda row: score_text(row.score)
            + ("" if pd.isna(row.standard_error) else f" ± {row.standard_error:,.1f}"),
            [
                "Mean over the seeds that have a score in the game, also those that the table of "
                "aggregates leaves out for want of another game. ± is the standard error over "
                "seeds; one seed has none.",
                "Random and Human are the references that scores trained here are normalised "
                f"with ({study.references}); the published A3C rows are from human starts.",
            ],
        ),
        _wide(
            "The same, each seed",
            compared,
            _main_column,
            lambda row: _each_seed(study, row),
            [f"In the order of the study's seeds; {DASH} for one without a score."],
        ),
        _wide(
            "Other implementations, each with its own budget",
            other,
            _other_column,
            lambda row: score_text(row.score) + ("†" if row.flag else ""),
            ["Number of frames, protocol and which policy or episodes were measured, as "
             "published; they are not under one protocol."]
            + (["† the source prints a score that the game cannot give."] if flagged else [])
            + [f"{row}: {caveat}." for row, caveat in caveats],
        ),
    ]  # fmt: skip
    return [grid for grid in out if grid.rows]


def _each_seed(study: Study, row) -> str:
    scores = dict(part.split(":") for part in row.per_seed.split(";"))
    seeds = map(str, study.seeds_of(row.method))
    return ", ".join(score_text(float(scores.get(seed, "nan"))) for seed in seeds)


def _main_column(row) -> str:
    if pd.isna(row.milestone) or row.method == UNTRAINED:
        return row.row if row.kind != "trained" else f"{row.row}, measured here"
    best = ", best checkpoint" if row.selection == SELECTIONS["best"] else ""
    return f"{row.row} at {frames_text(row.milestone)}{best}"


def _other_column(row) -> str:
    budget = (
        "frames not published" if pd.isna(row.budget_frames) else frames_text(row.budget_frames)
    )
    protocol = row.protocol.replace("noop_", "no-op ").replace("_", " ")
    return f"{row.row}: {budget}, {protocol}, {row.selection}"


def _wide(title: str, rows: pd.DataFrame, column, text, notes: list[str]) -> Grid:
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row in rows.itertuples():
        columns[column(row)] = None
        cells.setdefault(row.label, {})[column(row)] = text(row)
    body = [Row([game, *(own.get(name, DASH) for name in columns)]) for game, own in cells.items()]
    return Grid(title, ["Game", *columns], body, notes)
