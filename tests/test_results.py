"""What is published is what today's code makes of the published records."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import aggregate, report, tables

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


@pytest.mark.parametrize("study", sorted(p.parent.name for p in PUBLISHED.glob("*/study.json")))
def test_aggregates_tables_and_report_are_up_to_date(study: str, tmp_path: Path) -> None:
    """Figures are not compared: fonts and their rasteriser differ between machines."""
    made = tmp_path / study
    shutil.copytree(PUBLISHED / study, made, ignore=shutil.ignore_patterns("runs"))
    pages = [*made.glob("tables/table1.*"), *made.glob("tables/games.*"), made / "report.html"]
    assert len(pages) > 5
    for page in pages:
        page.unlink()
    aggregate.write(made)
    pd.testing.assert_frame_equal(
        pd.read_csv(made / "aggregates.csv"), pd.read_csv(PUBLISHED / study / "aggregates.csv")
    )
    tables.write(made)
    report.write(made)
    stale = [
        page.name
        for page in pages
        if page.read_bytes() != (PUBLISHED / study / page.relative_to(made)).read_bytes()
    ]
    assert not stale, (
        f"python -m analysis.tables, .plots, .report --results results/published/{study}"
    )
