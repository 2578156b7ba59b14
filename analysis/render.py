"""One table, four forms: Markdown, LaTeX, HTML; and how numbers are printed in all of them."""

import html
import math
from dataclasses import dataclass, field

DASH = "–"  # an empty cell


@dataclass(frozen=True)
class Row:
    """One line of a table. A section's only cell spans the table."""

    cells: list[str]
    section: bool = False


@dataclass(frozen=True)
class Grid:
    """A table ready to print: text cells, the first column left-aligned, `left` others as well."""

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    left: frozenset[int] = frozenset()

    def is_left(self, column: int) -> bool:
        """Return whether the cells of `column` are text, not numbers."""
        return column == 0 or column in self.left


def frames_text(frames: float) -> str:
    """Return a number of frames as people say it: 0, 400k, 1M, 1.5M, 320M, 1,000M."""
    if frames < 1_000:
        return f"{frames:g}"
    if frames < 999_950:
        return f"{frames / 1_000:.4g}k"
    return f"{frames / 1_000_000:,.2f}".rstrip("0").rstrip(".") + "M"


def number_text(value: float | None, digits: int = 1) -> str:
    """Return `value` with `digits` decimals, or a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:.{digits}f}".replace("-0.0", "0.0") if digits == 1 else f"{value:.{digits}f}"


def interval_text(point: float | None, low: float | None, high: float | None) -> str:
    """Return `point [low, high]`, or the point alone where there is no interval."""
    text = number_text(point)
    if text == DASH or low is None or math.isnan(low):
        return text
    return f"{text} [{number_text(low)}, {number_text(high)}]"


def hours_text(hours: float | None, of: str = "") -> str:
    """Return hours with the digits that a reader can use, or minutes, or seconds, where smaller.

    `of` goes before the unit: `core-` for time summed over cores.
    """
    if hours is None or math.isnan(hours):
        return DASH
    value, unit = (hours, "h") if hours >= 1 else (60 * hours, "min")
    if unit == "min" and value < 1:
        value, unit = 60 * value, "s"
    return f"{value:.0f} {of}{unit}" if value >= 10 else f"{value:.2g} {of}{unit}"


def markdown(grid: Grid, heading: str = "#", aligned: bool = False) -> str:
    """Return `grid` as a Markdown table with its notes as a numbered list below.

    Args:
        grid: the table.
        heading: the mark before its title.
        aligned: whether cells are padded, so that it is a table in a terminal too.
    """
    left = [grid.is_left(i) for i in range(len(grid.columns))]
    table = [[_markdown_cell(column) for column in grid.columns]]
    for row in grid.rows:
        cells = [_markdown_cell(cell) for cell in row.cells]
        table.append([f"**{cells[0]}**"] + [""] * (len(left) - 1) if row.section else cells)
    if aligned:
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        pad = [str.ljust if is_left else str.rjust for is_left in left]
        table = [[pad[i](cell, widths[i]) for i, cell in enumerate(row)] for row in table]
    else:
        widths = [1] * len(left)
    rules = ["-" * (w + 1) + ("-" if text else ":") for w, text in zip(widths, left, strict=True)]
    lines = [f"{heading} {_one_line(grid.title)}", ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in table]
    lines.insert(3, "|" + "|".join(rules) + "|")
    if grid.notes:
        lines += ["", *(f"{n}. {_one_line(note)}" for n, note in enumerate(grid.notes, 1))]
    return "\n".join(lines) + "\n"


def _markdown_cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def latex(grid: Grid) -> str:
    """Return `grid` as a LaTeX table; it needs \\usepackage{booktabs} and UTF-8."""
    aligns = "".join("l" if grid.is_left(i) else "r" for i in range(len(grid.columns)))
    width = len(grid.columns)
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex_text(grid.title)}}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{{aligns}}}",
        "\\toprule",
        " & ".join(map(_latex_text, grid.columns)) + " \\\\",
    ]
    for row in grid.rows:
        if row.section:
            lines.append("\\midrule")
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textbf{{{_latex_text(row.cells[0])}}}}}"
                         " \\\\")  # fmt: skip
        else:
            lines.append(" & ".join(map(_latex_text, row.cells)) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}}"]
    if grid.notes:
        lines += ["", "\\begin{flushleft}\\footnotesize"]
        lines += [f"{n}. {_latex_text(note)}\\\\" for n, note in enumerate(grid.notes, 1)]
        lines.append("\\end{flushleft}")
    lines.append("\\end{table}")
    return "\n".join(lines) + "\n"


LATEX_CHARACTERS = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "≥": "$\\geq$",
    DASH: "--",
    "`": "",
}


def _latex_text(text: str) -> str:
    escaped = "".join(LATEX_CHARACTERS.get(character, character) for character in text)
    # A row that begins with "[" would be read as the optional argument of the "\\" before it.
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped


def html_table(grid: Grid, identifier: str) -> str:
    """Return `grid` as an HTML fragment: table, then its notes as an ordered list."""
    width = len(grid.columns)
    lines = [f'<div class="scroll"><table id="{identifier}">', "<caption>"]
    # The span stays in sight, and breaks its line, where the table is wider than the page.
    lines += [f"<span>{html_text(grid.title)}</span></caption>", "<thead><tr>"]
    for i, column in enumerate(grid.columns):
        lines.append(f'<th scope="col"{_class(grid, i)}>{html_text(column)}</th>')
    lines += ["</tr></thead>", "<tbody>"]
    for row in grid.rows:
        if row.section:
            lines.append(
                f'<tr class="section"><th scope="colgroup" colspan="{width}">'
                f"{html_text(row.cells[0])}</th></tr>"
            )
            continue
        cells = [f'<th scope="row">{html_text(row.cells[0])}</th>']
        cells += [f"<td{_class(grid, i)}>{_cell(c)}</td>" for i, c in enumerate(row.cells) if i]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines += ["</tbody>", "</table></div>"]
    if grid.notes:
        lines.append('<ol class="notes">')
        lines += [f"<li>{html_text(note)}</li>" for note in grid.notes]
        lines.append("</ol>")
    return "\n".join(lines) + "\n"


def _class(grid: Grid, column: int) -> str:
    return "" if grid.is_left(column) else ' class="number"'


def _cell(text: str) -> str:
    """As `html_text`; an interval goes below its point, so that a wide table fits a screen."""
    point, bracket, interval = text.partition(" [")
    if not (bracket and interval.endswith("]")):
        return html_text(text)
    return f'{html_text(point)} <span class="interval">[{html_text(interval)}</span>'


def html_text(text: str) -> str:
    """Return `text` escaped for HTML, what stands between two backticks as code."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  color: #1b1f24; background: #fff; margin: 0 auto; padding: 1.5rem 1.25rem 4rem;
  max-width: 1360px; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid #d8dde3; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
