"""Scores from elsewhere in a study: what is refused, and that they redo the analysis alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.workflow.project import ROOT, SMOKE, Project
from tests.workflow.test_study import changed
from workflow.study import StudyError, load

MINE: dict[str, Any] = {"label": "Mine", "frames": 1_000_000, "scores": {"pong": [20.1, 19]}}


@pytest.mark.parametrize(
    ("external", "message"),
    [
        ({"mine": {}}, "external.mine.label, external.mine.frames, external.mine.scores: missing; "
                       "external.mine needs label, frames, scores"),
        ({"mine": MINE | {"score": 1}}, "external.mine.score: unknown key (did you mean scores?)"),
        ({"My-Agent": MINE}, 'external = "My-Agent": lower-case letters'),
        ({"a2c": MINE}, "external.a2c: the name of a method (config/methods/a2c.yaml)"),
        ({"mine": MINE | {"frames": "many"}}, 'external.mine.frames = "many": must be of type'),
        ({"mine": MINE | {"scores": {"pong": 3}}}, "external.mine.scores.pong = 3: not a list"),
        ({"mine": MINE | {"scores": {"pong": []}}}, "external.mine.scores.pong = []: the list is"),
        ({"mine": MINE | {"scores": {"pong": ["x"]}}}, 'external.mine.scores.pong[0] = "x": must'),
        ({"mine": MINE | {"scores": {"pong": [float("nan")]}}}, "scores.pong[0] = nan: must"),
        ({"mine": MINE | {"scores": {"ponk": [1], "pong": [1]}}},
         "external.mine.scores.ponk: unknown (did you mean pong?)"),
        ({"mine": MINE | {"scores": {"qbert": [1.0]}}}, "external.mine.scores: no score in pong"),
        ({"mine": MINE | {"scores": {"pong": [1, 2], "qbert": [1]}}},
         "external.mine.scores: not the same number of seeds in every game: pong 2, qbert 1"),
        ({"mine": MINE | {"scores": {"pong": [1, 21.5]}}},
         "external.mine.scores.pong[1] = 21.5: possible in this game: -21 to 21"),
    ],
)  # fmt: skip
def test_wrong_scores_are_named(external: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as error:
        load(changed(external=external), ROOT)
    assert message in str(error.value)


def test_of_the_command_line_too() -> None:
    text = {"mine": {"label": "Mine", "frames": "1e6", "scores": {"pong": ["20.1", "19"]}}}
    assert load(changed(external=text), ROOT)["external"] == {"mine": MINE}


def test_the_example_of_the_documentation_is_one() -> None:
    text = (ROOT / "config/README.md").read_text()
    (example,) = re.findall(r"```yaml\n(external:.*?)```", text, re.DOTALL)
    study = load(changed(games=["pong", "breakout"], **yaml.safe_load(example)), ROOT)
    assert study["external"]["my_agent"]["frames"] == 10_000_000


def test_games_that_the_study_does_not_have_are_left_out() -> None:
    more = MINE | {"scores": MINE["scores"] | {"qbert": [4000, 4100]}}
    assert load(changed(external={"mine": more}), ROOT)["external"] == {"mine": more}


def test_a_study_without_any_says_nothing_of_them() -> None:
    """Else every finished study would have its analysis to do once more."""
    assert "external" not in load(changed(), ROOT)


def test_it_is_a_second_method_to_compare_with(fresh: Project) -> None:
    config = ("--config", "methods=[a2c]", "overrides={}", "games=[pong]")
    _, alone = fresh.plan(*SMOKE, *config)
    _, two = fresh.plan(*SMOKE, *config, f"external={json.dumps({'mine': MINE})}")
    assert "probability_of_improvement.svg" not in alone
    assert "probability_of_improvement.svg" in two


def test_they_redo_the_analysis_and_nothing_else(editable: Project) -> None:
    study = json.loads((editable.root / "results/smoke/study.json").read_text())
    scores = {game: [1.0, 2.0] for game in study["games"]}
    external = f"external={json.dumps({'mine': MINE | {'scores': scores}})}"
    jobs, _ = editable.plan(*SMOKE, "--config", external)
    assert not {"train_run", "evaluate_run"} & set(jobs)
    result = editable.snakemake("tables", "--cores", "2", *SMOKE, "--config", external)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "| Mine " in (editable.root / "results/smoke/tables/summary.md").read_text()
