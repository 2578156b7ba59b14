"""Write the report of a study: one HTML file that needs nothing from outside.

`python -m analysis.report --results results/STUDY` reads the tables and figures of the study and
writes report.html: the comparison table first, then figures, protocol and deviations, raw scores
per game, runs with their cost, what is missing, provenance and the method files.
"""

import base64
import re
from html import escape
from importlib import metadata
from pathlib import Path

import pandas as pd

from analysis import footnotes, games, published, render, table1
from analysis.absences import missing_notes
from analysis.deviations import override_notes
from analysis.figures import FIGURES, caption, names
from analysis.io import write_text
from analysis.normalise import RULES
from analysis.reference import load_scores
from analysis.render import Grid, Row, frames_text, hours_text, html_text, number_text
from analysis.scores import (
    MISSING_REASONS,
    command,
    load_aggregates,
    load_episodes,
    load_missing,
    load_runs,
    run_scores,
)
from analysis.study import ResultsError, Study, load_study

# Above this size a drawing goes in as pixels: browsers are slow with hundreds of curves.
MAX_SVG_BYTES = 2_500_000
RUNS_SHOWN = 40
# On a setting's line anywhere in its comment; on a comment's own line only at its beginning.
DEVIATION = re.compile(
    r"^\s*(?:(?P<key>[A-Za-z_]\w*)\s*:[^#]*#.*?\b|#\s*)deviates:\s*(?P<text>.+?)\s*$"
)
LIBRARIES = ("rliable", "arch", "numpy", "pandas", "matplotlib")


def deviations(text: str) -> list[tuple[str, str]]:
    """Return (setting, reason) for each line of a method file whose comment says `deviates:`.

    `deviates: no` is not a deviation.
    """
    found = []
    for line in text.splitlines():
        match = DEVIATION.match(line)
        if match and not re.match(r"no\b", match["text"]):
            found.append((match["key"] or "", match["text"]))
    return found


def rules_grid() -> Grid:
    """Return the eight published rows under every rule, means in percent."""
    wide = published.rule_table(published.load_rows(), load_scores()).set_index(["row", "rule"])
    rows = []
    for name in dict.fromkeys(wide.index.get_level_values("row")):
        own = wide.loc[name]
        cells = [f"{own.loc[rule, 'mean']:.1f}" for rule in RULES]
        rows.append(
            Row([name, f"{own['printed_mean'].iloc[0]:.1f}", *cells,
                 f"{own['mean_without_video_pinball'].iloc[0]:.1f}"])
        )  # fmt: skip
    return Grid(
        "Published means under three rules, percent, human starts",
        ["Method", "Printed", *(f"`{rule}`" for rule in RULES), "without Video Pinball"],
        rows,
        [
            "One game decides the printed means: in Video Pinball the human reference is below the "
            "random one.",
            *(f"`{rule}`: {formula}." for rule, formula in RULES.items()),
        ],
    )


def figure_html(results: Path, name: str, title: str, text: str) -> str:
    """Return one figure with its title and caption, the picture inside as a data URI."""
    path = results / "figures" / f"{name}.svg"
    kind = "image/svg+xml"
    if path.exists() and path.stat().st_size > MAX_SVG_BYTES:
        path, kind = path.with_suffix(".png"), "image/png"
    if not path.exists():
        raise ResultsError(f"{path}: there is no such file; python -m analysis.plots writes it")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    title = escape(title)
    return (
        f'<h3 id="{name}">{title}</h3>\n<figure>\n'
        f'<img alt="{title}" src="data:{kind};base64,{data}">\n'
        f"<figcaption>{html_text(text)}</figcaption>\n</figure>\n"
    )


