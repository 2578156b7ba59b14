"""What a study is: the content of its study.json, as `workflow.study` wrote it.

Everything that `analysis` says of methods, milestones and selections it asks `Study`. Words: a run
is (method, game, seed); a milestone is a nominal number of training frames at which a policy is
kept.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.render import frames_text

# Every method of the table with its printed name, from the simplest on: the order of all tables,
# and the key of each method's colour.
METHODS = {
    "random": "Random",
    "reinforce": "REINFORCE",
    "actor_critic": "Actor-critic",
    "a2c": "A2C",
    "dqn": "DQN",
    "gorila": "Gorila",
    "double_dqn": "Double DQN",
    "dueling": "Dueling",
    "prioritized": "Prioritized",
    "a3c_ff": "A3C-FF",
    "a3c_lstm": "A3C-LSTM",
}

# Plays at random: no frames, no settings, and the same policy at every milestone.
UNTRAINED = "random"

# Which policy of a run a row reports, with the words of `reference/systems.csv`.
SELECTIONS = {"final": "final weights", "best": "best checkpoint"}

# What to do where a run is missing.
INCOMPLETE = ("refuse", "list")

# Published rows under no-op starts, the protocol that a reader without the human starts can use,
# where a study does not name its own.
NOOP_SYSTEMS = (
    "dqn",
    "gorila",
    "double_dqn",
    "dueling",
    "prioritized_rank",
    "a3c_fortunato",
    "a2c_schulman",
)


class ResultsError(ValueError):
    """Result files that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class External:
    """A method whose scores come from elsewhere, as given: nothing of it is trained or played."""

    label: str
    frames: int
    training_time: str
    scores: dict[str, list[float]]  # points, by game: one a seed, the same seeds in every game

    @property
    def seeds(self) -> list[int]:
        """Return the numbers of its seeds, from 0."""
        return list(range(len(next(iter(self.scores.values())))))


