"""Human-normalised scores: 100 % is the human reference, 0 % the random one.

The rules differ only where the human reference is below the random one. Among the 57 games that is
Video Pinball under human starts (human 15641.1, random 20452.0), and it decides every printed mean
of Mnih et al. 2016, Table 1.
"""

import numpy as np
from numpy.typing import ArrayLike

RULES = {
    "plain": "100 (score - random) / (human - random)",
    "absolute": "100 (score - random) / |human - random|",
    "mnih2016": "plain, with the random score of Video Pinball taken as 0",
}
HUMAN_STARTS_RULE = "mnih2016"  # of printed scores, beside a study with other references
ZERO_RANDOM_GAME = "video_pinball"
# How texts call the references of a protocol.
NORMALISED_WITH = {"human_starts": "human-starts", "noop_starts": "no-op-starts"}


def normalise(
    score: ArrayLike, random: ArrayLike, human: ArrayLike, rule: str, game: ArrayLike
) -> np.ndarray:
    """Return human-normalised scores in percent; all arguments but `rule` broadcast.

        plain      100 (s - r) / (h - r)
        absolute   100 (s - r) / |h - r|
        mnih2016   as plain, with r = 0 for Video Pinball

    Args:
        score: mean returns s, in points of the game.
        random: reference scores r of a random player, same protocol as `human`.
        human: reference scores h of a human player.
        rule: a key of RULES.
        game: ALE ROM names; `mnih2016` depends on them, and errors name them.

    Returns:
        float64, the broadcast shape (a scalar for scalars).

    Raises:
        ValueError: for an unknown rule, a value that is not finite, or human equal to random.

    Sources: van Hasselt et al. 2016 (arXiv:1509.06461) and Schaul et al. 2016 (arXiv:1511.05952)
    print |h - r|; `mnih2016` is found by recomputing the six 57-game rows of Mnih et al. 2016
    (arXiv:1602.01783), Table 1, from their raw scores.
    """
    if rule not in RULES:
        raise ValueError(f"rule: unknown value {rule!r}; allowed: {', '.join(RULES)}")
    game, score, random, human = np.broadcast_arrays(
        np.asarray(game, dtype=str),
        np.asarray(score, dtype=float),
        np.asarray(random, dtype=float),
        np.asarray(human, dtype=float),
    )
    for name, values in (("score", score), ("random", random), ("human", human)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(f"{name} of {game[bad][0]}: {values[bad][0]} is not a finite number")
    if rule == "mnih2016":
        random = np.where(game == ZERO_RANDOM_GAME, 0.0, random)
    span = human - random
    if (span == 0).any():
        where = span == 0
        raise ValueError(
            f"{game[where][0]}: human and random reference are both {human[where][0]}, "
            "so a normalised score does not exist"
        )
    if rule == "absolute":
        span = np.abs(span)
    return (100.0 * (score - random) / span)[()]