def protocol_html(study: Study, runs: pd.DataFrame) -> str:
    """Return how the rows were trained and measured, and where that leaves the papers."""
    evaluation = study.evaluation
    facts = {
        "Games": f"{len(study.games)}: {', '.join(study.games)}",
        "Methods": ", ".join(map(study.method_label, study.methods)),
        "Seeds": ", ".join(map(str, study.seeds)),
        "Budgets": ", ".join(f"{frames_text(f)} frames ({f:,})" for f in study.milestones_frames)
        + " per run; a policy is kept and evaluated at each",
        "Protocol": f"{study.protocol}: {footnotes.PROTOCOLS.get(study.protocol, '')}; in training "
        "rewards are clipped as each method file says, reported returns never are",
        "Evaluation": f"{evaluation['episodes']} episodes per run and budget, "
        f"{footnotes.actions_text(study)}, seed {evaluation['seed']}, "
        f"reported: {study.selections_text()}",
        "Normalisation": f"references {study.references}, rule {study.rule}: {RULES[study.rule]}",
        "Intervals": f"{100 * study.level:g} %, stratified bootstrap over seeds, {study.reps} "
        f"repetitions, generator seed {study.rng_seed}",
        "Incomplete runs": {
            "refuse": "an incomplete games x seeds matrix is not aggregated",
            "list": "listed; a method is aggregated over its seeds that have every game",
        }[study.incomplete],
    }
    lines = ["<dl>"]
    lines += [f"<dt>{escape(k)}</dt><dd>{html_text(v)}</dd>" for k, v in facts.items()]
    lines.append("</dl>")
    lines.append("<h3>Deviations</h3>")
    lines += [f"<p>{html_text(note)}</p>" for note in (*override_notes(study, runs), *study.notes)]
    rows = [
        Row([study.method_label(method), f"`{key}`" if key else render.DASH, reason])
        for method in study.methods
        for key, reason in deviations(study.method_files.get(method, {}).get("text", ""))
    ]
    if rows:
        lines.append(
            render.html_table(
                Grid("Deviations named in the method files", ["Method", "Setting", "Deviation"],
                     rows, left=frozenset({1, 2})),
                "deviations",
            )
        )  # fmt: skip
    else:
        lines.append("<p>The method files name no deviation.</p>")
    return "\n".join(lines) + "\n"


def costs_grid(study: Study, runs: pd.DataFrame) -> Grid:
    """Return what each method's runs cost together."""
    rows = []
    for method in study.methods:
        own = runs[runs["method"] == method]
        if own.empty:
            continue
        rows.append(_cost_row(study.method_label(method), own))
    rows.append(_cost_row("All", runs))
    columns = ["Method", "Runs", "Frames", "Wall clock", "Time summed over cores", "Frames/s",
               "Peak memory"]  # fmt: skip
    return Grid("Cost of training", columns, rows, ["Frames/s is the mean over runs."])


def _cost_row(name: str, runs: pd.DataFrame) -> Row:
    return Row(
        [
            name,
            f"{len(runs)}",
            frames_text(runs["frames"].sum()) if len(runs) else "0",
            hours_text(runs["seconds"].sum() / 3600),
            hours_text(runs["core_seconds"].sum() / 3600, "core-"),
            number_text(runs["frames_per_second"].mean(), 0),
            _memory(pd.to_numeric(runs["peak_memory_bytes"]).max()),
        ]
    )


def _memory(value: float) -> str:
    return render.DASH if pd.isna(value) else f"{value / 2**20:,.0f} MiB"


def runs_grid(study: Study, runs: pd.DataFrame) -> Grid:
    """Return every run with its cost."""
    columns = ["Method", "Game", "Seed", "Status", "Device", "Frames", "Wall clock",
               "Summed over cores", "Frames/s", "Peak memory", "Settings"]  # fmt: skip
    rows = [
        Row(
            [
                study.method_label(row.method),
                row.game,
                f"{row.seed}",
                row.status + (f": {row.reason}" if row.reason else ""),
                row.device,
                f"{row.frames:,}",
                hours_text(row.seconds / 3600),
                hours_text(row.core_seconds / 3600, "core-"),
                number_text(row.frames_per_second, 0),
                _memory(row.peak_memory_bytes),
                f"`{str(row.settings_hash)[:12]}`",
            ]
        )
        for row in runs.itertuples()
    ]
    return Grid("Runs", columns, rows, left=frozenset({1, 3, 4, 10}))


def missing_html(study: Study, runs: pd.DataFrame, missing: pd.DataFrame) -> str:
    """Return what the study asks for and does not have, cell by cell."""
    if missing.empty and not (runs["status"] == "diverged").any():
        return "<p>Nothing is missing and no run diverged.</p>\n"
    notes = missing_notes(study, runs, missing)
    lines = [f'<p class="warning">{html_text(note)}</p>' for note in notes]
    if len(missing):
        rows = [
            Row([study.method_label(row.method), row.game, f"{row.seed}",
                 frames_text(row.milestone), MISSING_REASONS.get(row.reason, row.reason)])
            for row in missing.itertuples()
        ]  # fmt: skip
        grid = Grid(f"Missing, {len(missing)}", ["Method", "Game", "Seed", "Budget", "Why"], rows,
                    left=frozenset({1, 4}))  # fmt: skip
        lines.append(_folded(f"All {len(missing)}", render.html_table(grid, "missing-runs")))
    return "\n".join(lines) + "\n"


