"""The tables in README.md are published ones: no number without a record."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agents import video

ROOT = Path(__file__).resolve().parents[1]


def test_readme_tables_are_published() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("<!-- table:begin -->")[1].split("<!-- table:end -->")[0]
    regenerated, trained = block.split("\n## ")[1:]
    link = re.search(r"\]\((results/published/[a-z0-9_]+/tables/)table1\.md\)", trained)
    assert link, "the README's table links to the published one"
    for part, source in (
        (regenerated, "results/reference/table1.md"),
        (trained, f"{link[1]}summary.md"),
    ):
        published = (ROOT / source).read_text().splitlines()
        assert [line for line in part.splitlines() if line.startswith("|")] == [
            line for line in published if line.startswith("|")
        ]


@pytest.mark.parametrize(("marker", "record"), [("speed", ""), ("a3c_speed", "a3c_pfrl")])
def test_readme_speed_is_measured(marker: str, record: str) -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split(f"<!-- {marker}:begin -->")[1].split(f"<!-- {marker}:end -->")[0]
    measured = (ROOT / "results" / "benchmarks" / record / "speed.md").read_text().splitlines()
    rows = [line for line in block.splitlines() if line.startswith("|")]
    assert len(rows) > 8
    assert not [row for row in rows if row not in measured]


def test_readme_videos_are_published_episodes(tmp_path: Path) -> None:
    """Each is what its command in the Makefile makes of a published trace, byte by byte."""
    recipe = (ROOT / "Makefile").read_text().split("\nvideos:")[1].split("\n\n")[0]
    recipe = recipe.replace("\\\n", " ").replace("$(PUBLISHED)", "results/published")
    made = set()
    for line in recipe.splitlines()[1:]:
        program, words = shlex.split(line)[:3], shlex.split(line)[3:]
        assert program == ["python", "-m", "agents.video"]
        evaluation, out = ROOT / words[0], words[words.index("--out") + 1]
        again = tmp_path / Path(out).name
        assert video.main([str(evaluation), *words[1:-1], str(again)]) == 0
        assert again.read_bytes() == (ROOT / out).read_bytes(), out
        made.add(out)
    readme = (ROOT / "README.md").read_text()
    shown = set(re.findall(r'src="(results/videos/[^"]*)"', readme))
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "results" / "videos").iterdir()}
    assert len(shown) == 3
    assert shown == made == kept


def test_a_published_policy_plays_as_the_docs_say(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other seeds than the published episodes, whose mean is 62."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "results" / "README.md").read_text(), re.DOTALL
    )
    exec(code, {})
    assert int(capsys.readouterr().out) > 10