@dataclass(frozen=True)
class Study:
    """One study as configured: the content of study.json."""

    name: str
    label: str
    games: list[str]
    methods: list[str]
    seeds: list[int]
    milestones_frames: list[int]
    protocol: str
    device: str
    overrides: dict[str, dict[str, Any]]
    selection: dict[str, str]
    evaluation: dict[str, Any]
    references: str
    rule: str
    reps: int
    level: float
    rng_seed: int
    incomplete: str
    method_files: dict[str, dict[str, Any]]
    notes: list[str]
    published: list[str]
    external: dict[str, External]

    @property
    def compared(self) -> list[str]:
        """Return what has rows of scores: the methods, and behind them the external ones."""
        return [*self.methods, *self.external]

    @property
    def these_games(self) -> str:
        """Return what tables call the games of the study: `this game`, `these 7 games`."""
        return "this game" if len(self.games) == 1 else f"these {len(self.games)} games"

    def method_label(self, method: str) -> str:
        """Return the printed name: the method file's own, else the one in METHODS."""
        if method in self.external:
            return self.external[method].label
        given = self.method_files.get(method, {}).get("label")
        return given or METHODS.get(method, method)

    def row_label(self, method: str, milestone: int) -> str:
        """Return the name of a row: `A2C at 10M`; only what is trained here has milestones."""
        return self.rows_label(method, [milestone] if self.is_trained(method) else [])

    def rows_label(self, method: str, milestones: Sequence[int]) -> str:
        """Return the method's name with those of its `milestones`, without where there is none."""
        at = f" at {' and '.join(map(frames_text, milestones))}" if milestones else ""
        return f"{self.method_label(method)}{at}"

    def is_trained(self, method: str) -> bool:
        """Return whether the study trains `method`: not random play, nor an external one."""
        return method != UNTRAINED and method not in self.external

    @property
    def only_random_play(self) -> bool:
        """Return whether the study trains nothing."""
        return set(self.methods) == {UNTRAINED}

    def milestones_of(self, method: str) -> list[int]:
        """Return the milestones with a row of `method`: the last of what is not trained here."""
        return self.milestones_frames if self.is_trained(method) else self.milestones_frames[-1:]

    def seeds_of(self, method: str) -> list[int]:
        """Return the seeds of `method`: the study's, but an external one has its own."""
        return self.external[method].seeds if method in self.external else self.seeds

    def selection_of(self, method: str) -> str:
        """Return which policy the rows of `method` report: `final`, `best`, `none` if untrained."""
        if not self.is_trained(method):
            return "none"
        return self.selection.get(method, self.selection.get("all", "final"))

    def selection_label(self, method: str) -> str:
        """Return `selection_of` in the words that are printed."""
        return SELECTIONS.get(self.selection_of(method), "none")

    def selections_text(self) -> str:
        """Return which policy the rows report, one part for each choice, its methods named."""
        trained = [method for method in self.methods if method != UNTRAINED]
        chosen = {method: self.selection_label(method) for method in trained}
        if len(set(chosen.values())) <= 1:
            return chosen[trained[0]] if trained else "random play"
        return "; ".join(
            f"{label} of {', '.join(self.method_label(m) for m in trained if chosen[m] == label)}"
            for label in SELECTIONS.values()
        )

    def expected_settings(self, method: str) -> dict[str, Any]:
        """Return the method's settings with the overrides of the study put over them."""
        settings = dict(self.method_files.get(method, {}).get("settings", {}))
        everyones = {} if method == UNTRAINED else self.overrides.get("all", {})
        return settings | everyones | self.overrides.get(method, {})

    def differing_settings(
        self, method: str, trained: dict[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """Return which settings of a run of `method` are not the study's: (trained with, expected).

        Those alone that both name: a record may be from before a setting was there.
        """
        return {
            key: (trained[key], expected)
            for key, expected in self.expected_settings(method).items()
            if key in trained and not _same(trained[key], expected)
        }


def _same(one: Any, other: Any) -> bool:
    if one == other:
        return True
    try:
        # YAML 1.1 reads 7e-4 as text and 7.0e-4 as a number.
        return math.isclose(float(one), float(other), rel_tol=1e-12)
    except (TypeError, ValueError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`; a missing or half-written file is an error that names it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ResultsError(f"{path}: there is no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ResultsError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def load_study(results: Path) -> Study:
    """Return the study that `results`/study.json describes.

    Raises:
        ResultsError: for a file that is wrong, or not there: then the message names the studies
            below `results`, or where there are none, those beside it.
    """
    path = Path(results) / "study.json"
    if not path.exists():
        studies = _studies_in(path.parent) or _studies_in(path.parent.parent)
        allowed = f"; allowed: {', '.join(studies)}" if studies else ""
        raise ResultsError(f"{path}: there is no such file{allowed}")
    raw = read_json(path)
    try:
        return Study(
            name=raw["study"],
            label=raw["label"],
            games=list(raw["games"]),
            methods=list(raw["methods"]),
            seeds=[int(seed) for seed in raw["seeds"]],
            milestones_frames=[int(frames) for frames in raw["milestones_frames"]],
            protocol=raw["protocol"],
            device=raw.get("device", "auto"),
            overrides=raw.get("overrides") or {},
            selection=_selection(raw.get("selection") or {}),
            evaluation=dict(raw["evaluation"]),
            references=raw["normalisation"]["references"],
            rule=raw["normalisation"]["rule"],
            **_statistics(raw["statistics"]),
            incomplete=_incomplete(raw["incomplete"]),
            method_files=raw.get("method_files") or {},
            notes=list(raw.get("notes") or []),
            published=list(raw.get("published", NOOP_SYSTEMS)),
            external=_external(raw.get("external") or {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: missing or wrong key {error}") from None


def _studies_in(folder: Path) -> list[str]:
    found = [*folder.glob("*/study.json"), *folder.glob("published/*/study.json")]
    return sorted(str(record.parent) for record in found)


def _external(raw: dict[str, Any]) -> dict[str, External]:
    return {
        name: External(
            label=one["label"],
            frames=int(one["frames"]),
            training_time=one.get("training_time", ""),
            scores={game: [float(score) for score in own] for game, own in one["scores"].items()},
        )
        for name, one in raw.items()
    }


def _statistics(raw: dict[str, Any]) -> dict[str, Any]:
    reps, level, rng_seed = int(raw["reps"]), float(raw["level"]), int(raw["rng_seed"])
    for key, value, right, allowed in (
        ("reps", reps, reps >= 1, "1 or more"),
        ("level", level, 0 < level < 1, "above 0 and below 1"),
        ("rng_seed", rng_seed, 0 <= rng_seed < 2**32, "0 to 2**32 - 1"),
    ):
        if not right:
            raise ValueError(f"statistics.{key} = {value}; allowed: {allowed}")
    return {"reps": reps, "level": level, "rng_seed": rng_seed}


def _incomplete(value: str) -> str:
    if value not in INCOMPLETE:
        raise ValueError(f"incomplete = {value!r}: unknown; allowed: {', '.join(INCOMPLETE)}")
    return value


def _selection(raw: dict[str, str]) -> dict[str, str]:
    for method, value in raw.items():
        if value not in SELECTIONS:
            raise ValueError(
                f"selection.{method} = {value!r}: unknown; allowed: {', '.join(SELECTIONS)}"
            )
    return dict(raw)
