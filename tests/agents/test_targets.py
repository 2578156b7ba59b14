"""Every formula by numbers small enough to do in the head."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from agents import targets

R = tensor([1.0, 0.0, 4.0])


def test_total_return() -> None:
    """1 + 1/2 * 0 + 1/4 * 4 = 2, for each of the three actions."""
    assert targets.total_return(R, 0.5).tolist() == [2.0, 2.0, 2.0]


def test_discounted_reward_to_go() -> None:
    """G_2 = 4;  G_1 = 0 + 4/2 = 2;  G_0 = 1 + 2/2 = 2."""
    assert targets.discounted_reward_to_go(R, 0.5).tolist() == [2.0, 2.0, 4.0]


def test_reward_to_go() -> None:
    """sum_{k>=t} (1/2)^k R_k: 1 + 0 + 1 = 2;  0 + 1 = 1;  1/4 * 4 = 1."""
    assert targets.reward_to_go(R, 0.5).tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.99, 1.0])
def test_identities_of_the_three_returns(gamma: float) -> None:
    """reward_to_go_t = gamma^t G_t; at t = 0 all three are one; without rewards past, too."""
    r = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    power = tensor([gamma**t for t in range(6)], dtype=torch.float64).unsqueeze(1)
    discounted = targets.discounted_reward_to_go(r, gamma)
    to_go, total = targets.reward_to_go(r, gamma), targets.total_return(r, gamma)
    torch.testing.assert_close(to_go, power * discounted)
    torch.testing.assert_close(total[0], to_go[0])
    past = torch.cumsum(power * r, 0) - power * r  # sum_{k<t} gamma^k R_k
    torch.testing.assert_close(total - past, to_go)


def test_n_step_return() -> None:
    """Two lanes, gamma 1/2, V(s_3) = 8 and 2; the second lane's episode ends with step 1.

    Lane 0: G_2 = 4 + 8/2 = 8;  G_1 = 0 + 8/2 = 4;  G_0 = 1 + 4/2 = 3.
    Lane 1: G_2 = 2 + 2/2 = 3;  G_1 = 6 + 0 * 3 = 6;  G_0 = 1 + 6/2 = 4.
    """
    r = tensor([[1.0, 1.0], [0.0, 6.0], [4.0, 2.0]])
    discount = tensor([[0.5, 0.5], [0.5, 0.0], [0.5, 0.5]])
    g = targets.n_step_return(r, discount, tensor([8.0, 2.0]))
    assert g.tolist() == [[3.0, 4.0], [4.0, 6.0], [8.0, 3.0]]


def test_one_step_target() -> None:
    """1 + 1/2 * 4 = 3; where the episode ended 5 + 0 * 7 = 5."""
    y = targets.one_step_target(tensor([1.0, 5.0]), tensor([0.5, 0.0]), tensor([4.0, 7.0]))
    assert y.tolist() == [3.0, 5.0]


def test_one_step_is_n_step_with_n_1() -> None:
    r, discount, v = torch.rand(3, 1, 4, generator=torch.Generator().manual_seed(0))
    one_step = targets.one_step_target(r, discount, v)
    assert torch.equal(targets.n_step_return(r, discount, v[0]), one_step)


def test_advantage() -> None:
    """3 - 1 = 2;  -1 - 4 = -5."""
    assert targets.advantage(tensor([3.0, -1.0]), tensor([1.0, 4.0])).tolist() == [2.0, -5.0]


def test_action_log_probability() -> None:
    """Weights 1:3 and 2:2: log 3/4 for the second action, log 1/2 for the first."""
    logits = tensor([[1.0, 3.0], [2.0, 2.0]]).log()
    log_pi = targets.action_log_probability(logits, tensor([1, 0]))
    torch.testing.assert_close(log_pi, tensor([3 / 4, 1 / 2]).log())


def test_policy_gradient_loss() -> None:
    """-(-1 * 2 + -3 * -1) = -1."""
    assert targets.policy_gradient_loss(tensor([-1.0, -3.0]), tensor([2.0, -1.0])).item() == -1.0


def test_value_loss() -> None:
    """(3 - 1)^2 + (0 - 2)^2 = 8."""
    assert targets.value_loss(tensor([1.0, 2.0]), tensor([3.0, 0.0])).item() == 8.0


def test_entropy() -> None:
    """Uniform over 4: log 4. Weights 1:3: 1/4 log 4 + 3/4 log 4/3. A certain action: 0."""
    by_hand = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    torch.testing.assert_close(targets.entropy(torch.zeros(1, 4)), tensor([math.log(4)]))
    torch.testing.assert_close(targets.entropy(tensor([[1.0, 3.0]]).log()), tensor([by_hand]))
    torch.testing.assert_close(targets.entropy(tensor([[0.0, -100.0]])), tensor([0.0]))


def test_no_gradient_through_targets_and_advantages() -> None:
    """Neither the bootstrapped value nor the baseline is trained by what they are part of."""
    r, discount, v = (torch.ones(2, 3, requires_grad=True) for _ in range(3))
    assert not targets.n_step_return(r, discount, v[0]).requires_grad
    assert not targets.one_step_target(r, discount, v).requires_grad
    assert not targets.advantage(r, v).requires_grad


def test_gradient_of_the_losses_reaches_only_policy_and_value() -> None:
    """d/dlog_pi of -sum log_pi w is -w; d/dv of (y - v)^2 is 2 (v - y)."""
    x, w = tensor([-1.0, -3.0], requires_grad=True), tensor([2.0, -1.0], requires_grad=True)
    targets.policy_gradient_loss(x, w).backward()
    assert x.grad.tolist() == [-2.0, 1.0]
    assert w.grad is None
    v, y = tensor([1.0, 2.0], requires_grad=True), tensor([3.0, 0.0], requires_grad=True)
    targets.value_loss(v, y).backward()
    assert v.grad.tolist() == [-4.0, 4.0]
    assert y.grad is None


ROW, COLUMN, BLOCK = torch.zeros(3), torch.zeros(3, 1), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (targets.n_step_return, (BLOCK, ROW, ROW)),
        (targets.n_step_return, (BLOCK, BLOCK, COLUMN)),
        (targets.one_step_target, (ROW, ROW, COLUMN)),
        (targets.one_step_target, (ROW, COLUMN, ROW)),
        (targets.advantage, (ROW, COLUMN)),
        (targets.policy_gradient_loss, (ROW, COLUMN)),
        (targets.value_loss, (ROW, COLUMN)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(function, arguments) -> None:
    with pytest.raises(ValueError, match=r"shapes must be equal.*\(3,\).*|.*\(2, 3\)"):
        function(*arguments)
