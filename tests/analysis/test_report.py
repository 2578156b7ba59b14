"""The report holds everything in one file and loads nothing from outside."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import aggregate, collect, plots, report, tables
from analysis.figures import FIGURES
from tests.analysis import synthetic
from tests.analysis.synthetic import change_record, run_folder


class Links(HTMLParser):
    """Collects what the page refers to, its headings in order and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)


def parsed(results: Path) -> tuple[str, Links]:
    text = (results / "report.html").read_text()
    links = Links()
    links.feed(text)
    return text, links


def test_nothing_from_outside(analysed: Path):
    text, links = parsed(analysed)
    assert len(links.references) >= len(FIGURES)
    for reference in links.references:
        assert reference.startswith(("data:image/", "#"))
        if reference.startswith("#"):
            assert reference[1:] in links.ids
    assert not {"script", "link", "iframe"} & set(links.tags)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_order_and_content(analysed: Path):
    text, links = parsed(analysed)
    sections = ["table", "figures", "protocol", "games", "runs", "missing", "provenance", "methods"]
    assert [name for name in links.ids if name in sections] == sections
    assert len(set(links.ids)) == len(links.ids)
    for words in (
        "Synthetic study, nothing in it was trained.",
        "0123456789abcdef0123456789abcdef01234567",
        "Example CPU, 2 cores",
        "ale-py=0.12.1; python=3.11.7; torch=2.13.0",
        "a2c a2c-hash",
        "Nothing is missing and no run diverged.",
        "epsilon: 1.0e-5  # inside the root",
        "rliable",
    ):
        assert words in text
    for name in FIGURES:
        assert f'<h3 id="{name}">' in text


def test_deviations_by_hand():
    text = """
# a2c; "deviates:" marks what differs from the source
optimizer: adam        # deviates: the paper used RMSProp
gamma: 0.99            # per decision    deviates: no
# deviates: nothing is annealed
lanes: 16              # Mnih 2016 says 16, deviates: none of ours
note: "no comment"
"""
    assert report.deviations(text) == [
        ("optimizer", "the paper used RMSProp"),
        ("", "nothing is annealed"),
        ("lanes", "none of ours"),
    ]


def test_deviations_are_listed(analysed: Path):
    text, _ = parsed(analysed)
    assert "<td><code>epsilon</code></td><td>the paper does not give it</td>" in text
    assert "<code>lanes</code> 16 -&gt; 8" in text


def test_costs_by_hand(tmp_path: Path):
    """Two runs of 1 h and 3 h on one core and on two: 4 h, and 1 + 6 = 7 core-hours."""
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=[0, 1]
    )
    for seed, seconds, cores in ((0, 3600.0, 3600.0), (1, 10800.0, 21600.0)):
        change_record(run_folder(results, "a2c", "pong", seed), seconds=seconds, core_seconds=cores)
    collect.main(["--results", str(results)])
    study = report.load_study(results)
    rows = report.costs_grid(study, report.load_runs(results)).rows
    assert rows[0].cells[:5] == ["A2C", "2", "2M", "4 h", "7 core-h"]
    assert rows[1].cells[:5] == ["All", "2", "2M", "4 h", "7 core-h"]


def test_missing_dirty_and_diverged_are_shown(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", incomplete="list")
    synthetic.diverge(run_folder(results, "a2c", "pong", 2), 600_000)
    change_record(run_folder(results, "a2c", "pong", 0), dirty=True)
    (run_folder(results, "reinforce", "breakout", 0) / "run.json").unlink()
    for module in (collect, aggregate, tables, plots, report):
        assert module.main(["--results", str(results)]) == 0
    text, _ = parsed(results)
    assert "the run diverged before this milestone" in text
    assert "no finished run" in text
    assert "diverged: loss is nan at 600000 frames" in text
    assert "with uncommitted changes" in text


def test_label_is_escaped(tmp_path: Path):
    results = synthetic.write_study(tmp_path / "study", label="<script>alert(1)</script> & co.")
    for module in (collect, aggregate, plots, report):
        assert module.main(["--results", str(results)]) == 0
    text, links = parsed(results)
    assert "script" not in links.tags
    assert "&lt;script&gt;" in text


def test_no_backtick_is_left_in_the_page(tmp_path: Path):
    """Captions, facts, notes and warnings are written with the marks of Markdown."""
    results = synthetic.write_study(
        tmp_path / "study", games=["pong"], methods=["a2c"], seeds=[0], incomplete="list",
        label="A2C with `gamma` < 1", notes=["`lanes` & `gamma` are ours"],
    )  # fmt: skip
    synthetic.diverge(run_folder(results, "a2c", "pong", 0), 600_000)
    change_record(run_folder(results, "a2c", "pong", 0), reason="`loss` is nan")
    for module in (collect, aggregate):
        assert module.main(["--results", str(results)]) == 0
    (results / "figures").mkdir()
    for name in FIGURES:  # only what is written below them is of interest
        (results / "figures" / f"{name}.svg").write_text("<svg/>")
    page = report.report(results)
    for words in (
        "<h1>A2C with <code>gamma</code> &lt; 1</h1>",
        "<p><code>lanes</code> &amp; <code>gamma</code> are ours</p>",
        "(<code>loss</code> is nan)",
        "The rule is <code>plain</code>, of values under human starts <code>mnih2016</code>.",
    ):
        assert words in page
    assert re.findall(".*`.*", page) == ["<title>A2C with `gamma` &lt; 1</title>"]


def test_same_bytes_twice(analysed: Path):
    first = (analysed / "report.html").read_bytes()
    assert report.main(["--results", str(analysed)]) == 0
    assert (analysed / "report.html").read_bytes() == first


def test_without_figures(tmp_path: Path, capsys: pytest.CaptureFixture):
    results = synthetic.write_study(tmp_path / "study")
    for module in (collect, aggregate):
        assert module.main(["--results", str(results)]) == 0
    assert report.main(["--results", str(results)]) == 1
    assert "python -m analysis.plots writes it" in capsys.readouterr().err
