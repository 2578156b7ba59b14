"""Every formula of the value-based methods by numbers small enough to do in the head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import tensor

from agents import value_targets

R, DISCOUNT = tensor([1.0, 5.0]), tensor([0.5, 0.0])
Q_NEXT = tensor([[2.0, 8.0, 4.0], [7.0, 9.0, 1.0]])


def test_action_value() -> None:
    assert value_targets.action_value(Q_NEXT, tensor([2, 0])).tolist() == [4.0, 7.0]


def test_q_target() -> None:
    """1 + 1/2 * 8 = 5; where the episode ended 5 + 0 * 9 = 5."""
    assert value_targets.q_target(R, DISCOUNT, Q_NEXT).tolist() == [5.0, 5.0]


def test_double_q_target() -> None:
    """The online network likes action 2 best, which the target network rates 4: 1 + 4 / 2 = 3."""
    q_online = tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert value_targets.double_q_target(R, DISCOUNT, Q_NEXT, q_online).tolist() == [3.0, 5.0]


def test_double_q_target_of_one_network_is_dqns() -> None:
    y = value_targets.double_q_target(R, DISCOUNT, Q_NEXT, Q_NEXT)
    assert torch.equal(y, value_targets.q_target(R, DISCOUNT, Q_NEXT))


def test_clipped_error_loss() -> None:
    """Errors 1/2, 3 and -4, limit 2, weights 1, 1, 1/2.

    1/8 + 2 (3 - 1) + 2 (4 - 1) / 2 = 7.125; dL/dQ = -1/2, -2, 1/2 * 2.
    """
    q = tensor([0.0, 0.0, 0.0], requires_grad=True)
    y, weight = tensor([0.5, 3.0, -4.0]), tensor([1.0, 1.0, 0.5])
    loss = value_targets.clipped_error_loss(q, y, weight, 2.0)
    loss.backward()
    assert loss.item() == 7.125
    assert q.grad.tolist() == [-0.5, -2.0, 1.0]


@pytest.mark.parametrize("limit", [0.3, 1.0, 5.0])
def test_clipped_error_loss_is_hubers(limit: float) -> None:
    q, y = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    loss = value_targets.clipped_error_loss(q, y, torch.ones(50), limit)
    theirs = torch.nn.functional.huber_loss(q, y, reduction="sum", delta=limit)
    torch.testing.assert_close(loss, theirs)


def test_no_gradient_through_targets() -> None:
    q = Q_NEXT.clone().requires_grad_()
    assert not value_targets.q_target(R, DISCOUNT, q).requires_grad
    assert not value_targets.double_q_target(R, DISCOUNT, q, q).requires_grad
    y = tensor([1.0], requires_grad=True)
    chosen = tensor([0.0], requires_grad=True)
    value_targets.clipped_error_loss(chosen, y, tensor([1.0]), 1.0).backward()
    assert y.grad is None


def test_dueling_q() -> None:
    """10 + (3, 0, 0) - 1."""
    q = value_targets.dueling_q(tensor([10.0]), tensor([[3.0, 0.0, 0.0]]))
    assert q.tolist() == [[12.0, 9.0, 9.0]]


def test_dueling_q_ignores_what_all_advantages_share() -> None:
    v, a = tensor([1.0, 2.0]), tensor([[1.0, 5.0], [0.0, 3.0]])
    torch.testing.assert_close(value_targets.dueling_q(v, a + 7), value_targets.dueling_q(v, a))
    torch.testing.assert_close(value_targets.dueling_q(v, a).mean(1), v)


def test_epsilon_greedy() -> None:
    """Below 1/2 each quarter of [0, 1/2) is one of four actions; above, the best is taken."""
    q = np.tile(np.float32([0, 1, 3, 2]), (6, 1))
    uniform = np.array([0.0, 0.124, 0.126, 0.499, 0.5, 0.999])
    assert value_targets.epsilon_greedy(q, 0.5, uniform).tolist() == [0, 0, 1, 3, 2, 2]
    assert value_targets.epsilon_greedy(q, 0.0, uniform).tolist() == [2] * 6


def test_epsilon_greedy_never_leaves_the_actions() -> None:
    """u / epsilon may round to 1."""
    uniform = np.full(1, np.nextafter(0.1, 0))
    assert value_targets.epsilon_greedy(np.zeros((1, 18), np.float32), 0.1, uniform) == [17]


def test_proportional_priority() -> None:
    """(|-3| + 1)^(1/2) = 2; an error of 0 keeps 1."""
    found = value_targets.proportional_priority(np.array([-3.0, 0.0]), 0.5, 1.0)
    assert found.tolist() == [2.0, 1.0]


def test_rank_priority() -> None:
    """(1 / 4)^(1/2) = 1/2."""
    assert value_targets.rank_priority(np.array([1, 4]), 0.5).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(("beta", "rare"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)])
def test_importance_weights(beta: float, rare: float) -> None:
    """Drawn four times as often, weighed 4^-beta; the largest is 1."""
    found = value_targets.importance_weights(np.array([0.4, 0.1]), 10, beta)
    np.testing.assert_allclose(found, [rare, 1.0])


def test_fully_weighed_draws_estimate_the_even_mean() -> None:
    """sum_i P(i) w_i x_i is proportional to the mean of x when beta is 1."""
    p, x = np.array([0.5, 0.3, 0.2]), np.array([1.0, -2.0, 7.0])
    w = value_targets.importance_weights(p, 3, 1.0)
    assert math.isclose((p * w * x).sum() / (p * w).sum(), x.mean())


@pytest.mark.parametrize(
    "call",
    [
        lambda: value_targets.q_target(tensor([[1.0]]), tensor([1.0]), tensor([[1.0]])),
        lambda: value_targets.double_q_target(R, DISCOUNT, Q_NEXT, Q_NEXT[:, :2]),
        lambda: value_targets.clipped_error_loss(R, R.unsqueeze(1), R, 1.0),
        lambda: value_targets.dueling_q(R.unsqueeze(1), Q_NEXT),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call) -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        call()
