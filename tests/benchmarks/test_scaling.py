"""The committed record of A3C by its number of workers, written and drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scaling

RECORD = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "scaling.json"


@pytest.fixture
def report() -> dict:
    return json.loads(RECORD.read_text())


def test_the_table_is_that_of_the_record(report: dict) -> None:
    assert RECORD.with_suffix(".md").read_text() == scaling.markdown(report)


def test_the_figure_shows_the_record(report: dict) -> None:
    speed, score = scaling.draw(report).axes
    ours, papers = speed.lines
    first = report["runs"][0]["frames_per_second"]
    assert list(ours.get_xdata()) == [1, 2, 4, 8, 16]
    assert list(ours.get_ydata()) == [run["frames_per_second"] / first for run in report["runs"]]
    assert dict(zip(*papers.get_data(), strict=True)) == scaling.PUBLISHED_SPEEDUP
    assert list(score.lines[0].get_ydata()) == [run["score"] for run in report["runs"]]


def test_a_run_without_an_episode_has_no_score(report: dict) -> None:
    report["runs"][1] |= {"score": None, "score_standard_error": None}
    _, score = scaling.draw(report).axes
    assert list(score.lines[0].get_xdata()) == [1, 4, 8, 16]
    assert scaling.markdown(report).splitlines()[3].split("|")[5].strip() == ""
