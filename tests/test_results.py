"""What is published is what today's code makes of the published records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from agents import config
from agents.atari import protocol
from agents.run import RunSpec
from analysis import aggregate, report, tables

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


@pytest.mark.parametrize("study", sorted(p.parent.name for p in PUBLISHED.glob("*/study.json")))
def test_aggregates_tables_and_report_are_up_to_date(study: str, tmp_path: Path) -> None:
    """Figures are not compared: fonts and their rasteriser differ between machines."""
    made = tmp_path / study
    shutil.copytree(PUBLISHED / study, made, ignore=shutil.ignore_patterns("runs"))
    names = ("table1.*", "summary.*", "games.*")
    pages = [
        *(page for name in names for page in made.glob(f"tables/{name}")),
        made / "report.html",
    ]
    assert len(pages) > 6
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


def test_published_runs_keep_their_hashes() -> None:
    """Or a run of before and one of today could not stand in one row, nor one begun go on."""
    records = sorted(PUBLISHED.glob("*/runs/*/*/*/run.json"))
    assert len(records) > 50
    for path in records:
        record = json.loads(path.read_text())
        own = record["settings"]
        fields = config.TOPOLOGIES[own["topology"]].__dataclass_fields__.values()
        earlier = {f.name: f.metadata["earlier"] for f in fields if "earlier" in f.metadata}
        settings = config.build_settings(earlier | own, str(path))
        milestones = tuple(row["milestone_frames"] for row in record["milestones"])
        if record["status"] == "finished":
            spec = RunSpec(settings, path.parts[-3], 0, milestones, protocol(record["protocol"]))
            assert spec.settings_hash() == record["settings_hash"], path
