"""Estimates of the 57-game median from a few games (Aitchison et al. 2022, arXiv:2210.02019)."""

from collections.abc import Mapping
from math import isfinite, log10

import numpy as np

from analysis.study import Study

# Coefficients: class AtariScoreNormalizer in the plotting code of maitchison/PPO; a least-squares
# fit to dataset.csv of maitchison/Atari-5 gives the same four digits.
COEFFICIENTS = {
    "atari1": {"name_this_game": 0.9976},
    "atari3": {"battle_zone": 0.3706, "name_this_game": 0.5133, "phoenix": 0.1015},
    "atari5": {
        "battle_zone": 0.38198,
        "double_dunk": 0.06791,
        "name_this_game": 0.31080,
        "phoenix": 0.12413,
        "qbert": 0.08049,
    },
    "atari10": {
        "amidar": 0.08246,
        "battle_zone": 0.18882,
        "bowling": 0.05590,
        "double_dunk": 0.08519,
        "frostbite": 0.06913,
        "kung_fu_master": 0.09862,
        "name_this_game": 0.12870,
        "phoenix": 0.16433,
        "qbert": 0.05923,
        "riverraid": 0.04859,
    },
}
# Cross-validated relative error of the estimate, same source.
RELATIVE_ERROR = {"atari1": 0.274, "atari3": 0.137, "atari5": 0.104, "atari10": 0.072}


def estimate_median(percent: Mapping[str, float], subset: str = "atari5") -> float:
    """Return the estimated median human-normalised score of the 57 games, in percent.

        10^(sum_i c_i log10(1 + max(x_i, 0))) - 1

    Args:
        percent: human-normalised score x_i per game, in percent, rule `plain` with the no-op
            references; games outside the subset are ignored.
        subset: a key of COEFFICIENTS.

    Raises:
        ValueError: for an unknown subset, a missing game, or a score that is not finite.

    Source: Aitchison et al. 2022, arXiv:2210.02019.
    """
    if subset not in COEFFICIENTS:
        raise ValueError(f"subset: unknown value {subset!r}; allowed: {', '.join(COEFFICIENTS)}")
    exponent = 0.0
    for game, coefficient in COEFFICIENTS[subset].items():
        if game not in percent:
            raise ValueError(f"{subset} needs a score for {game}; given: {', '.join(percent)}")
        if not isfinite(percent[game]):
            raise ValueError(f"score of {game}: {percent[game]} is not a finite number")
        exponent += coefficient * log10(1.0 + max(percent[game], 0.0))
    return 10.0**exponent - 1.0


def applies(study: Study) -> bool:
    """Whether the study has the five games, normalised as the coefficients were fitted."""
    has_games = set(COEFFICIENTS["atari5"]) <= set(study.games)
    return has_games and (study.references, study.rule) == ("noop_starts", "plain")


def estimate_of_matrix(matrix: np.ndarray, games: list[str]) -> float:
    """Return `estimate_median` of the games' means over seeds, as a fraction.

    `matrix` is [seeds, games], human-normalised fractions, its columns in the order of `games`.
    """
    percent = 100.0 * matrix.mean(axis=0)
    return estimate_median(dict(zip(games, percent.tolist(), strict=True))) / 100.0
