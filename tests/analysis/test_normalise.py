"""Human-normalised scores, by numbers small enough to do in the head."""

import numpy as np
import pandas as pd
import pytest

from analysis.normalise import RULES, normalise


@pytest.mark.parametrize("rule", RULES)
def test_ordinary_game_is_the_same_under_every_rule(rule):
    """s = 30, r = 10, h = 50: 100 * (30 - 10) / (50 - 10) = 100 * 20 / 40 = 50."""
    assert normalise(30, 10, 50, rule, "pong") == 50.0


@pytest.mark.parametrize(
    ("rule", "game", "percent"),
    [
        # s = 450, r = 200, h = 150: s - r = 250, h - r = -50
        ("plain", "video_pinball", -500.0),  # 100 * 250 / -50
        ("absolute", "video_pinball", 500.0),  # 100 * 250 / 50
        ("mnih2016", "video_pinball", 300.0),  # 100 * 450 / 150
        ("mnih2016", "pong", -500.0),  # no other game is treated apart
    ],
)
def test_human_below_random(rule, game, percent):
    assert normalise(450, 200, 150, rule, game) == percent


def test_arrays_broadcast_and_frames_keep_their_order():
    """One random and one human score for three: (0, 5, 20) - 0 over 10."""
    out = normalise([0, 5, 20], 0, 10, "plain", ["pong", "alien", "qbert"])
    np.testing.assert_array_equal(out, [0.0, 50.0, 200.0])
    frame = pd.DataFrame(
        {"game": ["video_pinball", "pong"], "s": [450.0, 30.0], "r": [200.0, 10.0]}, index=[7, 3]
    )
    out = normalise(frame["s"], frame["r"], [150.0, 50.0], "mnih2016", frame["game"])
    np.testing.assert_array_equal(out, [300.0, 50.0])


def test_random_is_0_and_human_is_100_under_the_plain_rule():
    random, human = [128.3, 20452.0], [6371.3, 15641.1]
    games = ["alien", "video_pinball"]
    np.testing.assert_array_equal(normalise(random, random, human, "plain", games), [0, 0])
    np.testing.assert_array_equal(normalise(human, random, human, "plain", games), [100, 100])


def test_unknown_rule_names_the_allowed_ones():
    with pytest.raises(ValueError, match=r"rule: unknown value 'vp0'.*plain, absolute, mnih2016"):
        normalise(1, 0, 2, "vp0", "pong")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_values_that_are_not_finite_are_refused_by_name(position, bad):
    values = [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]
    values[position][1] = bad
    name = ["score", "random", "human"][position]
    with pytest.raises(ValueError, match=f"{name} of qbert: .* is not a finite number"):
        normalise(*values, "plain", ["pong", "qbert"])


@pytest.mark.parametrize("rule", RULES)
def test_equal_references_are_refused(rule):
    with pytest.raises(ValueError, match=r"qbert: human and random reference are both 3\.0"):
        normalise([1, 1], [0, 3], [2, 3], rule, ["pong", "qbert"])


def test_video_pinball_with_human_zero_has_no_mnih2016_score():
    with pytest.raises(ValueError, match="video_pinball"):
        normalise(1, 5, 0, "mnih2016", "video_pinball")
