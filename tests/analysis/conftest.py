"""One analysed synthetic study for the tests that only read it."""

from pathlib import Path

import pandas as pd
import pytest

from analysis import aggregate, collect, plots, report, tables
from tests.analysis import synthetic


def analyse(results: Path, *modules) -> Path:
    """Run the named analysis commands on `results`, each must succeed; return `results`."""
    for module in modules:
        assert module.main(["--results", str(results)]) == 0
    return results


def tabulated(results: Path) -> tuple[pd.DataFrame, str]:
    """Analyse `results`; return table1.csv and table1.md."""
    folder = analyse(results, collect, aggregate, tables) / "tables"
    return pd.read_csv(folder / "table1.csv"), (folder / "table1.md").read_text()


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study of 2 games, 2 methods, 3 seeds, with tables, figures and report."""
    results = synthetic.write_study(tmp_path_factory.mktemp("analysed") / "study")
    return analyse(results, collect, aggregate, tables, plots, report)