p, ol, ul, dl { max-width: 62rem; }
nav { font-size: .92rem; margin: 1rem 0; } nav a { margin-right: 1rem; }
a { color: #0072b2; }
.lead { color: #4a525c; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0 .5rem; }
caption span { display: block; position: sticky; left: 0; max-width: min(62rem, 100vw - 3rem); }
th, td { padding: .28rem .6rem; border-bottom: 1px solid #e6e9ed; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid #4a525c; vertical-align: bottom; background: #fff; }
tbody th { font-weight: 500; white-space: nowrap; }
tbody th[scope="row"], thead th:first-child { position: sticky; left: 0; background: #fff; }
.number { text-align: right; white-space: nowrap; }
thead th, thead th.number { white-space: normal; max-width: 9rem; }
#table1 { font-size: .76rem; } #table1 td { white-space: nowrap; }
#table1 td:nth-child(2), #table1 td:nth-child(4) { white-space: normal; }
#table1 th, #table1 td { padding: .26rem .32rem; }
.interval { display: block; color: #4a525c; }
tr.section th { background: #f1f4f7; font-weight: 600; }
ol.notes { font-size: .85rem; color: #4a525c; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: #4a525c; max-width: 62rem; }
pre { background: #f6f8fa; border: 1px solid #e1e5ea; border-radius: 4px; padding: .8rem 1rem;
  overflow-x: auto; font-size: .8rem; line-height: 1.4; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 500; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1.2rem; }
.warning { border-left: 4px solid #d55e00; padding: .3rem .9rem; background: #fdf4ee; }
@media print { body { max-width: none; padding: 0; } .scroll { overflow: visible; } }
""".strip()


def html_page(title: str, body: str) -> str:
    """Return a whole page that needs nothing from outside."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
