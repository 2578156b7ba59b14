"""How far an interval carries, beside simulated studies."""

import math

import numpy as np
import pytest

from analysis.uncertainty import coverage


@pytest.mark.parametrize(
    ("seeds", "games"), [(2, 1), (3, 1), (4, 1), (2, 7), (3, 7), (5, 7), (2, 57)]
)
def test_coverage_is_that_of_bootstrapped_normal_scores(seeds: int, games: int):
    """Seeds are drawn within each game, as rliable does; the true mean is 0."""
    rng = np.random.default_rng(seeds * 100 + games)
    studies, reps = 1500, 400
    held = 0
    for _ in range(studies):
        scores = rng.standard_normal((seeds, games))
        drawn = scores[rng.integers(seeds, size=(reps, seeds, games)), np.arange(games)]
        low, high = np.quantile(drawn.mean(axis=(1, 2)), [0.025, 0.975])
        held += low <= 0 <= high
    assert coverage(seeds, games, 0.95) == pytest.approx(held / studies, abs=0.035)


def test_coverage_tends_to_the_level():
    assert coverage(1000, 1, 0.9) == pytest.approx(0.9, abs=2e-3)
    assert math.isclose(coverage(3, 1, 0.95), 0.75)
