"""The formulas of the value-based methods: arrays in, arrays out, in their papers' symbols.

N is the size of a batch, A the number of actions. `targets` has the policy-based ones. Nothing
here keeps state or draws random numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.shapes import same_shape

__all__ = [
    "action_value",
    "clipped_error_loss",
    "double_q_target",
    "dueling_q",
    "epsilon_greedy",
    "importance_weights",
    "proportional_priority",
    "q_target",
    "rank_priority",
]


def action_value(q: Tensor, a: Tensor) -> Tensor:
    """Value of the action taken.

        Q(s_i, a_i)

    Args:
        q: Q(s, .), [N, A].
        a: actions, int64 [N].

    Returns:
        Q(s, a), [N].
    """
    return q.gather(1, a.unsqueeze(1)).squeeze(1)


def q_target(r: Tensor, discount: Tensor, q_next: Tensor) -> Tensor:
    """Target of DQN: the target network both chooses and rates the next action.

        y = R + discount max_a Q(s', a; theta^-)

    Args:
        r: rewards, [N].
        discount: gamma, or 0 where the episode ended with that step, [N].
        q_next: Q(s', .; theta^-) of the target network, [N, A].

    Returns:
        y, [N]. No gradient flows through it.

    Source: Mnih et al. 2015, algorithm 1.
    """
    same_shape(r=r, discount=discount, q_next_first=q_next[:, 0])
    return (r + discount * q_next.amax(dim=1)).detach()


def double_q_target(r: Tensor, discount: Tensor, q_next: Tensor, q_online: Tensor) -> Tensor:
    """Target of Double DQN: the online network chooses, the target network rates.

        y = R + discount Q(s', argmax_a Q(s', a; theta); theta^-)

    Args:
        r: rewards, [N].
        discount: gamma, or 0 where the episode ended with that step, [N].
        q_next: Q(s', .; theta^-) of the target network, [N, A].
        q_online: Q(s', .; theta) of the network that is trained, [N, A].

    Returns:
        y, [N]. No gradient flows through it.

    Source: van Hasselt et al. 2016, arXiv:1509.06461, section "Double DQN".
    """
    same_shape(q_next=q_next, q_online=q_online)
    same_shape(r=r, discount=discount, q_next_first=q_next[:, 0])
    return (r + discount * action_value(q_next, q_online.argmax(dim=1))).detach()


def clipped_error_loss(q: Tensor, y: Tensor, weight: Tensor, limit: float) -> Tensor:
    """Loss whose gradient by Q is minus the temporal-difference error, clipped; summed.

        delta_i = y_i - Q(s_i, a_i)
        L = sum_i w_i h(delta_i),   h'(delta) = clip(delta, -c, c)
        h(delta) = delta^2 / 2 where |delta| <= c, else c (|delta| - c / 2)

    Args:
        q: Q(s, a), [N].
        y: target, [N]; taken as a constant.
        weight: w, [N]; taken as a constant.
        limit: c, above 0.

    Returns:
        L, a scalar.

    Source: Mnih et al. 2015, "Training details": the error is clipped to [-1, 1].
    """
    same_shape(q=q, y=y, weight=weight)
    delta = y.detach() - q
    inner = delta.detach().clamp(-limit, limit)
    # By delta: inner, its factor, alone; (delta - inner / 2) inner is h(delta) on both branches.
    return (weight.detach() * inner * (delta - inner / 2)).sum()


def dueling_q(v: Tensor, advantage: Tensor) -> Tensor:
    """Action values from a state's value and its actions' advantages.

        Q(s, a) = V(s) + (A(s, a) - mean_b A(s, b))

    Args:
        v: V(s), [N].
        advantage: A(s, .), [N, A].

    Returns:
        Q(s, .), [N, A].

    Source: Wang et al. 2016, arXiv:1511.06581, equation (9).
    """
    same_shape(v=v, advantage_first=advantage[:, 0])
    return v.unsqueeze(1) + advantage - advantage.mean(dim=1, keepdim=True)


def epsilon_greedy(
    q: NDArray[np.float32], epsilon: float, uniform: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Draw actions: any with probability epsilon, else the best.

    One number u serves both draws: where u < epsilon, u / epsilon is uniform again.

    Args:
        q: Q(s, .), [B, A].
        epsilon: in [0, 1].
        uniform: u in [0, 1), [B].

    Returns:
        Actions, [B].

    Source: Mnih et al. 2015, algorithm 1.
    """
    actions = q.argmax(axis=1)
    random = uniform < epsilon
    # The quotient may round to 1.
    drawn = (uniform[random] / epsilon * q.shape[1]).astype(np.int64)
    actions[random] = np.minimum(drawn, q.shape[1] - 1)
    return actions


def proportional_priority(
    delta: NDArray[np.float64], exponent: float, epsilon: float
) -> NDArray[np.float64]:
    """Weight by which a transition is drawn, from its last error.

        p_i^alpha = (|delta_i| + epsilon)^alpha,   P(i) = p_i^alpha / sum_k p_k^alpha

    Args:
        delta: temporal-difference errors, clipped, any shape.
        exponent: alpha; 0 draws uniformly.
        epsilon: above 0, so that no transition is lost.

    Returns:
        p^alpha, shape of `delta`.

    Source: Schaul et al. 2016, arXiv:1511.05952, equation (1) and section 3.3.
    """
    return (np.abs(delta) + epsilon) ** exponent


def rank_priority(rank: NDArray[np.int64], exponent: float) -> NDArray[np.float64]:
    """Weight by which a transition is drawn, from the rank of its last error.

        p_i^alpha = (1 / rank(i))^alpha

    Args:
        rank: 1 for the largest |delta|, any shape.
        exponent: alpha; 0 draws uniformly.

    Returns:
        p^alpha, shape of `rank`.

    Source: Schaul et al. 2016, arXiv:1511.05952, section 3.3.
    """
    return rank.astype(np.float64) ** -exponent


def importance_weights(
    probability: NDArray[np.float64], count: int, exponent: float
) -> NDArray[np.float64]:
    """Weights that undo, to a degree, what drawing by priority does to the expected update.

        w_i = (N P(i))^-beta / max_j (N P(j))^-beta

    Args:
        probability: P(i) of the transitions of a batch, any shape.
        count: N, transitions in the memory.
        exponent: beta; 1 undoes it fully.

    Returns:
        w in (0, 1], shape of `probability`; the maximum is over the batch.

    Source: Schaul et al. 2016, arXiv:1511.05952, section 3.4 and algorithm 1.
    """
    w = (count * probability) ** -exponent
    return w / w.max()