def provenance_html(runs: pd.DataFrame) -> str:
    """Return where the numbers come from: code, versions and hardware of the runs, analysis."""
    dirty = runs["dirty"].astype(str).str.lower() == "true"
    commits = sorted(
        {
            f"{commit or 'unknown'}{' with uncommitted changes' if changed else ''}"
            for commit, changed in zip(runs["commit"], dirty, strict=True)
        }
    )
    facts = {
        "Commit of the runs": commits,
        "Versions of the runs": sorted(set(runs["versions"].fillna("").astype(str))),
        "Processors": sorted(set(runs["cpu"]) - {""}),
        "Accelerators": sorted(set(runs["gpu"]) - {""}) or ["none"],
        "Settings": sorted({f"{r.method} {r.settings_hash}" for r in runs.itertuples()}),
        "Analysis": [", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)],
    }
    lines = ["<dl>"]
    for name, values in facts.items():
        text = "<br>".join(escape(value).replace(";", "; ") for value in values) or render.DASH
        lines.append(f"<dt>{escape(name)}</dt><dd>{text}</dd>")
    lines.append("</dl>")
    lines.append(
        "<p>Every evaluation episode can be replayed from its trace: "
        "<code>python -m agents.audit PATH</code> compares, <code>python -m agents.video "
        "EVALUATION --episode 3 --out episode.gif</code> shows it.</p>"
    )
    return "\n".join(lines) + "\n"


def _folded(title: str, body: str, is_open: bool = False) -> str:
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(title)}</summary>\n{body}</details>\n"


def report(results: Path) -> str:
    """Return the report of the study in `results` as HTML."""
    study, episodes, runs = load_study(results), load_episodes(results), load_runs(results)
    missing, aggregates = load_missing(results), load_aggregates(results)
    table = table1.table1(study, episodes, runs, aggregates)
    grid = table1.grid(study, table, episodes, runs, missing)
    per_game = games.grids(study, games.games_table(study, episodes))
    scores = run_scores(study, episodes)
    every_run = render.html_table(runs_grid(study, runs), "every-run")
    sections = {
        "table": ("The table", render.html_table(grid, "table1")
                  + _folded("The published rows under three rules",
                            render.html_table(rules_grid(), "rules"))),
        "figures": ("Figures", "".join(
            figure_html(results, name, FIGURES[name], caption(name, study, scores))
            for name in names(study))),
        "protocol": ("Protocol and deviations", protocol_html(study, runs)),
        "games": ("Raw scores per game", "".join(
            render.html_table(part, f"games-{number}") for number, part in enumerate(per_game, 1))),
        "runs": ("Runs and their cost", render.html_table(costs_grid(study, runs), "cost")
                 + _folded(f"All {len(runs)} runs", every_run, len(runs) <= RUNS_SHOWN)),
        "missing": ("Missing and diverged runs", missing_html(study, runs, missing)),
        "provenance": ("Provenance", provenance_html(runs)),
        "methods": ("Method files", "".join(
            _folded(f"{method}.yaml", f"<pre>{escape(study.method_files[method]['text'])}</pre>\n")
            for method in study.methods if method in study.method_files)),
    }  # fmt: skip
    links = " ".join(
        f'<a href="#{key}">{escape(title)}</a>' for key, (title, _) in sections.items()
    )
    body = (
        f"<h1>{html_text(study.label)}</h1>\n"
        f'<p class="lead">Study <code>{escape(study.name)}</code>.</p>\n<nav>{links}</nav>\n'
    )
    for key, (title, content) in sections.items():
        body += f'<section>\n<h2 id="{key}">{escape(title)}</h2>\n{content}</section>\n'
    return render.html_page(study.label, body)


def write(results: Path) -> str:
    """Write report.html and return one line that says where."""
    write_text(results / "report.html", report(results))
    return f"wrote {results / 'report.html'}"


def main(arguments: list[str] | None = None) -> int:
    """Write the report of the study in --results."""
    return command("report", __doc__, write, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
