"""The table in README.md is a part of a published one: no number without a record."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_readme_table_is_published() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("<!-- table:begin -->")[1].split("<!-- table:end -->")[0]
    link = re.search(r"\]\((results/published/[a-z0-9_]+/tables/table1\.md)\)", block)
    assert link, "the README's table links to the published one"
    published = (ROOT / link[1]).read_text().splitlines()
    rows = [line for line in block.splitlines() if line.startswith("|")]
    assert len(rows) > 8
    missing = [row for row in rows if row not in published]
    assert not missing


def test_readme_speed_is_measured() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("<!-- speed:begin -->")[1].split("<!-- speed:end -->")[0]
    measured = (ROOT / "results" / "benchmarks" / "speed.md").read_text().splitlines()
    rows = [line for line in block.splitlines() if line.startswith("|")]
    assert len(rows) > 8
    assert not [row for row in rows if row not in measured]
