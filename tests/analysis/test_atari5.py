"""Estimate of the 57-game median, by hand."""

import pytest

from analysis.atari5 import COEFFICIENTS, RELATIVE_ERROR, estimate_median
from analysis.reference import load_games, load_scores, normalised


def test_equal_scores_by_hand():
    """x_i = 99, so log10(1 + 99) = 2; the coefficients add up to 0.96531.

    10^(2 * 0.96531) - 1 = 10^1.93062 - 1 = 85.2354 - 1 = 84.2354
    """
    percent = dict.fromkeys(COEFFICIENTS["atari5"], 99.0)
    assert estimate_median(percent) == pytest.approx(84.2354, abs=1e-3)


def test_different_scores_by_hand():
    """atari3 with x = 9, 99, 999: log10 of 10, 100, 1000 is 1, 2, 3.

    .3706 * 1 + .5133 * 2 + .1015 * 3 = 1.7017; 10^1.7017 - 1 = 50.3155 - 1 = 49.3155
    """
    percent = {"battle_zone": 9.0, "name_this_game": 99.0, "phoenix": 999.0}
    assert estimate_median(percent, "atari3") == pytest.approx(49.3155, abs=1e-3)


def test_scores_below_random_count_as_random():
    """All at or below 0: 10^0 - 1 = 0."""
    percent = dict.fromkeys(COEFFICIENTS["atari5"], -50.0)
    assert estimate_median(percent) == 0.0


def test_games_are_the_roms_of_the_suite():
    games = set(load_games()["game"])
    for subset, coefficients in COEFFICIENTS.items():
        assert set(coefficients) <= games
        assert len(coefficients) == int(subset.removeprefix("atari"))
    assert RELATIVE_ERROR.keys() == COEFFICIENTS.keys()


@pytest.mark.parametrize("system", ["dqn", "double_dqn", "dueling", "c51"])
@pytest.mark.parametrize("subset", ["atari5", "atari10"])
def test_estimates_the_published_medians(system, subset):
    """Within three times the cross-validated error of the median of all 57 games."""
    percent = normalised(load_scores(), "noop_starts", system, "plain")
    estimate = estimate_median(percent.to_dict(), subset)
    assert estimate == pytest.approx(percent.median(), rel=3 * RELATIVE_ERROR[subset])


def test_bad_inputs_are_named():
    percent = dict.fromkeys(COEFFICIENTS["atari5"], 1.0)
    with pytest.raises(ValueError, match=r"subset: unknown value 'atari7'.*atari1, atari3"):
        estimate_median(percent, "atari7")
    with pytest.raises(ValueError, match="atari5 needs a score for phoenix; given: battle_zone"):
        estimate_median({g: v for g, v in percent.items() if g != "phoenix"})
    with pytest.raises(ValueError, match="score of qbert: nan is not a finite number"):
        estimate_median({**percent, "qbert": float("nan")})
