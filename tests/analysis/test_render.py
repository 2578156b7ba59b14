"""How one table is printed in three forms, and numbers in all of them."""

import pytest

from analysis import render


def test_what_rounds_to_zero_has_no_sign():
    assert render.number_text(-0.04) == "0.0"
    assert render.number_text(-0.06) == "-0.1"


def test_html_sets_an_interval_below_its_point():
    grid = render.Grid("t", ["x", "y", "z"], [render.Row(["a", "1.5 [0.5, 2.0]", "see [1]; b"])])
    page = render.html_table(grid, "t")
    assert '1.5 <span class="interval">[0.5, 2.0]</span></td>' in page
    assert ">see [1]; b</td>" in page  # a bracket within a text is no interval


def test_markdown_and_html_escape():
    grid = render.Grid("t", ["x", "y"], [render.Row(["a|b", "<i>"])], ["`k` < 1"])
    assert "a\\|b" in render.markdown(grid)
    assert "&lt;i&gt;" in render.html_table(grid, "t")
    assert "<code>k</code> &lt; 1" in render.html_table(grid, "t")


def test_a_title_or_note_of_several_lines_stays_one_in_markdown():
    grid = render.Grid("a\n# b", ["x\ny"], [render.Row(["c\nd"])], ["e\n- f"])
    assert render.markdown(grid).splitlines() == [
        "# a # b", "", "| x y |", "|---|", "| c d |", "", "1. e - f"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (400_320, "400.3k"),
        (999_960, "1M"),
        (1_000_320, "1M"),
        (1_500_000, "1.5M"),
        (320_000_000, "320M"),
        (1_000_000_000, "1,000M"),
        (1_425_000_000_000, "1,425,000M"),
    ],
)
def test_frames_text(frames: int, text: str):
    assert render.frames_text(frames) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        *((0.005, "18 s"), (0.5, "30 min"), (1.25, "1.2 h"), (24.0, "24 h")),
        *((99.7, "100 h"), (150.0, "150 h")),
    ],
)
def test_hours_text(hours: float, text: str):
    assert render.hours_text(hours) == text


def test_aligned_markdown_is_a_table_in_a_terminal_too():
    rows = [
        render.Row(["Trained here"], section=True),
        render.Row(["A2C", "1 h", "12.5 [1.0, 2.0]"]),
    ]
    grid = render.Grid("t", ["Method", "Training", "Mean"], rows, ["n"], frozenset({1}))
    assert render.markdown(grid, aligned=True).splitlines() == [
        "# t",
        "",
        "| Method           | Training |            Mean |",
        "|------------------|----------|----------------:|",
        "| **Trained here** |          |                 |",
        "| A2C              | 1 h      | 12.5 [1.0, 2.0] |",
        "",
        "1. n",
    ]
